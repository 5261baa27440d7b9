"""A scale: where values lie on a page."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """Maps values onto the page; what lies outside is drawn at the edge."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        """Return the place of a value."""
        low, high, here = (self._turn(v) for v in (self.low, self.high, max(self.low, min(self.high, value))))
        return self.start + (self.end - self.start) * ((here - low) / (high - low) if high > low else 0.5)

    def _turn(self, value: float) -> float:
        return math.log10(value) if self.log else value

    def counts(self, most: int) -> list[float]:
        """Return the ticks that are whole numbers."""
        return [tick for tick in self.ticks(most) if tick == round(tick)]

    def ticks(self, most: int = 6) -> list[float]:
        """Return round values from low to high."""
        if self.log:
            first, last = math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9)
            return [10.0**power for power in range(first, last + 1, max(1, math.ceil((last - first) / most)))]
        least = (self.high - self.low) / most
        size = 10.0 ** math.floor(math.log10(least))
        step = next((size * nice for nice in (1, 2, 5) if size * nice >= least), size * 10)
        places = range(math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9) + 1)
        return [place * step for place in places]
