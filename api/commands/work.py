"""Works on a study in this process, for `submit`, `resume`, and a job on a cluster."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from remedy.commands.loading import apart
from remedy.commands.views import where
from remedy.interrupt import EXIT_INTERRUPTED, Interrupt, Interruptible
from remedy.progress import Progress
from remedy.render import report_text
from remedy.search.conduct import Study, space_of
from remedy.search.home import Home, StudyFolder
from remedy.search.metrics import Metrics
from remedy.search.record import Record
from remedy.search.spec import Spec
from remedy.spaces.error import InfrastructureError, InputError
from remedy.spaces.remedy import Remedy
from remedy.workers.executor import Executor, InProcess


def check_workers(asked: argparse.Namespace) -> None:
    """Refuse numbers of workers and shares that cannot be.

    Raises:
        InputError: as said.
    """
    asked.address = asked.address or os.environ.get("REMEDY_ADDRESS") or None
    if asked.address and "@" in asked.address:
        may_be = "it may be http://HEAD:8265 or HOST:6379, and RAY_AUTH_TOKEN the secret"
        raise InputError(f"--address (or REMEDY_ADDRESS) holds a user or a password; {may_be}")
    if asked.workers is not None and asked.workers < 0:
        msg = f"--workers is {asked.workers}; it may be 0 (one run after the other, in this process) or more"
        raise InputError(msg)
    if asked.gpus is not None and not asked.gpus >= 0:
        msg = f"--gpus is {asked.gpus:g}; it may be a share of a GPU, 0 or more"
        raise InputError(msg)
    resources(asked)


def resources(asked: argparse.Namespace) -> dict[str, float]:
    """Return what a run takes beside a CPU and its share of a GPU.

    Raises:
        InputError: no NAME=AMOUNT.
    """
    found = {}
    for text in asked.resource or ():
        name, equals, amount = str(text).partition("=")
        try:
            found[name] = float(amount) if equals else 1.0
        except ValueError:
            found[name] = -1.0
        if not name or not 0 < found[name] < float("inf") or name in ("CPU", "GPU"):
            raise InputError(f"--resource is {text!r}; it may be NAME=AMOUNT, such as fast_disk=1 (GPUs: --gpus)")
    return found


def record_of(home: Home, folder: StudyFolder, spec: Spec) -> Record:
    """Return the study's record in MLflow."""
    experiment = ":".join(name for name in (Path(spec.source.path).stem, spec.source.function) if name)
    return Record(os.environ.get("MLFLOW_TRACKING_URI"), home.path, experiment, folder.files)


def work(asked: argparse.Namespace, home: Home, folder: StudyFolder, spec: Spec, remedies: tuple[Remedy, ...]) -> int:
    """Work on a study until it ends, print its report and return its exit code."""
    space = space_of(remedies, spec, spec.closed)
    study = Study(spec, folder, space, record_of(home, folder, spec), remote=asked.address is not None)
    if home.database is not None:
        study.patiently = home.database.patiently
    again = f"remedy resume {spec.study}{where(asked)}"
    metrics = Metrics.of(os.environ, spec, lambda: study.record.waiting)
    try:
        with Interrupt() as interrupt, apart(folder.log) as err, Progress(spec, err) as progress:
            if home.database is not None:
                home.database.waited = lambda said: progress.say(f"{said}; waiting for it")
            study.listeners += [progress, *([metrics] if metrics else [])]
            found = study.conduct(lambda: _made(asked, interrupt))
    except KeyboardInterrupt:
        sys.stderr.write(f"remedy: interrupted; go on with: {again}\n")
        return EXIT_INTERRUPTED
    except (InfrastructureError, OSError) as error:
        said = str(error) if isinstance(error, InfrastructureError) else f"{error.strerror or error}: {error.filename}"
        raise InfrastructureError(f"{said}; what was recorded stays, go on with: {again}") from None
    finally:
        if metrics:
            metrics.close()
    if study.record.failures:
        sys.stderr.write(f"remedy: {study.record.failures}; `{again}` tries again\n")
    if asked.json:
        text = json.dumps(found, allow_nan=False)
    else:
        text = report_text(found, terminal=sys.stdout.isatty(), next_home=where(asked))
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
    return int(found["exit_code"])


def _made(asked: argparse.Namespace, interrupt: Interrupt) -> Executor:
    with interrupt.allowed():
        made = executor(asked)
    return Interruptible(made, interrupt)


def executor(asked: argparse.Namespace) -> Executor:
    """Make the executor that was asked for; Ray is imported only where it is used."""
    workers, isolate = asked.workers, bool(asked.isolate)
    if workers == 0:
        return InProcess(isolate=isolate)
    from remedy.workers.ray_executor import RayExecutor

    if asked.address is not None:
        return RayExecutor(workers, asked.gpus or 0.0, asked.address, resources=resources(asked), isolate=isolate)
    import torch

    workers = workers or len(os.sched_getaffinity(0))
    share = asked.gpus if asked.gpus is not None else min(1.0, torch.cuda.device_count() / workers)
    return RayExecutor(workers, gpus_per_run=share, resources=resources(asked), isolate=isolate)
