"""Studies on a Ray cluster: they are sent there as a job, and followed by what their controller writes down."""

from __future__ import annotations

import argparse
import dataclasses
import os
import shlex
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from remedy.commands.following import follow
from remedy.commands.loading import imported
from remedy.commands.views import where
from remedy.commands.work import resources, work
from remedy.search.database import PATIENCE
from remedy.search.home import Home, StudyFolder
from remedy.search.parcel import PARCEL, pack, unpack
from remedy.search.spec import Spec
from remedy.spaces.error import InfrastructureError, InputError
from remedy.spaces.target import Source, found_again
from remedy.workers.ray_jobs import OVER, Jobs
from remedy.workers.run import catalogue_of

_ENTRY = '"${REMEDY_PYTHON:-python}" -P -m remedy conduct %s'
"""Run by a shell on the cluster's head. -P: a file of the user's may be called as a package that we import."""
_BEGIN_SECONDS = 300.0


def is_cluster(address: str | None) -> bool:
    """Whether a study is sent there, and not worked on here with the workers of a cluster."""
    return address is not None and address.startswith(("http://", "https://"))


def send(asked: argparse.Namespace, folder: StudyFolder, spec: Spec, *, again: bool = False) -> int:
    """Write the study down, send it to the cluster, and follow it."""
    jobs = Jobs(asked.address)
    before = folder.job()
    if again:
        _refuse_working(folder, before, jobs)
        parcel = folder.files.read(PARCEL) or ""
    else:
        root = Path.cwd() if spec.source.module else Path(spec.source.path).parent
        parcel = pack(root)
        # A script is run in the folder that was sent, wherever that lies.
        script = spec.source.script and dataclasses.replace(spec.source.script, cwd="")
        beside = tuple(_below(root, own) for own in spec.source.beside)
        source = dataclasses.replace(_below(root, spec.source), script=script, beside=beside)
        spec = dataclasses.replace(spec, source=source)
        folder.files.write(PARCEL, parcel)
    session = int(before.get("session", 0)) + 1
    job = {
        "address": asked.address,
        "submission": spec.study if session == 1 else f"{spec.study}-{session}",
        "session": session,
        "workers": asked.workers,
        "gpus": asked.gpus,
        "resources": resources(asked) or before.get("resources", {}),
        "isolate": bool(asked.isolate or before.get("isolate")),
    }
    job |= {name: before[name] for name in ("workers", "gpus") if again and job[name] is None and name in before}
    # The job first, then what makes the study exist; and both before anything is started.
    folder.save_job(job)
    folder.save_spec(spec.to_json())
    folder.clear_stop()
    with tempfile.TemporaryDirectory(prefix="remedy-") as place:
        unpack(parcel, Path(place))
        jobs.submit(job["submission"], _ENTRY % shlex.quote(spec.study), Path(place), {"REMEDY_JOB": job["submission"]})
    _begun(jobs, job["submission"], folder)
    if asked.detach:
        sys.stdout.write(_detached(spec.study, where(asked), json=asked.json))
        return 0
    return follow(folder, as_json=asked.json, home=where(asked))


def _below(root: Path, source: Source) -> Source:
    """Return a source named from the folder that is sent.

    Raises:
        InputError: it does not lie in there.
    """
    path = os.path.relpath(source.path, root)
    if path.startswith(os.pardir):
        raise InputError(f"{source.path} lies outside of {root}, the folder that is sent to the cluster; put it there")
    return dataclasses.replace(source, path=path)


def _detached(study: str, home: str, *, json: bool) -> str:
    if json:
        return f'{{"study": "{study}", "detached": true}}\n'
    return f"{study} was sent\nnext: remedy watch {study}{home}\n      remedy wait {study}{home}\n"


def _refuse_working(folder: StudyFolder, job: dict[str, Any], jobs: Jobs) -> None:
    status, _ = jobs.status(str(job.get("submission", "")))
    if folder.held() or (status and status not in OVER):
        raise InputError(f"study {folder.name!r} is being worked on by another process; wait for it, or stop it")


def _begun(jobs: Jobs, submission: str, folder: StudyFolder) -> None:
    """Wait until the job's controller works on the study, or say why it does not."""
    until = time.monotonic() + _BEGIN_SECONDS
    before = folder.state()
    while time.monotonic() < until:
        status, message = jobs.status(submission)
        if folder.held() or folder.state() != before or status == "SUCCEEDED":
            return
        if status in OVER:
            last = jobs.logs(submission).strip().splitlines()
            said = next((line for line in reversed(last) if line.startswith("remedy: ")), last[-1] if last else message)
            raise InfrastructureError(f"job {submission} ended before it began: {said.removeprefix('remedy: ')}")
        time.sleep(0.5)
    # The cluster is full, or grows: the study is in its queue.
    sys.stderr.write(f"remedy: job {submission} waits on the cluster ({jobs.status(submission)[0].lower()})\n")


def conduct(asked: argparse.Namespace) -> int:
    """Work on a study that was sent to the cluster which this machine is the head of."""
    if not os.environ.get("REMEDY_STORAGE"):
        raise InfrastructureError("the cluster's head has no REMEDY_STORAGE; it is set where the head is started")
    home = Home.of(None, PATIENCE)
    folder = home.existing(asked.study)
    spec = Spec.from_json(folder.spec())
    job = folder.job()
    asked.address, asked.workers, asked.gpus = "auto", job.get("workers"), job.get("gpus")
    asked.resource = [f"{name}={amount}" for name, amount in job.get("resources", {}).items()]
    asked.isolate = job.get("isolate", False)
    asked.json, asked.home = True, None
    source = found_again(spec.source)
    for now, before in zip((source, *source.beside), (spec.source, *spec.source.beside), strict=True):
        if now.sha256 != before.sha256:
            raise InputError(f"{before.path} is not what study {spec.study!r} was submitted with")
    loaded = imported(spec, folder.log)
    return work(asked, home, folder, spec, tuple(catalogue_of(loaded).values()))
