# syntax=docker/dockerfile:1
# MLflow's server with what a team's one needs: PostgreSQL (psycopg), S3 (boto3), and uvloop, which uvicorn takes
# by itself where it is installed and without which logging a metric over HTTP was measured several times slower.
FROM python:3.11.15-slim-bookworm
ARG MLFLOW_VERSION=3.17.2
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install "mlflow==${MLFLOW_VERSION}" "psycopg[binary]==3.3.9" "boto3==1.44.5" "uvloop==0.23.0"
COPY docker/make_bucket.py /opt/make_bucket.py
RUN useradd --uid 1000 --create-home mlflow
USER 1000
WORKDIR /home/mlflow
ENV GIT_PYTHON_REFRESH=quiet \
    PYTHONUNBUFFERED=1
EXPOSE 5000
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:5000/health', timeout=4)"]
ENTRYPOINT ["mlflow", "server", "--host", "0.0.0.0", "--port", "5000"]
