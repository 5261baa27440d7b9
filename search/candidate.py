"""A combination that converged once, on its way to being a fix: confirmed, refuted, shown minimal or reduced."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

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

    @property
    def confirmed(self) -> bool:
        """Whether it holds on fresh seeds and beats the baseline on them."""
        return self.state in (State.MINIMISING, State.MINIMAL, State.REDUCED)

    def parts(self) -> list[tuple[str, Combination]]:
        """Return each remedy's name with what remains when it is left out."""
        return [(name, self.combination.without(name)) for name in self.combination.remedies.values()]

    def advance(self, ledger: Ledger, spec: Spec) -> list[Combination]:
        """Draw the conclusions the ledger permits; return, each time, the smaller combinations found to hold."""
        if self.state is State.CONFIRMING:
            self._confirm(ledger, spec)
        if self.state in (State.MINIMISING, State.REDUCED):
            return self._minimise(ledger, spec)
        return []

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

    def wants(self, ledger: Ledger, spec: Spec) -> Iterator[Item]:
        """Yield the runs that would decide this candidate next, most urgent first."""
        seeds = spec.confirm_list(self.count)
        label = self.combination.label
        if self.state is State.CONFIRMING:
            for seed in seeds:
                if ledger.at(self.combination, seed) is None:
                    yield Item(Phase.CONFIRM, self.combination, seed, label)
            for seed in seeds:
                if ledger.at(Combination(), seed) is None:
                    yield Item(Phase.MINIMISE, Combination(), seed, label)
        if self.state is State.MINIMISING:
            for _, rest in self.parts():
                converged, runs = ledger.count(rest, seeds)
                if not can_hold(converged, runs - converged, self.count):
                    continue
                for seed in seeds:
                    if ledger.at(rest, seed) is None:
                        yield Item(Phase.MINIMISE, rest, seed, label)
