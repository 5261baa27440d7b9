"""Whether a size grows by factors."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, field

_MOST = 100.0


@dataclass
class Growth:
    """The sizes seen along a stretch of a run.

    What learns late grows exponentially long before its loss shows it: three tanh layers with weights of 0.01 sit at
    chance for half their budget while the gradient of the first layer, in parts of the last one's, doubles again and
    again. Whatever ends a plateau waits while something grows: the last third of the stretch above `factor` times the
    first, as geometric means.
    """

    factor: float
    logs: list[float] = field(default_factory=list)

    def add(self, size: float) -> None:
        """Take a size into account; one that is no positive number is left out."""
        if 0 < size < math.inf:
            self.logs.append(math.log(size))

    @property
    def grows(self) -> bool:
        """Whether the sizes grow along the stretch by more than the factor."""
        return self._gain > math.log(self.factor)

    @property
    def times(self) -> float:
        """How many times larger the last third is than the first; NaN for fewer than three sizes."""
        return math.exp(min(self._gain, _MOST))

    @property
    def shrinks(self) -> bool:
        """Whether they shrink to less than the factor, which is below 1 then."""
        return self._gain < math.log(self.factor)

    @property
    def _gain(self) -> float:
        third = len(self.logs) // 3
        return statistics.fmean(self.logs[-third:]) - statistics.fmean(self.logs[:third]) if third else math.nan
