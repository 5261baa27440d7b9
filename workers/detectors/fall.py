"""A metric that rose well above guessing and fell back."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

from remedy.workers.detectors.descent import Descent
from remedy.workers.detectors.guessing import Mean, batch_accuracy, progress, skill
from remedy.workers.detectors.streak import Streak
from remedy.workers.detectors.threshold import Threshold
from remedy.workers.observation import Observation, Setting


class FallThresholds:
    """What counts as a fall."""

    window = Threshold(3, "validations whose best mean is the peak (catalogue D15: 0 of the good runs)", least=1)
    least_peak = Threshold(0.25, "of the way to the goal: well above chance (catalogue D15)", most=1)
    fallen = Threshold(0.25, "of the peak: back near chance (catalogue D15)", most=1)
    batches = Threshold(8, "batches in a row for the best accuracy and the best loss on train data", least=1)
    loss_rise = Threshold(3.0, "times its best: where targets are no classes, the train loss says it")


@dataclass
class Fall:
    """Follows the peak of a run, and the stretch since it fell from there.

    Both sides must agree: the validation metric has fallen, and the batches trained on show it too (a batch norm whose
    running statistics are off fails on validation data only, catalogue P24).

    Attributes:
        peak: best mean of `window` validations in a row, where guessing is 0 and the goal 1.
        onset: the first validation of the fall.
        streak: the validations since the fall that count: not those of a warm-up, since a learning rate on its way up
            throws off what comes back after its peak.
    """

    setting: Setting
    limits: FallThresholds
    peak: float = -math.inf
    peak_step: int = 0
    metric: float = math.nan
    onset: int | None = None
    streak: Streak = field(default_factory=Streak)
    _skill: Mean = field(default_factory=Mean)
    _loss: Descent = field(default_factory=Descent)
    _metrics: deque[float] = field(init=False)
    _skills: deque[float] = field(init=False)
    _losses: deque[float] = field(init=False)
    _best_skill: float = -math.inf
    _best_loss: float = math.inf

    def __post_init__(self) -> None:
        """Make room for what is looked back on."""
        self._metrics = deque(maxlen=self.limits.window)
        self._skills, self._losses = deque(maxlen=self.limits.batches), deque(maxlen=self.limits.batches)

    def see(self, seen: Observation) -> None:
        """Take an observation into account."""
        self._see_train(seen)
        if seen.metric is None:
            return
        self.metric, now = seen.metric, progress(self.setting, seen.metric)
        self._metrics.append(now)
        mean = sum(self._metrics) / self.limits.window
        if len(self._metrics) == self.limits.window and mean > self.peak:
            self.peak, self.peak_step = mean, seen.step
        fell = self.peak >= self.limits.least_peak and now <= self.limits.fallen * min(self.peak, 1.0)
        self.onset = (seen.step if self.onset is None else self.onset) if fell else None
        if not self.streak.see(seen.step, holds=fell and seen.step >= self.setting.warmup):
            self._skill, self._loss = Mean(), Descent()

    def _see_train(self, seen: Observation) -> None:
        here = skill(self.setting, batch_accuracy(seen))
        if self.streak.since is not None:
            self._skill.add(here)
            self._loss.add(seen.mean_loss)
        self._skills.append(here)
        self._losses.append(seen.mean_loss)
        if len(self._skills) == self.limits.batches:
            # A mean with a NaN in it compares as false and is left out.
            accuracy, loss = sum(self._skills) / self.limits.batches, sum(self._losses) / self.limits.batches
            self._best_skill = max(self._best_skill, accuracy)
            self._best_loss = min(self._best_loss, loss)

    @property
    def peak_metric(self) -> float:
        """The peak on the metric's own scale."""
        return self.setting.chance + self.peak * (self.setting.goal - self.setting.chance)

    @property
    def lasting(self) -> bool:
        """Whether the batches since the fall show it as well, and no falling loss announces a return."""
        if self._loss.falls:
            return False
        if not math.isnan(self._skill.value):
            return self._skill.value <= self.limits.fallen * max(self._best_skill, self.limits.least_peak)
        return self._loss.mean >= self.limits.loss_rise * self._best_loss
