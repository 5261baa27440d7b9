"""Decides which run comes next. Pure: a function of the ledger, so that a resumed study goes on where it was."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Collection, Iterable, Sequence
from enum import StrEnum

from remedy.search.candidate import Candidate, Candidates, State
from remedy.search.grade import graded
from remedy.search.ledger import Entry, Item, Ledger
from remedy.search.spec import Spec
from remedy.search.tries import Tries
from remedy.spaces.combination import Combination
from remedy.spaces.outcome import Outcome
from remedy.spaces.space import Space
from remedy.workers.order import Phase
from remedy.workers.result import RunResult

_ASKS_PER_REMEDY = 4
_TRIES_PER_RUN = 6
"""Tries for each run of the untouched training, once it is clear that it is broken and while nothing converges."""
_LEAST_ASKS = 10
_REPEATS = 20


class BaselineState(StrEnum):
    """What the untouched training does over its seeds."""

    BROKEN = "broken"
    UNSTABLE = "unstable"
    HEALTHY = "healthy"

    @classmethod
    def of(cls, entries: Sequence[Entry]) -> BaselineState:
        """Read the state off the baseline's runs (all, or those there are)."""
        converged = sum(entry.result.outcome is Outcome.CONVERGED for entry in entries)
        if not converged:
            return cls.BROKEN
        return cls.HEALTHY if converged == len(entries) else cls.UNSTABLE


class Reason(StrEnum):
    """Why a study ended."""

    DONE = "done"
    HEALTHY = "healthy"
    FAILED = "failed"
    EXHAUSTED = "exhausted"
    BUDGET = "budget"
    TIMEOUT = "timeout"
    STOPPED = "stopped"


class Agenda:
    """The state of the search. `next` proposes a run, `tell` takes a result into account."""

    def __init__(self, spec: Spec, space: Space) -> None:
        """Begin a study with nothing known."""
        self.spec = spec
        self.space = space
        self.ledger = Ledger()
        self.candidates = Candidates()
        self.asked = 0
        self.tries = Tries(spec, space, self.ledger)
        self._again: list[Combination] = []
        # What converged on a search seed and is no candidate yet, few remedies first.
        self._converged: list[tuple[Combination, int]] = []
        self._closed: set[str] = set()

    # ---------------------------------------------------------------- what is known

    @property
    def baseline(self) -> list[Entry]:
        """The baseline's entries, in the order of their seeds."""
        return sorted(self.ledger.of_phase(Phase.BASELINE), key=lambda entry: entry.item.seed)

    @property
    def baseline_state(self) -> BaselineState | None:
        """What the baseline does; None before all its runs ended."""
        return BaselineState.of(self.baseline) if len(self.baseline) >= self.spec.seeds else None

    @property
    def chance(self) -> float:
        """The metric of the trivial predictor, as the baseline's runs found it; NaN before."""
        found = [entry.result.setting["chance"] for entry in self.baseline if "chance" in entry.result.setting]
        return float(found[0]) if found else float("nan")

    @property
    def search_seed(self) -> int:
        """The seed on which combinations are tried: the first on which the untouched training is not seen to converge.

        Where it converges, every harmless remedy would.
        """
        seeds = self.spec.search_seeds
        return next((seed for seed in seeds if not self._converges(seed)), seeds[-1])

    def _converges(self, seed: int) -> bool:
        return self.ledger.count(Combination(), (seed,))[0] == 1

    @property
    def fixes(self) -> list[Candidate]:
        """Confirmed fixes; one whose remedies are more than those of another says nothing new and is left out."""
        held = [candidate for candidate in self.candidates if candidate.confirmed]
        return [c for c in held if not any(other.names < c.names for other in held)]

    @property
    def minimal(self) -> list[Candidate]:
        """Fixes confirmed and shown to be minimal."""
        return [candidate for candidate in self.fixes if candidate.state is State.MINIMAL]

    @property
    def ended(self) -> Reason | None:
        """Why nothing more is to be tried, or None."""
        state = self.baseline_state
        if state is None:
            return None
        if all(entry.result.outcome is Outcome.FAILED for entry in self.baseline):
            return Reason.FAILED
        if state is BaselineState.HEALTHY:
            return Reason.HEALTHY
        if len(self.minimal) >= self.spec.fixes:
            return Reason.DONE
        return None

    @property
    def phase(self) -> Phase:
        """What the study is mostly doing, for people."""
        if self.baseline_state is None and self._unclear:
            return Phase.BASELINE
        open_states = {candidate.state for candidate in self.candidates}
        if State.CONFIRMING in open_states:
            return Phase.CONFIRM
        return Phase.MINIMISE if State.MINIMISING in open_states else Phase.SEARCH

    # ---------------------------------------------------------------- what comes next

    def next(self, running: Iterable[Item], ask: Callable[[], Combination | None]) -> Item | None:
        """Return the next run, or None where the ones under way must end first or nothing is left.

        `ask` lets the sampler propose a combination (None where it has nothing).
        """
        under_way = {(item.combination.key, item.seed) for item in running}

        def free(item: Item) -> bool:
            return (item.combination.key, item.seed) not in under_way

        return next((item for item in self._wanted(ask, under_way) if free(item)), None)

    def _wanted(self, ask: Callable[[], Combination | None], under_way: set[tuple[str, int]]) -> Iterable[Item]:
        rest, control = self._untouched()
        if self._unclear:
            if not self.ledger.by_seed(Combination()):
                first = [Item(Phase.SEARCH, made, self.search_seed) for made in self.tries.defaults(self.search_seed)]
                yield from (item for item in (*first, *control) if not self._scarce(len(rest) + 1))
            yield from rest
        if self.ended is not None:
            return
        # The control on the search's own seed: every single remedy is compared with it.
        if self._unclear and (rest or (control and self.baseline_state is BaselineState.UNSTABLE)):
            yield from control
            return
        left, sought = control + rest, self._sought(under_way)
        if rest and self._scarce(len(rest)):
            yield from rest
        if left and self._ripe:
            yield from left  # what converged is judged by them
            left = []
        yield from self.candidates.wants(self.ledger, self.spec)
        made = 1 + len(self.spec.baseline_seeds) - len(left) + sum(self._is(item, under_way) for item in left)
        if left and sought >= _TRIES_PER_RUN * made:
            yield from left
        yield from self._searching(ask, under_way)
        yield from left

    def _untouched(self) -> tuple[list[Item], list[Item]]:
        """Return the runs of the untouched training that are not made yet: of the baseline, and the control."""
        done = {entry.item.seed for entry in self.baseline}
        rest = [Item(Phase.BASELINE, Combination(), seed) for seed in self.spec.baseline_seeds if seed not in done]
        known = self.ledger.at(Combination(), self.search_seed) is not None
        return rest, [] if known else [Item(Phase.SEARCH, Combination(), self.search_seed)]

    @property
    def _unclear(self) -> bool:
        """Whether there may be nothing to repair, or luck may decide: until a run missed its goal and none converged.

        Where that is clear the search begins, and the baseline is run in turn with it. The first to tell is the
        control on the search's seed: what is tried is compared with it anyway, and it may be given up as too slow.
        """
        control = self.ledger.by_seed(Combination())
        outcomes = [
            control[s].result.outcome for s in (*self.spec.baseline_seeds, *self.spec.search_seeds) if s in control
        ]
        return not outcomes or bool({Outcome.CONVERGED, Outcome.FAILED} & set(outcomes))

    def _scarce(self, count: int) -> bool:
        """Whether what the study may still spend is needed for so many runs of the baseline."""
        runs, budget = self.spec.runs, self.spec.budget
        few = runs is not None and runs - self.ledger.runs <= count
        return few or (budget is not None and budget - self.ledger.steps / self.spec.steps <= count)

    @property
    def _ripe(self) -> bool:
        """Whether anything is proved, or converged and no part of it is to be tried first."""
        on_trial = self.candidates.on_trial()
        return any(True for _ in self.candidates) or any(
            not self._parts(made, on, on_trial) for made, on in self._converged
        )

    def _sought(self, under_way: Collection[tuple[str, int]]) -> int:
        """Return how many tries were begun on the search's seed."""
        seed, empty = self.search_seed, Combination().key
        done = sum(e.item.seed == seed and bool(e.item.combination) for e in self.ledger.of_phase(Phase.SEARCH))
        return done + sum(on == seed and key != empty for key, on in under_way)

    @staticmethod
    def _is(item: Item, under_way: Collection[tuple[str, int]]) -> bool:
        return (item.combination.key, item.seed) in under_way

    def _searching(
        self, ask: Callable[[], Combination | None], under_way: Collection[tuple[str, int]]
    ) -> Iterable[Item]:
        seed, on_trial = self.search_seed, self.candidates.on_trial()
        many = next((made for made, on in self._converged if on == seed and self._parts(made, seed, on_trial)), None)
        for combination in (*self.tries.ordered(seed, self.chance, self._closed, many), *self._again):
            if self._useful(combination, seed, on_trial):
                yield Item(Phase.SEARCH, combination, seed)
        limit = max(_LEAST_ASKS, _ASKS_PER_REMEDY * len(self.space.remedies))
        for _ in range(_REPEATS):
            if self.asked >= limit:
                return
            proposed = ask()
            if proposed is None:
                return
            self.asked += 1
            if proposed and self._useful(proposed, seed, on_trial) and (proposed.key, seed) not in under_way:
                yield Item(Phase.SEARCH, proposed, seed)

    def _parts(self, made: Combination, seed: int, on_trial: Collection[frozenset[str]]) -> list[Combination]:
        """Return what is to be tried of many remedies that converged together, before they are proved as they are."""
        parts = self.tries.parts(made, seed)
        if not parts or any(fewer <= made.names for fewer in on_trial):
            return []
        return [part for part in parts if self._useful(part, seed, on_trial)]

    def _useful(self, combination: Combination, seed: int, on_trial: Collection[frozenset[str]]) -> bool:
        """Whether trying it on the search seed could teach anything: it is new, applicable, and holds no known fix."""
        names = combination.names
        if self.ledger.at(combination, seed) is not None or names & self._closed:
            return False
        return not any(fewer <= names for fewer in on_trial)

    # ---------------------------------------------------------------- what came of it

    def tell(self, item: Item, result: RunResult) -> None:
        """Take a result into account and draw every conclusion it permits."""
        self.ledger.add(Entry(item, result))
        if result.outcome in (Outcome.LOST, Outcome.STOPPED):
            self.cut_off(item)
        if item.phase is Phase.SEARCH:
            self._searched(item.combination, item.seed, result.outcome)
        fresh = True
        while fresh:
            # They are asked again after each that is new: what decides it may be known already.
            found = self.candidates.advance(item, self.ledger, self.spec)
            found += [(combination, self.spec.confirm_seeds) for combination in self._promising()]
            fresh = self.candidates.nominate(found)

    def _searched(self, combination: Combination, seed: int, outcome: Outcome) -> None:
        if outcome is Outcome.INAPPLICABLE and len(combination.names) == 1:
            self._closed |= combination.names  # tried alone, it found nothing to change
        if outcome is Outcome.CONVERGED and combination:
            bisect.insort(self._converged, (combination, seed), key=lambda known: len(known[0].names))

    def cut_off(self, item: Item) -> None:
        """Remember a combination whose run ended without a result; what proofs need they ask for themselves."""
        if item.phase is Phase.SEARCH and item.combination and item.combination not in self._again:
            self._again.append(item.combination)

    def _promising(self) -> list[Combination]:
        """Return what converged on a search seed, save where the untouched training does, too; few remedies first.

        Not before it is known what the untouched training does there, unless it converges nowhere.
        """
        seed, count = self.search_seed, self.spec.confirm_seeds
        hopeless = self.baseline_state is BaselineState.BROKEN
        self._converged = [known for known in self._converged if not self.candidates.known(known[0], count)]
        judged = [known for known in self._converged if hopeless or self.ledger.at(Combination(), known[1]) is not None]
        fair = [(made, on) for made, on in judged if on == seed or not self._converges(on)]
        on_trial = self.candidates.on_trial()
        return [made for made, on in fair if not self._parts(made, on, on_trial)]

    def value(self, result: RunResult) -> float:
        """Return the graded value of a result."""
        return graded(result, self.spec, self.chance)
