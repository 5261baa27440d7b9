"""What a night needs of this machine: the user's code, workers, records, lines, and a signal that ends it in order."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from remedy.commands.loading import apart, imported
from remedy.commands.nightly.look import look
from remedy.commands.views import where
from remedy.commands.work import executor, record_of
from remedy.interrupt import EXIT_INTERRUPTED, Interrupt, Interruptible
from remedy.search.conduct import Study, space_of
from remedy.search.controller import Controller
from remedy.search.home import Home, StudyFolder, scratch
from remedy.search.ledger import Item
from remedy.search.metrics import Metrics
from remedy.search.nightly.book import NightBook
from remedy.search.nightly.night import Night
from remedy.search.nightly.plan import Looked
from remedy.search.nightly.pool import NightPool
from remedy.search.nightly.sweep import Entry, Sweep
from remedy.search.spec import Spec
from remedy.spaces.catalogue import REMEDIES
from remedy.spaces.error import InfrastructureError, InputError, TimeLimit
from remedy.spaces.printable import printable
from remedy.spaces.space import Space
from remedy.workers.executor import Executor
from remedy.workers.order import WorkOrder
from remedy.workers.result import RunResult
from remedy.workers.run import catalogue_of

_PLAIN_EVERY = 15.0


@dataclass
class _Lines:
    """Prints lines for people, past what the user's code prints; for a study of the night one now and then."""

    stream: IO[str]
    name: str = ""
    _last: float = field(default_factory=time.monotonic)

    def line(self, text: str) -> None:
        """Print a line."""
        self.stream.write(printable(text) + "\n")
        self.stream.flush()

    def ended(self, order: WorkOrder, item: Item, result: RunResult) -> None:
        """Said by the next tick."""

    def tick(self, controller: Controller) -> None:
        if time.monotonic() - self._last < _PLAIN_EVERY:
            return
        self._last = time.monotonic()
        agenda = controller.agenda
        fixes = sum(candidate.confirmed for candidate in agenda.candidates)
        self.line(f"{self.name}: {agenda.phase}, {agenda.ledger.runs} runs done, {fixes} of {agenda.spec.fixes} fixes")


@dataclass
class _Workplace:
    """What a night is given of this machine."""

    asked: argparse.Namespace
    home: Home
    sweep: Sweep
    lines: _Lines
    interrupt: Interrupt
    log: Path
    _metrics: Metrics | None = None

    def study(self, folder: StudyFolder, spec: Spec, space: Space) -> Study:
        """Make a study with its record, its lines and its metrics."""
        self.close()
        study = Study(spec, folder, space, record_of(self.home, folder, spec), remote=remote(self.asked))
        if self.home.database is not None:
            study.patiently = self.home.database.patiently
        self._metrics = Metrics.of(os.environ, spec, lambda: study.record.waiting)
        study.listeners += [_Lines(self.lines.stream, spec.study), *([self._metrics] if self._metrics else [])]
        return study

    def close(self) -> None:
        """Serve no more metrics."""
        if self._metrics is not None:
            self._metrics.close()

    def look(self, entry: Entry) -> Looked:
        """Load and check a training, elsewhere; a signal may interrupt that."""
        with self.interrupt.allowed():
            return look(entry, self.sweep, self.log.with_name(f"nightly-{self.sweep.name}-{entry.name}.log"))

    def space(self, entry: Entry, spec: Spec) -> Space:
        """Return what is searched; the training is only imported here where it has remedies of its own."""
        ours = {remedy.name: remedy for remedy in REMEDIES}
        if all(name in ours for mine in spec.space.values() for name in mine):
            return space_of(ours.values(), spec, spec.closed)
        try:
            loaded = imported(spec, self.log)
        except TimeLimit as error:
            raise InputError(f"{entry.name}: {error}") from None
        return space_of(catalogue_of(loaded).values(), spec, spec.closed)

    def executor(self) -> Executor:
        """Make the executor of the night."""
        with self.interrupt.allowed():
            made = executor(self.asked)
        return Interruptible(made, self.interrupt)


def remote(asked: argparse.Namespace) -> bool:
    """Whether runs are made by workers that may be on other machines."""
    return asked.address is not None and asked.workers != 0


def work_night(asked: argparse.Namespace, home: Home, book: NightBook, sweep: Sweep, night: str) -> int:
    """Work until the night has ended; return 0, or 130 where it was interrupted.

    Raises:
        InfrastructureError: workers or stores failed.
    """
    again = f"remedy nightly run {shlex.quote(asked.sweep)} --night {night}{where(asked)}"
    log = home.path / "logs" / f"nightly-{sweep.name}.log"
    place = (book.files.folder or scratch(f"sweep-{sweep.name}")) / "scratch"
    workplace = None
    try:
        with Interrupt() as interrupt, apart(log) as err:
            lines = _Lines(err)
            count = len(sweep.trainings)
            lines.line(f"night of {night}: {count} training{'s' * (count != 1)}; if it is cut off, go on with: {again}")
            if home.database is not None:
                home.database.waited = lambda said: lines.line(f"{said}; waiting for it")
            workplace = _Workplace(asked, home, sweep, lines, interrupt, log)
            made = Night(
                sweep, night, book, home, place, NightPool(workplace.executor), workplace.look, workplace.space,
                workplace.study, lines.line, remote(asked),
            )  # fmt: skip
            if home.database is not None:
                made.patiently = home.database.patiently
            made.run()
    except KeyboardInterrupt:
        sys.stderr.write(f"remedy: interrupted; go on with: {again}\n")
        return EXIT_INTERRUPTED
    except (InfrastructureError, OSError) as error:
        said = str(error) if isinstance(error, InfrastructureError) else f"{error.strerror or error}: {error.filename}"
        raise InfrastructureError(f"{said}; what was recorded stays, go on with: {again}") from None
    finally:
        if workplace is not None:
            workplace.close()
    return 0
