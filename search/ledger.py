"""What is known so far: every run's result by combination and seed. All decisions and the report read this."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from remedy.spaces.combination import Combination
from remedy.spaces.outcome import Outcome
from remedy.workers.order import Phase
from remedy.workers.result import RunResult

_NOTHING = (Outcome.LOST, Outcome.STOPPED)
"""How a run may end that says nothing about its combination."""
_NO_RUNS: Mapping[int, Entry] = MappingProxyType({})


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
    """Entries in the order in which their runs ended.

    Everything that is asked after each run is counted as entries come in: a study may have ten thousand.
    """

    entries: list[Entry] = field(default_factory=list)
    _by_place: dict[str, dict[int, Entry]] = field(default_factory=dict)
    _by_phase: dict[Phase, list[Entry]] = field(default_factory=dict)
    _lost: dict[tuple[Combination, int], list[Entry]] = field(default_factory=dict)
    _steps: int = 0
    _runs: int = 0

    def add(self, entry: Entry) -> None:
        """Write an entry down. Lost and stopped runs are kept, but stand for nothing."""
        item, outcome = entry.item, entry.result.outcome
        self.entries.append(entry)
        self._steps += entry.result.steps
        self._runs += outcome is not Outcome.LOST
        if outcome is Outcome.LOST:
            self._lost.setdefault((item.combination, item.seed), []).append(entry)
        if outcome in _NOTHING:
            return
        self._by_phase.setdefault(item.phase, []).append(entry)
        full = item.phase is not Phase.SEARCH
        made = self._by_place.setdefault(item.combination.key, {})
        if full or item.seed not in made:
            made[item.seed] = entry

    def at(self, combination: Combination, seed: int) -> Entry | None:
        """Return the run of this combination on this seed, if there is one."""
        return self.by_seed(combination).get(seed)

    def by_seed(self, combination: Combination) -> Mapping[int, Entry]:
        """Return the combination's runs by their seeds."""
        return self._by_place.get(combination.key, _NO_RUNS)

    def tried(self, combination: Combination) -> bool:
        """Whether the combination was run on any seed."""
        return bool(self.by_seed(combination))

    def count(self, combination: Combination, seeds: Iterable[int]) -> tuple[int, int]:
        """Return (converged, runs) of the combination over those of the seeds on which it was run."""
        by_seed = self.by_seed(combination)
        made = [by_seed[seed] for seed in seeds if seed in by_seed]
        return sum(entry.result.outcome is Outcome.CONVERGED for entry in made), len(made)

    def of_phase(self, phase: Phase) -> Sequence[Entry]:
        """Return the entries of a phase that stand for something, in the order in which they ended."""
        return self._by_phase.get(phase, ())

    def lost(self, combination: Combination, seed: int) -> int:
        """Return how many runs of this combination on this seed were lost."""
        return len(self._lost.get((combination, seed), ()))

    def starved(self, combination: Combination, seed: int) -> bool:
        """Whether a run of this combination on this seed was lost for want of memory."""
        # Nearly always nothing was lost, and this is asked for each run under way whenever one is begun.
        return bool(self._lost) and any(e.result.starved for e in self._lost.get((combination, seed), ()))

    @property
    def steps(self) -> int:
        """Optimizer steps trained by all runs."""
        return self._steps

    @property
    def runs(self) -> int:
        """Runs that count against `--runs`: all but the lost."""
        return self._runs

    def seeds_of(self, combination: Combination) -> list[int]:
        """Return the seeds on which the combination was run."""
        return list(self.by_seed(combination))
