"""`watch` and `wait`: a study that is worked on elsewhere, seen by what its controller writes down."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping
from typing import Any

from remedy.commands.views import state_of, where
from remedy.render import report_text
from remedy.search.home import Home, StudyFolder
from remedy.spaces.error import InfrastructureError
from remedy.spaces.printable import printable
from remedy.workers.ray_jobs import OVER, Jobs

_EVERY = 1.0
_PLAIN_EVERY = 10.0
_JOB_EVERY = 15.0
_WORKED_ON = ("running", "submitted")


def watch(asked: argparse.Namespace) -> int:
    """Show how a study goes until it ends, then its findings."""
    folder = Home.of(asked.home).existing(asked.study)
    return follow(folder, as_json=asked.json, home=where(asked))


def wait(asked: argparse.Namespace) -> int:
    """Wait until a study ends; the exit code is the study's."""
    folder = Home.of(asked.home).existing(asked.study)
    return follow(folder, as_json=asked.json, home=where(asked), quiet=True, limit=asked.timeout)


def follow(folder: StudyFolder, *, as_json: bool, home: str, quiet: bool = False, limit: float | None = None) -> int:
    """Follow a study to its end, print its report and return its exit code.

    Raises:
        InfrastructureError: nobody works on it, and it has not ended; or `limit` seconds are over.
    """
    shown = _Lines(folder.name, quiet=quiet)
    began = time.monotonic()
    try:
        while (state := state_of(folder, folder.report())) in _WORKED_ON:
            if limit is not None and time.monotonic() - began > limit:
                raise InfrastructureError(f"{folder.name} is still {state} after {limit:g} s")
            if state == "submitted":
                shown.ask(folder)
            shown.show(folder.progress() if state == "running" else {})
            time.sleep(_EVERY)
    except KeyboardInterrupt:
        shown.end()
        look, end = f"remedy watch {folder.name}{home}", f"remedy stop {folder.name}{home}"
        sys.stderr.write(f"remedy: {folder.name} goes on without this terminal; see it: {look}; end it: {end}\n")
        return 130
    shown.end()
    if state in ("interrupted", "failed"):
        said = folder.state().get("said") or "its controller is gone"
        raise InfrastructureError(f"{folder.name}: {said}; go on with: remedy resume {folder.name}{home}")
    found = folder.report() or {}
    text = (
        json.dumps(found, allow_nan=False)
        if as_json
        else report_text(found, terminal=sys.stdout.isatty(), next_home=home)
    )
    sys.stdout.write(text + "\n")
    return int(found["exit_code"])


class _Lines:
    """One line that changes on a terminal, a line now and then elsewhere."""

    def __init__(self, name: str, *, quiet: bool) -> None:
        self._name = name
        self._quiet = quiet
        self._tty = sys.stderr.isatty()
        self._last = -_PLAIN_EVERY
        self._asked = time.monotonic()
        self._before = ""

    def show(self, progress: Mapping[str, Any]) -> None:
        text = f"{self._name}: {_line(progress) if progress else 'waits to begin'}"
        if self._quiet or text == self._before:
            return
        if self._tty:
            sys.stderr.write(f"\r\x1b[K{text}")
        elif time.monotonic() - self._last >= _PLAIN_EVERY:
            self._last = time.monotonic()
            sys.stderr.write(text + "\n")
        self._before = text
        sys.stderr.flush()

    def end(self) -> None:
        if self._tty and not self._quiet:
            sys.stderr.write("\r\x1b[K")

    def ask(self, folder: StudyFolder) -> None:
        """Say why a study that was sent does not begin, where its job is over."""
        job = folder.job()
        if not job or time.monotonic() - self._asked < _JOB_EVERY:
            return
        self._asked = time.monotonic()
        status, message = Jobs(job["address"]).status(job["submission"])
        if status in OVER and state_of(folder, folder.report()) == "submitted":
            raise InfrastructureError(f"job {job['submission']} ended before it began: {message or status.lower()}")


def _line(progress: Mapping[str, Any]) -> str:
    outcomes = progress["outcomes"]
    parts = [
        str(progress["phase"]),
        f"{progress['runs']} runs done",
        f"{outcomes.get('converged', 0)} converged",
        f"{outcomes.get('collapsed', 0)} collapsed",
        f"{progress['fixes']} of {progress['wanted']} fixes",
        f"{progress['saved']:.0%} saved by early stopping",
        f"{len(progress['running'])} running",
        f"{progress['seconds']:.0f} s",
    ]
    return printable(", ".join(parts))
