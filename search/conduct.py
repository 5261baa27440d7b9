"""Conducts a study from its specification to its report: joins agenda, storage, executor and record."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from remedy.search.agenda import Agenda, Reason
from remedy.search.controller import Controller, Listener
from remedy.search.home import Home, StudyFolder, write_json
from remedy.search.ledger import Item
from remedy.search.markdown import note
from remedy.search.page import plot_data, report_html
from remedy.search.record import Record
from remedy.search.report import ordered_fixes, report
from remedy.search.spec import Spec
from remedy.search.study import Trials
from remedy.spaces.fix import write_fix
from remedy.spaces.remedy import Remedy
from remedy.spaces.space import Space
from remedy.workers.executor import Executor
from remedy.workers.order import WorkOrder
from remedy.workers.result import RunResult

_EVERY = 2.0


@dataclass
class Study:
    """A study open for work in this process."""

    spec: Spec
    home: Home
    folder: StudyFolder
    space: Space
    record: Record
    listeners: list[Listener] = field(default_factory=list)

    def conduct(self, make_executor: Callable[[], Executor]) -> dict[str, Any]:
        """Work until the study ends, save and return the report.

        Raises:
            InfrastructureError: workers or stores failed; what was recorded stays, and `resume` goes on.
            KeyboardInterrupt: likewise.
        """
        agenda = Agenda(self.spec, self.space)
        trials = Trials(self.folder.journal, self.spec.study, self.space, self.spec.seed)
        before = json.loads(self.folder.report.read_text())["cost"]["seconds"] if self.folder.report.exists() else 0.0
        controller = Controller(agenda, trials, self.folder, _Nothing(), [*self.listeners], seconds_before=before)
        controller.restore()
        self.folder.stop.unlink(missing_ok=True)
        self._begin_record(controller)
        keeper = _Keeper(self)
        controller.listeners += [_Recorder(self), keeper]
        reason = Reason.STOPPED
        try:
            if controller.limit() is None:
                controller.executor = make_executor()
            reason = controller.run()
        finally:
            controller.executor.close()
            self._finish_record(self.save(controller, reason), agenda)
        # The record knows its run's id only now, where the store was away before.
        return self.save(controller, reason)

    def save(self, controller: Controller, reason: Reason) -> dict[str, Any]:
        """Write the fix files and the report as they stand now."""
        mlflow = {
            "tracking_uri": self.record.tracking_uri,
            "experiment": self.record.experiment,
            "parent_run_id": self.record.parent_run_id,
        }
        found = report(controller.agenda, reason, controller.seconds, self.folder, mlflow)
        for place, (fix, candidate) in enumerate(zip(found["fixes"], ordered_fixes(controller.agenda), strict=True), 1):
            keys = ("minimal", "converged", "runs", "seeds", "interval", "metric_mean", "ablation")
            evidence = {
                "study": self.spec.study,
                "training": self.spec.source.name,
                "goal": found["goal"],
                "data_seed": self.spec.data_seed,
            }
            write_fix(self.folder.fix(place), candidate.combination.params, {**evidence, **{k: fix[k] for k in keys}})
        write_json(self.folder.report, found)
        return found

    def _begin_record(self, controller: Controller) -> None:
        spec = self.spec
        params = {
            "training": spec.source.name,
            "goal": f"{spec.metric} {'>=' if spec.mode == 'max' else '<='} {spec.goal:g}",
            "seed": str(spec.seed),
            "runs": str(spec.runs),
            "budget": str(spec.budget),
            "steps": str(spec.steps),
            "source_sha256": spec.source.sha256,
            "git_commit": commit_of(Path(spec.source.path).parent),
            "space": json.dumps(self.space.describe()),
            **versions(),
        }
        parent = None
        with contextlib.suppress(OSError, ValueError, KeyError):
            parent = json.loads(self.folder.report.read_text())["mlflow"]["parent_run_id"]
        self.record.begin(spec.study, params, {"remedy.study": spec.study}, Path(spec.source.path), parent)
        for entry in controller.agenda.ledger.entries:
            order = _order(spec, entry.item, entry.result.number)
            self.record.run(order, entry.result, map(str, self.space.slots), entry.item.fix or None)

    def _finish_record(self, found: Mapping[str, Any], agenda: Agenda) -> None:
        page = self.folder.path / "report.html"
        page.write_text(report_html(found, self.folder), encoding="utf-8")
        tables = []
        for name, table in plot_data(found, self.folder).items():
            tables.append(self.folder.path / "plots" / f"{name}.csv")
            tables[-1].parent.mkdir(exist_ok=True)
            tables[-1].write_text(table, encoding="utf-8")
        fixes = [self.folder.fix(place) for place in range(1, len(ordered_fixes(agenda)) + 1)]
        self.record.finish(dict(found), note(dict(found)), [self.folder.report, page, *tables, *fixes])
        self.record.close()


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
    """Keeps the report on disk up to date while the study goes on, so that `report` and `show` see it."""

    study: Study
    _last: float = 0.0
    _entries: int = -1

    def ended(self, order: WorkOrder, item: Item, result: RunResult) -> None:
        """Saved by the next tick."""

    def tick(self, controller: Controller) -> None:
        entries = len(controller.agenda.ledger.entries)
        if entries != self._entries and time.monotonic() - self._last > _EVERY:
            self._last, self._entries = time.monotonic(), entries
            self.study.save(controller, Reason.STOPPED)


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


@contextlib.contextmanager
def opened(study: Study) -> Iterator[Study]:
    """Hold the study's lease while it is worked on."""
    with study.folder.lease():
        yield study
