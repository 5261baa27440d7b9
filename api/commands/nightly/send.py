"""A night of a sweep as one job of a Ray cluster: sent there, and followed to its end."""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import sys
import tempfile
import time
from pathlib import Path

import yaml

from remedy.commands.views import where
from remedy.commands.work import resources
from remedy.interrupt import EXIT_INTERRUPTED
from remedy.search.conduct import commit_of
from remedy.search.home import Home
from remedy.search.nightly.sweep import Sweep
from remedy.search.parcel import pack, unpack
from remedy.spaces.error import InfrastructureError, InputError
from remedy.spaces.fix import read_yaml
from remedy.spaces.printable import printable
from remedy.workers.ray_jobs import OVER, Jobs

_LOOK_EVERY = 2.0
_AWAY = 300.0
_ENTRY = '"${REMEDY_PYTHON:-python}" -P -m remedy nightly run %s --night %s --address auto --json'
"""Run by a shell on the cluster's head."""


def send_night(asked: argparse.Namespace, home: Home, sweep: Sweep, night: str) -> int:
    """Send a night to a cluster as one job, and follow it to its end; return 0, or 130 where its terminal was left.

    Raises:
        InfrastructureError: the job failed.
        InputError: there is no storage that both sides see.
    """
    if home.database is None:
        raise InputError(f"--address {asked.address!r} needs REMEDY_STORAGE: the night is worked on elsewhere")
    jobs = Jobs(asked.address)
    root = _root(sweep)
    submission = _free(jobs, f"nightly-{sweep.name}-{night}")
    entry = _ENTRY % (shlex.quote(os.path.relpath(sweep.path, root)), night)
    for option, value in (("workers", asked.workers), ("gpus", asked.gpus)):
        entry += f" --{option} {value}" if value is not None else ""
    entry += "".join(f" --resource {shlex.quote(f'{name}={amount:g}')}" for name, amount in resources(asked).items())
    entry += " --isolate" if asked.isolate else ""
    entry += " --again" if asked.again else ""
    with tempfile.TemporaryDirectory(prefix="remedy-") as place:
        unpack(pack(root), Path(place))
        _relative(sweep, root, Path(place))
        jobs.submit(submission, entry, Path(place), {"REMEDY_JOB": submission, "REMEDY_COMMIT": commit_of(root)})
    sys.stderr.write(f"night of {night}: sent to {asked.address} as job {submission}\n")
    try:
        status = _followed(jobs, submission)
    except KeyboardInterrupt:
        report = f"remedy nightly report {shlex.quote(asked.sweep)} --night {night}{where(asked)}"
        sys.stderr.write(f"remedy: the night goes on without this terminal; see it: {report}\n")
        return EXIT_INTERRUPTED
    if status != "SUCCEEDED":
        last = [line for line in jobs.logs(submission).splitlines() if line.startswith("remedy: ")]
        said = last[-1].removeprefix("remedy: ") if last else jobs.status(submission)[1]
        raise InfrastructureError(f"job {submission} {status.lower()}: {said}")
    return 0


def _followed(jobs: Jobs, submission: str) -> str:
    """Show what the job says until it is over; return how it ended.

    Raises:
        InfrastructureError: the cluster knows nothing of it, or does not answer, for minutes.
    """
    shown: set[str] = set()
    seen = time.monotonic()
    while True:
        status = ""
        with contextlib.suppress(OSError, InfrastructureError):  # away for a moment: the job goes on without us
            status = jobs.status(submission)[0]
            _show(jobs.logs(submission), shown)
        if status in OVER:
            return status
        if status:
            seen = time.monotonic()
        elif time.monotonic() - seen > _AWAY:
            again = "the same command goes on with the night"
            raise InfrastructureError(f"{jobs.address} has said nothing of job {submission} for {_AWAY:g} s; {again}")
        time.sleep(_LOOK_EVERY)


def _show(text: str, shown: set[str]) -> None:
    for line in text.splitlines():
        if line.startswith("[") and line not in shown:
            shown.add(line)
            sys.stderr.write(printable(line) + "\n")
    sys.stderr.flush()


def _free(jobs: Jobs, name: str) -> str:
    session = 1
    while (status := jobs.status(made := name if session == 1 else f"{name}-{session}")[0]) in OVER:
        session += 1
    if status:
        raise InputError(f"the night is worked on already, as job {made}; wait for it, or end it")
    return made


def _root(sweep: Sweep) -> Path:
    """Return the folder that holds the sweep file and all trainings that are files."""
    files = [entry.target.rpartition(":")[0] or entry.target for entry in sweep.trainings]
    files += [own for entry in sweep.trainings for own in entry.remedies]
    folders = [str(Path(file).parent) for file in files if file.endswith(".py")]
    modules = [str(Path.cwd())] if len(folders) < len(files) else []
    root = Path(os.path.commonpath([str(sweep.path.parent), *folders, *modules]))
    if root == Path(root.anchor):
        raise InputError(f"{sweep.path} and its trainings have no folder in common that could be sent to a cluster")
    return root


def _relative(sweep: Sweep, root: Path, place: Path) -> None:
    """Let the sweep file that is sent name the trainings, and files of remedies, that are sent with it."""

    def below(named: str) -> str:
        path, colon, function = named.partition(":")
        if Path(path).is_absolute() and (place / os.path.relpath(path, root)).is_file():
            return f"{os.path.relpath(path, sweep.path.parent)}{colon}{function}"
        return named

    file = place / os.path.relpath(sweep.path, root)
    content = read_yaml(file.read_text(encoding="utf-8"))
    for raw in content["trainings"]:
        raw["target"] = below(raw["target"])
        if "remedies" in raw:
            raw["remedies"] = [below(own) for own in raw["remedies"]]
    file.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
