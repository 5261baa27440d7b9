"""The controller: asks the agenda, feeds the executor, tells the storage and the record."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from remedy.search.agenda import Agenda, Reason
from remedy.search.audit import drawn
from remedy.search.home import StudyFolder, scratch
from remedy.search.ledger import Item
from remedy.search.study import Trials
from remedy.spaces.combination import Combination
from remedy.spaces.error import InfrastructureError
from remedy.spaces.outcome import Outcome
from remedy.workers.executor import Executor, Finished, Progressed
from remedy.workers.order import WorkOrder
from remedy.workers.result import RunResult

_WAIT = 0.5
_RETRIES = 2
_RETRIES_ALONE = 1
_LOST_IN_A_ROW = 6
_GRACE = 30.0


class Listener(Protocol):
    """Who wants to know how the study goes: the terminal, the record."""

    def ended(self, order: WorkOrder, item: Item, result: RunResult) -> None:
        """A run ended."""

    def tick(self, controller: Controller) -> None:
        """Something may have changed; called a few times a second."""


@dataclass
class Controller:
    """One study under way, in one process.

    `run()` returns why it ended. The storage (trials and saved results) is the truth: a controller made anew on the
    same folder goes on where the last one was.
    """

    agenda: Agenda
    trials: Trials
    folder: StudyFolder
    executor: Executor
    listeners: list[Listener]
    clock: Callable[[], float] = time.monotonic
    running: dict[int, tuple[WorkOrder, Item]] = field(default_factory=dict)
    progress: dict[int, tuple[int, float | None]] = field(default_factory=dict)
    seconds_before: float = 0.0
    remote: bool = False
    """Whether workers are on other machines: they send what was printed, and keep checkpoints of their own."""
    _lost_in_a_row: int = 0
    _given_up: list[RunResult] = field(default_factory=list)
    _proposed: tuple[int, Combination] | None = None
    _began: float | None = None

    @property
    def seconds(self) -> float:
        """Wall time of the study, earlier sessions included."""
        return self.seconds_before + (0.0 if self._began is None else self.clock() - self._began)

    def restore(self) -> int:
        """Take in what earlier sessions recorded; return how many runs that was."""
        results = self.folder.runs()
        done, cut = self.trials.restore(results.__contains__)
        for number, item in done:
            result = results[number]
            self.agenda.tell(item, result)
            if self.trials.is_open(number):
                self._close_trial(number, result)
        for item in cut:
            self.agenda.cut_off(item)
        self.agenda.asked = self.trials.asked
        return len(done)

    def run(self) -> Reason:
        """Work until the study has its answer, or may not go on.

        Raises:
            InfrastructureError: runs are lost one after the other.
        """
        self._began = self.clock()
        while True:
            reason = self.limit()
            while reason is None and len(self.running) < self.executor.capacity and self._launch():
                reason = self.limit()
            if not self.running:
                return reason or self.agenda.ended or Reason.EXHAUSTED
            # Who asks a study to stop lets the runs under way end; every other reason has no more use for them.
            if reason is not None and reason is not Reason.STOPPED:
                # Confirming runs that would decide a fix are not waited for: the totals asked for are reached.
                self._drain()
                return reason
            self._take(_WAIT)

    def limit(self) -> Reason | None:
        """Return why no more runs may be started, or None."""
        spec, ledger = self.agenda.spec, self.agenda.ledger
        if self.agenda.ended is not None:
            return self.agenda.ended
        if spec.timeout is not None and self.seconds >= spec.timeout:
            return Reason.TIMEOUT
        if self.folder.asks_stop():
            return Reason.STOPPED
        if spec.runs is not None and ledger.runs + len(self.running) >= spec.runs:
            return Reason.BUDGET if not self.running else None
        if spec.budget is not None and ledger.steps >= spec.budget * spec.steps:
            return Reason.BUDGET
        return None

    def _launch(self) -> bool:
        spec = self.agenda.spec
        if any(self._alone(item) for _, item in self.running.values()):
            return False
        if spec.runs is not None and self.agenda.ledger.runs + len(self.running) >= spec.runs:
            return False
        item = self.agenda.next([item for _, item in self.running.values()], self._ask)
        proposed, self._proposed = self._proposed, None
        if item is not None and self.running and self._alone(item):
            item = None
        if proposed is not None and (item is None or item.combination != proposed[1]):
            self.trials.discard(proposed[0])
            proposed = None
        if item is None:
            return False
        if proposed is not None:
            number = proposed[0]
            self.trials.assign(number, item)
        else:
            number = self.trials.open(item)
        order = WorkOrder(
            number=number,
            source=spec.source,
            params=item.combination.params,
            seed=item.seed,
            data_seed=spec.data_seed,
            phase=item.phase,
            goal=spec.goal,
            timeout=spec.run_timeout,
            log="" if self.remote else str(self.folder.run_log(number)),
            returns_log=self.remote,
            checkpoint=str(self._checkpoint(item)),
            detectors=spec.detectors,
            audited=drawn(spec, item),
        )
        what = {"phase": item.phase, "seed": item.seed, "fix": item.fix, "params": item.combination.params}
        self.folder.note_item(number, what)
        self.running[number] = (order, item)
        self.executor.submit(order)
        return True

    def _checkpoint(self, item: Item) -> Path:
        if not self.remote:
            return self.folder.checkpoint(item.combination.key, item.seed)
        return scratch(self.folder.name) / f"{item.combination.key}-{item.seed}.pt"

    def _alone(self, item: Item) -> bool:
        """Whether a run once ended for want of memory: it is tried again with nothing beside it."""
        return self.agenda.ledger.starved(item.combination, item.seed)

    def _ask(self) -> Combination | None:
        if self._proposed is not None:
            self.trials.discard(self._proposed[0])
        self._proposed = self.trials.propose()
        return self._proposed[1]

    def _take(self, timeout: float) -> bool:
        """Take in what happened; return whether anything did."""
        events = self.executor.wait(timeout)
        for event in events:
            if isinstance(event, Progressed):
                self.progress[event.number] = (event.steps, event.metric)
            elif isinstance(event, Finished):
                self._finish(event.result)
        for listener in self.listeners:
            listener.tick(self)
        return bool(events)

    def _finish(self, result: RunResult) -> None:
        order, item = self.running.pop(result.number)
        self.progress.pop(result.number, None)
        if result.outcome is Outcome.LOST:
            result = self._lost(item, result)
        else:
            self._lost_in_a_row = 0
            self._given_up.clear()
        if result.outcome is not Outcome.LOST:
            with contextlib.suppress(OSError):
                self._checkpoint(item).unlink()
        if result.log:
            self.folder.save_run_log(result.number, result.log)
            result = replace(result, log="")
        # Results first, then the trial: what is cut off between the two is found again by `restore`.
        self.folder.save_run(result)
        self.agenda.tell(item, result)
        self._close_trial(result.number, result)
        for listener in self.listeners:
            listener.ended(order, item, result)
        if self._lost_in_a_row >= _LOST_IN_A_ROW:
            # The cluster is at fault, not what was tried: when the study goes on, nothing of this counts as a failure.
            for lost in self._given_up:
                self.folder.save_run(lost)
            msg = f"{self._lost_in_a_row} runs were lost one after the other; the last: {result.reason}"
            raise InfrastructureError(msg)

    def _lost(self, item: Item, result: RunResult) -> RunResult:
        self._lost_in_a_row += 1
        most = _RETRIES_ALONE if result.starved else _RETRIES
        lost = self.agenda.ledger.lost(item.combination, item.seed)
        if lost >= most:
            self._given_up.append(result)
            return replace(result, outcome=Outcome.FAILED, reason=f"lost {lost + 1} times: {result.reason}")
        return result

    def _close_trial(self, number: int, result: RunResult) -> None:
        given_up = any(lost.number == number for lost in self._given_up)
        nothing = given_up or result.outcome in (Outcome.LOST, Outcome.STOPPED)
        value = None if nothing else self.agenda.value(result)
        self.trials.tell(number, value, str(result.outcome))

    def _drain(self) -> None:
        """End what still runs, and take its results."""
        for number in self.running:
            self.executor.cancel(number)
        give_up = self.clock() + _GRACE
        while self.running and self.clock() < give_up:
            self._take(_WAIT)
        for number in list(self.running):
            steps, _ = self.progress.get(number, (0, None))
            self._finish(
                RunResult(number, Outcome.STOPPED, f"did not end within {_GRACE:g} s of the study", steps=steps)
            )
