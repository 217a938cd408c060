# Stands in for the S3-compatible store: moto, in memory. It takes any credentials, so it shows nothing about those.
ARG BASE_IMAGE
FROM ${BASE_IMAGE}
RUN --mount=type=secret,id=pip_conf,target=/etc/pip.conf --mount=type=secret,id=ca_bundle,target=/run/secrets/ca_bundle \
    python3 -m venv /opt/venv && /opt/venv/bin/pip install --no-cache-dir \
    "moto[s3,server]==5.2.5"
RUN install --directory --owner=1000 /data
# The store's own arguments follow; they mean nothing to moto.
ENTRYPOINT ["/bin/sh", "-c", "exec /opt/venv/bin/moto_server -H 0.0.0.0 -p 8333"]
