"""A real Ray cluster of a test run's own, with a token: `with running_ray() as ray: ray.dashboard, ray.address`."""

import contextlib
import itertools
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any

START = 180.0
_MARK = "REMEDY_TEST_RAY"
_OURS = ("REMEDY_", "MLFLOW_", "OPTUNA_", "RAY_")
_GRACE = 15.0


class RayNode:
    """`ray start --block` and all the processes below it; `mark` is in the environment of each, as REMEDY_TEST_RAY."""

    def __init__(self, mark: str, arguments: list[str], environment: Mapping[str, str], log: Path) -> None:
        self.mark, self._log = mark, log
        # Not the script beside the interpreter: its first line may name another one, where a venv was moved.
        code = "import sys; from ray.scripts.scripts import main; sys.exit(main())"
        with log.open("ab") as handle:
            self._process = subprocess.Popen(
                [sys.executable, "-c", code, "start", "--block", "--disable-usage-stats", *arguments],
                env={**environment, _MARK: mark},  # all that it starts inherits the mark, and is found by it
                stdin=subprocess.DEVNULL,
                stdout=handle,
                stderr=handle,
                cwd=log.parent,
                start_new_session=True,
            )

    @property
    def pids(self) -> list[int]:
        """All living processes of the node: its servers, agents and workers."""
        return _marked(self.mark)

    @property
    def running(self) -> bool:
        """Whether the node's main process lives."""
        return self._process.poll() is None

    def said(self) -> str:
        """The end of what `ray start` printed."""
        return self._log.read_text(errors="replace")[-3000:]

    def stop(self) -> None:
        """End it in peace: whoever uses it is told."""
        if self.running:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_GRACE)
        self.kill()

    def kill(self) -> None:
        """Take the machine away: every process at once, nobody says goodbye."""
        until = time.monotonic() + _GRACE
        while (living := self.pids) and time.monotonic() < until:  # one that dies may have started one more
            for pid in living:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait(_GRACE)


class RayHead:
    """A head with a dashboard, and the nodes that were added to it; ports and token stay over a restart.

    `environment` is what a client needs to be let in: add it to a process's own. `HOME` in it is private, so that
    nobody reads or writes the token of whoever runs the tests.
    """

    def __init__(self, folder: Path, token: str, num_cpus: int, num_gpus: int, resources: Mapping[str, float]) -> None:
        self.folder, self.token = folder, token
        self.secrets: dict[str, str] = {}
        self.port, self._dashboard_port = _free_port(), _free_port()
        self.nodes: list[RayNode] = []
        self.head: RayNode | None = None
        self._size = _size(num_cpus, num_gpus, resources)
        self._count = itertools.count()
        self.home = folder / "home"
        self.home.mkdir()
        self.environment = {"HOME": str(self.home), "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}

    @property
    def address(self) -> str:
        """HOST:PORT for `ray.init(address=...)`."""
        return f"127.0.0.1:{self.port}"

    @property
    def dashboard(self) -> str:
        """http://HOST:PORT of the dashboard and the Jobs API."""
        return f"http://127.0.0.1:{self._dashboard_port}"

    def start(self) -> None:
        """Start the head, on the same ports as before, and return when it takes work."""
        head = ["--head", f"--port={self.port}", "--include-dashboard=true", "--dashboard-host=127.0.0.1"]
        head += [f"--dashboard-port={self._dashboard_port}", f"--ray-client-server-port={_free_port()}"]
        self.head = self._node("head", [*head, f"--temp-dir={self.folder / 'ray'}", *self._size], self.secrets)
        self._until(lambda: len(self.alive()) == 1, self.head)

    def add_node(
        self, num_cpus: int = 1, num_gpus: int = 0, resources: Mapping[str, float] | None = None, *, wait: bool = True
    ) -> RayNode:
        """Add a node; `wait` until the head counts it in."""
        before = len(self.alive())
        node = self._node("node", [f"--address={self.address}", *_size(num_cpus, num_gpus, resources or {})])
        self.nodes.append(node)
        if wait:
            self._until(lambda: len(self.alive()) > before, node)
        return node

    def alive(self) -> list[dict[str, Any]]:
        """The nodes that the dashboard says are alive; none where it does not answer."""
        try:
            found = self.get("/api/v0/nodes?detail=true")
        except (OSError, HTTPException, ValueError):
            return []
        return [node for node in found["data"]["result"]["result"] if node["state"] == "ALIVE"]

    def get(self, path: str) -> Any:
        """Ask the dashboard, with the token."""
        asked = urllib.request.Request(self.dashboard + path, headers={"Authorization": f"Bearer {self.token}"})
        with urllib.request.urlopen(asked, timeout=10) as answer:
            return json.load(answer)

    def stop(self) -> None:
        """End all of it."""
        with contextlib.ExitStack() as every:  # one that does not end must not save the others
            for node in (self.head, *self.nodes):
                if node is not None:
                    every.callback(node.kill)
            if self.head is not None:
                self.head.stop()

    def _node(self, name: str, arguments: list[str], own: Mapping[str, str] | None = None) -> RayNode:
        # Several nodes on one machine share no port: those of the agents have a default each.
        ports = [f"--dashboard-agent-listen-port={_free_port()}", f"--object-store-memory={100 * 1024**2}"]
        log = self.folder / f"{name}-{next(self._count)}.log"
        return RayNode(f"{self.folder}/{log.stem}", [*arguments, *ports], {**self._environment(), **(own or {})}, log)

    def _environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
        # A node that was taken away is known to be dead after some seconds, not after half a minute.
        health = {"initial_delay_ms": "1000", "period_ms": "1000", "timeout_ms": "5000", "failure_threshold": "5"}
        settings = {f"RAY_health_check_{name}": value for name, value in health.items()}
        settings |= {"RAY_TMPDIR": str(self.folder), "RAY_memory_usage_threshold": "0.99"}
        return {**kept, **settings, **self.environment}

    def _until(self, done: Any, node: RayNode) -> None:
        until = time.monotonic() + START
        while not done():
            if not node.running or time.monotonic() > until:
                raise RuntimeError(f"Ray does not start: {node.said()}")
            time.sleep(0.2)


@contextlib.contextmanager
def running_ray(
    folder: Path | None = None,
    token: str | None = None,
    num_cpus: int = 1,
    num_gpus: int = 0,
    resources: Mapping[str, float] | None = None,
    secrets_of_head: Mapping[str, str] | None = None,
) -> Iterator[RayHead]:
    """A head that runs, with its dashboard; it, its nodes and their files are gone afterwards, whatever happened.

    Its files lie in a folder of their own in `folder`, by default in /tmp: the names of Ray's sockets must be short.
    `secrets_of_head` is environment that the head has and added nodes have not. `num_gpus` and `resources` are what it
    claims to have: there is no need for a real GPU.
    """
    place = Path(tempfile.mkdtemp(prefix="remedy-ray-", dir=folder or "/tmp"))
    head = None
    try:
        for attempt in range(3):
            head = RayHead(Path(tempfile.mkdtemp(dir=place)), token or secrets.token_hex(32), num_cpus, num_gpus,
                           resources or {})  # fmt: skip
            head.secrets.update(secrets_of_head or {})
            try:
                head.start()
                break
            except RuntimeError:  # somebody else was quicker to take one of the ports
                head.stop()
                if attempt == 2:
                    raise
        assert head is not None
        yield head
    finally:
        if head is not None:
            head.stop()
        shutil.rmtree(place, ignore_errors=True)


def _size(num_cpus: int, num_gpus: int, resources: Mapping[str, float]) -> list[str]:
    return [f"--num-cpus={num_cpus}", f"--num-gpus={num_gpus}", f"--resources={json.dumps(dict(resources))}"]


def _marked(mark: str) -> list[int]:
    """All living processes whose environment holds the mark."""
    wanted, found = f"{_MARK}={mark}".encode(), []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if wanted in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
    return found


def _free_port() -> int:
    """A port that is free, and not one of those that Ray gives to its workers (10002 to 19999)."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        if not 10000 <= port <= 19999:
            return port
