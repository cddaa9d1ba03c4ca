# Targets: serve (the default), slim (smaller, makes no exports) and bulk (larger, with `flask embed` and Ray).
#
# A tag may name another image tomorrow, a digest never does: --build-arg PYTHON_IMAGE=python@sha256:...
# `docker buildx imagetools inspect python:3.11-slim-bookworm` tells today's.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm
FROM ${PYTHON_IMAGE} AS base

# HOME: whichever user this runs as, possibly one without an entry in /etc/passwd, /tmp is the place to write.
ENV HOME=/tmp \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /app
# Where prepared weights go at the first start, if the model folder is read-only.
RUN mkdir -m 1777 /cache
ENV EMBED_CACHE_DIR=/cache
VOLUME /cache

EXPOSE 8000
STOPSIGNAL SIGTERM
# No proxy, whatever the environment says: the server is in this container.
HEALTHCHECK --interval=10s --timeout=5s --start-period=1200s --retries=3 CMD ["python", "-c", \
    "import urllib.request as r; r.build_opener(r.ProxyHandler({})).open('http://127.0.0.1:8000/readyz', timeout=4)"]
# Gunicorn alone would listen on the container's loopback. The model folder is mounted below /app/models.
CMD ["gunicorn", "--bind", "0.0.0.0:8000"]

# The code, and the native engine's library for every processor that the image may meet.
FROM base AS code
COPY requirements-compiler.lock /tmp/
RUN pip install --no-cache-dir --no-deps --require-hashes -r /tmp/requirements-compiler.lock
COPY wsgi.py gunicorn.conf.py ./
COPY app app
# The files may come from a checkout that only its owner can read.
RUN python -m app.engine.native.compiler && chmod -R a+rX .

# Serves a model whose exports another container or machine has made: it lacks torch, which makes them, and what
# downloads models. No `pip check` here: tokenizers names huggingface-hub, but reads local files without it.
FROM base AS slim
COPY requirements-build.lock requirements-slim.lock requirements-tracing.lock ./
RUN pip install --no-cache-dir --no-deps --require-hashes -r requirements-build.lock \
    && pip install --no-cache-dir --no-deps --require-hashes --no-build-isolation -r requirements-slim.lock -r requirements-tracing.lock \
    && pip uninstall --yes -r requirements-build.lock
COPY --from=code /app ./
# A number, so that Kubernetes can tell that it is not root.
USER 10001:10001

FROM base AS serve
# Before the code, so that a change of the code does not install everything again. torch comes first and
# from the index of builds without CUDA: the other builds bring gigabytes that a CPU has no use for.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
COPY requirements.txt requirements-build.lock requirements.lock requirements-tracing.lock ./
RUN echo "$(grep '^torch==' requirements.txt)+cpu" >torch.txt \
    && pip install --no-cache-dir --no-deps --retries 1 --timeout 20 --extra-index-url "$TORCH_INDEX" -r torch.txt \
    && pip install --no-cache-dir --no-deps --require-hashes -r requirements-build.lock \
    && pip install --no-cache-dir --no-deps --require-hashes --no-build-isolation -r requirements.lock -r requirements-tracing.lock \
    && pip check \
    && rm torch.txt
COPY --from=code /app ./
USER 10001:10001

# What `flask embed` and the nodes of a Ray cluster run, larger by Ray and Arrow: build --target bulk.
FROM serve AS bulk
COPY requirements-bulk.lock requirements-ray.lock ./
USER 0
RUN pip install --no-cache-dir --no-deps --require-hashes -r requirements-bulk.lock -r requirements-ray.lock \
    && pip check
USER 10001:10001
ENV RAY_USAGE_STATS_ENABLED=0
HEALTHCHECK NONE
CMD ["flask", "embed", "--help"]

# Without --target it is the server.
FROM serve
