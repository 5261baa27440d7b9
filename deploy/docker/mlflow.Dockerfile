# The MLflow server, with the drivers that MLflow's own image lacks: psycopg for PostgreSQL, boto3 for artifacts in any S3.
#   docker build -f deploy/docker/mlflow.Dockerfile -t remedy-mlflow:3.17.2 .        (in the repository's root)
FROM python:3.11.14-slim-bookworm
COPY constraints.txt /tmp/constraints.txt
RUN pip install --no-cache-dir --constraint /tmp/constraints.txt 'mlflow==3.17.2' 'psycopg[binary]==3.3.9' 'boto3==1.44.5' \
    && useradd --uid 1000 --user-group --create-home mlflow \
    && install --directory --owner=mlflow --group=mlflow /artifacts
# Job runner: eight processes that remedy does not use. Pickle: a model file must not run code in the server.
ENV MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false \
    MLFLOW_ALLOW_PICKLE_DESERIALIZATION=false \
    MLFLOW_DISABLE_TELEMETRY=true
USER 1000:1000
WORKDIR /home/mlflow
EXPOSE 5000
CMD ["mlflow", "server", "--help"]
