"""The updates do not move the weights."""

from __future__ import annotations

import math

from remedy.spaces.symptom import Symptom
from remedy.spaces.verdict import Verdict
from remedy.workers.detectors.guessing import progress
from remedy.workers.detectors.streak import Patience, Streak
from remedy.workers.detectors.threshold import Threshold
from remedy.workers.observation import Observation, Setting


class StillWeights:
    """Stops where no weight moves by more than rounding while the metric is at guessing; notes weights left out."""

    rounding = Threshold(
        1e-8, "of a weight's norm: less than float32 can add to most of its entries (catalogue D19: 1 of 100 good runs)"
    )
    chance = Threshold(0.1, "a metric within a tenth of the way to the goal is no better than guessing", most=1)
    patience = Threshold(
        Patience(share=0.1, steps=50, samples=8),
        "after the warm-up; so many steps of that size could not add up to anything within the budget",
    )
    note_patience = Threshold(Patience(share=0.05, steps=20, samples=4), "a few samples in a row, so that it is noted")

    def __init__(self, setting: Setting) -> None:
        """Begin a run."""
        self._setting = setting
        self._still = Streak()
        self._left = Streak()
        self._progress = math.nan
        self._noted = False

    def observe(self, observation: Observation) -> Verdict | None:
        step, layers = observation.step, observation.layers
        if observation.metric is not None:
            self._progress = progress(self._setting, observation.metric)
        ratios = [layer.update_ratio for layer in layers if not math.isnan(layer.update_ratio)]
        if not ratios or step <= self._setting.warmup or not math.isfinite(sum(ratios)):
            return None
        largest = max(ratios)
        self._still.see(step, holds=largest < self.rounding and not self._progress > self.chance)
        # Where all are still the gradient is the matter, and others speak of it.
        left = [layer.name for layer in layers if layer.update_ratio == 0] if largest > self.rounding else []
        self._left.see(step, holds=bool(left))
        # A gradient that is exactly 0 everywhere has explanations of its own.
        moved = observation.gradient_norm > 0
        if moved and self.patience.over(self._still, self._setting):
            return Verdict(
                Symptom.STILL_WEIGHTS, step, self._still.begin,
                f"the largest update of a weight is {largest:.0e} of its norm at step {step}, below "
                f"{self.rounding:.0e} since step {self._still.begin}, and the metric is no better than guessing "
                f"({self._setting.chance:.3g})",
            )  # fmt: skip
        if self._noted or not left or not self.note_patience.over(self._left, self._setting):
            return None
        self._noted = True
        return Verdict(
            Symptom.STILL_WEIGHTS, step, self._left.begin,
            f"{len(left)} of {len(layers)} weights do not move at all since step {self._left.begin}, such as "
            f"{left[0]!r}",
            stops=False,
        )  # fmt: skip
