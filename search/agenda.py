"""Decides which run comes next. Pure: a function of the ledger, so that a resumed study goes on where it was."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from enum import StrEnum

from remedy.search.candidate import Candidate, Candidates, State
from remedy.search.ledger import Entry, Item, Ledger
from remedy.search.prior import ranked
from remedy.search.spec import Spec
from remedy.spaces.combination import Combination
from remedy.spaces.outcome import Outcome
from remedy.spaces.remedy import Remedy
from remedy.spaces.space import Space
from remedy.spaces.verdict import Verdict
from remedy.workers.order import Phase
from remedy.workers.result import RunResult

_BEFORE_PAIRS = 40
_PAIRED = 8
_ASKS_PER_REMEDY = 4
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


def graded(result: RunResult, spec: Spec, chance: float) -> float:
    """Return the value the sampler is told: at least 1 for converged, else how near to the goal and for how long.

    "Nearly" must differ from "not at all": the last and the mean metric on the way from chance to the goal (for a
    stopped run its last value stands for the rest), and the share of the budget it survived.
    """
    if result.outcome is Outcome.CONVERGED:
        return 1.0 + 0.5 * (1 - (result.goal_step or result.steps) / max(1, result.steps_full))
    if not result.steps_full or result.outcome in (Outcome.FAILED, Outcome.INAPPLICABLE):
        return 0.0
    values = [value for _, value in result.curves.get("metric", ())]
    span = spec.goal - chance
    if not values or not span or span != span:  # noqa: PLR0124  (NaN: the trivial predictor is unknown)
        return 0.2 * result.steps / result.steps_full
    near = [min(1.0, max(0.0, (value - chance) / span)) if value == value else 0.0 for value in values]  # noqa: PLR0124
    survived = result.steps / result.steps_full
    mean = sum(near) / len(near) * survived + near[-1] * (1 - survived)
    return min(0.99, 0.4 * near[-1] + 0.35 * mean + 0.2 * survived)


class Agenda:
    """The state of the search. `next` proposes a run, `tell` takes a result into account."""

    def __init__(self, spec: Spec, space: Space) -> None:
        """Begin a study with nothing known."""
        self.spec = spec
        self.space = space
        self.ledger = Ledger()
        self.candidates = Candidates()
        self.asked = 0
        self._singles: list[Combination] | None = None
        self._again: list[Combination] = []
        self._paired: tuple[tuple[int, int, int], list[Combination]] | None = None
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
        if self.baseline_state is None:
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
        done = {entry.item.seed for entry in self.baseline}
        for seed in self.spec.baseline_seeds:
            if seed not in done:
                yield Item(Phase.BASELINE, Combination(), seed)
        if self.ended is not None:
            return
        # The control on the search's own seed: every single remedy is compared with it.
        control = self.ledger.at(Combination(), self.search_seed)
        if control is None:
            yield Item(Phase.SEARCH, Combination(), self.search_seed)
        if self.baseline_state is None or (control is None and self.baseline_state is BaselineState.UNSTABLE):
            return
        yield from self.candidates.wants(self.ledger, self.spec)
        seed, on_trial = self.search_seed, self.candidates.on_trial()
        for combination in self._known_tries():
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

    def _known_tries(self) -> Iterator[Combination]:
        singles = self._single_remedies()
        # What needs two remedies would wait for the whole catalogue else, most of which treats other symptoms.
        yield from singles[:_BEFORE_PAIRS]
        yield from self._pairs_of_remedies()
        yield from singles[_BEFORE_PAIRS:]
        yield from self._again

    def _useful(self, combination: Combination, seed: int, on_trial: Collection[frozenset[str]]) -> bool:
        """Whether trying it on the search seed could teach anything: it is new, applicable, and holds no known fix."""
        names = combination.names
        if self.ledger.at(combination, seed) is not None or names & self._closed:
            return False
        return not any(fewer <= names for fewer in on_trial)

    def _single_remedies(self) -> list[Combination]:
        if self._singles is None:
            self._singles = [Combination.of(remedy.first()) for remedy in self._order()]
        return self._singles

    def _order(self) -> list[Remedy]:
        seen: list[Verdict] = []
        for entry in self.baseline:
            seen += [entry.result.verdict] if entry.result.verdict else []
            seen += entry.result.notes
        return ranked(self.space.remedies, seen, self.spec.suggested, self.spec.knowledge)

    def _pairs_of_remedies(self) -> list[Combination]:
        """Pairs of the most promising single remedies so far: pre-flight's suggestions, then the best values seen."""
        seed, baseline, searched = self.search_seed, len(self.baseline), len(self.ledger.of_phase(Phase.SEARCH))
        # Asked for each run that begins; they change with the runs of these two phases only.
        if self._paired is None or self._paired[0] != (seed, baseline, searched):
            self._paired = (seed, baseline, searched), self._pairs(seed)
        return self._paired[1]

    def _pairs(self, seed: int) -> list[Combination]:
        tried = [
            (combination, entry)
            for combination in self._single_remedies()
            if (entry := self.ledger.at(combination, seed)) is not None
            and entry.result.outcome not in (Outcome.INAPPLICABLE, Outcome.FAILED)
        ]
        urgent = set(self.spec.suggested)
        tried.sort(key=lambda p: (not p[0].names & urgent, -self.value(p[1].result)))
        best = [combination for combination, _ in tried[:_PAIRED]]
        places = sorted(itertools.combinations(range(len(best)), 2), key=lambda pair: (sum(pair), pair))
        return [best[i].plus(best[j]) for i, j in places if not set(best[i].remedies) & set(best[j].remedies)]

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
        """Return what converged on a search seed, save where the untouched training does, too; few remedies first."""
        seed, count = self.search_seed, self.spec.confirm_seeds
        self._converged = [known for known in self._converged if not self.candidates.known(known[0], count)]
        return [combination for combination, on in self._converged if on == seed or not self._converges(on)]

    def value(self, result: RunResult) -> float:
        """Return the graded value of a result."""
        return graded(result, self.spec, self.chance)
