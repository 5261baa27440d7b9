"""Whether a run can still reach its goal within its budget: a forecast, never a collapse."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from remedy.workers.detectors.growth import Growth
from remedy.workers.detectors.guessing import progress
from remedy.workers.detectors.worse_than_guessing import slope
from remedy.workers.observation import Observation, Setting

# Validations whose mean is compared with that of as many others.
_MEAN = 3


@dataclass(frozen=True)
class Limits:
    """When a run is given up; progress is 0 at guessing and 1 at the goal.

    Attributes:
        chance: progress up to which a run is at guessing.
        travel: least way that weights go over a budget, in parts of their own size, in which a run at guessing learns
            something: the healthy runs of the calibrating kinds go at least 1.2 (one that passes `chance` early, as
            wide nets do that hardly move, is not asked).
        travel_from: share of the budget after which the way is foretold.
        late: share of the budget after which a run still at guessing is given up, unless its loss comes down: late
            bloomers of the calibrating kinds leave their plateau by 0.7, and one (late_memory) went from there at 0.8
            on to 0.6 of its goal.
        falling: standard errors of its slope over a fifth of the budget below 0: a loss that comes down.
        slow_from: share of the budget after which a run that comes up too slowly is given up.
        slow: times its fastest quarter of a budget so far that it may go for the rest of it.
        far: progress below which guessing itself is far off, as with unscaled targets.
        far_from, far_slow: as `slow_from` and `slow`, for a run so far off to reach guessing.
    """

    chance: float = 0.1
    travel: float = 0.2
    travel_from: float = 0.2
    late: float = 0.9
    falling: float = 3.0
    slow_from: float = 0.5
    slow: float = 2.0
    far: float = -0.5
    far_from: float = 0.3
    far_slow: float = 3.0


class Forecast:
    """Follows a run's validations and updates, and says why it will not make it, if so.

    It is for whoever decides about budgets. A run it gives up was neither lost nor broken: it is too slow, or at
    guessing so late that nothing seen before got from there to the goal in what is left.
    """

    def __init__(self, setting: Setting, limits: Limits = Limits()) -> None:
        """Begin a run."""
        self._setting, self._limits = setting, limits
        self._course: list[tuple[int, float]] = []
        self._updates: list[tuple[float, ...]] = []
        self._norms = Growth(1.2)
        self._moves: dict[str, Growth] = {}
        self._rates: list[float] = []
        self._losses: list[tuple[int, float]] = []

    def hopeless(self, seen: Observation) -> str:
        """Take an observation into account; return why the run is given up, or nothing."""
        setting, limits = self._setting, self._limits
        self._see(seen)
        if seen.metric is None or seen.step <= setting.warmup or len(self._course) <= _MEAN:
            return ""
        done = seen.step / setting.steps
        now = _mean(self._course[-_MEAN:])
        best = max(_mean(self._course[end - _MEAN : end]) for end in range(_MEAN, len(self._course) + 1))
        if best < limits.chance and done >= limits.late and not self._comes_down(seen.step):
            return f"at guessing all the way up to step {seen.step} of {setting.steps}"
        if best < limits.chance and done >= limits.travel_from and now > limits.far:
            return self._too_still(seen)
        if now >= limits.chance and done >= limits.slow_from:
            return self._too_slow(seen, now, 1.0, limits.slow)
        if now <= limits.far and done >= limits.far_from:
            return self._too_slow(seen, now, 0.0, limits.far_slow)
        return ""

    def _see(self, seen: Observation) -> None:
        if seen.metric is not None:
            here = progress(self._setting, seen.metric)
            self._course.append((seen.step, here if math.isfinite(here) else -math.inf))
        ratios = tuple(layer.update_ratio for layer in seen.layers)
        if ratios and all(math.isfinite(ratio) for ratio in ratios):
            self._updates.append(ratios)
            for layer in seen.layers:
                self._moves.setdefault(layer.name, Growth(1.2)).add(layer.update_ratio)
        if math.isfinite(seen.mean_loss):
            self._losses.append((seen.step, seen.mean_loss))
        self._norms.add(seen.gradient_norm)
        self._rates.append(seen.learning_rate)

    def _comes_down(self, step: int) -> bool:
        losses = [loss for at, loss in self._losses if at > step - self._setting.steps / 5]
        return len(losses) > 2 * _MEAN and slope(losses) < -self._limits.falling

    def _too_still(self, seen: Observation) -> str:
        rising = self._rates[-1] > 1.05 * self._rates[len(self._rates) // 2]
        grows = self._norms.grows or any(moves.grows for moves in self._moves.values())
        if rising or grows or len(self._updates) <= _MEAN:
            return ""
        # The first steps of Adam are larger than all that follow.
        late = self._updates[len(self._updates) // 5 :]
        way = max(statistics.fmean(layer) for layer in zip(*late, strict=True)) * self._setting.steps
        if way >= self._limits.travel:
            return ""
        return (
            f"at guessing up to step {seen.step} of {self._setting.steps}, and no weight would move by more than "
            f"{way:.1%} of its size over the whole budget"
        )

    def _too_slow(self, seen: Observation, now: float, aim: float, factor: float) -> str:
        quarter = self._setting.steps / 4
        gains = self._gains(quarter)
        if not gains or not math.isfinite(now):
            return ""
        before = self._gains(quarter, until=seen.step - quarter / 2)
        # What accelerates may yet arrive.
        if before and gains[-1] > 1.2 * max(0.0, before[-1]):
            return ""
        left = self._setting.steps - seen.step
        end = now + factor * max(0.0, *gains) / quarter * left
        if end >= aim:
            return ""
        what = "the goal" if aim else "guessing"
        return (
            f"at {now:.2g} of the way from guessing to the goal at step {seen.step} of {self._setting.steps}; at "
            f"{factor:g} times its fastest pace so far it would end at {end:.2g}, short of {what}"
        )

    def _gains(self, span: float, until: float = math.inf) -> Sequence[float]:
        """Return what was gained over every stretch of so many steps, in order of their ends."""
        course = [(step, value) for step, value in self._course if step <= until]
        gains: list[float] = []
        for end in range(_MEAN, len(course) + 1):
            begin = next((n for n in range(end, 0, -1) if course[n - 1][0] <= course[end - 1][0] - span), 0)
            if begin >= 1:
                gains.append(_mean(course[end - _MEAN : end]) - _mean(course[max(0, begin - _MEAN) : begin]))
        return gains


def _mean(course: Sequence[tuple[int, float]]) -> float:
    return statistics.fmean(value for _, value in course)
