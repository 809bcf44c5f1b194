# gancolor serve in a container: see docs/studio.md#in-a-container.
#
#   docker build --build-arg TORCH_INDEX=ADDRESS -t gancolor .
#
# TORCH_INDEX: the package index that holds PyTorch's builds for the CPU, which pytorch.org names.

ARG BASE=python:3.11.14-slim-bookworm

FROM ${BASE} AS build
WORKDIR /src
COPY constraints.txt LICENSE MANIFEST.in README.md pyproject.toml setup.cfg ./
COPY gancolor gancolor
ARG EXTRAS=studio,video,heif
ARG TORCH_INDEX=
# Exactly the versions that the tests pass with, and of torch the build without CUDA or none.
RUN sed 's/^torch==.*/&+cpu/' constraints.txt > cpu.txt \
    && pip wheel --no-cache-dir --no-deps --wheel-dir wheel . \
    && python -m venv /opt/gancolor \
    && /opt/gancolor/bin/pip install --no-cache-dir --constraint cpu.txt \
        ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} "$(echo wheel/*.whl)[$EXTRAS]"
# Both builds of OpenCV unpack into one folder. The one for machines without a screen must be the last.
RUN /opt/gancolor/bin/pip install --no-cache-dir --constraint cpu.txt \
        --force-reinstall --no-deps opencv-python-headless \
    && /opt/gancolor/bin/pip check \
    && /opt/gancolor/bin/gancolor models show general

FROM ${BASE}
LABEL org.opencontainers.image.title="gancolor" \
      org.opencontainers.image.description="Colours black-and-white photographs and films" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/gancolor /opt/gancolor
RUN groupadd --system --gid 10001 gancolor \
    && useradd --system --uid 10001 --gid gancolor --no-create-home --home-dir /cache gancolor \
    && install --directory --owner gancolor --group gancolor /cache /runs
ENV GANCOLOR_CACHE=/cache \
    GANCOLOR_RUNS=/runs \
    PATH=/opt/gancolor/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    XDG_CACHE_HOME=/cache
USER 10001:10001
WORKDIR /cache
VOLUME ["/cache", "/runs"]
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request as web; web.urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
# All addresses of the container; who reaches it is decided where the port is published.
ENTRYPOINT ["gancolor"]
CMD ["serve", "--host", "0.0.0.0"]
