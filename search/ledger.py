"""What is known so far: every run's result by combination and seed. All decisions and the report read this."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from remedy.spaces.combination import Combination
from remedy.spaces.outcome import Outcome
from remedy.workers.order import Phase
from remedy.workers.result import RunResult

_NOTHING = (Outcome.LOST, Outcome.STOPPED)
"""How a run may end that says nothing about its combination."""


@dataclass(frozen=True)
class Item:
    """A run to be made: a combination, a seed, and why."""

    phase: Phase
    combination: Combination
    seed: int
    fix: str = ""
    """Label of the fix that a confirming or minimising run belongs to."""


@dataclass(frozen=True)
class Entry:
    """A run that was made."""

    item: Item
    result: RunResult


@dataclass
class Ledger:
    """Entries in the order in which their runs ended."""

    entries: list[Entry] = field(default_factory=list)
    _by_place: dict[tuple[str, int], Entry] = field(default_factory=dict)

    def add(self, entry: Entry) -> None:
        """Write an entry down. Lost and stopped runs are kept, but stand for nothing."""
        self.entries.append(entry)
        full = entry.item.phase is not Phase.SEARCH
        place = (entry.item.combination.key, entry.item.seed)
        if entry.result.outcome in _NOTHING:
            return
        if full or place not in self._by_place:
            self._by_place[place] = entry

    def at(self, combination: Combination, seed: int) -> Entry | None:
        """Return the run of this combination on this seed, if there is one."""
        return self._by_place.get((combination.key, seed))

    def tried(self, combination: Combination) -> bool:
        """Whether the combination was run on any seed."""
        return any(key == combination.key for key, _ in self._by_place)

    def count(self, combination: Combination, seeds: Iterable[int]) -> tuple[int, int]:
        """Return (converged, runs) of the combination over those of the seeds on which it was run."""
        made = [entry for seed in seeds if (entry := self.at(combination, seed)) is not None]
        return sum(entry.result.outcome is Outcome.CONVERGED for entry in made), len(made)

    def of_phase(self, phase: Phase) -> list[Entry]:
        """Return the entries of a phase that stand for something, in the order in which they ended."""
        return [e for e in self.entries if e.item.phase is phase and e.result.outcome not in _NOTHING]

    def lost(self, combination: Combination, seed: int) -> int:
        """Return how many runs of this combination on this seed were lost."""
        places = (e.item for e in self.entries if e.result.outcome is Outcome.LOST)
        return sum(item.combination == combination and item.seed == seed for item in places)

    def starved(self, combination: Combination, seed: int) -> bool:
        """Whether a run of this combination on this seed was lost for want of memory."""
        return any(
            entry.result.starved and entry.item.combination == combination and entry.item.seed == seed
            for entry in self.entries
            if entry.result.outcome is Outcome.LOST
        )

    @property
    def steps(self) -> int:
        """Optimizer steps trained by all runs."""
        return sum(entry.result.steps for entry in self.entries)

    @property
    def runs(self) -> int:
        """Runs that count against `--runs`: all but the lost."""
        return sum(entry.result.outcome is not Outcome.LOST for entry in self.entries)

    def seeds_of(self, combination: Combination) -> list[int]:
        """Return the seeds on which the combination was run."""
        return [seed for key, seed in self._by_place if key == combination.key]
