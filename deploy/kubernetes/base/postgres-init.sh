#!/usr/bin/env bash
# Runs once, when PostgreSQL's data folder is empty (docker-entrypoint-initdb.d). Makes two databases, each with an owner of its own who
# cannot read the other: `optuna` is remedy's (Optuna's tables and its own), `mlflow` is MLflow's.
# It lies here because Kustomize reads nothing outside of its folder; compose.yaml mounts the same file.
set -euo pipefail

: "${REMEDY_DB_PASSWORD:?the password of the role remedy}" "${MLFLOW_DB_PASSWORD:?the password of the role mlflow}"

# psql quotes :'...' and :"..." itself; the passwords come from the environment, so that `ps` does not show them.
psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --username "${POSTGRES_USER:-postgres}" --dbname postgres <<'SQL'
\getenv remedy REMEDY_DB_PASSWORD
\getenv mlflow MLFLOW_DB_PASSWORD
CREATE ROLE remedy LOGIN PASSWORD :'remedy';
CREATE ROLE mlflow LOGIN PASSWORD :'mlflow';
CREATE DATABASE optuna OWNER remedy;
CREATE DATABASE mlflow OWNER mlflow;
REVOKE ALL ON DATABASE optuna, mlflow, postgres FROM PUBLIC;
SQL
