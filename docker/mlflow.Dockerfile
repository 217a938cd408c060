# The MLflow server: runs in PostgreSQL, artefacts in S3. docker/README.md says how to use it.
#
#   docker build -f docker/mlflow.Dockerfile -t acr-ray-mlflow:0.2 .
#
# BASE_IMAGE and the build secrets pip_conf and ca_bundle are as in docker/Dockerfile.
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS builder
WORKDIR /build
RUN python3 -m venv --without-pip /opt/venv
COPY constraints.txt ./
# The versions are in constraints.txt, the same as the clients'.
# hadolint ignore=DL3013
RUN --mount=type=secret,id=pip_conf,target=/etc/pip.conf --mount=type=secret,id=ca_bundle,target=/run/secrets/ca_bundle \
    python3 -m pip --python /opt/venv/bin/python install --no-cache-dir --disable-pip-version-check --progress-bar off \
      --root-user-action ignore --constraint constraints.txt mlflow psycopg2-binary boto3

FROM ${BASE_IMAGE}
ARG UID=1000
RUN groupadd --gid "${UID}" mlflow \
    && useradd --uid "${UID}" --gid "${UID}" --create-home --no-log-init --shell /usr/sbin/nologin mlflow
COPY --from=builder /opt/venv /opt/venv
COPY --chmod=0755 docker/mlflow-server.sh docker/mlflow_health.py docker/make_bucket.py /opt/acr-ray/
# Job execution is for MLflow's evaluation of language models: without it the server starts in half the time.
ENV PATH=/opt/venv/bin:${PATH} \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    MLFLOW_DISABLE_TELEMETRY=true \
    MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="acr-ray-mlflow" \
      org.opencontainers.image.description="MLflow tracking server with PostgreSQL and S3 clients" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
WORKDIR /home/mlflow
USER ${UID}:${UID}
STOPSIGNAL SIGTERM
EXPOSE 5000
HEALTHCHECK --interval=15s --timeout=10s --start-period=90s --retries=4 CMD ["python", "/opt/acr-ray/mlflow_health.py"]
CMD ["/opt/acr-ray/mlflow-server.sh"]
