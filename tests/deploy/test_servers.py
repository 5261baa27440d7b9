"""Each server, started with the manifests' own arguments, does what the manifests rely on."""

from __future__ import annotations

import json
import os
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.deployed import (
    DEPLOY,
    Database,
    compose,
    defaulted,
    free_ports,
    one,
    poll,
    program,
    ray_clusters,
    rendered,
    replaced,
    run,
    started,
    status,
)

TOKEN = "0123456789abcdef" * 4
EXPERIMENTS = "/api/2.0/mlflow/experiments/search?max_results=1"

# ---------------------------------------------------------------- PostgreSQL


def test_postgresql_gets_two_databases_whose_owners_cannot_read_each_other(database: Database) -> None:
    assert database.sql("remedy", "optuna", "CREATE TABLE ours (n int); SELECT current_user") == "remedy"
    assert database.sql("mlflow", "mlflow", "CREATE TABLE theirs (n int); SELECT current_user") == "mlflow"
    for user, other in (("remedy", "mlflow"), ("mlflow", "optuna"), ("remedy", "postgres")):
        assert "permission denied for database" in database.sql(user, other, "SELECT 1", code=2)
    assert database.sql("postgres", "postgres", "SHOW max_connections") == "200"
    assert database.sql("postgres", "postgres", "SHOW password_encryption") == "scram-sha-256"
    wrong = database.url("remedy", "optuna").replace("b" * 64, "wrong")
    assert "password authentication failed" in run(program("psql"), wrong, "-c", "SELECT 1", code=2).stderr


def test_compose_and_kubernetes_start_the_same_postgresql() -> None:
    service = compose()["services"]["postgres"]
    pod = one(rendered("base"), "StatefulSet", "postgres")["spec"]["template"]["spec"]["containers"][0]
    assert pod["args"] == service["command"]
    environment = {entry["name"]: entry.get("value") for entry in pod["env"]}
    assert environment["POSTGRES_INITDB_ARGS"] == service["environment"]["POSTGRES_INITDB_ARGS"]
    script = one(rendered("base"), "ConfigMap")["data"]["postgres-init.sh"]
    assert script == (DEPLOY / "kubernetes/base/postgres-init.sh").read_text()
    assert "./kubernetes/base/postgres-init.sh:/docker-entrypoint-initdb.d/init.sh:ro" in service["volumes"]


@pytest.mark.parametrize("missing", ["REMEDY_DB_PASSWORD", "MLFLOW_DB_PASSWORD"])
def test_without_a_password_no_role_is_made(missing: str) -> None:
    names = {"REMEDY_DB_PASSWORD", "MLFLOW_DB_PASSWORD"} - {missing}
    environment = {"PATH": "/usr/bin:/bin", missing: "", **dict.fromkeys(names, "x")}
    assert missing in run(DEPLOY / "kubernetes/base/postgres-init.sh", env=environment, code=1).stderr


def test_what_the_readme_says_backs_up_and_restores(database: Database, tmp_path: Path) -> None:
    readme = (DEPLOY / "README.md").read_text()
    dump, restore = (
        [
            option
            for option in re.search(rf"{name} (.*) [<>] optuna\.dump", readme)[1].split()
            if option.startswith("--")
        ]
        for name in ("pg_dump", "pg_restore")
    )
    database.sql("remedy", "optuna", "CREATE TABLE kept (n int); INSERT INTO kept VALUES (42)")
    where = {**os.environ, "PGHOST": str(database.folder), "PGPORT": database.port}
    file = tmp_path / "optuna.dump"
    run(program("pg_dump"), *dump, f"--file={file}", "optuna", env=where)
    database.sql("remedy", "optuna", "DROP TABLE kept")
    run(program("pg_restore"), *restore, file, env=where)
    assert database.sql("remedy", "optuna", "SELECT n FROM kept") == "42"


# ---------------------------------------------------------------- MLflow


def mlflow_arguments(where: str) -> tuple[list[str], dict[str, str]]:
    """The arguments and the environment, less the store's address, that a manifest gives the server."""
    if where == "compose":
        service = compose()["services"]["mlflow"]
        arguments, environment = service["command"], service["environment"]
    else:
        pod = one(rendered("base"), "Deployment", "mlflow")["spec"]["template"]["spec"]["containers"][0]
        arguments, environment = pod["args"], {entry["name"]: entry.get("value", "") for entry in pod["env"]}
    kept = {
        name: value for name, value in environment.items() if name.startswith("MLFLOW_") and value and "$" not in value
    }
    assert environment["MLFLOW_BACKEND_STORE_URI"].startswith("postgresql+psycopg://mlflow:$")
    return arguments, kept


@pytest.fixture(scope="module", params=["compose", "kubernetes"])
def mlflow(
    request: pytest.FixtureRequest, database: Database, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The address of a server with the manifest's arguments."""
    arguments, environment = mlflow_arguments(request.param)
    folder = tmp_path_factory.mktemp("mlflow")
    (port,) = free_ports(1)
    new = {"--host": "127.0.0.1", "--port": port, "--artifacts-destination": str(folder / "artifacts")}
    name, *rest = replaced(arguments, new)
    environment |= {
        "HOME": str(folder),
        "MLFLOW_BACKEND_STORE_URI": database.url("mlflow", "mlflow", "postgresql+psycopg"),
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    log = folder / "log"
    with started([program(name), *rest], environment, log, cwd=folder) as process:
        poll("MLflow", lambda: status(f"http://127.0.0.1:{port}/health") == 200, process, log)
        yield f"http://127.0.0.1:{port}"


@pytest.mark.parametrize(
    "host",
    [
        "mlflow",
        "mlflow:5000",
        "mlflow.remedy.svc.cluster.local:5000",
        "mlflow.a.svc.cluster.local:5000",
        "127.0.0.1:5000",
    ],
)
def test_mlflow_answers_to_its_names(mlflow: str, host: str) -> None:
    assert status(mlflow + EXPERIMENTS, Host=host) == 200


@pytest.mark.parametrize("name", ["evil.example.com", "mlflow.evil.example.com:5000", "postgres:5000"])
def test_mlflow_refuses_a_foreign_name(mlflow: str, name: str) -> None:
    assert status(mlflow + EXPERIMENTS, Host=name) == 403
    # The trap: a probe of this page stays green.
    assert status(f"{mlflow}/health", Host=name) == 200


def test_mlflow_takes_artifacts_for_its_clients(mlflow: str) -> None:
    url = f"{mlflow}/api/2.0/mlflow-artifacts/artifacts/some/report.txt"
    asked = urllib.request.Request(url, data=b"evidence", method="PUT", headers={"Host": "mlflow:5000"})
    with urllib.request.urlopen(asked, timeout=60) as answer:
        assert answer.status == 200
    with urllib.request.urlopen(url, timeout=60) as answer:
        assert answer.read() == b"evidence"


def test_the_probes_of_mlflow_ask_as_a_client_does(mlflow: str) -> None:
    test = compose()["services"]["mlflow"]["healthcheck"]["test"]
    assert test[:3] == ["CMD", "python", "-c"]
    run(program("python"), "-c", test[3].replace("http://127.0.0.1:5000", mlflow))
    run(
        program("python"),
        "-c",
        test[3].replace("http://127.0.0.1:5000", mlflow).replace("mlflow:5000", "foreign:5000"),
        code=1,
    )
    pod = one(rendered("base"), "Deployment", "mlflow")["spec"]["template"]["spec"]["containers"][0]
    probe = pod["readinessProbe"]["httpGet"]
    headers = {header["name"]: header["value"] for header in probe["httpHeaders"]}
    assert status(mlflow + probe["path"], **headers) == 200
    assert headers["Host"] == "mlflow:5000"


def test_compose_and_kubernetes_start_the_same_mlflow() -> None:
    (arguments, environment), (other, also) = mlflow_arguments("compose"), mlflow_arguments("kubernetes")
    assert [defaulted(argument) for argument in arguments] == other
    told = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "MLFLOW_ALLOW_PICKLE_DESERIALIZATION"}
    assert {environment[name] for name in told} == {also[name] for name in told} == {"false"}


# ---------------------------------------------------------------- Ray


def head_arguments(where: str) -> list[str]:
    """The head's command: as it stands in compose.yaml, or as KubeRay makes it of rayStartParams."""
    if where == "compose":
        return list(compose()["services"]["ray-head"]["command"])
    (cluster,) = ray_clusters(rendered("cluster"))
    params = {"port": "6379", "dashboard-port": "8265", **cluster["headGroupSpec"]["rayStartParams"]}
    flags = ["--" + name if value == "true" else f"--{name}={value}" for name, value in params.items()]
    return ["ray", "start", "--head", "--block", *flags]


@pytest.mark.parametrize("where", ["compose", "kubernetes"])
def test_the_ray_head_wants_the_token(where: str, short: Path) -> None:
    arguments = head_arguments(where)
    keys = [a.split("=")[0] for a in arguments if a.endswith(tuple("0123456789")) and "port" in a.split("=")[0]]
    assert {"--port", "--dashboard-port", "--metrics-export-port"} <= set(keys)
    new = dict(zip(keys, free_ports(len(keys)), strict=True))
    new |= {"--dashboard-host": "127.0.0.1", "--object-store-memory": "100000000"}
    fixed = [f"--{name}={port}" for name, port in zip(("dashboard-agent-listen-port",), free_ports(1), strict=True)]
    name, *rest = replaced(arguments, new)
    if "--dashboard-agent-listen-port" not in keys:  # KubeRay leaves it to Ray: 52365, which may be taken here
        rest += fixed
    environment = {"HOME": str(short / "home"), "RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0"}
    (short / "home").mkdir()
    log = short / "log"
    api = f"http://127.0.0.1:{new['--dashboard-port']}/api"
    token = {"Authorization": f"Bearer {TOKEN}"}
    # Without a token it does not start, rather than start open.
    refused = run(program(name), *rest, f"--temp-dir={short / 'r'}", env=environment, code=1)
    assert "token" in (refused.stdout + refused.stderr).lower()
    command = [program(name), *rest, f"--temp-dir={short / 'r'}"]
    with started(command, {**environment, "RAY_AUTH_TOKEN": TOKEN}, log) as process:
        poll("the Ray head", lambda: status(f"{api}/version", **token) == 200, process, log)
        for page in ("version", "jobs/"):
            assert status(f"{api}/{page}") == 401
            assert status(f"{api}/{page}", Authorization="Bearer wrong") in {401, 403}
            assert status(f"{api}/{page}", **token, Host="remedy-head-svc:8265") == 200
            assert status(f"{api}/{page}", **token, Host="ray-head:8265") == 200
        if where == "compose":
            check = compose()["services"]["ray-head"]["healthcheck"]["test"]
            assert check[0] == "CMD"
            parts = [part.replace(":6379", f":{new['--port']}") for part in check[1:]]
            known = {**environment, "RAY_AUTH_TOKEN": TOKEN}
            run(program(parts[0]), *parts[1:], env=known)
        # No run lands on the head, where the controllers' passwords are.
        asked = urllib.request.Request(f"{api.removesuffix('/api')}/api/cluster_status", headers=token)
        with urllib.request.urlopen(asked, timeout=60) as answer:
            usage = json.load(answer)["data"]["clusterStatus"]["loadMetricsReport"]["usage"]
        assert "CPU" not in usage
        assert "GPU" not in usage
        exported = short / "metrics"
        poll(
            "Ray's metrics",
            lambda: save(f"http://127.0.0.1:{new['--metrics-export-port']}/metrics", exported),
            process,
            log,
        )


def save(url: str, path: Path) -> bool:
    """Whether the page names Ray's metrics of nodes; it asks for no token, which the network policies know."""
    try:
        with urllib.request.urlopen(url, timeout=20) as answer:
            path.write_bytes(answer.read())
    except OSError:
        return False
    text = path.read_text()
    return all(
        f"\n{name}{{" in text for name in ("ray_node_mem_used", "ray_node_mem_total", "ray_node_cpu_utilization")
    )
