#!/bin/sh
# Start the MLflow server. The database's password comes from a file and goes to libpq through the environment of this
# process only: it is neither in the container's settings nor on a command line nor in the server's log.
set -eu

: "${MLFLOW_BACKEND_STORE_URI:?is not set: the database, such as postgresql+psycopg2://mlflow@postgres:5432/mlflow}"
: "${MLFLOW_ARTIFACTS_DESTINATION:?is not set: where artefacts go, such as s3://mlflow}"
: "${MLFLOW_SERVER_ALLOWED_HOSTS:?is not set: the names the server is called by, such as mlflow:5000,localhost:*}"

if [ -n "${POSTGRES_PASSWORD_FILE:-}" ]; then
  if [ ! -r "$POSTGRES_PASSWORD_FILE" ]; then
    echo "POSTGRES_PASSWORD_FILE: $POSTGRES_PASSWORD_FILE can't be read by uid $(id -u)" >&2
    exit 2
  fi
  PGPASSWORD=$(cat "$POSTGRES_PASSWORD_FILE")
  export PGPASSWORD
fi

# Makes the tables of an empty database, once and before the server's workers could race for it.
mlflow db upgrade "$MLFLOW_BACKEND_STORE_URI"
exec mlflow server --host 0.0.0.0 --port "${MLFLOW_PORT:-5000}" --workers "${MLFLOW_WORKERS:-2}" --serve-artifacts
