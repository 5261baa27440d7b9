"""A fix as a recipe: how good its runs end, how soon they are there, and how far they lie apart over the seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from remedy.search.ledger import Entry
from remedy.workers.result import RunResult


def recipe(entries: Sequence[Entry], first: Sequence[Entry] = (), mode: str = "max") -> dict[str, Any]:
    """Return what the runs of a fix come to, and how they compare with those of the `first` fix on the same seeds.

    A time is a run's own, in proportion to its steps: it holds for the machine and the company it had.
    """
    results = [entry.result for entry in entries]
    return {
        "metric": spread([result.metric for result in results]),
        "steps_to_goal": spread([_steps(result) for result in results]),
        "seconds_to_goal": spread([_seconds(result) for result in results]),
        "against_first": _against(_by_seed(entries), _by_seed(first), mode) if first else None,
    }


def spread(values: Sequence[float]) -> dict[str, Any] | None:
    """Return mean, standard deviation, lowest and highest of what is finite; None where nothing is."""
    known = [value for value in values if math.isfinite(value)]
    if not known:
        return None
    mean = sum(known) / len(known)
    return {
        "mean": mean,
        "sd": deviation(known),
        "lowest": min(known),
        "highest": max(known),
        "runs": len(known),
    }


def deviation(values: Sequence[float]) -> float | None:
    """Return the standard deviation of a sample; None for fewer than two values."""
    if len(values) < 2:
        return None
    mean = sum(values) / len(values)
    return math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))


def _steps(result: RunResult) -> float:
    return math.nan if result.goal_step is None else float(result.goal_step)


def _seconds(result: RunResult) -> float:
    return result.seconds * _steps(result) / result.steps if result.steps else math.nan


def _by_seed(entries: Sequence[Entry]) -> dict[int, RunResult]:
    return {entry.item.seed: entry.result for entry in entries}


def _against(mine: Mapping[int, RunResult], other: Mapping[int, RunResult], mode: str) -> dict[str, Any]:
    """Compare seed by seed: the difference of the final metric, and of the steps to the goal where both reached it."""
    both = [(mine[seed], other[seed]) for seed in sorted(set(mine) & set(other))]
    metric = [a.metric - b.metric for a, b in both if math.isfinite(a.metric) and math.isfinite(b.metric)]
    steps = [_steps(a) - _steps(b) for a, b in both if a.goal_step is not None and b.goal_step is not None]
    sign = -1 if mode == "min" else 1
    return {
        "metric": spread(metric),
        "better": sum(sign * gap > 0 for gap in metric),
        "steps_to_goal": spread(steps),
        "sooner": sum(gap < 0 for gap in steps),
    }
