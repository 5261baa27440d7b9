"""Conducts a study from its specification to its report: joins agenda, storage, executor and record."""

from __future__ import annotations

import contextlib
import json
import math
import os
import socket
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from remedy.search.agenda import Agenda, Reason
from remedy.search.controller import Controller, Listener
from remedy.search.drawing import drawings
from remedy.search.findings import Findings
from remedy.search.fix_files import write
from remedy.search.home import StudyFolder
from remedy.search.ledger import Item
from remedy.search.note import NOTE, note
from remedy.search.page import report_html
from remedy.search.plots.svg import alone
from remedy.search.record import Record
from remedy.search.report import ordered_fixes, report
from remedy.search.spec import Spec
from remedy.search.study import Patiently, Trials
from remedy.search.tables import tables
from remedy.spaces.error import InfrastructureError
from remedy.spaces.remedy import Remedy
from remedy.spaces.space import Space
from remedy.workers.detectors.choice import said
from remedy.workers.executor import Executor
from remedy.workers.order import WorkOrder
from remedy.workers.result import RunResult

_EVERY = 2.0


@dataclass
class Study:
    """A study to be worked on in this process. `remote` says that its workers do not share this machine's files."""

    spec: Spec
    folder: StudyFolder
    space: Space
    record: Record
    listeners: list[Listener] = field(default_factory=list)
    patiently: Patiently = lambda work: work()
    remote: bool = False

    def conduct(self, make_executor: Callable[[], Executor]) -> dict[str, Any]:
        """Work until the study ends, save and return the report.

        Raises:
            InputError: another process works on it.
            InfrastructureError: workers or stores failed; what was recorded stays, and `resume` goes on.
            KeyboardInterrupt: likewise.
        """
        with self.folder.lease(), _told(self.folder):
            return self._conduct(make_executor)

    def _conduct(self, make_executor: Callable[[], Executor]) -> dict[str, Any]:
        agenda = Agenda(self.spec, self.space)
        trials = Trials(self.folder.storage, self.spec.study, self.space, self.spec.seed, self.patiently)
        before = self.folder.report()
        seconds = before["cost"]["seconds"] if before else 0.0
        controller = Controller(agenda, trials, self.folder, _Nothing(), [*self.listeners], seconds_before=seconds)
        controller.remote = self.remote
        controller.restore()
        self.folder.clear_stop()
        self._begin_record(controller, before)
        controller.listeners += [_Recorder(self), _Keeper(self)]
        reason, importance = Reason.STOPPED, None
        try:
            if controller.limit() is None:
                controller.executor = make_executor()
            reason = controller.run()
            importance = trials.importance()  # not where it was interrupted: it takes a model of every run
        finally:
            controller.executor.close()
            self._finish_record(self.save(controller, reason, importance), agenda)
        # The record knows its run's id only now, where the store was away before.
        return self.save(controller, reason, importance)

    def save(
        self, controller: Controller, reason: Reason, importance: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Write the fix files and the report as they stand now."""
        mlflow = {
            "tracking_uri": self.record.tracking_uri,
            "experiment": self.record.experiment,
            "parent_run_id": self.record.parent_run_id,
        }
        found = report(controller.agenda, reason, controller.seconds, self.folder, mlflow, importance)
        write(found, controller.agenda, self.folder)
        self.folder.save_report(found)
        return found

    def _begin_record(self, controller: Controller, before: Mapping[str, Any] | None) -> None:
        spec = self.spec
        params = {
            "training": spec.source.name,
            "goal": f"{spec.metric} {'>=' if spec.mode == 'max' else '<='} {spec.goal:g}",
            "seed": str(spec.seed),
            "runs": str(spec.runs),
            "budget": str(spec.budget),
            "steps": str(spec.steps),
            "audit": f"{spec.audit:g}",
            "detectors": said(spec.detectors),
            "source_sha256": spec.source.sha256,
            "git_commit": spec.commit,
            "space": json.dumps(self.space.describe()),
            **versions(),
        }
        parent = before["mlflow"]["parent_run_id"] if before else None
        self.record.begin(spec.study, params, {"remedy.study": spec.study}, Path(spec.source.path), parent)
        for entry in controller.agenda.ledger.entries:
            order = _order(spec, entry.item, entry.result.number)
            self.record.run(order, entry.result, map(str, self.space.slots), entry.item.fix or None)

    def _finish_record(self, found: Mapping[str, Any], agenda: Agenda) -> None:
        with _place_for_artifacts(self.folder) as place:
            findings = Findings.of(found, self.folder)
            texts = {"report.json": json.dumps(found, indent=1), "report.html": report_html(findings)}
            texts |= {f"plots/{name}.csv": table for name, table in tables(findings).items()}
            texts |= {f"plots/{name}.svg": alone(drawing.svg) for name, drawing in drawings(findings).items()}
            for number in range(1, len(ordered_fixes(agenda)) + 1):
                texts[f"fix-{number}.yaml"] = self.folder.fix(number) or ""
                texts[f"fix-{number}.py"] = self.folder.python(number) or ""
            for name, text in texts.items():
                (place / name).parent.mkdir(parents=True, exist_ok=True)
                (place / name).write_text(text, encoding="utf-8")
            paths = {place / name.split("/", 1)[0]: None for name in texts}
            self.record.finish(dict(found), note(dict(found), NOTE), paths)
            self.record.close()


@contextlib.contextmanager
def _place_for_artifacts(folder: StudyFolder) -> Iterator[Path]:
    """Yield where to put what MLflow gets: among the study's files where those are a folder's."""
    if folder.files.folder is not None:
        yield folder.files.folder
        return
    with tempfile.TemporaryDirectory(prefix="remedy-") as place:
        yield Path(place)


@contextlib.contextmanager
def _told(folder: StudyFolder) -> Iterator[None]:
    """Write down who works on a study, and how that ended."""
    state = {"host": socket.gethostname(), "pid": os.getpid(), "began": _now()}
    folder.save_state({**state, "state": "running"})
    ended, said = "interrupted", ""
    try:
        yield
        ended = "ended"
    except InfrastructureError as error:
        ended, said = "failed", str(error)
        raise
    finally:
        with contextlib.suppress(OSError, InfrastructureError):
            folder.save_state({**state, "state": ended, "said": said, "ended": _now()})


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _order(spec: Spec, item: Item, number: int) -> WorkOrder:
    return WorkOrder(number, spec.source, item.combination.params, item.seed, spec.data_seed, item.phase, spec.goal)


@dataclass
class _Recorder:
    """Hands every finished run to the record."""

    study: Study

    def ended(self, order: WorkOrder, item: Item, result: RunResult) -> None:
        self.study.record.run(order, result, map(str, self.study.space.slots), item.fix or None)

    def tick(self, controller: Controller) -> None:
        """Nothing to do between runs."""


@dataclass
class _Keeper:
    """Keeps report and progress up to date while the study goes on, so that everybody who looks sees them."""

    study: Study
    _last: float = 0.0
    _entries: int = -1

    def ended(self, order: WorkOrder, item: Item, result: RunResult) -> None:
        """Saved by the next tick."""

    def tick(self, controller: Controller) -> None:
        if time.monotonic() - self._last < _EVERY:
            return
        self._last = time.monotonic()
        self.study.folder.save_progress(progress(controller))
        entries = len(controller.agenda.ledger.entries)
        if entries != self._entries:
            self._entries = entries
            self.study.save(controller, Reason.STOPPED)


def progress(controller: Controller) -> dict[str, Any]:
    """Return how far a study is, for those who look from elsewhere."""
    agenda = controller.agenda
    outcomes = Counter(str(entry.result.outcome) for entry in agenda.ledger.entries)
    steps, full = agenda.ledger.steps, sum(max(e.result.steps, e.result.steps_full) for e in agenda.ledger.entries)
    running = [
        {
            "run": number,
            "phase": str(order.phase),
            "remedies": item.combination.label,
            "step": controller.progress.get(number, (0, None))[0],
            "metric": finite(controller.progress.get(number, (0, None))[1]),
        }
        for number, (order, item) in controller.running.items()
    ]
    return {
        "phase": str(agenda.phase),
        "runs": len(agenda.ledger.entries),
        "outcomes": dict(outcomes),
        "fixes": sum(candidate.confirmed for candidate in agenda.candidates),
        "wanted": agenda.spec.fixes,
        "saved": 1 - steps / full if full else 0.0,
        "seconds": round(controller.seconds, 1),
        "running": running,
    }


def finite(value: float | None) -> float | None:
    """Return a number that JSON can hold."""
    return value if value is not None and math.isfinite(value) else None


class _Nothing:
    """Stands for an executor before there is one: a finished study that is resumed never needs it."""

    capacity = 0

    def submit(self, order: WorkOrder) -> None:
        raise AssertionError(order)

    def wait(self, timeout: float) -> list[Any]:  # noqa: ARG002
        return []

    def cancel(self, number: int) -> None:
        raise AssertionError(number)

    def close(self) -> None:
        """Nothing to close."""


def versions() -> dict[str, str]:
    """Return the versions of what decides a result."""
    from importlib.metadata import version  # noqa: PLC0415

    return {f"version.{name}": version(name) for name in ("torch", "optuna", "ray", "mlflow", "numpy")}


def commit_of(folder: Path) -> str:
    """Return the git commit that a folder is at, with `+` where it has changes; `none` outside of git."""
    told = []
    for asked in (["rev-parse", "HEAD"], ["status", "--porcelain", "."]):
        try:
            done = subprocess.run(["git", *asked], cwd=folder, capture_output=True, text=True, timeout=10, check=True)  # noqa: S607
        except (OSError, subprocess.SubprocessError):
            return "none"
        told.append(done.stdout.strip())
    return told[0] + ("+" if told[1] else "")


def space_of(catalogue: Iterable[Remedy], spec: Spec, closed: Iterable[str]) -> Space:
    """Return the study's space: the catalogue less what was left out and what the training's own data closes.

    Raises:
        InputError: an unknown name, or nothing left.
    """
    shut = set(closed)
    whole = Space.of(catalogue, spec.only, spec.without)
    return Space.of((remedy for remedy in whole.remedies if str(remedy.slot) not in shut), (), ())
