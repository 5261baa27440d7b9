"""Progress of a study: one live block on a terminal, plain lines otherwise."""

from __future__ import annotations

import time
from collections import Counter
from types import TracebackType
from typing import IO, Self

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from remedy.search.controller import Controller
from remedy.search.ledger import Item
from remedy.search.spec import Spec
from remedy.spaces.outcome import Outcome
from remedy.spaces.printable import printable
from remedy.workers.order import WorkOrder
from remedy.workers.result import RunResult

_LATEST = 5
_PLAIN_EVERY = 10.0


class Progress:
    """Listens to a study and shows how it goes."""

    def __init__(self, spec: Spec, stream: IO[str]) -> None:
        """Begin; nothing is shown before the block is entered."""
        self._spec = spec
        self._stream = stream
        self._tty = stream.isatty()
        # What others print is on its way to a log already; a proxy for it here would outlive the block.
        self._live = (
            Live(
                console=Console(file=stream), refresh_per_second=4, transient=True,
                redirect_stdout=False, redirect_stderr=False,
            )
            if self._tty
            else None
        )  # fmt: skip
        self._latest: list[str] = []
        self._last = 0.0
        self._said = -1
        self._text = ""

    def __enter__(self) -> Self:
        """Begin to show."""
        if self._live is not None:
            self._live.start()
            self._live.update(Text(f"{self._spec.study}: starting workers"))
        else:
            self._line(f"{self._spec.study}: starting workers")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the terminal as it was."""
        if self._live is not None:
            self._live.stop()

    def say(self, text: str) -> None:
        """Say something that has no place in the block."""
        if self._live is not None:
            self._live.update(Text(text, overflow="ellipsis", no_wrap=True))
        elif text != self._text:
            self._text = text
            self._line(f"{self._spec.study}: {text}")

    def ended(self, order: WorkOrder, item: Item, result: RunResult) -> None:
        """Remember how it ended."""
        why = f": {result.verdict.symptom} at step {result.verdict.step}" if result.verdict else ""
        if result.outcome in (Outcome.FAILED, Outcome.LOST, Outcome.INAPPLICABLE):
            why = f": {result.reason[:90]}"
        self._latest = [
            *self._latest[-_LATEST + 1 :],
            printable(f"run {order.number:>3}  {item.phase:<8}  {result.outcome}{why}  [{item.combination.label}]"),
        ]

    def tick(self, controller: Controller) -> None:
        """Show the state as it is now."""
        if self._live is not None:
            self._live.update(self._block(controller))
        elif controller.agenda.ledger.runs != self._said and time.monotonic() - self._last > _PLAIN_EVERY:
            self._last, self._said = time.monotonic(), controller.agenda.ledger.runs
            self._line(f"{self._spec.study}: {', '.join(self._head(controller))}")

    def _head(self, controller: Controller) -> tuple[str, str]:
        """Return the phase and what is found so far, and what it cost: earlier sessions included."""
        agenda = controller.agenda
        results = [entry.result for entry in agenda.ledger.entries]
        steps, full = agenda.ledger.steps, sum(max(result.steps, result.steps_full) for result in results)
        count = Counter(result.outcome for result in results)
        found = sum(candidate.confirmed for candidate in agenda.candidates)
        runs = f"{len(results)} runs done, {count[Outcome.CONVERGED]} converged, {count[Outcome.COLLAPSED]} collapsed"
        saved = f"{1 - steps / full if full else 0.0:.0%} saved by early stopping"
        return (
            f"{agenda.phase}, {runs}, {found} of {self._spec.fixes} fixes",
            f"{saved}, {controller.seconds:.0f} s{self._left(controller)}",
        )

    def _left(self, controller: Controller) -> str:
        """Say how long it may go on at most, from the limit that is reached first."""
        spec, ledger = self._spec, controller.agenda.ledger
        shares = [
            ledger.runs / spec.runs if spec.runs else 0.0,
            ledger.steps / (spec.budget * spec.steps) if spec.budget else 0.0,
        ]
        left = [controller.seconds * (1 / share - 1) for share in shares if share > 0]
        left += [spec.timeout - controller.seconds] if spec.timeout is not None else []
        return f", at most {max(0.0, min(left)):.0f} s left" if left else ""

    def _block(self, controller: Controller) -> Table:
        table = Table.grid()
        found, cost = self._head(controller)
        table.add_row(Text(f"{self._spec.study}: {found}", style="bold", overflow="ellipsis", no_wrap=True))
        table.add_row(Text(f"{cost}; Ctrl-C ends it, and it can be resumed", overflow="ellipsis", no_wrap=True))
        for line in self._latest:
            table.add_row(Text(line, style="dim", overflow="ellipsis", no_wrap=True))
        for number, (order, item) in controller.running.items():
            steps, metric = controller.progress.get(number, (0, None))
            doing = f"step {steps} of {self._spec.steps}" if steps else "begins"
            value = "" if metric is None else f"  {self._spec.metric} {metric:.3f}"
            line = f"run {number:>3}  {order.phase:<8}  {doing}{value}  [{item.combination.label}]"
            table.add_row(Text(printable(line), overflow="ellipsis", no_wrap=True))
        return table

    def _line(self, text: str) -> None:
        self._stream.write(text + "\n")
        self._stream.flush()
