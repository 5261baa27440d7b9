"""`remedy doctor`: which part is wrong, and what to do about it, within seconds. It asks, and changes nothing."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from functools import partial
from importlib import metadata
from pathlib import Path

from remedy.page import Page
from remedy.search.home import Home
from remedy.search.links import redact
from remedy.spaces.error import InfrastructureError, InputError

_LIMIT = 8.0
"""Seconds for all parts together."""
_FREE_GIB = 0.5
_LOOK_AT_GPUS = """
import json, torch
seen = [torch.cuda.get_device_properties(n) for n in range(torch.cuda.device_count())]
print(json.dumps({"torch": torch.__version__, "gpus": [[gpu.name, gpu.total_memory] for gpu in seen]}))
"""


class State(StrEnum):
    """How a part is."""

    OK = "ok"
    WRONG = "wrong"
    UNUSED = "not used"
    UNKNOWN = "not known"


@dataclass(frozen=True)
class Part:
    """How one part is, and what was found, in a sentence."""

    part: str
    state: State
    said: str


class _Unused(str):
    """What is said about a part that is not used."""

    __slots__ = ()


class _Unknown(str):
    """What is said about a part that could not be looked at in time, which is no fault yet."""

    __slots__ = ()


Probe = Callable[[], str]
"""Says what it found; raises InfrastructureError where its part is wrong."""
_STATES: dict[type, State] = {_Unused: State.UNUSED, _Unknown: State.UNKNOWN}


def doctor(asked: argparse.Namespace) -> int:
    """Look at every part at the same time, and say how it is."""
    parts = examine(_probes(asked.home, asked.address or os.environ.get("REMEDY_ADDRESS")))
    if asked.json:
        sys.stdout.write(json.dumps([asdict(part) for part in parts]) + "\n")
    else:
        page = Page()
        page.table(("state", "part", "what was found"), [(part.state, part.part, part.said) for part in parts])
        wrong = [part.part for part in parts if part.state is State.WRONG]
        page.line()
        page.line(f"wrong: {', '.join(wrong)}" if wrong else "nothing is wrong", "bold")
        sys.stdout.write(f"{page}\n")
    return 5 if any(part.state is State.WRONG for part in parts) else 0


def examine(probes: Mapping[str, Probe]) -> list[Part]:
    """Ask all parts at the same time; one that does not answer in time is wrong, and is left behind."""
    found: dict[str, tuple[State, str]] = {}

    def ask(name: str, probe: Probe) -> None:
        try:
            said = probe()
            found[name] = _STATES.get(type(said), State.OK), said
        except InfrastructureError as error:
            found[name] = State.WRONG, str(error)
        except Exception as error:  # noqa: BLE001  (a part may fail as it likes: the others are of interest still)
            found[name] = State.WRONG, f"{type(error).__name__}: {error}"

    until = time.monotonic() + _LIMIT
    # Daemons: what hangs in a call of the system (a name to resolve, a disk that is away) is not waited for at the end.
    threads = [threading.Thread(target=ask, args=each, daemon=True) for each in probes.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    late = State.WRONG, f"no answer within {_LIMIT:g} s"
    return [Part(name, state, redact(said)) for name in probes for state, said in (found.get(name, late),)]


def _probes(home: str | None, address: str | None) -> dict[str, Probe]:
    place = Home.of(home).path
    return {
        "python": _python,
        "packages": _packages,
        "home": partial(_home, place),
        "storage": _storage(os.environ.get("REMEDY_STORAGE")),
        "mlflow": _mlflow(os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{place}/mlflow.db"),
        "ray": _ray(address),
        "gpus": _gpus,
    }


# ---------------------------------------------------------------- servers


def _storage(storage: str | None) -> Probe:
    if not storage:
        return lambda: _Unused("no database: studies are kept in the home (REMEDY_STORAGE=postgresql://... names one)")
    from remedy.commands import databases
    from remedy.search import database

    return partial(databases.storage, database.address(storage), database.SCHEMA)


def _mlflow(uri: str) -> Probe:
    if uri.startswith(("http://", "https://")):
        from remedy.commands import servers

        return partial(servers.mlflow, uri)
    if uri.startswith(("sqlite:", "postgresql", "mysql", "mssql")):
        from remedy.commands import databases

        return partial(databases.mlflow, uri)
    may_be = "it may be http://HOST:PORT of a server, or be left out: the record is kept in the home then"
    raise InputError(f"MLFLOW_TRACKING_URI is {redact(uri)!r}; {may_be}")


def _ray(address: str | None) -> Probe:
    if not address:
        said = "no cluster: a study starts a Ray of its own on this machine (--address or REMEDY_ADDRESS names one)"
        return lambda: _Unused(said)
    from remedy.commands import servers

    return partial(servers.ray, servers.checked(address))


# ---------------------------------------------------------------- this machine


def _python() -> str:
    from packaging.specifiers import SpecifierSet

    ours, own = metadata.version("remedy"), sys.version.split()[0]
    wanted = metadata.metadata("remedy")["Requires-Python"] or ""
    if not SpecifierSet(wanted).contains(own, prereleases=True):
        raise InfrastructureError(f"Python {own} is outside {wanted}, which remedy {ours} needs; use another Python")
    return f"Python {own}, remedy {ours}, {len(os.sched_getaffinity(0))} cores"


def _packages() -> str:
    from remedy.commands.servers import promises

    has, wrong = [], []
    for one in promises():
        try:
            version = metadata.version(one.name)
        except metadata.PackageNotFoundError:
            wrong.append((one, f"{one.name} is missing"))
            continue
        has.append(f"{one.name} {version}")
        if not one.specifier.contains(version, prereleases=True):
            wrong.append((one, f"{one.name} {version} is outside {one.specifier}"))
    if wrong:
        install = " ".join(f"'{one.name}{one.specifier}'" for one, _ in wrong)
        raise InfrastructureError(f"{'; '.join(said for _, said in wrong)}: pip install {install}")
    return ", ".join(has)


def _home(place: Path) -> str:
    there = next(folder for folder in (place, *place.parents) if folder.exists())
    try:
        with tempfile.TemporaryFile(dir=there) as handle:  # leaves no name behind
            handle.write(bytes(2**16))
    except OSError as error:
        hint = "name another home with --home or REMEDY_HOME"
        raise InfrastructureError(f"{place} cannot be written: {error.strerror}; {hint}") from None
    free = shutil.disk_usage(there).free / 2**30
    if free < _FREE_GIB:
        raise InfrastructureError(f"{place}: only {free:.2f} GiB of the disk are free; make room, or name another home")
    made = "" if there == place else " (will be made)"
    return f"{place}{made} can be written, {free:.1f} GiB free"


def _gpus() -> str:
    try:  # a process of its own: a driver may hang or crash where it is first touched
        told = subprocess.run(
            [sys.executable, "-P", "-c", _LOOK_AT_GPUS],
            capture_output=True,
            text=True,
            timeout=_LIMIT - 0.5,
            check=True,
        )
    except subprocess.TimeoutExpired:
        hint = "the machine is busy, or a GPU's driver hangs (does nvidia-smi answer?)"
        return _Unknown(f"torch did not look for GPUs within {_LIMIT - 0.5:g} s: {hint}")
    except subprocess.CalledProcessError as error:
        said = (error.stderr.strip().splitlines() or [f"exit code {error.returncode}"])[-1]
        raise InfrastructureError(f"torch cannot be used: {said}; install it anew") from None
    seen = json.loads(told.stdout.splitlines()[-1])
    if seen["gpus"]:
        return ", ".join(f"{name}, {memory / 2**30:.0f} GiB" for name, memory in seen["gpus"])
    if list(Path("/dev").glob("nvidia[0-9]*")) and "CUDA_VISIBLE_DEVICES" not in os.environ:
        hint = "it is a build for CPUs, or the driver is too old for it (nvidia-smi says which)"
        raise InfrastructureError(f"this machine has a GPU, and torch {seen['torch']} sees none: {hint}")
    return _Unused(f"torch {seen['torch']} sees no GPU here: trainings on this machine run on its CPU")
