"""The scores of all classes drift together."""

from __future__ import annotations

import math

from remedy.spaces.symptom import Symptom
from remedy.spaces.verdict import Verdict
from remedy.workers.detectors.growth import Growth
from remedy.workers.detectors.streak import Patience, Streak
from remedy.workers.detectors.threshold import Threshold
from remedy.workers.observation import Observation, Setting


class DriftingLogits:
    """Notes scores whose common part is large, far above their differences, and grows; never stops.

    The loss is blind to what all classes have in common, so that nothing brings it back; but it costs digits only.
    """

    ratio = Threshold(
        5.0,
        "of the common part to the standard deviation over classes; catalogue D12 has 30 for the ratio alone, which a "
        "net at guessing reaches by scores next to 0, and a drift under Adam, as the root of its steps, after "
        "thousands; healthy runs stay below 1.2",
    )
    offset = Threshold(
        30.0, "catalogue D12: a mean squared logarithm of the softmax's denominator of 1e3 is a common part of 32, at "
        "which bfloat16 has four numbers to the whole one"
    )  # fmt: skip
    growing = Threshold(
        1.1, "times the first third of the stretch: heads that were trained before have an offset that stays", least=1
    )
    patience = Threshold(Patience(share=0.05, steps=20, samples=6), "a drift lasts; six samples have thirds to compare")

    def __init__(self, setting: Setting) -> None:
        """Begin a run."""
        self._setting = setting
        self._far = Streak()
        self._growth = Growth(self.growing)
        self._noted = False

    def observe(self, observation: Observation) -> Verdict | None:
        strain = observation.strain
        if self._noted or math.isnan(strain.offset):
            return None
        far = strain.offset > self.offset and strain.offset_ratio > self.ratio
        if not self._far.see(observation.step, holds=far):
            self._growth = Growth(self.growing)
            return None
        self._growth.add(strain.offset)
        if not self.patience.over(self._far, self._setting) or not self._growth.grows:
            return None
        self._noted = True
        return Verdict(
            Symptom.DRIFTING_LOGITS, observation.step, self._far.begin,
            f"what the scores of all classes have in common is {strain.offset:.3g} at step {observation.step}, "
            f"{strain.offset_ratio:.0f} times their standard deviation over classes, and grew {self._growth.times:.2g} "
            f"times since step {self._far.begin}",
            stops=False,
        )  # fmt: skip
