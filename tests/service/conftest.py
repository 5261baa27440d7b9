"""What the faults are tried on: servers, places for studies, and the study that nothing disturbs."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import CommandLine
from tests.postgres import Postgres, running_postgres
from tests.ray_head import running_ray
from tests.service.cluster import Cluster
from tests.service.kept import OPTIONS, Account, Place, accounted
from tests.service.mlflow_server import MlflowServer, running_mlflow


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One server for all of this folder; a test that takes it away gives it back."""
    with running_postgres() as server:
        yield server


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """Likewise."""
    with running_mlflow(tmp_path_factory.mktemp("mlflow")) as server:
        yield server


@pytest.fixture(scope="session")
def cluster(postgres: Postgres, mlflow_server: MlflowServer) -> Iterator[Cluster]:
    """Likewise. Its head, which runs controllers, knows where studies are kept; its nodes do not."""
    secrets = {"REMEDY_STORAGE": postgres.url(), "MLFLOW_TRACKING_URI": mlflow_server.url}
    secrets |= {"MLFLOW_TRACKING_TOKEN": "not-for-workers", "REMEDY_PYTHON": sys.executable}
    with running_ray(num_cpus=0, secrets_of_head=secrets) as head:
        yield Cluster(head)


@pytest.fixture(scope="session")
def home_of_all(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose MLflow store is made already: making it takes seconds."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def embedded(tmp_path: Path, home_of_all: Path) -> Iterator[Place]:
    """A place whose studies lie in a folder."""
    place = _place(tmp_path, home_of_all, {})
    yield place
    place.release()  # or what a failed test left on a cluster holds its workers


@pytest.fixture
def in_postgres(tmp_path: Path, home_of_all: Path, postgres: Postgres) -> Iterator[Place]:
    """A place whose studies lie in PostgreSQL."""
    place = _place(tmp_path, home_of_all, {"REMEDY_STORAGE": postgres.url()})
    yield place
    place.release()


@pytest.fixture(params=["embedded", "in_postgres"])
def place(request: pytest.FixtureRequest) -> Place:
    """Both."""
    return request.getfixturevalue(request.param)


def _place(folder: Path, home: Path, environment: dict[str, str]) -> Place:
    (folder / "work").mkdir()
    return Place(CommandLine(folder / "work", home), environment)


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, home_of_all: Path) -> Account:
    """What the study comes to when nothing happens to it."""
    place = _place(tmp_path_factory.mktemp("undisturbed"), home_of_all, {})
    place("submit", place.write(), *OPTIONS, "--name", "undisturbed", "--workers", 0)
    return accounted(place, "undisturbed")


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A name for the study of a test: they share their stores."""
    wanted = "".join(letter if letter.isalnum() else "-" for letter in request.node.name)
    return wanted.removeprefix("test-")[:90].strip("-")


@pytest.fixture
def stored(request: pytest.FixtureRequest) -> Callable[..., dict[str, Any]]:
    """Returns all that is kept, byte by byte: every file with its time, and every row of the database.

    `but` is the key of a text that its controller writes all the time.
    """

    def everything(place: Place, but: str = "") -> dict[str, Any]:
        files = [path for path in place.line.home.rglob("*") if path.is_file()]
        found: dict[str, Any] = {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}
        if "REMEDY_STORAGE" in place.environment:
            ask: Callable[[str], str] = request.getfixturevalue("postgres").sql
            tables = ask("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1").split()
            assert "remedy_files" in tables
            for table in tables:
                which = f"WHERE key <> '{but}'" if table == "remedy_files" else ""
                found[table] = ask(f'SELECT row(t.*)::text, t.xmin FROM "{table}" t {which} ORDER BY 1')
        return found

    return everything
