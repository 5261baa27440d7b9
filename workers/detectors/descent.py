"""Whether losses come down."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, field


@dataclass
class Descent:
    """The mean losses of a stretch of a run.

    A training thrown far off comes back as a falling loss long before its metric shows it: six leaky layers went to a
    loss of 1e6 at chance accuracy under OneCycleLR, and on to 0.79. Whatever judges by the metric waits while the loss
    falls: the last third of the stretch below `falling` times the first.
    """

    falling: float = 0.8
    losses: list[float] = field(default_factory=list)

    def add(self, loss: float) -> None:
        """Take a mean loss into account; one that is not finite is left out."""
        if math.isfinite(loss):
            self.losses.append(loss)

    @property
    def mean(self) -> float:
        """Mean over the stretch; NaN where it is empty."""
        return statistics.fmean(self.losses) if self.losses else math.nan

    @property
    def falls(self) -> bool:
        """Whether the loss comes down along the stretch."""
        third = len(self.losses) // 3
        if third == 0:
            return False
        return statistics.fmean(self.losses[-third:]) < self.falling * statistics.fmean(self.losses[:third])
