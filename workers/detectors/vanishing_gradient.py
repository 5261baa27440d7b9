"""The gradient of the first layers is orders of magnitude smaller than that of the last."""

from __future__ import annotations

import math

from remedy.spaces.symptom import Symptom
from remedy.spaces.verdict import Verdict
from remedy.workers.detectors.growth import Growth
from remedy.workers.detectors.guessing import Mean, batch_accuracy, progress, skill
from remedy.workers.detectors.streak import Patience, Streak
from remedy.workers.detectors.threshold import Threshold
from remedy.workers.detectors.weights import first_to_last
from remedy.workers.observation import Observation, Setting


class VanishingGradient:
    """Stops where no gradient reaches the first layer and nothing of the input the last; notes the ratio before."""

    ratio = Threshold(
        1e-5, "first layer to last, held: no false alarm on 226 healthy runs, 46 % of the doomed (cases.md)", most=1
    )
    least_spread = Threshold(
        1e-6,
        "deep sigmoid nets under Adam do recover (catalogue P11), told by an output whose spread over inputs grows "
        "from 1e-5 on; below 1e-6 it is rounding, and a 12-layer net stays there for 3,000 steps",
    )
    chance = Threshold(0.1, "a metric within a tenth of the way to the goal is no better than guessing", most=1)
    patience = Threshold(
        Patience(share=0.15, steps=60, samples=8),
        "soft, so it waits: deep sigmoid nets recover under Adam (catalogue P11), and their ratio grows meanwhile",
    )
    growing = Threshold(
        1.5, "times the first third of the stretch: a ratio that grows is on its way (kind late_tanh)", least=1
    )
    note_patience = Threshold(Patience(share=0.05, steps=20, samples=4), "a few samples in a row, so that it is noted")

    def __init__(self, setting: Setting) -> None:
        """Begin a run."""
        self._setting = setting
        self._small = Streak()
        self._lost = Streak()
        self._skill = Mean()
        self._growth = Growth(self.growing)
        self._progress = self._spread = math.nan
        self._noted = False

    def observe(self, observation: Observation) -> Verdict | None:
        step, ratio = observation.step, first_to_last(observation)
        if observation.validation is not None:
            self._spread = observation.validation.input_spread
        if observation.metric is not None:
            self._progress = progress(self._setting, observation.metric)
        small = self._small.see(step, holds=ratio < self.ratio)
        lost = small and self._spread < self.least_spread and not self._progress > self.chance
        if self._lost.see(step, holds=lost):
            self._skill.add(skill(self._setting, batch_accuracy(observation)))
            self._growth.add(ratio)
        else:
            self._skill, self._growth = Mean(), Growth(self.growing)
        over = self.patience.over(self._lost, self._setting)
        if over and not self._growth.grows and not self._skill.value > self.chance:
            return Verdict(
                Symptom.VANISHING_GRADIENT, step, self._small.begin,
                f"the first layer's gradient is {ratio:.0e} of the last layer's, below {self.ratio:.0e} since step "
                f"{self._small.begin}, the outputs differ over inputs by {self._spread:.0e} of their size, and the "
                f"metric is no better than guessing ({self._setting.chance:.3g})",
            )  # fmt: skip
        if self._noted or not self.note_patience.over(self._small, self._setting):
            return None
        self._noted = True
        return Verdict(
            Symptom.VANISHING_GRADIENT, step, self._small.begin,
            f"the first layer's gradient is {ratio:.0e} of the last layer's at step {step}, "
            f"below {self.ratio:.0e} since step {self._small.begin}",
            stops=False,
        )  # fmt: skip
