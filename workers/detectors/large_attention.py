"""The logits of attention grow until its softmax is a choice of one."""

from __future__ import annotations

import math

from remedy.spaces.symptom import Symptom
from remedy.spaces.verdict import Verdict
from remedy.workers.detectors.streak import Patience, Streak
from remedy.workers.detectors.threshold import Threshold
from remedy.workers.observation import Observation, Setting


class LargeAttention:
    """Notes attention logits at which the softmax takes one position for certain; never stops: nets live with them."""

    large = Threshold(
        1e3,
        "catalogue D28: bad from 1e4 on; a hot transformer that still converges reaches 370, a healthy one 6 (kinds "
        "transformer_hot, healthy_transformer)",
    )
    patience = Threshold(Patience(share=0.05, steps=10, samples=2), "one validation alone may be a spike that recovers")

    def __init__(self, setting: Setting) -> None:
        """Begin a run."""
        self._setting = setting
        self._large = Streak()
        self._noted = False

    def observe(self, observation: Observation) -> Verdict | None:
        logit = observation.strain.attention
        if self._noted or math.isnan(logit):
            return None
        self._large.see(observation.step, holds=logit > self.large)
        if not self.patience.over(self._large, self._setting):
            return None
        self._noted = True
        return Verdict(
            Symptom.LARGE_ATTENTION, observation.step, self._large.begin,
            f"the largest attention logit is {logit:.3g} at step {observation.step}, above {self.large:g} since step "
            f"{self._large.begin}",
            stops=False,
        )  # fmt: skip
