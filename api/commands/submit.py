"""`submit`, `resume`, `stop`, `delete`: what changes studies."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import sys
import uuid
from pathlib import Path
from typing import Any

from remedy.commands.loading import Checked, apart, checked
from remedy.interrupt import EXIT_INTERRUPTED, Interrupt, Interruptible
from remedy.progress import Progress
from remedy.render import report_text
from remedy.search.conduct import Study, opened, space_of
from remedy.search.home import Home, write_json
from remedy.search.record import Record
from remedy.search.spec import Spec
from remedy.spaces.error import InputError
from remedy.workers.executor import Executor, InProcess


def submit(asked: argparse.Namespace) -> int:
    """Run a study from its beginning."""
    _check_workers(asked)
    home = Home.of(asked.home)
    # Options are checked before the user's code is touched, and nothing is written before both are found right.
    options = totals(asked)
    if asked.name is not None and home.study(asked.name).spec.exists():
        again = f"remedy resume {asked.name}{_where(asked)}"
        msg = f"--name {asked.name!r}: a study of this name exists; go on with it: {again}"
        raise InputError(msg)
    found = _checked(asked, home, options)
    name = _name(found.loaded.source.path) if asked.name is None else asked.name
    spec = specify(asked, found, name, options)
    space = space_of(found.remedies, spec, found.found.closed)
    folder = home.study(spec.study)
    write_json(folder.spec, spec.to_json())
    if os.environ.get("REMEDY_FIX"):
        sys.stderr.write("remedy: REMEDY_FIX is set and ignored: a study trains the untouched training\n")
    return _conduct(asked, Study(spec, home, folder, space, _record(home, spec)))


def _checked(asked: argparse.Namespace, home: Home, options: dict[str, Any]) -> Checked:
    from remedy.spaces.target import find

    source = find(asked.target)
    Spec(study="check", source=source, **options)
    return checked(asked.target, asked.goal, asked.seed, asked.run_timeout, home.path / "logs" / "load.log")


def totals(asked: argparse.Namespace) -> dict[str, Any]:
    """Return the numbers that a study is bounded by, as they were asked for."""
    names = ("seed", "seeds", "confirm_seeds", "fixes", "runs", "budget", "timeout", "run_timeout")
    return {name: getattr(asked, name) for name in names}


def specify(asked: argparse.Namespace, found: Checked, name: str, options: dict[str, Any]) -> Spec:
    """Join options and training into the study's specification."""
    training = found.training
    return Spec(
        study=name,
        source=found.loaded.source,
        metric=metric_name(training.metric),
        mode=training.mode or "max",
        goal=float(training.goal or 0),
        steps=found.found.setting.steps,
        only=tuple(asked.only),
        without=tuple(asked.without),
        suggested=found.found.suggested,
        preflight=tuple({**dataclasses.asdict(f), "suggests": list(f.suggests)} for f in found.found.findings),
        **options,
    )


def metric_name(metric: object) -> str:
    """Return what a metric is called: its own name, or that of the user's function."""
    return metric if isinstance(metric, str) else str(getattr(metric, "__name__", "metric"))


def _name(path: str) -> str:
    stem = "".join(letter if letter.isalnum() and letter.isascii() else "-" for letter in Path(path).stem).strip("-")
    return f"{stem[:60] or 'training'}-{uuid.uuid4().hex[:4]}"


def resume(asked: argparse.Namespace) -> int:
    """Go on with a study toward the same totals, or larger ones."""
    _check_workers(asked)
    home = Home.of(asked.home)
    folder = home.existing(asked.study)
    spec = Spec.from_json(json.loads(folder.spec.read_text()))
    changed: dict[str, Any] = {}
    for name in ("runs", "budget", "timeout", "fixes"):
        total, new = getattr(spec, name), getattr(asked, name)
        if new is not None and total is not None and new < total:
            msg = f"--{name} is {new:g}, less than the study's {total:g}; it may be the same or larger"
            raise InputError(msg)
        if new is not None:
            changed[name] = new
    spec = dataclasses.replace(spec, **changed)
    loaded = checked(
        f"{spec.source.module or spec.source.path}:{spec.source.function}",
        str(spec.goal),
        spec.seed,
        spec.run_timeout,
        folder.log,
    )
    if loaded.loaded.source.sha256 != spec.source.sha256:
        msg = f"{spec.source.path} has changed since study {spec.study!r} began; submit it as a new study"
        raise InputError(msg)
    space = space_of(loaded.remedies, spec, loaded.found.closed)
    with folder.lease():
        write_json(folder.spec, spec.to_json())
    return _conduct(asked, Study(spec, home, folder, space, _record(home, spec)))


def _where(asked: argparse.Namespace) -> str:
    """Return what commands to type next need to find the same home."""
    return "" if asked.home is None else f" --home {asked.home}"


def _check_workers(asked: argparse.Namespace) -> None:
    if asked.workers is not None and asked.workers < 0:
        msg = f"--workers is {asked.workers}; it may be 0 (one run after the other, in this process) or more"
        raise InputError(msg)
    if asked.gpus is not None and not asked.gpus >= 0:
        msg = f"--gpus is {asked.gpus:g}; it may be a share of a GPU, 0 or more"
        raise InputError(msg)


def stop(asked: argparse.Namespace) -> int:
    """Ask the controller of a study to end it."""
    folder = Home.of(asked.home).existing(asked.study)
    try:
        with folder.lease():
            running = False
    except InputError:
        running = True
        folder.stop.touch()
    if asked.json:
        sys.stdout.write(json.dumps({"study": asked.study, "stop": running}) + "\n")
    else:
        said = "will end after the runs under way" if running else "is not running: there is nothing to stop"
        sys.stdout.write(f"{asked.study} {said}\nnext: remedy report {asked.study}{_where(asked)}\n")
    return 0


def delete(asked: argparse.Namespace) -> int:
    """Delete a study's files."""
    folder = Home.of(asked.home).existing(asked.study)
    with folder.lease():
        shutil.rmtree(folder.path)
    if asked.json:
        sys.stdout.write(json.dumps({"study": asked.study, "deleted": True}) + "\n")
    else:
        sys.stdout.write(f"deleted {folder.path}; its runs in MLflow stay\n")
    return 0


def _record(home: Home, spec: Spec) -> Record:
    experiment = f"{Path(spec.source.path).stem}:{spec.source.function}"
    return Record(os.environ.get("MLFLOW_TRACKING_URI"), home.path, experiment)


def _conduct(asked: argparse.Namespace, study: Study) -> int:
    where = _where(asked)
    try:
        with (
            Interrupt() as interrupt,
            opened(study),
            apart(study.folder.log) as err,
            Progress(study.spec, err) as progress,
        ):
            study.listeners.append(progress)
            found = study.conduct(lambda: _made(asked, interrupt))
    except KeyboardInterrupt:
        sys.stderr.write(f"remedy: interrupted; go on with: remedy resume {study.spec.study}{where}\n")
        return EXIT_INTERRUPTED
    if study.record.failures:
        sys.stderr.write(f"remedy: {study.record.failures}; `remedy resume {study.spec.study}{where}` tries again\n")
    if asked.json:
        text = json.dumps(found, allow_nan=False)
    else:
        text = report_text(found, terminal=sys.stdout.isatty(), next_home=where)
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
    return int(found["exit_code"])


def _made(asked: argparse.Namespace, interrupt: Interrupt) -> Executor:
    with interrupt.allowed():
        made = executor(asked)
    return Interruptible(made, interrupt)


def executor(asked: argparse.Namespace) -> Executor:
    """Make the executor that was asked for; Ray is imported only where it is used."""
    workers = asked.workers if asked.workers is not None else len(os.sched_getaffinity(0))
    if workers == 0:
        return InProcess()
    import torch

    from remedy.workers.ray_executor import RayExecutor

    devices = torch.cuda.device_count()
    share = asked.gpus if asked.gpus is not None else min(1.0, devices / workers)
    return RayExecutor(workers, gpus_per_run=share, address=asked.address)
