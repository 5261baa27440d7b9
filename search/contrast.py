"""A contrast: the same seeds, run with a remedy and without it. The only place that effects come from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from remedy.search.baseline import deterministic
from remedy.search.candidate import Candidate
from remedy.search.evidence import LEAST_TOLD, MOST_RUNS, balance
from remedy.search.ledger import Ledger
from remedy.search.spec import Spec
from remedy.spaces.combination import Combination
from remedy.spaces.outcome import Outcome
from remedy.workers.order import Phase

Term = tuple[int, Combination]
"""A combination whose share of converged runs is added (1) or taken away (-1)."""


@dataclass(frozen=True)
class Contrast:
    """Shares of converged runs, added and taken away, on seeds on which every one of them was run.

    Args:
        counts: of each combination its sign, how many runs converged, of how many.
        seeds: those on which all were run.
        fresh: whether they are seeds of the confirmation. The search's own seed is chosen: the untouched training
            does not converge on it, and what became a fix did.
        identical: whether runs on different seeds are the same run, so that seeds are no unit of evidence.
    """

    counts: tuple[tuple[int, int, int], ...]
    seeds: tuple[int, ...]
    fresh: bool
    identical: bool = False

    @property
    def effect(self) -> float:
        """The shares, added up."""
        return sum(sign * converged / runs for sign, converged, runs in self.counts)

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval of it; None where there are too few seeds for one to mean anything."""
        return None if self.identical or len(self.seeds) < LEAST_TOLD else balance(self.counts)

    def told(self, names: Sequence[str]) -> dict[str, Any]:
        """Return it as JSON-able data, the counts under these names."""
        counts = {
            name: {"converged": converged, "runs": runs}
            for name, (_, converged, runs) in zip(names, self.counts, strict=True)
        }
        interval = self.interval
        return {
            "seeds": list(self.seeds),
            "fresh": self.fresh,
            **counts,
            "effect": self.effect,
            "interval": list(interval) if interval else None,
        }


def contrast(ledger: Ledger, spec: Spec, terms: Sequence[Term]) -> Contrast | None:
    """Return the contrast of combinations, on fresh seeds where all were run on one, else on the others they share."""
    fresh = set(spec.confirm_list(MOST_RUNS))
    shared = _shared(ledger, (combination for _, combination in terms))
    proved = [seed for seed in shared if seed in fresh]
    seeds = proved or shared
    if not seeds:
        return None
    counts = tuple((sign, *ledger.count(combination, seeds)) for sign, combination in terms)
    return Contrast(counts, tuple(seeds), bool(proved), deterministic(ledger.of_phase(Phase.BASELINE)))


def _shared(ledger: Ledger, combinations: Iterable[Combination]) -> list[int]:
    first, *others = (_changed(ledger, combination) for combination in combinations)
    return sorted(first.intersection(*others))


def _changed(ledger: Ledger, combination: Combination) -> set[int]:
    made = ledger.by_seed(combination).items()
    return {seed for seed, entry in made if entry.result.outcome is not Outcome.INAPPLICABLE}


def alone(ledger: Ledger, spec: Spec, combination: Combination) -> Contrast | None:
    """Return what a combination adds to the untouched training."""
    return contrast(ledger, spec, ((1, combination), (-1, Combination())))


def left_out(ledger: Ledger, spec: Spec, candidate: Candidate, rest: Combination) -> Contrast | None:
    """Return what a fix loses with a remedy left out of it."""
    return contrast(ledger, spec, ((1, candidate.combination), (-1, rest)))
