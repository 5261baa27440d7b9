"""A combination that converged once, on its way to being a fix: confirmed, refuted, shown minimal or reduced."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property

from remedy.search.evidence import MOST_RUNS, better, can_hold, holds
from remedy.search.ledger import Item, Ledger
from remedy.search.spec import Spec
from remedy.spaces.combination import Combination
from remedy.workers.order import Phase

_MORE = 5


class State(StrEnum):
    """How far a candidate has come."""

    CONFIRMING = "confirming"
    REFUTED = "refuted"
    MINIMISING = "minimising"
    MINIMAL = "minimal"
    REDUCED = "reduced"
    """A smaller combination holds too, so this one is not minimal."""


@dataclass
class Candidate:
    """One combination under proof. `count` is the number of fresh seeds asked for so far."""

    combination: Combination
    count: int
    state: State = State.CONFIRMING
    steps_when_confirmed: int | None = None
    _judged: bool = field(default=False, compare=False)

    @cached_property
    def names(self) -> frozenset[str]:
        """The names of its remedies."""
        return self.combination.names

    @property
    def open(self) -> bool:
        """Whether runs could still decide something."""
        return self.state in (State.CONFIRMING, State.MINIMISING)

    @property
    def confirmed(self) -> bool:
        """Whether it holds on fresh seeds and beats the baseline on them."""
        return self.state in (State.MINIMISING, State.MINIMAL, State.REDUCED)

    def parts(self) -> list[tuple[str, Combination]]:
        """Return each remedy's name with what remains when it is left out."""
        return [(name, self.combination.without(name)) for name in self.combination.remedies.values()]

    def advance(self, ledger: Ledger, spec: Spec) -> list[Combination]:
        """Draw the conclusions the ledger permits; return, each time, the smaller combinations found to hold."""
        self._judged = True
        if self.state is State.CONFIRMING:
            self._confirm(ledger, spec)
        if self.state in (State.MINIMISING, State.REDUCED):
            return self._minimise(ledger, spec)
        return []

    def concerns(self, item: Item) -> bool:
        """Whether a run that ended may change what was concluded: another one's changes nothing for one on trial."""
        if self.state is State.CONFIRMING:
            return not self._judged or not item.combination or item.combination == self.combination
        return self.state in (State.MINIMISING, State.REDUCED)

    def _confirm(self, ledger: Ledger, spec: Spec) -> None:
        seeds = spec.confirm_list(self.count)
        converged, runs = ledger.count(self.combination, seeds)
        if not can_hold(converged, runs - converged, self.count):
            self.state = State.REFUTED
            return
        base_converged, base_runs = ledger.count(Combination(), seeds)
        if runs < self.count or base_runs < self.count:
            return
        if better(converged, runs, base_converged, base_runs):
            self.state = State.MINIMISING
            self.steps_when_confirmed = ledger.steps
        elif self.count >= MOST_RUNS:
            self.state = State.REFUTED
        else:
            self.count = min(MOST_RUNS, self.count + _MORE)
            self._confirm(ledger, spec)

    def _minimise(self, ledger: Ledger, spec: Spec) -> list[Combination]:
        seeds = spec.confirm_list(self.count)
        decided, smaller = True, []
        for _, rest in self.parts():
            converged, runs = ledger.count(rest, seeds)
            if not can_hold(converged, runs - converged, self.count):
                continue
            decided = decided and runs == self.count
            if runs == self.count and holds(converged, runs):
                smaller.append(rest)
        if smaller:
            self.state = State.REDUCED
        elif decided:
            self.state = State.MINIMAL
        return [rest for rest in smaller if rest]

    def failed(self, ledger: Ledger, spec: Spec) -> int:
        """Return on how many fresh seeds it did not converge so far."""
        converged, runs = ledger.count(self.combination, spec.confirm_list(self.count))
        return runs - converged

    def wants(self, ledger: Ledger, spec: Spec) -> Iterator[Item]:
        """Yield the runs that would decide this candidate next, most urgent first."""
        if not self.open:
            return
        seeds = spec.confirm_list(self.count)
        label = self.combination.label
        if self.state is State.CONFIRMING:
            for phase, combination in ((Phase.CONFIRM, self.combination), (Phase.MINIMISE, Combination())):
                made = ledger.by_seed(combination)
                yield from (Item(phase, combination, seed, label) for seed in seeds if seed not in made)
        else:
            for _, rest in self.parts():
                converged, runs = ledger.count(rest, seeds)
                if can_hold(converged, runs - converged, self.count):
                    made = ledger.by_seed(rest)
                    yield from (Item(Phase.MINIMISE, rest, seed, label) for seed in seeds if seed not in made)


@dataclass
class Candidates:
    """All candidates, in the order in which they were nominated. There may be hundreds."""

    _all: list[Candidate] = field(default_factory=list)
    _by_combination: dict[Combination, list[Candidate]] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Candidate]:
        return iter(self._all)

    def on_trial(self) -> set[frozenset[str]]:
        """Return the remedies of every candidate that is not refuted."""
        return {candidate.names for candidate in self._all if candidate.state is not State.REFUTED}

    def wants(self, ledger: Ledger, spec: Spec) -> Iterator[Item]:
        """Yield the runs that would decide a candidate next: of those that failed least the one tried first."""
        on_trial = self.on_trial()
        # Not where fewer of its remedies are a fix, or may still be found to be one.
        undecided = [c for c in self._all if c.open and not any(names < c.names for names in on_trial)]
        for candidate in sorted(undecided, key=lambda c: c.failed(ledger, spec)):
            yield from candidate.wants(ledger, spec)

    def advance(self, item: Item, ledger: Ledger, spec: Spec) -> list[tuple[Combination, int]]:
        """Draw the conclusions that a run permits; return smaller combinations found to hold, with counts of seeds."""
        concerned = [candidate for candidate in self._all if candidate.concerns(item)]
        return [(rest, candidate.count) for candidate in concerned for rest in candidate.advance(ledger, spec)]

    def nominate(self, found: Iterable[tuple[Combination, int]]) -> bool:
        """Make the first that may be one a candidate; return whether any was.

        Not one whose remedies, or fewer, are on trial, nor one refuted on as many seeds.
        """
        on_trial = self.on_trial()
        for combination, count in found:
            names = combination.names
            if not self.known(combination, count) and not any(fewer <= names for fewer in on_trial):
                candidate = Candidate(combination, count)
                self._all.append(candidate)
                self._by_combination.setdefault(combination, []).append(candidate)
                return True
        return False

    def known(self, combination: Combination, count: int) -> bool:
        """Whether it is, or was, a candidate on at least so many seeds."""
        return any(candidate.count >= count for candidate in self._by_combination.get(combination, ()))
