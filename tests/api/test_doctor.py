"""`remedy doctor`, asked about a real PostgreSQL, MLflow and Ray cluster, about wrong ones, and about none."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.request import urlopen

import pytest

from remedy.commands import databases, doctor, servers
from tests.postgres import Postgres, running_postgres
from tests.ray_head import RayHead, running_ray

SECRET = "hunter2-and-more"


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of the machine's own: no token in a home, no server in the environment."""
    for name in [name for name in os.environ if name.startswith(("REMEDY_", "MLFLOW_", "RAY_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with running_postgres(databases=["empty"]) as server:
        yield server


@pytest.fixture(scope="module")
def ray() -> Iterator[RayHead]:
    with running_ray() as head:
        yield head


@pytest.fixture
def silent() -> Iterator[int]:
    """A port that takes who calls, and never says a word."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(50)
        yield listening.getsockname()[1]


@pytest.fixture
def dead() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def found(probe: Callable[[], str]) -> tuple[str, str]:
    """What a probe finds, as the command prints it."""
    (part,) = doctor.examine({"part": probe})
    return part.state.value, part.said


@contextlib.contextmanager
def running_mlflow(folder: Path, host: str, *settings: str) -> Iterator[str]:
    """A real `mlflow server` on a store in the folder; it is up when its /health says so."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", host, "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", str(folder)]
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (folder / "log").open("ab") as log:
        server = subprocess.Popen(
            [*command, *settings], env={**os.environ, **quiet}, stdout=log, stderr=log, start_new_session=True
        )
    try:
        until = time.monotonic() + 120
        while True:
            with contextlib.suppress(OSError), urlopen(f"http://{host}:{port}/health", timeout=5):
                break
            assert server.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < until, (folder / "log").read_text()
            time.sleep(0.2)
        yield f"http://{host}:{port}"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()


@contextlib.contextmanager
def answering(answers: dict[str, tuple[int, str]]) -> Iterator[str]:
    """What cannot be had for real: a server of another version, one that asks for a password, one that leads astray."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            code, text = answers.get(self.path.partition("?")[0], (404, "nothing here"))
            self.send_response(code)
            self.send_header("Location", text)
            self.end_headers()
            self.wfile.write(text.encode())
            asked.append((self.path, self.headers.get("Authorization")))

        do_POST = do_GET  # noqa: N815

        def log_message(self, *args: object) -> None:
            pass

    asked: list[tuple[str, str | None]] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
        answers["asked"] = (len(asked), repr(asked))
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


# ---------------------------------------------------------------- the command


def test_on_a_laptop_nothing_is_wrong_and_nothing_is_made(remedy):
    for _ in range(3):  # on a machine that is busy with others torch may be late
        answer = remedy("doctor", code=None)
        if answer.code == 0:
            break
    assert answer.code == 0, answer
    assert answer.out.endswith("nothing is wrong\n")
    assert not remedy.home.exists()
    parts = remedy("doctor", "--json", code=None).json
    assert [part["part"] for part in parts] == ["python", "packages", "home", "storage", "mlflow", "ray", "gpus"]
    assert all(set(part) == {"part", "state", "said"} for part in parts)
    assert {part["part"]: part["state"] for part in parts if part["part"] in ("storage", "ray", "home")} == {
        "storage": "not used",
        "ray": "not used",
        "home": "ok",
    }


def test_servers_that_never_answer_are_named_within_ten_seconds(remedy, silent):
    answer = remedy(
        "doctor",
        "--json",
        "--address",
        f"http://127.0.0.1:{silent}",
        code=5,
        REMEDY_STORAGE=f"postgresql://me:{SECRET}@127.0.0.1:{silent}/studies",
        MLFLOW_TRACKING_URI=f"http://me:{SECRET}@127.0.0.1:{silent}",
        RAY_AUTH_TOKEN=SECRET,
    )
    assert answer.seconds < 10
    said = {part["part"]: part["said"] for part in answer.json if part["state"] == "wrong"}
    assert said.keys() >= {"storage", "mlflow", "ray"}
    assert "does not answer" in said["storage"]
    assert said["mlflow"].startswith("MLflow at http://***@127.0.0.1")
    assert "within 5 s" in said["mlflow"]
    assert "within 5 s" in said["ray"]
    assert SECRET not in answer.out + answer.err


def test_a_part_that_hangs_is_left_behind(monkeypatch):
    monkeypatch.setattr(doctor, "_LIMIT", 0.3)
    go_on = threading.Event()
    parts = doctor.examine({"stuck": lambda: str(go_on.wait(60)), "quick": lambda: "fine", "raising": lambda: 1 / 0})
    go_on.set()
    assert [(part.part, part.state.value, part.said) for part in parts] == [
        ("stuck", "wrong", "no answer within 0.3 s"),
        ("quick", "ok", "fine"),
        ("raising", "wrong", "ZeroDivisionError: division by zero"),
    ]


@pytest.mark.parametrize(
    ("args", "environment", "said"),
    [
        (("--address", "cluster"), {}, "address of the Ray cluster is 'cluster'; it may be http://HOST:8265"),
        (("--address", "ray://head:10001"), {}, "it may be http://HOST:8265"),
        ((), {"REMEDY_ADDRESS": "http://me:hunter2@head:99999"}, "'http://***@head:99999'"),
        ((), {"REMEDY_STORAGE": "mysql://me:hunter2@host/db"}, "'mysql://***@host/db'; it may be postgresql://"),
        ((), {"REMEDY_STORAGE": "postgresql://me:hunter2@host:port/db"}, "it may be postgresql://"),
        ((), {"MLFLOW_TRACKING_URI": "file:///tmp/mlruns"}, "it may be http://HOST:PORT of a server"),
    ],
)
def test_an_address_of_another_kind_is_bad_input(remedy, args, environment, said):
    answer = remedy("doctor", *args, code=2, **environment)
    assert said in answer.err
    assert answer.err.count("\n") == 1
    assert answer.out == ""
    assert "hunter2" not in answer.err


def test_packages_outside_of_what_was_promised_are_named_with_the_command_that_mends_them(monkeypatch):
    versions = {"ray": "2.40.0", "optuna": "4.9.0"}
    true = doctor.metadata.version
    monkeypatch.setattr(doctor.metadata, "version", lambda name: versions.get(name) or true(name))
    state, said = found(doctor._packages)
    assert state == "wrong"
    assert "ray 2.40.0 is outside" in said
    assert "optuna 4.9.0 is outside" in said
    assert re.search(r"pip install .*'ray[<>=,.\d]*>=2\.54", said), said


def test_a_home_that_cannot_be_written_is_wrong(tmp_path):
    (tmp_path / "file").write_text("")
    for place in (Path("/proc/remedy"), tmp_path / "file" / "home"):
        state, said = found(partial(doctor._home, place))
        assert state == "wrong", said
        assert said.startswith(f"{place} cannot be written: ")
        assert "--home" in said


def test_a_torch_that_cannot_be_imported_is_wrong(tmp_path, monkeypatch):
    (tmp_path / "torch.py").write_text("raise ImportError('libcudart.so.12: cannot open shared object file')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    state, said = found(doctor._gpus)
    assert (state, "libcudart.so.12" in said) == ("wrong", True)


# ---------------------------------------------------------------- PostgreSQL


def test_a_database_is_ok_from_empty_to_in_use(postgres):
    url = postgres.create("used")
    probe = partial(databases.storage, url.replace("postgresql:", "postgresql+psycopg:"), 1)
    state, said = found(probe)
    assert state == "ok", said
    assert f"postgresql://***@127.0.0.1:{postgres.port}/used: no tables of Optuna's yet, no study yet" in said
    assert postgres.sql("SELECT count(*) FROM information_schema.tables WHERE table_schema = 'public'", "used") == "0"
    make = "from optuna.storages import RDBStorage; import sys; RDBStorage(sys.argv[1]).get_all_studies()"
    subprocess.run([sys.executable, "-c", make, url.replace("postgresql:", "postgresql+psycopg:")], check=True)
    postgres.sql("CREATE TABLE remedy_schema (version int); INSERT INTO remedy_schema VALUES (1)", "used")
    state, said = found(probe)
    assert state == "ok", said
    assert said.endswith("Optuna's schema v3.2.0.a, remedy's schema 1")
    for change, complaint in {
        "UPDATE alembic_version SET version_num = 'v3.0.0.a'": "older than Optuna 5",
        "UPDATE alembic_version SET version_num = 'v9.9.9.z'": "of a newer Optuna or of another program",
        "UPDATE alembic_version SET version_num = 'v3.2.0.a'; UPDATE remedy_schema SET version = 2": "a newer remedy",
        "UPDATE remedy_schema SET version = 0": "see deploy/README.md",
    }.items():
        postgres.sql(change, "used")
        state, said = found(probe)
        assert (state, complaint in said) == ("wrong", True), said


def test_a_database_that_is_wrong_says_how(postgres, dead, silent):
    here = f"127.0.0.1:{postgres.port}"
    wrong = {
        postgres.url("empty", password=SECRET): "refuses the user or the password",
        postgres.url("nowhere"): "has no database of this name",
        f"postgresql://me:{SECRET}@127.0.0.1:{dead}/x": "nothing listens there",
        f"postgresql://me:{SECRET}@127.0.0.1:{silent}/x": "does not answer",
        f"postgresql://me:{SECRET}@nowhere.invalid:5432/x": "the name of its host is not known here",
    }
    for url, complaint in wrong.items():
        state, said = found(partial(databases.storage, url.replace("postgresql:", "postgresql+psycopg:"), 1))
        assert (state, complaint in said) == ("wrong", True), said
        assert said.startswith("REMEDY_STORAGE: postgresql://***@")
        assert SECRET not in said
        assert postgres.password not in said
    postgres.sql(f"CREATE ROLE guest LOGIN PASSWORD '{SECRET}'", "empty")
    state, said = found(partial(databases.storage, f"postgresql+psycopg://guest:{SECRET}@{here}/empty", 1))
    assert (state, "GRANT CREATE ON SCHEMA public" in said) == ("wrong", True), said


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
