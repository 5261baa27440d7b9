"""What compose.yaml promises: nothing open, nothing root, no default secret, no password where runs are."""

from __future__ import annotations

import re

import pytest

from tests.deploy.deployed import DEPLOY, REPOSITORY, compose, constraint

SERVICES = compose()["services"]
TEXT = (DEPLOY / "compose.yaml").read_text()
services = pytest.mark.parametrize("name", SERVICES)
RAY = ("ray-head", "ray-worker")


def options(name: str) -> dict[str, str]:
    return dict(part.split("=", 1) for part in SERVICES[name]["command"] if part.startswith("--") and "=" in part)


@services
def test_ports_are_published_on_localhost_alone(name: str) -> None:
    for port in SERVICES[name].get("ports", []):
        assert re.fullmatch(r"127\.0\.0\.1:(\d+):\1", port), port


@services
def test_images_are_pinned(name: str) -> None:
    image = SERVICES[name]["image"]
    assert re.fullmatch(r"[\w./-]+:\d+\.\d+[\w.-]*", image)
    assert "latest" not in image


@services
def test_containers_gain_nothing(name: str) -> None:
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert not service.get("privileged")
    assert service.get("user", "from the image") != "root"
    # An image of ours ends in USER 1000:1000 (test_lint); a foreign one has to be told.
    assert service["image"].startswith("remedy") or re.fullmatch(r"[1-9]\d*:[1-9]\d*", service["user"])


@services
def test_limits_and_reservations_are_set(name: str) -> None:
    resources = SERVICES[name]["deploy"]["resources"]
    assert {"cpus", "memory"} <= set(resources["limits"])
    assert "memory" in resources["reservations"]


def test_no_secret_has_a_default() -> None:
    secret = re.compile(r"\$\{(\w*(?:PASSWORD|TOKEN|SECRET|KEY)\w*)(.*?)\}")
    for name, rest in secret.findall(TEXT):
        # The keys of a bucket may be absent, and are empty then; all others are asked for.
        assert rest.startswith(":?") or (name.startswith("AWS_") and rest == ":-"), name
    lines = (DEPLOY / "compose.env.example").read_text().splitlines()
    example = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    asked = {name for name, rest in re.findall(r"\$\{(\w+)(:?\??)[^}]*\}", TEXT) if rest == ":?"}
    assert set(example) == asked
    assert not any(example.values())
    assert ".env" in (DEPLOY / ".gitignore").read_text().split()


def test_every_variable_is_in_the_example() -> None:
    example = (DEPLOY / "compose.env.example").read_text()
    for name in set(re.findall(r"\$\{(\w+)", TEXT)):
        assert re.search(rf"^#?{name}=", example, re.MULTILINE), name


def test_workers_know_no_store() -> None:
    worker = SERVICES["ray-worker"]
    assert set(worker["environment"]) == {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN"}
    assert not worker.get("env_file")
    assert not worker.get("volumes")
    stores = {network for name in ("postgres", "mlflow") for network in SERVICES[name]["networks"]}
    assert stores.isdisjoint(worker["networks"])


def test_only_the_head_and_the_night_know_remedys_database() -> None:
    knowing = {name for name, service in SERVICES.items() if "REMEDY_STORAGE" in service.get("environment", {})}
    assert knowing == {"ray-head", "nightly"}
    for name in knowing:
        assert SERVICES[name]["environment"]["REMEDY_STORAGE"].endswith("@postgres:5432/optuna")


def test_no_run_lands_on_the_head() -> None:
    assert options("ray-head")["--num-cpus"] == options("ray-head")["--num-gpus"] == "0"


@pytest.mark.parametrize("name", [*RAY, "nightly"])
def test_the_token_is_asked_for(name: str) -> None:
    environment = SERVICES[name]["environment"]
    assert environment["RAY_AUTH_MODE"] == "token"
    assert environment["RAY_AUTH_TOKEN"].startswith("${RAY_AUTH_TOKEN:?")


@pytest.mark.parametrize("name", RAY)
def test_rays_ports_are_fixed_and_outside_of_its_workers(name: str) -> None:
    ports = {key: int(value) for key, value in options(name).items() if key.endswith("port")}
    assert {"--object-manager-port", "--node-manager-port", "--dashboard-agent-listen-port"} <= set(ports)
    assert len(set(ports.values())) == len(ports)
    assert not [port for port in ports.values() if 10002 <= port <= 19999]


def test_mlflow_is_told_what_it_must_be_told() -> None:
    service = SERVICES["mlflow"]
    assert options("mlflow")["--workers"] == "1"
    allowed = options("mlflow")["--allowed-hosts"].split(",")
    assert {"mlflow:*", "mlflow.*.svc.cluster.local:*", "localhost:*", "127.0.0.1:*"} <= set(allowed)
    assert "*" not in allowed
    assert service["environment"]["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"
    assert service["environment"]["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] == "false"


def test_the_versions_are_those_of_the_constraints() -> None:
    version = re.search(r'^version = "(.*)"', (REPOSITORY / "pyproject.toml").read_text(), re.MULTILINE)[1]
    for name in (*RAY, "nightly"):
        assert SERVICES[name]["image"] == f"remedy:{version}-ray{constraint('ray')}"
    assert SERVICES["mlflow"]["image"] == f"remedy-mlflow:{constraint('mlflow')}"
    for dockerfile, wanted in (("remedy", "ray"), ("mlflow", "mlflow")):
        text = (DEPLOY / f"docker/{dockerfile}.Dockerfile").read_text()
        assert re.search(rf"'{wanted}(\[default\])?=={re.escape(constraint(wanted))}'", text)


def test_services_wait_for_those_they_need_and_are_watched() -> None:
    for name, service in SERVICES.items():
        for other, how in service.get("depends_on", {}).items():
            assert how["condition"] == "service_healthy"
            assert "healthcheck" in SERVICES[other], f"{name} waits for {other}"
