"""A whole study in milliseconds: made-up remedies, and an executor that answers work orders from a script."""

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from remedy.search.agenda import Agenda, Reason
from remedy.search.candidate import Candidate
from remedy.search.controller import Controller
from remedy.search.home import StudyFolder
from remedy.search.report import exit_code, ordered_fixes, report
from remedy.search.spec import Spec
from remedy.search.study import Trials
from remedy.spaces.combination import Combination
from remedy.spaces.distribution import Choice, Float, Int
from remedy.spaces.outcome import Outcome
from remedy.spaces.remedy import Change, Receipt, Remedy, remedy
from remedy.spaces.slot import Slot
from remedy.spaces.space import Space
from remedy.spaces.symptom import Symptom
from remedy.spaces.target import Source
from remedy.spaces.verdict import Verdict
from remedy.workers.executor import Event, Finished, Progressed
from remedy.workers.order import Phase, WorkOrder
from remedy.workers.result import RunResult

STEPS = 100
GOAL = 0.9
CHANCE = 0.1
SOURCE = Source("/nowhere/train.py", "training", "0" * 64)

# ---------------------------------------------------------------- remedies


@remedy("learning_rate", treats=["class_takeover"], invasiveness=1, source="test", factor=Float(0.01, 1.0, log=True))
def smaller(value: object, *, factor: float = 0.1) -> Change:
    """Make it smaller."""
    return Change(value, f"x {factor}")


@remedy(
    "gradient", treats=["exploding_gradient", "class_takeover"], invasiveness=1, source="test", norm=Float(0.1, 10.0)
)
def clip(value: object, *, norm: float = 1.0) -> Change:
    """Clip it."""
    return Change(value, f"norm {norm}")


@remedy(
    "schedule", treats=["class_takeover"], invasiveness=2, source="test", steps=Int(10, 500), shape=Choice("a", "b")
)
def warmup(value: object, *, steps: int = 100, shape: str = "a") -> Change:
    """Warm up."""
    return Change(value, f"{steps} steps, {shape}")


def plain(name: str, slot: str, invasiveness: int) -> Remedy:
    """Declare a remedy without hyperparameters."""

    def change(value: object) -> Change:
        """Change nothing."""
        return Change(value, name)

    return remedy(slot, name=name, treats=[], invasiveness=invasiveness, source="test")(change)


REMEDIES = (
    smaller,
    plain("larger", "learning_rate", 1),
    clip,
    warmup,
    plain("momentum", "optimizer", 2),
    plain("scaled", "inputs", 2),
    plain("fused", "objective", 3),
    plain("drop", "dropout", 3),
    plain("leaky", "activation", 4),
    plain("batch_norm", "normalisation", 5),
    plain("layer_norm", "normalisation", 5),
    plain("narrow", "width", 5),
)
SPACE = Space(REMEDIES)
SMALL = Space(tuple(remedy for remedy in REMEDIES if remedy.name in ("smaller", "clip", "warmup", "fused", "drop")))

# ---------------------------------------------------------------- worlds

Truth = Callable[[Combination, int], "float | Outcome"]
"""What a combination comes to on a seed: its last metric (from 0.9 converged, below 0.5 collapsed), or an outcome."""


def chance_of(*parts: object) -> float:
    """A number in [0, 1) that depends on the parts alone."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:6], "big") / (1 << 48)


def needs(*sets: str, otherwise: float = 0.2, near: float = 0.0) -> Truth:
    """Converges where all names of one of the sets (`"a b"`) are in; each name of a set adds `near`."""
    wanted = [set(names.split()) for names in sets]

    def truth(combination: Combination, seed: int) -> float:
        if any(names <= combination.names for names in wanted):
            return 0.95
        return otherwise + near * max((len(names & combination.names) for names in wanted), default=0)

    return truth


def answer(order: WorkOrder, truth: Truth) -> RunResult:
    """Make the result that a worker would send."""
    combination = Combination.of(order.params)
    found = truth(combination, order.seed)
    luck = chance_of(combination.key, order.seed)
    setting = {"chance": CHANCE}
    if isinstance(found, Outcome):
        steps = {Outcome.INAPPLICABLE: 0, Outcome.FAILED: round(30 * luck)}[found]
        full = STEPS if found is Outcome.FAILED else 0
        return RunResult(order.number, found, f"scripted: {found}", steps=steps, steps_full=full)
    verdict = None
    steps, saved_by, outcome = STEPS, "", Outcome.MISSED
    if found >= GOAL:
        outcome = Outcome.CONVERGED
        if order.may_succeed_early:
            steps, saved_by = 70, "success"
    elif found < 0.5:
        outcome, steps, saved_by = Outcome.COLLAPSED, 10 + round(80 * luck), "collapse"
        verdict = Verdict(Symptom.CLASS_TAKEOVER, steps, steps - 5, "one class has 99 % of 128 predictions")
    places = range(10, steps + 1, 10)
    curve = tuple((place, CHANCE + (found - CHANCE) * place / steps) for place in places)
    return RunResult(
        order.number, outcome, verdict.evidence if verdict else "", metric=found, steps=steps, steps_full=STEPS,
        seconds=0.1, verdict=verdict, curves={"metric": curve}, goal_step=60 if outcome is Outcome.CONVERGED else None,
        receipts=tuple(Receipt(name, Slot(slot), "changed") for slot, name in combination.remedies.items()),
        first_losses=(2.3 + luck,), saved_by=saved_by, setting=setting,
    )  # fmt: skip


class Killed(Exception):  # noqa: N818
    """The controller's process died."""


@dataclass
class Scripted:
    """An executor that has the answers. With a capacity above 1 runs end in another order than they began."""

    truth: Truth
    capacity: int = 1
    seed: int = 0
    dies_after: int | None = None
    loses: Callable[[WorkOrder], bool] | None = None
    seen: Callable[[WorkOrder], None] | None = None
    why_lost: str = "its worker died"
    orders: list[WorkOrder] = field(default_factory=list)
    cancelled: set[int] = field(default_factory=set)
    answered: int = 0
    _under_way: list[WorkOrder] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._chance = random.Random(self.seed)

    def submit(self, order: WorkOrder) -> None:
        assert len(self._under_way) < self.capacity
        self._under_way.append(order)
        self.orders.append(order)
        if self.seen is not None:
            self.seen(order)

    def wait(self, timeout: float) -> list[Event]:
        if self.dies_after is not None and self.answered >= self.dies_after:
            raise Killed
        if not self._under_way:
            return []
        events: list[Event] = [Progressed(order.number, 1, None) for order in self._under_way]
        for _ in range(self._chance.randint(1, min(2, len(self._under_way)))):
            order = self._under_way.pop(self._chance.randrange(len(self._under_way)))
            self.answered += 1
            events.append(Finished(self._answer(order)))
        return events

    def _answer(self, order: WorkOrder) -> RunResult:
        if order.number in self.cancelled:
            return RunResult(
                order.number, Outcome.STOPPED, "no more use", steps=5, steps_full=STEPS, saved_by="controller"
            )
        if self.loses is not None and self.loses(order):
            return RunResult(order.number, Outcome.LOST, self.why_lost, steps=7)
        return answer(order, self.truth)

    def cancel(self, number: int) -> None:
        self.cancelled.add(number)

    def close(self) -> None:
        self._under_way.clear()


# ---------------------------------------------------------------- studies


@dataclass
class Bench:
    """One study in a folder, which can be begun, cut off and resumed."""

    path: Path
    truth: Truth
    spec: Spec
    capacity: int = 1
    space: Space = SPACE
    loses: Callable[[WorkOrder], bool] | None = None
    clock: Callable[[], float] | None = None
    why_lost: str = "its worker died"

    def controller(self, *, dies_after: int | None = None, seed: int = 0) -> tuple[Controller, Scripted]:
        """Begin a session, as a new process does."""
        folder = StudyFolder.at(self.path)
        folder.scratch.mkdir(parents=True, exist_ok=True)
        executor = Scripted(self.truth, self.capacity, seed, dies_after, self.loses)
        trials = Trials(folder.storage, self.spec.study, self.space, self.spec.seed)
        controller = Controller(Agenda(self.spec, self.space), trials, folder, executor, [])
        if self.clock is not None:
            controller.clock = self.clock
        controller.restore()
        return controller, executor

    def run(self, *, watch: Callable[[Controller, WorkOrder], None] | None = None, **session: Any) -> "Told":
        """Run a session to its end; `watch` sees every order when it is submitted."""
        controller, executor = self.controller(**session)
        overlaps: list[str] = []

        def look(order: WorkOrder) -> None:
            agenda, spec = controller.agenda, controller.agenda.spec
            names = Combination.of(order.params).names
            for fix in agenda.fixes:
                known = fix.combination.names
                if known < names or (known == names and order.phase is Phase.SEARCH):
                    overlaps.append(f"{order.params} although {fix.combination.label} is known")
            if spec.runs is not None:
                assert agenda.ledger.runs + len(controller.running) <= spec.runs
            if watch is not None:
                watch(controller, order)

        executor.seen = look
        executor.why_lost = self.why_lost
        reason = controller.run()
        assert overlaps == []
        return Told(controller, executor, reason)


@dataclass
class Told:
    """What a study came to."""

    controller: Controller
    executor: Scripted
    reason: Reason

    @property
    def agenda(self) -> Agenda:
        return self.controller.agenda

    @property
    def code(self) -> int:
        return exit_code(self.agenda, self.reason)

    @property
    def fixes(self) -> list[Candidate]:
        return ordered_fixes(self.agenda)

    @property
    def report(self) -> dict[str, Any]:
        return report(self.agenda, self.reason, self.controller.seconds, self.controller.folder, {})

    @property
    def sequence(self) -> list[tuple[str, int, str]]:
        """Every run in the order in which they ended: (combination, seed, phase)."""
        items = [entry.item for entry in self.agenda.ledger.entries]
        return [(item.combination.key, item.seed, str(item.phase)) for item in items]

    @property
    def found(self) -> list[tuple[str, str, int]]:
        """The findings: (combination, state, seeds asked for) of every candidate, in any order."""
        return sorted((c.combination.label, str(c.state), c.count) for c in self.agenda.candidates)

    @property
    def names(self) -> list[tuple[set[str], str]]:
        """The fixes as they are reported: (names of the remedies, state)."""
        return [(set(c.combination.names), str(c.state)) for c in self.fixes]

    def outcomes(self, phase: Phase) -> list[Outcome]:
        """The outcomes of a phase's runs, in the order in which they ended."""
        return [entry.result.outcome for entry in self.agenda.ledger.entries if entry.item.phase is phase]


def spec(**asked: Any) -> Spec:
    """Make a specification for the made-up training."""
    return Spec(**{"study": "scripted", "source": SOURCE, "goal": GOAL, "steps": STEPS, **asked})


def bench(path: Path, truth: Truth, capacity: int = 1, space: Space = SPACE, **asked: Any) -> Bench:
    """Prepare a study of a world."""
    return Bench(path, truth, spec(**asked), capacity, space)
