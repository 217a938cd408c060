#!/bin/sh
# Write the stack's secrets, random ones, into docker/secrets (or the folder that is given). What is there stays.
#
# The containers read them as uid 1000 and Compose mounts files with the owner and mode they have. So they belong to
# uid 1000 with mode 0600; where that can't be (neither uid 1000 nor root here, or a rootless engine: READABLE=1) they
# are 0644, and the folder's own mode 0700 keeps the host's other users out.
set -eu
umask 077

if [ $# -gt 1 ]; then
  echo "usage: docker/make-secrets.sh [FOLDER]" >&2
  exit 2
fi
folder=${1:-$(dirname "$0")/secrets}
mkdir -p "$folder"
chmod 700 "$folder"
uid=$(id -u)
mode=600
case "$uid" in 0 | 1000) ;; *) READABLE=1 ;; esac
if [ -n "${READABLE:-}" ]; then mode=644; fi

random() { od -An -N"$1" -tx1 /dev/urandom | tr -d ' \n'; }

# write NAME: the file NAME from standard input, if it is not there; complete or not at all.
write() {
  cat > "$folder/.new"
  if [ -e "$folder/$1" ]; then
    rm "$folder/.new"
    echo "$folder/$1: kept"
  else
    mv "$folder/.new" "$folder/$1"
    echo "$folder/$1: written"
  fi
  chmod "$mode" "$folder/$1"
  if [ "$uid" = 0 ]; then chown 1000:1000 "$folder/$1"; fi
}

random 32 | write ray_token
random 24 | write postgres_password
random 16 | write grafana_password
random 32 | write serve_token
random 32 | write serve_secret
# The store and its client must agree: both are made anew if either is missing.
if [ ! -e "$folder/s3_credentials" ] || [ ! -e "$folder/s3_server" ]; then
  rm -f "$folder/s3_credentials" "$folder/s3_server"
fi
key=$(random 10)
secret=$(random 24)
printf '[default]\naws_access_key_id = %s\naws_secret_access_key = %s\n' "$key" "$secret" | write s3_credentials
printf '{"identities": [{"name": "mlflow", "credentials": [{"accessKey": "%s", "secretKey": "%s"}],
 "actions": ["Admin", "Read", "Write", "List", "Tagging"]}]}\n' "$key" "$secret" | write s3_server
if [ "$mode" = 644 ]; then echo "the files are readable to all, their folder ($folder, mode 0700) is not"; fi
