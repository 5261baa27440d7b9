"""`remedy doctor`, asked about a real MLflow server and a real Ray cluster, and about wrong ones."""

from __future__ import annotations

import re
import shutil
import sqlite3
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from remedy.commands import databases, doctor, servers
from tests.api.asking import answering, forgotten, found, free_port, running_mlflow
from tests.ray_head import RayHead, running_ray

SECRET = "hunter2-and-more"


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    forgotten(monkeypatch, tmp_path)


@pytest.fixture(scope="module")
def ray() -> Iterator[RayHead]:
    with running_ray() as head:
        yield head


@pytest.fixture
def dead() -> int:
    return free_port()


# ---------------------------------------------------------------- MLflow


def test_what_it_says_about_a_refused_host_is_what_helps(tmp_path):
    with running_mlflow(tmp_path, "127.0.0.2") as uri:  # of the loopback's addresses MLflow allows one by itself
        state, said = found(partial(servers.mlflow, uri))
        assert state == "wrong"
        host = uri.removeprefix("http://")
        assert "403 Invalid Host header" in said
        assert "/health is fine" in said
        assert host in said
    advice = re.search(r"--allowed-hosts '(.+?)'", said)[1]
    with running_mlflow(tmp_path, "127.0.0.2", "--allowed-hosts", advice.replace(host, "127.0.0.2:*")) as uri:
        state, said = found(partial(servers.mlflow, uri))
        assert (state, said) == (
            "ok",
            f"MLflow at {uri} is version {doctor.metadata.version('mlflow')} and takes our calls",
        )
        by_name = uri.replace("127.0.0.2", "localhost")
        assert found(partial(servers.mlflow, by_name))[0] == "wrong"  # nothing listens at that address
    store = tmp_path / "mlflow.db"
    state, said = found(partial(databases.mlflow, f"sqlite:///{store}"))
    assert (state, "MLflow's schema" in said) == ("ok", True), said
    for version, complaint in {
        "451aebb31d03": f"mlflow db upgrade sqlite:///{store}",
        "ffff": "of a newer MLflow",
    }.items():
        with sqlite3.connect(store) as connection:
            connection.execute("UPDATE alembic_version SET version_num = ?", (version,))
        connection.close()
        state, said = found(partial(databases.mlflow, f"sqlite:///{store}"))
        assert (state, complaint in said) == ("wrong", True), said
    shutil.rmtree(tmp_path / "nothing", ignore_errors=True)
    assert found(partial(databases.mlflow, f"sqlite:///{tmp_path}/nothing/mlflow.db"))[0] == "ok"
    assert not (tmp_path / "nothing").exists()


SEARCH = "/api/2.0/mlflow/experiments/search"


@pytest.mark.parametrize(
    ("answers", "complaint"),
    [
        ({SEARCH: (401, "")}, "wants to know who asks (401): set MLFLOW_TRACKING_USERNAME"),
        ({SEARCH: (403, '{"message": "Permission denied"}')}, "read no experiments (403): Permission denied"),
        (
            {SEARCH: (500, '{"message": "Detected out-of-date database schema"}')},
            "Detected out-of-date database schema",
        ),
        ({SEARCH: (200, "<html>hello</html>")}, "is it MLflow?"),
        ({}, "is it MLflow?"),
        ({SEARCH: (200, "{}"), "/version": (200, "3.16.0")}, "is version 3.16.0; remedy works with"),
    ],
)
def test_an_mlflow_that_is_wrong_says_how(answers, complaint):
    with answering(answers) as uri:
        state, said = found(partial(servers.mlflow, uri))
    assert (state, complaint in said) == ("wrong", True), said


def test_a_password_goes_to_the_server_it_is_for_and_nowhere_else(monkeypatch, dead):
    answers = {SEARCH: (401, "")}
    with answering(answers) as uri:
        named = uri.replace("//", f"//me:{SECRET.replace('-', '%2D')}@")
        state, said = found(partial(servers.mlflow, named))
    assert (state, "does not take what MLFLOW_TRACKING_USERNAME" in said) == ("wrong", True), said
    assert SECRET not in said
    assert "Basic bWU6aHVudGVyMi1hbmQtbW9yZQ==" in answers["asked"][1]  # unquoted, as MLflow's client does it
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", SECRET)
    thief: dict[str, tuple[int, str]] = {SEARCH: (200, "{}")}
    with answering(thief) as elsewhere, answering({SEARCH: (302, f"{elsewhere}{SEARCH}")}) as uri:
        assert found(partial(servers.mlflow, uri))[0] == "wrong"
    assert thief["asked"] == (0, "[]")
    assert "nothing listens there" in found(partial(servers.mlflow, f"http://127.0.0.1:{dead}"))[1]


# ---------------------------------------------------------------- Ray


def test_a_cluster_is_told_by_what_it_has(ray, monkeypatch, tmp_path):
    monkeypatch.setenv("RAY_AUTH_TOKEN", ray.token)
    state, said = found(partial(servers.ray, ray.dashboard))
    assert state == "ok", said
    assert "1 node alive" in said
    assert "1 CPUs, no GPU (trainings there run on CPUs)" in said
    node = ray.add_node(num_gpus=2)
    try:
        assert "2 nodes alive, 2 CPUs, 2 GPUs" in found(partial(servers.ray, ray.dashboard))[1]
    finally:
        node.stop()
    state, said = found(partial(servers.ray, ray.address))
    assert (state, "http://127.0.0.1:8265" in said) == ("ok", True), said
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    (tmp_path / "token").write_text(f"{ray.token}\n")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    assert found(partial(servers.ray, ray.dashboard))[0] == "ok"
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH")
    (tmp_path / ".ray").mkdir()
    (tmp_path / "token").rename(tmp_path / ".ray" / "auth_token")
    assert found(partial(servers.ray, ray.dashboard))[0] == "ok"


def test_a_wrong_or_missing_token_is_told_apart(ray, monkeypatch, remedy, tmp_path):
    state, said = found(partial(servers.ray, ray.dashboard))
    assert (state, "wants a token, and there is none here (401)" in said) == ("wrong", True), said
    assert "RAY_AUTH_TOKEN, the file that RAY_AUTH_TOKEN_PATH names, or ~/.ray/auth_token" in said
    monkeypatch.setenv("RAY_AUTH_TOKEN", SECRET)
    state, said = found(partial(servers.ray, ray.dashboard))
    assert (state, "does not take the token from RAY_AUTH_TOKEN (403)" in said) == ("wrong", True), said
    assert SECRET not in said
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "none"))
    assert "which cannot be read" in found(partial(servers.ray, ray.dashboard))[1]
    answer = remedy("doctor", code=5, HOME=str(tmp_path), REMEDY_ADDRESS=ray.dashboard, RAY_AUTH_TOKEN=SECRET)
    assert answer.out.endswith("wrong: ray\n")
    assert SECRET not in answer.out + answer.err


def test_another_ray_and_what_is_no_ray_are_told_apart(dead):
    version = {"/api/version": (200, '{"ray_version": "2.40.0"}')}
    for answers, complaint in ((version, "is Ray 2.40.0, and"), ({}, "not as Ray's dashboard does")):
        with answering(answers) as uri:
            state, said = found(partial(servers.ray, uri))
        assert (state, complaint in said) == ("wrong", True), said
    for address in (f"http://127.0.0.1:{dead}", f"127.0.0.1:{dead}"):
        assert "nothing listens there; is the head up" in found(partial(servers.ray, address))[1]


def test_a_cluster_without_tokens_is_said_to_be_open_to_all():
    nodes = '{"data": {"result": {"result": [{"state": "ALIVE", "resources_total": {"CPU": 4}}]}}}'
    version = f'{{"ray_version": "{doctor.metadata.version("ray")}"}}'
    mode = '{"authentication_mode": "disabled"}'
    answers = {"/api/version": version, "/api/v0/nodes": nodes, "/api/authentication_mode": mode}
    with answering({path: (200, text) for path, text in answers.items()}) as uri:
        state, said = found(partial(servers.ray, uri))
    assert (state, "asks nobody for a token" in said) == ("ok", True), said
