"""What a run is worth, as one number: the sampler is told it, and what came nearest is built upon."""

from __future__ import annotations

from remedy.search.spec import Spec
from remedy.spaces.outcome import Outcome
from remedy.workers.result import RunResult


def graded(result: RunResult, spec: Spec, chance: float) -> float:
    """Return the value the sampler is told: at least 1 for converged, else how near to the goal and for how long.

    "Nearly" must differ from "not at all": the last and the mean metric on the way from chance to the goal (for a
    stopped run its last value stands for the rest), and the share of the budget it survived. A run that was given up as
    too slow did not die: it counts as if it had gone on.
    """
    if result.outcome is Outcome.CONVERGED:
        return 1.0 + 0.5 * (1 - (result.goal_step or result.steps) / max(1, result.steps_full))
    if not result.steps_full or result.outcome in (Outcome.FAILED, Outcome.INAPPLICABLE):
        return 0.0
    survived = 1.0 if result.outcome is Outcome.MISSED else result.steps / result.steps_full
    values = [value for _, value in result.curves.get("metric", ())]
    span = spec.goal - chance
    if not values or not span or span != span:  # noqa: PLR0124  (NaN: the trivial predictor is unknown)
        return 0.2 * survived
    near = [min(1.0, max(0.0, (value - chance) / span)) if value == value else 0.0 for value in values]  # noqa: PLR0124
    mean = sum(near) / len(near) * survived + near[-1] * (1 - survived)
    return min(0.99, 0.4 * near[-1] + 0.35 * mean + 0.2 * survived)
