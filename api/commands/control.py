"""`stop` and `delete`: what ends studies."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import sys
import time
from pathlib import Path

from remedy.commands.views import where
from remedy.search.home import Home, StudyFolder
from remedy.spaces.error import InputError

_GRACE = 30.0


def stop(asked: argparse.Namespace) -> int:
    """Ask the controller of a study to end it, or end it."""
    folder = Home.of(asked.home).existing(asked.study)
    working = folder.held()
    ended = _end(folder) if asked.now else False
    if working and not ended:
        folder.ask_stop()
    if asked.json:
        sys.stdout.write(json.dumps({"study": asked.study, "stop": working or ended, "ended": ended}) + "\n")
        return 0
    if ended:
        said, after = "was ended; what its runs under way came to is lost, the others are kept", "resume"
    elif working:
        said, after = "will end after the runs under way", "report"
    else:
        said, after = "is not running: there is nothing to stop", "report"
    sys.stdout.write(f"{asked.study} {said}\nnext: remedy {after} {asked.study}{where(asked)}\n")
    return 0


def _end(folder: StudyFolder) -> bool:
    """End the process that works on a study, wherever it is; return whether there was one."""
    job = folder.job()
    if job:
        from remedy.workers.ray_jobs import OVER, Jobs

        jobs = Jobs(job["address"])
        if jobs.status(job["submission"])[0] in ("", *OVER):
            return False
        jobs.stop(job["submission"])
        return _over(folder, _GRACE)
    if not folder.held():
        return False
    state = folder.state()
    if state["host"] != socket.gethostname():
        raise InputError(f"study {folder.name!r} is worked on by process {state['pid']} of {state['host']}; ask there")
    pid = int(state["pid"])
    if pid <= 1 or not _has_open(pid, folder):
        raise InputError(f"study {folder.name!r} names process {pid}, and another one works on it; end that one")
    for kind in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, kind)
        if _over(folder, _GRACE):
            break
    return True


def _has_open(pid: int, folder: StudyFolder) -> bool:
    """Whether it is this process that holds the study; of a study in a database that is not to be seen."""
    if folder.files.folder is None:
        return True
    lease = os.path.realpath(folder.files.folder / "lease")
    with contextlib.suppress(OSError):
        return any(os.path.realpath(handle) == lease for handle in Path(f"/proc/{pid}/fd").iterdir())
    return False


def _over(folder: StudyFolder, patience: float) -> bool:
    until = time.monotonic() + patience
    while folder.held() and time.monotonic() < until:
        time.sleep(0.2)
    return not folder.held()


def delete(asked: argparse.Namespace) -> int:
    """Delete all that is kept of a study, but for its record in MLflow."""
    from remedy.search.study import forget

    home = Home.of(asked.home)
    folder = home.existing(asked.study)
    with folder.lease():
        if home.database is not None:
            forget(folder.storage, folder.name)
        folder.files.remove_all()
    shutil.rmtree(folder.scratch, ignore_errors=True)
    if asked.json:
        sys.stdout.write(json.dumps({"study": asked.study, "deleted": True}) + "\n")
    else:
        sys.stdout.write(f"deleted {folder.files.where}; its runs in MLflow stay\n")
    return 0
