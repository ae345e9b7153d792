# The trainer's image: one command, `switchyard job`, from object store to object store. Built from the repository's
# root; deploy/README.md has the commands.
#
#   VARIANT  cpu or cuda. Both run on the same system: torch's CUDA build brings its libraries, the driver is the host's.
#   TORCH    version of torch, as constraints.txt has it.
#   PIP_INDEX_URL, PIP_EXTRA_INDEX_URL
#            where pip looks, if not where it looks by default. The `cpu` variant wants the index that has torch's
#            builds without CUDA (versions that end with +cpu).
ARG VARIANT=cpu
ARG PYTHON=3.11

FROM python:${PYTHON}-slim AS installed
ARG VARIANT
ARG TORCH=2.13.0
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
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
RUN /opt/switchyard/bin/pip install -c constraints.txt ".[objects,postgres,tensorboard]"

FROM python:${PYTHON}-slim AS runtime
RUN useradd --uid 10001 --no-create-home --home-dir /scratch trainer \
    && install --directory --owner=10001 --group=10001 /scratch
COPY --from=installed /opt/switchyard /opt/switchyard
ENV PATH=/opt/switchyard/bin:${PATH} \
    HOME=/scratch \
    SWITCHYARD_JOB_SCRATCH=/scratch \
    HF_HUB_DISABLE_TELEMETRY=1 \
    TOKENIZERS_PARALLELISM=false
WORKDIR /scratch
# A number, so that a cluster can see that it is not root.
USER 10001:10001
# A list, so that SIGTERM reaches the job and no shell.
ENTRYPOINT ["switchyard", "job"]

FROM runtime AS cpu

FROM runtime AS cuda
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility

FROM ${VARIANT}
