"""The loss stays above that of guessing."""

from __future__ import annotations

import math
import statistics
from collections import deque

from remedy.spaces.symptom import Symptom
from remedy.spaces.verdict import Verdict
from remedy.workers.detectors.guessing import Mean, batch_accuracy, guessing_loss, progress, skill
from remedy.workers.detectors.threshold import Threshold
from remedy.workers.observation import Observation, Setting


def slope(values: list[float]) -> float:
    """Return the slope of a line through values in a row, in its standard errors."""
    count = len(values)
    line = statistics.linear_regression(range(count), values)
    left = sum((value - line.intercept - line.slope * place) ** 2 for place, value in enumerate(values))
    error = math.sqrt(left / (count - 2) / (count * (count * count - 1) / 12))
    return line.slope / error if error > 0 else math.inf * line.slope if line.slope else 0.0


class WorseThanGuessing:
    """Stops where a run at guessing has a loss surely above that of guessing, and not on its way down.

    The biases of the last layer alone bring any net down to the loss of guessing within some tens of steps. One that
    stays above it for a third of its budget has steps that throw it about. A run that is slow, or blooms late, sits at
    the loss of guessing, not above it.
    """

    above = Threshold(0.03, "of the loss of guessing: late bloomers of the calibrating kinds stay within 0.02 of it")
    errors = Threshold(
        4.0, "standard errors that the mean is above it: an error rate of 3e-5 for a window of normal losses"
    )
    chance = Threshold(
        0.1, "at guessing: within a tenth of the way to the goal, and to every sample right on the batches", most=1
    )
    grace = Threshold(0.05, "share of the budget: soft rules wait for the first steps (catalogue A8)", most=1)
    share = Threshold(
        0.3,
        "of the budget, so that a slope can show (kind weights_far_too_large): six leaky layers came back from a loss "
        "of 1e6 within so much",
        most=1,
    )
    steps = Threshold(60, "steps at least")
    samples = Threshold(10, "samples at least", least=6)
    falling = Threshold(
        3.0, "standard errors of its slope below 0: a loss on its way down (kind weights_far_too_large), slow as it is"
    )
    worse = Threshold(0.25, "of the way to the goal, on the other side of guessing, where the loss has no such level")

    def __init__(self, setting: Setting) -> None:
        """Begin a run."""
        self._setting = setting
        self._guess = guessing_loss(setting)
        self._begin = max(setting.warmup, self.grace * setting.steps)
        self._span = max(self.steps, self.share * setting.steps)
        self._losses: deque[tuple[int, float, float]] = deque()
        self._metrics: deque[tuple[int, float]] = deque()
        self._since: int | None = None

    def observe(self, observation: Observation) -> Verdict | None:
        step = observation.step
        if step <= self._begin:
            return None
        self._since = step if self._since is None else self._since
        here = skill(self._setting, batch_accuracy(observation))
        if math.isfinite(observation.mean_loss):
            self._losses.append((step, observation.mean_loss, here))
        while self._losses and self._losses[0][0] < step - self._span:
            self._losses.popleft()
        if observation.metric is None:
            return None
        now = progress(self._setting, observation.metric)
        self._metrics.append((step, now))
        while self._metrics and self._metrics[0][0] < step - self._span:
            self._metrics.popleft()
        if step - self._since < self._span or not all(value <= self.chance for _, value in self._metrics):
            return None
        return self._by_loss(observation) if not math.isnan(self._guess) else self._by_metric(observation)

    def _by_loss(self, observation: Observation) -> Verdict | None:
        losses = [loss for _, loss, _ in self._losses]
        count = len(losses)
        learnt = Mean()
        for _, _, here in self._losses:
            learnt.add(here)
        if count < self.samples or learnt.value > self.chance:
            return None
        mean, error = statistics.fmean(losses), statistics.stdev(losses) / math.sqrt(count)
        last = statistics.fmean(losses[-(count // 3) :])
        surely = mean - self.errors * error > self._guess and mean > (1 + self.above) * self._guess
        if not surely or last < (1 + self.above) * self._guess or slope(losses) < -self.falling:
            return None
        return self._verdict(
            observation,
            f"the mean loss is {mean:.4g}, {(mean - self._guess) / max(error, 1e-12):.0f} standard errors above that "
            f"of guessing ({self._guess:.4g}), over {count} samples",
        )

    def _by_metric(self, observation: Observation) -> Verdict | None:
        below = [-value for _, value in self._metrics]
        if len(below) < self.samples // 2 or min(below) < self.worse:
            return None
        # A run that comes up step by step is slow, not lost: of all pairs of validations, most are then improvements.
        pairs = [(a, b) for place, a in enumerate(below) for b in below[place + 1 :]]
        if sum(b < a for a, b in pairs) > 0.75 * len(pairs):
            return None
        return self._verdict(
            observation, f"the metric is {observation.metric:.4g}, worse than guessing, and does not come up"
        )

    def _verdict(self, observation: Observation, what: str) -> Verdict:
        onset = self._metrics[0][0]
        return Verdict(
            Symptom.WORSE_THAN_GUESSING, observation.step, onset,
            f"{what}, from step {onset} to {observation.step}, with the metric never better than guessing "
            f"({self._setting.chance:.3g})",
        )  # fmt: skip
