"""What is run of a training each night, and what it shows against the nights before. Pure: a function of its ledger."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from remedy.search.baseline import deterministic
from remedy.search.evidence import LEAST_RUNS, LEVEL, MOST_RUNS, better, fisher, holds, wilson
from remedy.search.ledger import Entry, Item, Ledger
from remedy.search.spec import Spec
from remedy.spaces.combination import Combination
from remedy.spaces.outcome import Outcome
from remedy.workers.order import Phase
from remedy.workers.result import RunResult

_MORE = 5
BASELINE, RERUN, BEST_FIX = range(3)
"""The stages of a check."""


class Status(StrEnum):
    """How a training stands after a night; exactly one for each."""

    HEALTHY = "healthy"
    NEWLY_BROKEN = "newly broken"
    FIXED = "fixed"
    BROKEN = "broken"
    UNSTABLE = "unstable"
    NOT_RUN = "not run"

    @property
    def red(self) -> bool:
        """Whether somebody has to look at it this morning."""
        return self in (Status.NEWLY_BROKEN, Status.NOT_RUN)


_RANK = {Status.BROKEN: 0, Status.UNSTABLE: 1, Status.HEALTHY: 2}


@dataclass(frozen=True)
class Anchor:
    """The night that tonight is compared with: the first on which the training stood as it stands since.

    Were it last night, many small steps downwards, each inside the noise, would never be seen.
    """

    night: str
    status: Status
    converged: int
    runs: int
    base_converged: int
    """On the baseline's seeds alone, which are the same each night."""

    def to_json(self) -> dict[str, Any]:
        """Return JSON-able data."""
        return {"night": self.night, "status": str(self.status), "converged": self.converged, "runs": self.runs,
                "base_converged": self.base_converged}  # fmt: skip

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Anchor:
        """Read what `to_json` wrote."""
        return cls(**{**data, "status": Status(data["status"])})


@dataclass(frozen=True)
class Change:
    """What came of the comparison. `p` is None where nothing had to be compared."""

    status: Status
    kind: str
    """First night, unchanged, worse, better, inside the noise, unconfirmed (the rerun was cut off), or not run."""
    p: float | None = None


@dataclass
class NightCheck:
    """The nightly check of one training.

    Attributes:
        spec: its seeds, as of the study that would search for a fix.
        anchor: what tonight is compared with; None on a first night, or where nights are not alike.
        fix: last night's best fix, and `fix_runs` the number of its confirming seeds.
        night: tonight.
    """

    spec: Spec
    night: str
    anchor: Anchor | None = None
    fix: Combination | None = None
    fix_runs: int = LEAST_RUNS
    ledger: Ledger = field(default_factory=Ledger)

    # ---------------------------------------------------------------- what is known

    @property
    def baseline(self) -> list[Entry]:
        """The untouched training's runs on the seeds of every night."""
        return self._made(Combination(), self.spec.baseline_seeds)

    @property
    def whole(self) -> bool:
        """Whether all runs of the baseline ended."""
        return len(self.baseline) == len(self.spec.baseline_seeds)

    @property
    def fresh(self) -> tuple[int, ...]:
        """The fresh seeds on which the untouched training was run again, to confirm a change."""
        made = 0
        while made < MOST_RUNS and self.ledger.at(Combination(), self.spec.confirm_list(made + 1)[-1]) is not None:
            made += 1
        return self.spec.confirm_list(made)

    @property
    def untouched(self) -> list[Entry]:
        """All runs of the untouched training tonight: on the nightly seeds, then on fresh ones."""
        return [*self.baseline, *self._made(Combination(), self.fresh)]

    @property
    def counts(self) -> tuple[int, int]:
        """Converged runs and runs of the untouched training."""
        return _count(self.untouched)

    @property
    def rerun(self) -> tuple[int, int]:
        """Converged runs and runs of the untouched training on fresh seeds."""
        return _count(self._made(Combination(), self.fresh))

    @property
    def failed(self) -> bool:
        """Whether every run of the baseline was ended by the training's own code."""
        return self.whole and all(entry.result.outcome is Outcome.FAILED for entry in self.baseline)

    @property
    def identical(self) -> bool:
        """Whether runs on different seeds were the same run."""
        return deterministic(self.baseline)

    def contrast(self) -> dict[str, Any] | None:
        """Return what the best fix did tonight, and the untouched training on the same seeds; None before it ran."""
        if self.fix is None:
            return None
        seeds = self.spec.confirm_list(self.fix_runs)
        (converged, runs), (base, base_runs) = (_count(self._made(c, seeds)) for c in (self.fix, Combination()))
        if not runs or not base_runs:
            return None
        low, high = wilson(converged, runs)
        whole = runs == base_runs == self.fix_runs
        return {
            "converged": converged, "runs": runs, "interval": [low, high], "base_converged": base,
            "base_runs": base_runs, "whole": whole,
            "holds": whole and holds(converged, runs) and better(converged, runs, base, base_runs),
        }  # fmt: skip

    def _made(self, combination: Combination, seeds: Iterable[int]) -> list[Entry]:
        return [entry for seed in seeds if (entry := self.ledger.at(combination, seed)) is not None]

    # ---------------------------------------------------------------- what comes next

    def wants(self) -> Iterator[tuple[int, Item]]:
        """Yield (stage, run) for what is to be run next; a stage waits until the one before it is whole."""
        missing = [
            (BASELINE, Item(Phase.BASELINE, Combination(), seed)) for seed in self._open(self.spec.baseline_seeds)
        ]
        if missing or self.failed:
            yield from missing
            return
        count = self._rerun_seeds()
        missing = [
            (RERUN, Item(Phase.MINIMISE, Combination(), seed)) for seed in self._open(self.spec.confirm_list(count))
        ]
        if missing:
            yield from missing
            return
        if self.fix is None or self.change().status in (Status.HEALTHY, Status.FIXED):
            return  # nothing to repair: what repaired it is not needed
        seeds, label = self.spec.confirm_list(self.fix_runs), self.fix.label
        for combination, phase in ((self.fix, Phase.CONFIRM), (Combination(), Phase.MINIMISE)):
            yield from ((BEST_FIX, Item(phase, combination, seed, label)) for seed in self._open(seeds, combination))

    def _open(self, seeds: Iterable[int], combination: Combination | None = None) -> list[int]:
        return [seed for seed in seeds if self.ledger.at(combination or Combination(), seed) is None]

    def _rerun_seeds(self) -> int:
        """Return on how many fresh seeds the untouched training has to be run tonight, as far as is known now."""
        if self.anchor is None or _count(self.baseline)[0] == self.anchor.base_converged:
            return 0
        count = LEAST_RUNS
        while count < MOST_RUNS and len(self.fresh) >= count and self._undecided(count):
            count = min(MOST_RUNS, count + _MORE)
        return count

    def _undecided(self, count: int) -> bool:
        converged, runs = _count(self._made(Combination(), self.spec.confirm_list(count)))
        return _grade(converged, runs) is not self._anchor_grade and self._p(converged, runs) >= LEVEL

    # ---------------------------------------------------------------- what it shows

    def tell(self, item: Item, result: RunResult) -> None:
        """Take a result into account."""
        self.ledger.add(Entry(item, result))

    @property
    def _anchor_grade(self) -> Status:
        assert self.anchor is not None  # noqa: S101  (asked only where there is one)
        return _grade(self.anchor.converged, self.anchor.runs)

    def _p(self, converged: int, runs: int) -> float:
        """Return the one-sided p (Fisher's exact test) that tonight and the anchor are alike."""
        assert self.anchor is not None  # noqa: S101  (asked only where there is one)
        before = self.anchor.converged, self.anchor.runs
        worse = converged / runs < before[0] / before[1]
        return fisher(*before, converged, runs) if worse else fisher(converged, runs, *before)

    def change(self) -> Change:
        """Compare tonight with the anchor.

        What looks different on the nightly seeds is only suspected; the rerun on fresh ones decides, and alone: runs
        that raised the suspicion are no evidence for it.
        """
        if self.failed or not self.whole:
            return Change(Status.NOT_RUN, str(Status.NOT_RUN))
        if self.anchor is None:
            return Change(_strict(*self.counts), "first night")
        before = self.anchor.status
        if _count(self.baseline)[0] == self.anchor.base_converged:
            return Change(before, "unchanged")
        if len(self.fresh) < LEAST_RUNS:
            return Change(Status.UNSTABLE if before is Status.HEALTHY else before, "unconfirmed")
        return self._confirmed(before)

    def _confirmed(self, before: Status) -> Change:
        """Say what the rerun shows."""
        converged, runs = self.rerun
        grade, p = _grade(converged, runs), self._p(converged, runs)
        if p < LEVEL and grade is not self._anchor_grade:
            if _RANK[grade] < _RANK[self._anchor_grade]:
                return Change(Status.NEWLY_BROKEN, "worse", p)
            return Change(Status.FIXED if grade is Status.HEALTHY else grade, "better", p)
        # Not told apart from the anchor; but who cannot be called healthy tonight is not.
        doubtful = before is Status.HEALTHY and grade is not Status.HEALTHY
        return Change(Status.UNSTABLE if doubtful else before, "inside the noise", p)

    def next_anchor(self) -> Anchor | None:
        """Return what the next night is compared with."""
        change = self.change()
        if change.status is Status.NOT_RUN or change.kind in ("unchanged", "inside the noise", "unconfirmed"):
            return self.anchor
        converged, runs = self.counts if self.anchor is None else self.rerun
        status = change.status if self.anchor is None else _grade(converged, runs)
        return Anchor(self.night, status, converged, runs, _count(self.baseline)[0])


def _count(entries: list[Entry]) -> tuple[int, int]:
    return sum(entry.result.outcome is Outcome.CONVERGED for entry in entries), len(entries)


def _strict(converged: int, runs: int) -> Status:
    """Return what a first night shows: healthy is who converges on every seed, as in a study."""
    if converged == runs:
        return Status.HEALTHY
    return Status.UNSTABLE if converged else Status.BROKEN


def _grade(converged: int, runs: int) -> Status:
    """Return what a share shows: 80 % is what is asked of a fix, and of who was healthy before."""
    if holds(converged, runs):
        return Status.HEALTHY
    return Status.UNSTABLE if converged else Status.BROKEN
