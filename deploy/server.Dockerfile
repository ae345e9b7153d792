# The server's image: one command, `switchyard serve`. Built from the repository's root; deploy/README.md has the
# commands, and trainer.Dockerfile says what the arguments are.
ARG VARIANT=cpu
ARG PYTHON=3.11

FROM python:${PYTHON}-slim AS installed
ARG VARIANT
ARG TORCH=2.13.0
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# Builds the CPU kernels; it stays behind in this stage.
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev
RUN python -m venv /opt/switchyard
# torch has a layer of its own: it is the largest, and changes least.
RUN case "${VARIANT}" in \
      cpu) /opt/switchyard/bin/pip install "torch==${TORCH}+cpu" ;; \
      cuda) /opt/switchyard/bin/pip install "torch==${TORCH}" ;; \
      *) echo "VARIANT is ${VARIANT}; expected cpu or cuda" >&2; exit 1 ;; \
    esac
WORKDIR /source
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY proto proto
COPY registry registry
COPY trainer trainer
COPY server server
COPY clients clients
RUN /opt/switchyard/bin/pip install -c constraints.txt ".[objects,postgres,sign]"

FROM python:${PYTHON}-slim AS runtime
# libgomp: the kernels compute with several threads.
RUN apt-get update && apt-get install --yes --no-install-recommends libgomp1 && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10002 --no-create-home --home-dir /var/lib/switchyard switchyard \
    && install --directory --owner=10002 --group=10002 /var/lib/switchyard
COPY --from=installed /opt/switchyard /opt/switchyard
ENV PATH=/opt/switchyard/bin:${PATH} \
    HOME=/var/lib/switchyard \
    HF_HUB_OFFLINE=1 \
    HF_HUB_DISABLE_TELEMETRY=1 \
    TOKENIZERS_PARALLELISM=false
WORKDIR /var/lib/switchyard
VOLUME /var/lib/switchyard
# A number, so that a cluster can see that it is not root.
USER 10002:10002
EXPOSE 50051 50052
# A list, so that SIGTERM reaches the server, which drains, and no shell.
ENTRYPOINT ["switchyard", "serve"]

FROM runtime AS cpu

FROM runtime AS cuda
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility

FROM ${VARIANT}
