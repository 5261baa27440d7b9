"""deploy/ as the tests see it: its files as data, the tools that check them, and servers of their own."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).parents[2]
DEPLOY = REPOSITORY / "deploy"
KUSTOMIZATIONS = ("base", "cluster", "nightly", "study", "overlays/gpu", "overlays/queue")
PATIENCE = 120.0
Document = dict[str, Any]

# ---------------------------------------------------------------- tools


def program(name: str) -> str:
    """Where a tool is. CI has all of them: there, a missing one fails; elsewhere the test says what is missing."""
    debian = [str(place) for place in Path("/usr/lib/postgresql").glob("*/bin")]
    places = [str(Path(sys.executable).parent), os.environ.get("PATH", ""), *debian]
    found = shutil.which(name, path=os.pathsep.join(places))
    if found is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{name} is not installed")
    return found


def run(
    *args: object, code: int | None = 0, timeout: float = PATIENCE, **more: Any
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; `code` is the exit code it must have, None for any."""
    done = subprocess.run(
        [str(arg) for arg in args], capture_output=True, text=True, timeout=timeout, check=False, **more
    )
    assert code is None or done.returncode == code, f"{args}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


# ---------------------------------------------------------------- files as data


@functools.cache
def constraint(package: str) -> str:
    """The version that constraints.txt pins."""
    found = re.search(rf"^{package}==(.+)$", (REPOSITORY / "constraints.txt").read_text(), re.MULTILINE)
    assert found, f"constraints.txt does not pin {package}"
    return found[1]


@functools.cache
def compose() -> Document:
    """compose.yaml, anchors resolved."""
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text())


@functools.cache
def rendered(folder: str) -> list[Document]:
    """The documents of a kustomization."""
    done = run(program("kubectl"), "kustomize", DEPLOY / "kubernetes" / folder)
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def one(documents: Sequence[Document], kind: str, name: str | None = None) -> Document:
    """The only document of a kind (and name)."""
    found = [d for d in documents if d["kind"] == kind and name in {None, d["metadata"]["name"]}]
    assert len(found) == 1, f"{len(found)} documents are {kind} {name}"
    return found[0]


def ray_clusters(documents: Sequence[Document]) -> list[Document]:
    """The specifications of all Ray clusters: RayCluster's own, and those within a RayJob."""
    alone = [d["spec"] for d in documents if d["kind"] == "RayCluster"]
    return alone + [d["spec"]["rayClusterSpec"] for d in documents if d["kind"] == "RayJob"]


def pods(documents: Sequence[Document]) -> dict[str, Document]:
    """Every pod template, by the name of what makes it."""
    found: dict[str, Document] = {}
    for document in documents:
        name, spec = f"{document['kind']}/{document['metadata']['name']}", document.get("spec", {})
        if document["kind"] in {"Deployment", "StatefulSet", "DaemonSet", "Job"}:
            found[name] = spec["template"]
        elif document["kind"] == "CronJob":
            found[name] = spec["jobTemplate"]["spec"]["template"]
        elif document["kind"] in {"RayCluster", "RayJob"}:
            cluster = spec.get("rayClusterSpec", spec)
            found[f"{name}/head"] = cluster["headGroupSpec"]["template"]
            for group in cluster["workerGroupSpecs"]:
                found[f"{name}/worker-{group['groupName']}"] = group["template"]
    return found


def defaulted(text: str) -> str:
    """A value of compose.yaml with its variables' defaults."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)


def replaced(arguments: Sequence[str], new: Mapping[str, str]) -> list[str]:
    """`--key=value` arguments with the values that a test has to replace; each must have been there."""
    had = {argument.split("=", 1)[0] for argument in arguments}
    assert set(new) <= had, f"not among the arguments: {set(new) - had}"
    return [f"{key}={new[key]}" if (key := a.split("=", 1)[0]) in new else a for a in map(defaulted, arguments)]


# ---------------------------------------------------------------- servers


def free_ports(count: int) -> list[str]:
    """Free ports outside of Ray's range for workers (10002-19999) and of the kernel's for clients (from 32768)."""
    found: list[str] = []
    while len(found) < count:
        port = random.SystemRandom().randrange(20_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            if str(port) not in found:
                found.append(str(port))
    return found


def poll(what: str, ask: Callable[[], object], process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until `ask` gives something true; fail with the log's end where the process ends or time is over."""
    end = time.monotonic() + PATIENCE
    while not ask():
        ended = process.poll()
        if ended is not None or time.monotonic() > end:
            said = log.read_text(errors="replace")[-3000:]
            pytest.fail(f"{what}: {'not in time' if ended is None else f'ended with {ended}'}\n{said}")
        time.sleep(0.2)


@contextlib.contextmanager
def started(
    args: Sequence[object], environment: Mapping[str, str], log: Path, end: signal.Signals = signal.SIGTERM, **more: Any
) -> Iterator[subprocess.Popen[bytes]]:
    """A server in a session of its own, with nothing of our environment but what is said; all of it is ended."""
    whole = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "LANG": "C.UTF-8", **environment}
    with log.open("ab") as out:
        process = subprocess.Popen(
            [str(arg) for arg in args], env=whole, stdout=out, stderr=out, start_new_session=True, **more
        )
    try:
        yield process
    finally:
        process.send_signal(end)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(30)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)


def status(url: str, **headers: str) -> int:
    """The status that a server answers with; 0 where it does not answer."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=20) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
    except OSError:
        return 0


def as_owner() -> list[str]:
    """PostgreSQL refuses to be root."""
    if os.geteuid() != 0:
        return []
    return [program("setpriv"), "--reuid=postgres", "--regid=postgres", "--clear-groups"]


class Database:
    """A PostgreSQL with the manifests' arguments and init script, on a free port."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.passwords = {"postgres": "a" * 64, "remedy": "b" * 64, "mlflow": "c" * 64}
        (self.port,) = free_ports(1)

    @contextlib.contextmanager
    def running(self) -> Iterator[Database]:
        service = compose()["services"]["postgres"]
        password = self.folder / "password"
        password.write_text(self.passwords["postgres"])
        if os.geteuid() == 0:
            shutil.chown(self.folder, "postgres")
        run(
            *as_owner(), program("initdb"), f"--pgdata={self.folder / 'data'}", "--username=postgres", "--no-sync",
            f"--pwfile={password}", "--auth-local=trust", *service["environment"]["POSTGRES_INITDB_ARGS"].split(),
        )  # fmt: skip
        name, *arguments = service["command"]
        ours = ["-D", self.folder / "data", "-c", f"port={self.port}", "-c", "listen_addresses=127.0.0.1"]
        ours += ["-c", f"unix_socket_directories={self.folder}", "-c", "fsync=off"]
        log = self.folder / "log"
        command = [*as_owner(), program(name), *ours, *arguments]
        with started(command, {}, log, signal.SIGINT) as process:
            poll("PostgreSQL", self._ready, process, log)
            inside = {"PGHOST": str(self.folder), "PGPORT": self.port}
            keys = {"REMEDY_DB_PASSWORD": self.passwords["remedy"], "MLFLOW_DB_PASSWORD": self.passwords["mlflow"]}
            path = f"{Path(program('psql')).parent}:{os.environ['PATH']}"
            run(DEPLOY / "kubernetes/base/postgres-init.sh", env={**os.environ, **inside, **keys, "PATH": path})
            yield self

    def url(self, user: str, database: str, driver: str = "postgresql") -> str:
        return f"{driver}://{user}:{self.passwords[user]}@127.0.0.1:{self.port}/{database}"

    def sql(self, user: str, database: str, statement: str, code: int | None = 0) -> str:
        done = run(program("psql"), "-X", "-q", "-A", "-t", "-c", statement, self.url(user, database), code=code)
        return (done.stdout if code == 0 else done.stderr).strip()

    def _ready(self) -> bool:
        return run(program("pg_isready"), "-h", "127.0.0.1", "-p", self.port, code=None).returncode == 0


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())
