"""The scale of a float16 loss falls and falls."""

from __future__ import annotations

import math
from collections import deque

from remedy.spaces.symptom import Symptom
from remedy.spaces.verdict import Verdict
from remedy.workers.detectors.threshold import Threshold
from remedy.workers.observation import Observation, Setting


class LossScaleCollapse:
    """Notes a GradScaler whose scale falls below 1, or halves again and again; never stops.

    Each halving is a step that overflowed and was left out. A new scaler finds its level so, within a few steps.
    """

    least = Threshold(
        1.0, "catalogue D29: a scale below 1 makes gradients smaller, which is the opposite of what it is there for"
    )
    halvings = Threshold(10, "catalogue D29: as many steps left out within the window", least=1)
    window = Threshold(100, "steps", least=1)

    def __init__(self, setting: Setting) -> None:
        """Begin a run; nothing of the setting matters here."""
        del setting
        self._seen: deque[tuple[int, float]] = deque()
        self._noted = False

    def observe(self, observation: Observation) -> Verdict | None:
        step, scale = observation.step, observation.strain.loss_scale
        if self._noted or not scale >= 0:
            return None
        self._seen.append((step, scale))
        while step - self._seen[0][0] > self.window:
            self._seen.popleft()
        since, highest = max(self._seen, key=lambda seen: seen[1])
        fallen = math.log2(highest / scale) if scale > 0 else math.inf
        if scale >= self.least and fallen < self.halvings:
            return None
        self._noted = True
        return Verdict(
            Symptom.LOSS_SCALE_COLLAPSE, step, since,
            f"the loss scale is {scale:.3g} at step {step}, and was {highest:.3g} at step {since}: each halving is a "
            "step that overflowed and was left out",
            stops=False,
        )  # fmt: skip
