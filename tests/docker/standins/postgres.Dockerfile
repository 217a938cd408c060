# Stands in for the postgres image where no registry can be reached: Debian's PostgreSQL, started the same way.
ARG BASE_IMAGE
FROM ${BASE_IMAGE}
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends postgresql && rm -rf /var/lib/apt/lists/* \
    && rm -rf /var/lib/postgresql/* && install --directory --owner=postgres --mode=0700 /var/lib/postgresql/data
COPY --chmod=0755 postgres-entry.sh /usr/local/bin/
ENV PATH=/usr/lib/postgresql/15/bin:${PATH}
ENTRYPOINT ["postgres-entry.sh"]
