"""`remedy doctor`: the command, this machine, and a real PostgreSQL that is right or wrong."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from remedy.commands import databases, doctor
from tests.api.asking import forgotten, found, free_port, silent_port
from tests.postgres import Postgres, running_postgres

SECRET = "hunter2-and-more"


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    forgotten(monkeypatch, tmp_path)


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with running_postgres(databases=["empty"]) as server:
        yield server


@pytest.fixture
def silent() -> Iterator[int]:
    with silent_port() as port:
        yield port


@pytest.fixture
def dead() -> int:
    return free_port()


# ---------------------------------------------------------------- the command


def test_on_a_laptop_nothing_is_wrong_and_nothing_is_made(remedy):
    answer = remedy("doctor")
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
    usual = remedy("doctor", "--json", code=None).seconds  # where nobody is asked; a machine may be busy
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
    assert answer.seconds < usual + 10
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
