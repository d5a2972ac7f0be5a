# Two images from one file: `cpu`, the default, and `cuda`. docs/docker.md builds, runs and explains them.
FROM python:3.11-slim-bookworm AS base
RUN python3 -m venv --without-pip /opt/pool5


# Of pyproject.toml only the requirements, so that no other edit of it installs the packages again.
FROM base AS requirements
COPY pyproject.toml /
RUN python3 -c "import tomllib; print(*tomllib.load(open('/pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" > /requirements.txt


# A mirror is configured by the optional secret `pip.conf`; it stays out of the image and its history.
FROM base AS packages
WORKDIR /src
COPY --from=requirements /requirements.txt ./
COPY constraints.txt ./
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    python3 -m pip --python /opt/pool5 install --no-cache-dir -c constraints.txt -r requirements.txt


FROM packages AS packages-without-cuda
COPY deploy/without_cuda.sh ./
# hadolint ignore=DL3008 # the compiler makes stubs in this stage and is thrown away with it
RUN apt-get update \
    && apt-get install -y --no-install-recommends binutils gcc \
    && rm -rf /var/lib/apt/lists/* \
    && sh without_cuda.sh /opt/pool5


FROM base AS project
WORKDIR /src
COPY . .
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    python3 -m pip --python /opt/pool5 install --no-cache-dir --no-deps .


FROM base AS service
ARG REVISION=unknown
LABEL org.opencontainers.image.title="pool5" \
      org.opencontainers.image.description="Image search on the activations of convolutional networks" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.revision="${REVISION}"
RUN groupadd --gid 10001 pool5 \
    && useradd --uid 10001 --gid 10001 --no-log-init --no-create-home --home-dir /data --shell /usr/sbin/nologin pool5 \
    && install -d -o pool5 -g pool5 /data /data/tmp
# Whatever is written goes under /data, so that the root can be mounted read-only.
ENV PATH=/opt/pool5/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/data \
    TMPDIR=/data/tmp \
    POOL5_DATA=/data \
    POOL5_CACHE_DIR=/data/cache \
    POOL5_WEIGHTS_DIR=/data/weights \
    POOL5_HOST=0.0.0.0 \
    POOL5_PORT=8000
VOLUME /data
WORKDIR /data
EXPOSE 8000
USER 10001:10001
STOPSIGNAL SIGTERM
# Ready means that a real forward pass and a real search just worked. http.client obeys no proxy variable.
HEALTHCHECK --interval=30s --timeout=10s --start-period=120s --retries=3 CMD ["python", "-c", "\
import http.client, os; \
service = http.client.HTTPConnection('127.0.0.1', int(os.environ['POOL5_PORT']), timeout=9); \
service.request('GET', '/health/ready'); \
raise SystemExit(service.getresponse().status != 200)"]
ENTRYPOINT ["pool5"]
CMD ["serve"]


FROM service AS cuda
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=packages /opt/pool5 /opt/pool5
COPY --from=project /opt/pool5 /opt/pool5


FROM service AS cpu
# The stubs of CUDA must never meet a GPU.
ENV POOL5_DEVICE=cpu \
    CUDA_VISIBLE_DEVICES=""
COPY --from=packages-without-cuda /opt/pool5 /opt/pool5
COPY --from=project /opt/pool5 /opt/pool5
