"""Runs the checks of many trainings through one executor: everybody's baseline first."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from remedy.search.audit import drawn
from remedy.search.ledger import Item
from remedy.search.nightly.check import BEST_FIX, NightCheck
from remedy.spaces.error import InfrastructureError
from remedy.spaces.outcome import Outcome
from remedy.workers.executor import Executor, Finished
from remedy.workers.order import WorkOrder
from remedy.workers.result import RunResult

_WAIT = 0.5
_RETRIES = 2
_GRACE = 30.0
_LOST_IN_A_ROW, _OF_TRAININGS = 9, 3


class NightKeeper(Protocol):
    """Keeps what came of each run, and says how far the night is."""

    def ended(self, training: str, stage: int, item: Item, result: RunResult) -> None:
        """A run ended."""


@dataclass
class NightRuns:
    """The checks of some trainings under way.

    `scratch` is for logs and checkpoints; `remote` says that workers do not share it. `over` says whether the night's
    time has ended: what runs then is stopped.
    """

    checks: Mapping[str, NightCheck]
    keeper: NightKeeper
    scratch: Path
    over: Callable[[], bool] = lambda: False
    remote: bool = False
    _running: dict[int, tuple[str, int, Item]] = field(default_factory=dict)
    _lost: dict[tuple[str, str, int], int] = field(default_factory=dict)
    _lost_in_a_row: list[str] = field(default_factory=list)
    _next: int = 0

    def run(self, executor: Executor, *, last: int = BEST_FIX) -> None:
        """Run until no check wants anything more up to the stage `last`, or the night's time is over.

        Raises:
            InfrastructureError: the runs of several trainings are lost one after the other.
        """
        while not self.over():
            while len(self._running) < executor.capacity and self._launch(executor, last):
                pass
            if not self._running:
                return
            self._take(executor)
        for number in self._running:
            executor.cancel(number)
        until = time.monotonic() + _GRACE
        while self._running and time.monotonic() < until:
            self._take(executor)

    def _launch(self, executor: Executor, last: int) -> bool:
        under_way = {(name, item.combination.key, item.seed) for name, _, item in self._running.values()}
        wanted = [
            (stage, place, name, item)
            for place, (name, check) in enumerate(self.checks.items())
            for stage, item in check.wants()
            if stage <= last and (name, item.combination.key, item.seed) not in under_way
        ]
        if not wanted:
            return False
        stage, _, name, item = min(wanted, key=lambda found: found[:2])
        number, self._next = self._next, self._next + 1
        self._running[number] = (name, stage, item)
        executor.submit(self._order(number, name, item))
        return True

    def _order(self, number: int, name: str, item: Item) -> WorkOrder:
        spec = self.checks[name].spec
        label = f"{name}-{item.combination.key}-{item.seed}"
        return WorkOrder(
            number=number,
            source=spec.source,
            params=item.combination.params,
            seed=item.seed,
            data_seed=spec.data_seed,
            phase=item.phase,
            goal=spec.goal,
            timeout=spec.run_timeout,
            log="" if self.remote else str(self.scratch / "logs" / f"{label}.log"),
            checkpoint=str(self.scratch / "checkpoints" / f"{label}.pt"),
            returns_log=self.remote,
            detectors=spec.detectors,
            audited=drawn(spec, item),
        )

    def _take(self, executor: Executor) -> None:
        for event in executor.wait(_WAIT):
            if isinstance(event, Finished):
                name, stage, item = self._running.pop(event.result.number)
                self._finish(name, stage, item, event.result)

    def _finish(self, name: str, stage: int, item: Item, result: RunResult) -> None:
        if result.outcome is Outcome.LOST:
            key = (name, item.combination.key, item.seed)
            self._lost[key] = self._lost.get(key, 0) + 1
            self._lost_in_a_row.append(name)
            if len(self._lost_in_a_row) >= _LOST_IN_A_ROW and len({*self._lost_in_a_row}) >= _OF_TRAININGS:
                count = len(self._lost_in_a_row)
                raise InfrastructureError(f"{count} runs were lost one after the other; the last: {result.reason}")
            if self._lost[key] <= _RETRIES:
                return  # it is wanted still, and tried again
            reason = f"lost {self._lost[key]} times: {result.reason}"
            result = replace(result, outcome=Outcome.FAILED, reason=reason)
        elif result.outcome is Outcome.STOPPED:
            return
        else:
            self._lost_in_a_row.clear()
        self.checks[name].tell(item, result)
        self.keeper.ended(name, stage, item, result)
