"""What guessing looks like: the scale on which detectors read metrics and accuracies."""

from __future__ import annotations

import math
from dataclasses import dataclass

from remedy.workers.observation import Observation, Setting


def progress(setting: Setting, metric: float | None) -> float:
    """Return the metric on a scale where guessing is 0 and the goal is 1; NaN where one of them is unknown."""
    way = setting.goal - setting.chance
    if metric is None or not way or not math.isfinite(way):
        return math.nan
    # A metric that is not finite is no better than guessing.
    return (metric - setting.chance) / way if math.isfinite(metric) else -math.inf


def skill(setting: Setting, accuracy: float) -> float:
    """Return an accuracy on a scale where always the largest class is 0 and 1 is 1; NaN without exclusive classes."""
    return (accuracy - setting.prior) / (1 - setting.prior) if 0 < setting.prior < 1 else math.nan


def guessing_loss(setting: Setting) -> float:
    """Return the loss of guessing, NaN where the loss is no cross-entropy in nats.

    Guessing by frequency costs the entropy of the labels; where a sampler balances the classes, the loss of guessing
    lies above it, up to ln N.
    """
    if not setting.cross_entropy or setting.classes < 2:
        return math.nan
    return max(setting.entropy, math.log(setting.classes)) if math.isfinite(setting.entropy) else math.nan


def batch_accuracy(seen: Observation) -> float:
    """Return the accuracy on the step's own batch, NaN where it is unknown."""
    return seen.batch.accuracy if seen.batch is not None else math.nan


@dataclass
class Mean:
    """A running mean that leaves out what is not finite; NaN while it is empty."""

    total: float = 0.0
    count: int = 0

    def add(self, value: float) -> None:
        """Take a value into account."""
        if math.isfinite(value):
            self.total, self.count = self.total + value, self.count + 1

    @property
    def value(self) -> float:
        """The mean so far."""
        return self.total / self.count if self.count else math.nan
