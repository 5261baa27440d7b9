"""How long something has held."""

from __future__ import annotations

from dataclasses import dataclass

from remedy.workers.observation import Setting


@dataclass
class Streak:
    """Counts the steps and the samples over which a condition held without a break.

    Attributes:
        since: step at which it began to hold; None while it does not.
        until: the last step at which it was seen to hold.
        samples: how often it was seen.
        gaps: how often it was missed on the way.
        tolerance: misses in a row that do not end it.
    """

    since: int | None = None
    until: int = 0
    samples: int = 0
    gaps: int = 0
    tolerance: int = 0
    _missed: int = 0

    def see(self, step: int, *, holds: bool) -> bool:
        """Take one sample into account and return whether the streak goes on."""
        if holds:
            self.since = step if self.since is None else self.since
            self.gaps += self._missed
            self.until, self.samples, self._missed = step, self.samples + 1, 0
        elif self.since is not None:
            self._missed += 1
            if self._missed > self.tolerance:
                self.since, self.samples, self.gaps, self._missed = None, 0, 0, 0
        return self.since is not None

    @property
    def begin(self) -> int:
        """The step at which it began to hold, 0 while it does not."""
        return self.since or 0

    @property
    def steps(self) -> int:
        """Steps from the first to the last sample."""
        return self.until - self.since if self.since is not None else 0

    def held(self, steps: float, samples: int) -> bool:
        """Whether it has held over so many steps, and was seen so often on the way."""
        return self.since is not None and self.steps >= steps and self.samples >= samples


@dataclass(frozen=True)
class Patience:
    """A time to wait that grows with the budget: `share` of it, but at least `steps` and `samples`."""

    share: float
    steps: int
    samples: int = 3

    def over(self, streak: Streak, setting: Setting) -> bool:
        """Whether a streak has lasted that long."""
        return streak.held(max(self.steps, self.share * setting.steps), self.samples)
