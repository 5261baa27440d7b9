"""How long something has taken: by what this thread has computed, so that a busy machine finds out as much."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

_BUSY = 3


@dataclass(frozen=True)
class Effort:
    """Seconds since it was made: those that this thread has computed, or a third of those of the clock where more."""

    computed: float = field(default_factory=time.thread_time)
    passed: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """How many."""
        return max(time.thread_time() - self.computed, (time.monotonic() - self.passed) / _BUSY)
