"""`remedy ui`: MLflow's pages on the right store, and the addresses to open."""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

from remedy.search.home import Home, StudyFolder
from remedy.search.links import SHARED_VIEW, parent_link, redact, runs_link, view_link
from remedy.search.outbox import SPOOL
from remedy.spaces.error import InfrastructureError, InputError
from remedy.workers.opener import OPENER

_HOST = "127.0.0.1"
_START, _END = 90.0, 10.0
_SHOWN = 10
_SETTINGS = {
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # eight processes that a viewer has no use for
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
}


def ui(asked: argparse.Namespace) -> int:
    """Show the studies until Ctrl-C."""
    return serve(Home.of(asked.home).path, asked.port, asked.study)


def serve(home: Path, port: int, study: str | None) -> int:
    """Show the studies of a home until Ctrl-C; with a server in `MLFLOW_TRACKING_URI`, only print where they are.

    Raises:
        InputError: no such study, nothing recorded yet, or the port is taken.
        InfrastructureError: the server did not start.
    """
    state = Home.of(str(home))
    folders = [state.existing(study)] if study else [state.study(name) for name in state.names()]
    store = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{state.path}/mlflow.db"
    if store.startswith(("http://", "https://")):
        print(f"MLflow runs at {redact(store)}")
        _print_links(store.rstrip("/"), redact(store).rstrip("/"), folders)
        return 0
    if store == f"sqlite:///{state.path}/mlflow.db" and not (state.path / "mlflow.db").is_file():
        raise InputError(f"nothing is recorded in {state.path} yet; `remedy submit TARGET` makes a study")
    _refuse_taken(port)
    address = f"http://{_HOST}:{port}"
    try:
        with _server(store, state.path / "artifacts", port) as server:
            print(f"MLflow runs at {address} (Ctrl-C ends it)")
            _print_links(address, address, folders)
            sys.stdout.flush()
            code = server.wait()
    except KeyboardInterrupt:
        print("\nMLflow's server is stopped; the record stays.")
        return 0
    raise InfrastructureError(f"MLflow's server ended by itself, with exit code {code}")


@contextlib.contextmanager
def _server(store: str, artifacts: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--host", _HOST, "--port", str(port)]
    command += ["--artifacts-destination", artifacts.as_uri()]
    # The store's address may hold a password: it goes by the environment, which other users cannot read.
    environment = {**os.environ, **_SETTINGS, "MLFLOW_BACKEND_STORE_URI": store}
    with tempfile.TemporaryFile() as log:
        # A session of its own: Ctrl-C reaches us alone, and we end all of its processes.
        server = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
        before = signal.signal(signal.SIGTERM, _interrupt)
        try:
            _wait_until_up(server, port, log)
            yield server
        finally:
            signal.signal(signal.SIGTERM, before)
            _end(server)


def _interrupt(number: int, frame: object) -> None:  # noqa: ARG001  (the signature of a signal handler)
    raise KeyboardInterrupt


def _wait_until_up(server: subprocess.Popen[bytes], port: int, log: IO[bytes]) -> None:
    until = time.monotonic() + _START
    while time.monotonic() < until and server.poll() is None:
        with contextlib.suppress(OSError), urlopen(f"http://{_HOST}:{port}/health", timeout=2) as answer:
            if answer.status == 200:
                return
        time.sleep(0.2)
    log.seek(0)
    said = [line for line in log.read().decode(errors="replace").splitlines() if line.strip()]
    why = redact(said[-1].strip()) if said else "it said nothing"
    raise InfrastructureError(f"MLflow's server did not start on port {port}: {why}")


def _end(server: subprocess.Popen[bytes]) -> None:
    for kind in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, kind)
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(_END)
            return


def _refuse_taken(port: int) -> None:
    if not 1 <= port <= 65535:
        raise InputError(f"--port is {port}; it may be 1 to 65535")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError as error:
            raise InputError(f"--port {port} cannot be used: {error.strerror}; choose another with --port") from None


def _print_links(api: str, shown: str, folders: list[StudyFolder]) -> None:
    """Print what to open for each study, the latest first."""
    for folder in list(reversed(folders))[:_SHOWN]:
        name, run = folder.name, _parent_run(folder)
        print(f"\n{name}")
        if links := _links(api, run, ascending=_goal_is_least(folder)) if run else ():
            for what, link in zip(("what was found", "all runs", "those that converged"), links, strict=True):
                print(f"  {what:20} {shown}{link}")
        else:
            print(f"  not in this MLflow (yet); {shown}/#/experiments shows what is")
        if folder.files.read(SPOOL) is not None:
            print(f"  some of it could not be recorded so far; `remedy resume {name}` does it")
    every = f"{shown}/#/experiments?workflowType=machine_learning"
    if len(folders) > _SHOWN:
        print(f"\n{len(folders) - _SHOWN} older studies: name one, or open {every}")
    if not folders:
        print(f"\nNo study yet; {every}")


def _parent_run(folder: StudyFolder) -> str:
    found = (_report(folder)).get("mlflow")
    return str(found.get("parent_run_id") or "") if isinstance(found, dict) else ""


def _goal_is_least(folder: StudyFolder) -> bool:
    return "at_most" in (_report(folder).get("goal") or {})


def _report(folder: StudyFolder) -> dict[str, Any]:
    try:
        return folder.report() or {}
    except InfrastructureError:  # a damaged one; the others are shown
        return {}


def _links(api: str, run: str, *, ascending: bool) -> tuple[str, ...]:
    """Return the paths of a study's page, of its runs, of those that converged; nothing where MLflow lacks it."""
    try:
        place = str(_asked(api, "runs/get", run_id=run)["run"]["info"]["experiment_id"])
        tags = _asked(api, "experiments/get", experiment_id=place)["experiment"].get("tags", ())
    except LookupError:
        return ()
    if any(tag["key"] == SHARED_VIEW + run for tag in tags):
        return parent_link(place, run), view_link(place, run), view_link(place, run, converged=True)
    lists = (runs_link(place, run, converged=converged, ascending=ascending) for converged in (False, True))
    return parent_link(place, run), *lists


def _asked(api: str, what: str, **query: str) -> dict[str, Any]:
    plain = redact(api).replace("***@", "")
    asked = Request(f"{plain}/api/2.0/mlflow/{what}?{urlencode(query)}", headers=_headers(api))  # noqa: S310
    try:
        with OPENER.open(asked, timeout=10) as answer:
            found = json.load(answer)
    except HTTPError as error:
        error.close()
        if error.code == 404:
            raise LookupError(what) from None
        raise InfrastructureError(f"MLflow at {redact(api)} answers {error.code} {error.reason}") from None
    except OSError as error:
        raise InfrastructureError(f"MLflow at {redact(api)} cannot be reached: {error}") from None
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise InfrastructureError(f"what answers at {redact(api)} is not MLflow")
    return found


def _headers(api: str) -> dict[str, str]:
    """Return what the environment, or the address itself, says about who asks."""
    if token := os.environ.get("MLFLOW_TRACKING_TOKEN"):
        return {"Authorization": f"Bearer {token}"}
    before, at, _ = api.partition("://")[2].rpartition("@")
    user, password = os.environ.get("MLFLOW_TRACKING_USERNAME"), os.environ.get("MLFLOW_TRACKING_PASSWORD", "")
    pair = before if at else f"{user}:{password}" if user else ""
    return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"} if pair else {}
