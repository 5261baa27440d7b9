"""What the tests of `remedy doctor` share: servers that run, and servers that only answer."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.request import urlopen

import pytest

from remedy.commands import doctor


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


def free_port() -> int:
    """A port at which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def silent_port() -> Iterator[int]:
    """A port that takes who calls, and never says a word."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(50)
        yield listening.getsockname()[1]


def forgotten(patch: pytest.MonkeyPatch, home: Path) -> None:
    """Leave nothing of the machine's own: no token in a home, no server in the environment."""
    for name in [name for name in os.environ if name.startswith(("REMEDY_", "MLFLOW_", "RAY_"))]:
        patch.delenv(name)
    patch.setenv("HOME", str(home))
