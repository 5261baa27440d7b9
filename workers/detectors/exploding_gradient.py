"""The loss stays far above that of guessing, or gradients grow by orders of magnitude."""

from __future__ import annotations

import math
import statistics
from collections import deque

from remedy.spaces.symptom import Symptom
from remedy.spaces.verdict import Verdict
from remedy.workers.detectors.descent import Descent
from remedy.workers.detectors.guessing import Mean, batch_accuracy, guessing_loss, progress, skill
from remedy.workers.detectors.streak import Patience, Streak
from remedy.workers.detectors.threshold import Threshold
from remedy.workers.observation import Observation, Setting


class ExplodingGradient:
    """Stops where the loss stays far above that of guessing at chance accuracy; notes gradient spikes."""

    factor = Threshold(
        1.3, "times the loss of guessing, held: no false alarm on 226 healthy runs, 35 % of the doomed (cases.md)"
    )
    growth = Threshold(10.0, "times its own beginning, for a loss that has no level of guessing to compare with")
    chance = Threshold(
        0.1, "at guessing: within a tenth of the way to the goal, and to every sample right on the batches", most=1
    )
    grace = Threshold(0.05, "share of the budget: soft rules wait for the first steps (catalogue A8)", most=1)
    patience = Threshold(
        Patience(share=0.3, steps=50, samples=5),
        "six leaky layers came back from a loss of 1e6 within 30 % of the budget, where 15 % would have stopped them",
    )
    spike = Threshold(
        100.0, "times the running median: catalogue D21 warns at 10 times the moving mean, and healthy runs do that"
    )
    median_of = Threshold(50, "samples that the running median is taken of", least=2)
    median_least = Threshold(10, "samples before there is a median to compare with", least=1)

    def __init__(self, setting: Setting) -> None:
        """Begin a run."""
        self._setting = setting
        self._level = self.factor * guessing_loss(setting)
        self._begin = max(setting.warmup, self.grace * setting.steps)
        self._streak = Streak()
        self._loss = Descent()
        self._skill = Mean()
        self._progress = math.nan
        self._norms: deque[float] = deque(maxlen=self.median_of)
        self._noted = False

    def observe(self, observation: Observation) -> Verdict | None:
        step, loss = observation.step, observation.mean_loss
        if math.isnan(self._level) and math.isfinite(loss):
            self._level = self.growth * abs(loss)
        if observation.metric is not None:
            self._progress = progress(self._setting, observation.metric)
        high = step > self._begin and loss > self._level and not self._progress > self.chance
        if not self._streak.see(step, holds=high):
            self._loss, self._skill = Descent(), Mean()
            return self._note(observation)
        self._loss.add(loss)
        self._skill.add(skill(self._setting, batch_accuracy(observation)))
        over = self.patience.over(self._streak, self._setting)
        if not over or self._loss.falls or self._skill.value > self.chance:
            return self._note(observation)
        return Verdict(
            Symptom.EXPLODING_GRADIENT, step, self._streak.begin,
            f"the loss is above {self._level:.3g} from step {self._streak.begin} to {step}, {self._loss.mean:.3g} on "
            f"average, with a gradient norm of {observation.gradient_norm:.2g} and the metric no better than guessing "
            f"({self._setting.chance:.3g})",
        )  # fmt: skip

    def _note(self, observation: Observation) -> Verdict | None:
        norm = observation.gradient_norm
        usual = statistics.median(self._norms) if len(self._norms) >= self.median_least else math.nan
        if math.isfinite(norm):
            self._norms.append(norm)
        if self._noted or not usual > 0 or not norm > self.spike * usual:
            return None
        self._noted = True
        return Verdict(
            Symptom.EXPLODING_GRADIENT, observation.step, observation.step,
            f"the gradient norm is {norm:.2g} at step {observation.step}, {norm / usual:.0f} times its running median",
            stops=False,
        )  # fmt: skip
