"""What `simulation.py` is made of: a clock that jumps, workers that train nothing, a world without a fix, a meter."""

from __future__ import annotations

import hashlib
import heapq
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import wraps
from typing import Any
from unittest import mock

from remedy.search import conduct, record
from remedy.search.agenda import Agenda
from remedy.search.controller import Controller
from remedy.search.home import StudyFolder
from remedy.search.ledger import Item
from remedy.search.study import JournalStorage, RDBStorage, Trials
from remedy.spaces.combination import Combination
from remedy.spaces.distribution import Float
from remedy.spaces.outcome import Outcome
from remedy.spaces.remedy import Change, Receipt, Remedy, remedy
from remedy.spaces.slot import Slot
from remedy.spaces.symptom import Symptom
from remedy.spaces.verdict import Verdict
from remedy.workers.executor import Event, Finished
from remedy.workers.order import WorkOrder
from remedy.workers.result import RunResult

STEPS, GOAL, CHANCE = 400, 0.9, 0.1
SETTING = {"kind": "class index", "classes": 10, "chance": CHANCE, "steps": STEPS, "interval": 4}
# Names and lengths of the curves that the examples' runs send, for runs that go to their end.
DENSE = ("loss", "gradient_norm", "learning_rate", "zero_gradient_share", "update_ratio", "train_accuracy")
SPARSE = ("metric", "top_class_share", "prediction_entropy", "top_probability", "logit_spread", "dead_unit_share")
SIMULATED = "simulation"

# ---------------------------------------------------------------- the world


def luck(*parts: object) -> float:
    """A number in [0, 1) that depends on the parts alone."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:6], "big") / (1 << 48)


def more_remedies(count: int) -> list[Remedy]:
    """Made-up remedies, as a team adds its own; spread over the slots."""

    def change(value: object, *, strength: float = 1.0) -> Change:
        """Change nothing."""
        return Change(value, f"strength {strength}")

    slots = [slot for slot in Slot if str(slot) != "budget"]
    return [
        remedy(slots[n % len(slots)], name=f"own_{n}", treats=[], invasiveness=3, source="simulated",
               strength=Float(0.1, 10.0, log=True))(change)
        for n in range(count)
    ]  # fmt: skip


def ends(order: WorkOrder) -> Outcome:
    """How a run ends in a world where nothing is a fix, and everything looks like one.

    Every change converges on the seed of the search, and on three of five fresh ones: each has to be put to the proof,
    none holds. No other world takes so many runs.
    """
    changed = bool(Combination.of(order.params))
    return Outcome.CONVERGED if changed and order.seed % 5 < 3 else Outcome.COLLAPSED


def answer(order: WorkOrder) -> RunResult:
    """The result a worker would send, as large as a real one."""
    combination, outcome = Combination.of(order.params), ends(order)
    chance = luck(combination.key, order.seed)
    steps, saved_by, verdict = STEPS, "", None
    if outcome is Outcome.COLLAPSED:
        steps, saved_by = 120 + round(200 * chance), "collapse"
        verdict = Verdict(Symptom.CLASS_TAKEOVER, steps, steps - 40, f"class 3 gets {90 + 9 * chance:.1f} % of 512")
    elif order.may_succeed_early:
        steps, saved_by = 280, "success"
    final = GOAL + 0.05 if outcome is Outcome.CONVERGED else CHANCE + 0.2 * chance
    curves = {name: _curve(name, steps, 4, chance) for name in DENSE}
    curves |= {name: _curve(name, steps, 12, chance) for name in SPARSE}
    curves["metric"] = tuple((step, CHANCE + (final - CHANCE) * step / steps) for step in range(12, steps + 1, 12))
    return RunResult(
        order.number, outcome, verdict.evidence if verdict else "", metric=final, steps=steps, steps_full=STEPS,
        seconds=steps / 100, verdict=verdict, curves=curves, saved_by=saved_by, setting=dict(SETTING),
        goal_step=200 if outcome is Outcome.CONVERGED else None, first_losses=(2.3 + chance,),
        receipts=tuple(Receipt(name, Slot(slot), "changed 3 modules") for slot, name in combination.remedies.items()),
    )  # fmt: skip


def _curve(name: str, steps: int, every: int, chance: float) -> tuple[tuple[int, float], ...]:
    return tuple((step, (len(name) + chance) / (1 + step / 97)) for step in range(every, steps + 1, every))


# ---------------------------------------------------------------- time and workers


@dataclass
class Clock:
    """Simulated time, which stands still while the controller works, unless `charged`: then its own time counts."""

    charged: bool = False
    waited: float = 0.0
    _began: float = field(default_factory=time.perf_counter)

    def now(self) -> float:
        """Seconds since the beginning."""
        return self.waited + (time.perf_counter() - self._began if self.charged else 0.0)

    monotonic = now
    """So that the clock may stand in for the module `time`."""


@dataclass
class Workers:
    """An executor whose runs take simulated time, about `seconds` for a full one, and end with the world's answer."""

    capacity: int
    seconds: float
    clock: Clock
    worked: float = 0.0
    full: float = 0.0
    _ends: list[tuple[float, int, WorkOrder]] = field(default_factory=list)
    _cancelled: set[int] = field(default_factory=set)

    def submit(self, order: WorkOrder) -> None:
        assert len(self._ends) < self.capacity  # noqa: S101  (the controller's own promise)
        result = answer(order)
        takes = self.seconds * result.steps / STEPS * (0.5 + luck(order.params, order.seed, "speed"))
        heapq.heappush(self._ends, (self.clock.now() + takes, order.number, order))
        self.worked += takes

    def wait(self, timeout: float) -> list[Event]:
        now = self.clock.now()
        first = self._ends[0][0] if self._ends else now + timeout
        self.clock.waited += min(max(0.0, first - now), timeout)
        events: list[Event] = []
        while self._ends and self._ends[0][0] <= self.clock.now():
            _, number, order = heapq.heappop(self._ends)
            stopped = RunResult(number, Outcome.STOPPED, "no more use", steps=5, saved_by="controller")
            events.append(Finished(stopped if number in self._cancelled else answer(order)))
        return events

    def cancel(self, number: int) -> None:
        """The run ends at once."""
        self._cancelled.add(number)
        self._ends = [(self.clock.now() if n == number else end, n, order) for end, n, order in self._ends]
        heapq.heapify(self._ends)

    def close(self) -> None:
        """Nothing is under way any more."""


# ---------------------------------------------------------------- what it costs

PARTS: dict[str, list[tuple[Any, str]]] = {
    "agenda.next": [(Agenda, "next")],
    "agenda.tell": [(Agenda, "tell"), (Agenda, "value"), (Agenda, "cut_off")],
    "sampler": [(Trials, "propose")],
    "Optuna, in memory": [(Trials, "open"), (Trials, "assign"), (Trials, "discard"), (Trials, "tell")],
    "storage": [
        (kind, name)
        for kind in (JournalStorage, RDBStorage)
        for name in ("create_new_trial", "set_trial_user_attr", "set_trial_state_values", "get_trial", "get_all_trials")
    ],
    "result saved": [(StudyFolder, "save_run")],
    "item noted": [(StudyFolder, "note_item")],
    "asked to stop?": [(StudyFolder, "asks_stop")],
    "report": [(conduct.Study, "save"), (StudyFolder, "save_progress"), (conduct, "progress")],
    "row for MLflow": [(record, "child")],
    "end: page and note": [(conduct.Study, "_finish_record")],
    "controller": [(Controller, "_launch"), (Controller, "limit"), (Controller, "_finish")],
    SIMULATED: [(Workers, "submit"), (Workers, "wait")],
}
WRITES = ("create_new_trial", "set_trial_user_attr", "set_trial_state_values")


@dataclass
class Meter:
    """Each part's own time, wall and CPU, split by run: what a part spends in another one is the other's."""

    runs: list[dict[str, tuple[float, float]]] = field(default_factory=list)
    calls: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    _sums: dict[str, list[float]] = field(default_factory=lambda: defaultdict(lambda: [0.0, 0.0]))
    _open: list[str] = field(default_factory=list)
    _last: tuple[float, float] = (0.0, 0.0)
    _made: Any = field(default_factory=hashlib.sha256)
    _asked: dict[int, int] = field(default_factory=dict)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Have the parts measured in the block."""
        with ExitStack() as patched:
            for part, places in PARTS.items():
                for owner, name in places:
                    measured = self._measured(getattr(owner, name), part, name)
                    patched.enter_context(mock.patch.object(owner, name, measured))
            yield

    def _measured(self, work: Callable[..., Any], part: str, name: str) -> Callable[..., Any]:
        @wraps(work)
        def measured(*args: Any, **kwargs: Any) -> Any:
            self._switch()
            self._open.append(part)
            self.calls[name] += 1
            try:
                return work(*args, **kwargs)
            finally:
                self._switch()
                self._open.pop()

        return measured

    def _switch(self) -> None:
        """Book the time since the last switch on the part that was open."""
        now = time.perf_counter(), time.thread_time()
        if self._open:
            sums = self._sums[self._open[-1]]
            sums[0] += now[0] - self._last[0]
            sums[1] += now[1] - self._last[1]
        self._last = now

    def ended(self, order: WorkOrder, item: Item, result: RunResult) -> None:
        """Close the account of one run: all since the run before ended."""
        self._switch()
        self.runs.append({part: (sums[0], sums[1]) for part, sums in self._sums.items() if part != SIMULATED})
        self._sums.clear()
        self._made.update(f"{item.combination.key} {item.seed} {order.phase} {result.outcome}\n".encode())

    def tick(self, controller: Controller) -> None:
        """Remember what the end will be asked for."""
        self._asked[id(controller)] = controller.agenda.asked

    @property
    def sequence(self) -> str:
        """A hash of the runs in the order in which they ended: two searches that agree have the same."""
        return self._made.hexdigest()[:12]

    @property
    def asked(self) -> int:
        """How many combinations the sampler was asked for."""
        return sum(self._asked.values())

    def rest(self) -> dict[str, float]:
        """What was spent after the last run ended, wall seconds by part."""
        return {part: sums[0] for part, sums in self._sums.items() if part != SIMULATED}

    def totals(self, kind: int) -> list[float]:
        """Seconds of each run: 0 wall, 1 CPU."""
        return [sum(both[kind] for both in run.values()) for run in self.runs]

    def by_part(self, first: int = 0, last: int | None = None) -> dict[str, dict[str, float]]:
        """Milliseconds a run by part, wall and CPU."""
        window = self.runs[first:last]
        sums = {
            part: [1000 * sum(run.get(part, (0.0, 0.0))[kind] for run in window) / len(window) for kind in (0, 1)]
            for part in PARTS
            if part != SIMULATED
        }
        return {part: {"wall": wall, "cpu": cpu} for part, (wall, cpu) in sums.items()}


def spread(values: list[float]) -> dict[str, float]:
    """Mean, median and 99th percentile, in milliseconds."""
    ordered = sorted(values)
    return {
        "mean": 1000 * statistics.fmean(ordered),
        "p50": 1000 * statistics.median(ordered),
        "p99": 1000 * ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))],
    }
