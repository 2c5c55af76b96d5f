# syntax=docker/dockerfile:1
# Serves one registered model:  docker build -f docker/serve.Dockerfile -t transfer-platform-serve .
#   docker run -p 127.0.0.1:8080:8080 -e MLFLOW_TRACKING_URI=http://... transfer-platform-serve ants-bees
# For a GPU add  --build-arg TORCH=cu130  (any folder of https://download.pytorch.org/whl).

FROM python:3.11.15-slim-bookworm AS wheel
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY platform platform
COPY registry registry
COPY recipes recipes
RUN --mount=type=cache,target=/root/.cache/pip pip wheel --no-deps --wheel-dir /wheels .

# The steps down to the last `pip install` are those of train.Dockerfile, word for word, so that both images share them.
FROM python:3.11.15-slim-bookworm
ARG TORCH=cpu
ARG TORCH_VERSION=2.14.1
ARG TORCHVISION_VERSION=0.29.1
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install "torch==${TORCH_VERSION}" "torchvision==${TORCHVISION_VERSION}" \
        --index-url "https://download.pytorch.org/whl/${TORCH}"
RUN --mount=type=cache,target=/root/.cache/pip --mount=from=wheel,source=/wheels,target=/wheels \
    pip install "$(echo /wheels/transfer_platform-*.whl)[postgres]"

# Named volumes take over the owner of the folders they are mounted on, so these must be the user's before.
RUN useradd --uid 1000 --create-home platform && install --directory --owner=platform /work /cache
USER 1000
WORKDIR /work
ENV PLATFORM_CACHE=/cache \
    MLFLOW_ALLOW_PICKLE_DESERIALIZATION=false \
    GIT_PYTHON_REFRESH=quiet \
    PYTHONUNBUFFERED=1
VOLUME ["/cache"]
EXPOSE 8080
# The start period covers importing torch and fetching the model.
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=3 \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8080/ping', timeout=4)"]
ENTRYPOINT ["platform", "serve", "--host", "0.0.0.0", "--port", "8080"]
CMD ["--help"]
