"""Whether a run can still reach its goal within its budget: a forecast, never a collapse."""

from __future__ import annotations

import math
import statistics
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import cast

from remedy.workers.detectors.growth import Growth
from remedy.workers.detectors.guessing import progress
from remedy.workers.detectors.threshold import Threshold, with_values
from remedy.workers.detectors.worse_than_guessing import slope
from remedy.workers.observation import Observation, Setting

NAME = "forecast"
"""What it is called in a study file."""
ABOUT = (
    "no symptom, and no collapse: a run of the search is given up, and called missed, where it will not reach its goal "
    "within its budget"
)
# Validations whose mean is compared with that of as many others.
_MEAN = 3
# Looks whose mean loss is compared with that of as many others.
_FEWEST = 2
_LOG_MOST = 50.0
# Where the line that is asked for ends: the mean of three validations at the goal wavers about it.
_NEARLY = 0.9


class Forecast:
    """Follows a run's validations and updates, and says why it will not make it, if so.

    It is for whoever decides about budgets. A run it gives up was neither lost nor broken: it is too slow, or at
    guessing so late that nothing seen before got from there to the goal in what is left. Progress is 0 at guessing
    and 1 at the goal.
    """

    chance = Threshold(0.1, "progress up to which a run is at guessing, as for the detectors", most=1)
    travel = Threshold(
        0.2,
        "least way that weights go over a budget, in parts of their own size, in which a run at guessing learns "
        "something: the healthy runs of the calibrating kinds go at least 1.2 (one that passes chance early, as wide "
        "nets do that hardly move, is not asked)",
    )
    travel_from = Threshold(
        0.15,
        "share of the budget after which the way is foretold, growth going on as it was seen: no healthy run of the "
        "calibrating kinds is stopped",
        most=1,
    )
    late = Threshold(
        0.9,
        "share of the budget after which a run still at guessing is given up, unless its loss comes down: late "
        "bloomers of the calibrating kinds leave their plateau by 0.7, and one (late_memory) went from there at 0.8 "
        "on to 0.6 of its goal",
        most=1,
    )
    falling = Threshold(3.0, "standard errors of its slope over a fifth of the budget below 0: a loss that comes down")
    slow_from = Threshold(0.45, "share of the budget after which a run that comes up too slowly is given up", most=1)
    slow = Threshold(
        2.0, "times its fastest quarter of a budget so far that it may go for the rest of it: calibrated on the corpus"
    )
    peak = Threshold(0.25, "of the way to the goal: well above guessing (catalogue D15)", most=1)
    fallen = Threshold(0.25, "of its best: back near guessing (catalogue D15)", most=1)
    fallen_for = Threshold(
        0.15, "share of the budget for which it is so on average, and its loss does not come down", most=1
    )
    far = Threshold(
        -0.5, "progress below which guessing itself is far off, as with unscaled targets", least=-1000, most=0
    )
    far_from = Threshold(0.3, "as slow_from, for a run so far off to reach guessing", most=1)
    far_slow = Threshold(3.0, "as slow, for a run so far off to reach guessing")
    risen = Threshold(
        100.0,
        "by which the mean loss of a stretch is above that of the stretch before, in a run that was never at its goal, "
        "its learning rate not having risen. At 0.2 no healthy run of the calibrating kinds was stopped, but 2 of 356 "
        "that judge: so it is left to who is impatient; below 0, by how much the loss has to fall",
        least=-1,
    )
    risen_by = Threshold(0.15, "of its first loss that it is above by, at least", least=-100)
    risen_over = Threshold(
        0.1, "share of the budget that is a stretch: over 0.05, spikes that recover look the same", most=0.5
    )
    demand_from = Threshold(
        1.0,
        "share of the budget from which a run has to be on the straight line from guessing to nearly its goal, as an "
        "impatient search asks for; 1: never, since a third of the healthy runs of the calibrating kinds come later",
        most=1,
    )
    demand_by = Threshold(0.8, "share of the budget at which that line ends (past 1: the line of a longer run)", most=2)

    def __init__(self, setting: Setting) -> None:
        """Begin a run."""
        self._setting = setting
        self._course: list[tuple[int, float]] = []
        self._updates: list[tuple[float, ...]] = []
        self._norms = Growth(1.2)
        self._moves: dict[str, Growth] = {}
        self._rates: list[float] = []
        self._losses: list[tuple[int, float]] = []
        self._rated: list[float] = []

    @classmethod
    def of(cls, setting: Setting, choice: Mapping[str, bool | float]) -> Forecast | None:
        """Begin a run as a choice has it (see detectors/choice.py); None where it is off."""
        if choice.get(NAME) is False:
            return None
        values = {key.removeprefix(f"{NAME}."): v for key, v in choice.items() if key.startswith(f"{NAME}.")}
        return cast("Forecast", with_values(cls, values)(setting))

    def hopeless(self, seen: Observation) -> str:
        """Take an observation into account; return why the run is given up, or nothing."""
        self._see(seen)
        if seen.step <= self._setting.warmup:
            return ""
        if seen.metric is None:
            return self._rises(seen.step)
        if behind := self._behind(seen.step):
            return behind
        if len(self._course) < _MEAN:
            return ""
        return (
            self._rises(seen.step)
            or self._back_at_guessing(seen.step)
            or self._never_left(seen)
            or self._on_its_way(seen.step)
        )

    def _rises(self, step: int) -> str:
        """Say that the loss has risen, in a run that was never at its goal."""
        span, steps = self.risen_over * self._setting.steps, self._setting.steps
        if step < 2 * span or (len(self._course) >= _MEAN and self._best() >= 1):
            return ""
        begin = bisect_right(self._losses, (step - 2 * span, math.inf))
        middle = bisect_right(self._losses, (step - span, math.inf))
        before, now = ([loss for _, loss in part] for part in (self._losses[begin:middle], self._losses[middle:]))
        if min(len(before), len(now)) < _FEWEST or self._rated[-1] > 1.05 * self._rated[begin]:
            return ""
        low, high = statistics.fmean(before), statistics.fmean(now)
        if high <= low + self.risen * abs(low) or high - low < self.risen_by * abs(self._losses[0][1]):
            return ""
        return (
            f"the loss is {high:.3g} on average over the last {span:.0f} steps up to step {step} of {steps}, "
            f"{low:.3g} over those before"
        )

    def _behind(self, step: int) -> str:
        """Say that it is behind the line that is asked for."""
        now, done = _mean(self._course[-_MEAN:]), step / self._setting.steps
        line = _NEARLY * min(1.0, done / self.demand_by if self.demand_by else 1.0)
        if self.demand_from == 1 or done < self.demand_from or now >= line:
            return ""
        return (
            f"at {now:.2g} of the way from guessing to the goal at step {step} of {self._setting.steps}; {line:.2g} is "
            "asked for"
        )

    def _back_at_guessing(self, step: int) -> str:
        """Say that it has come back to guessing from well above it, and stays there."""
        steps, best = self._setting.steps, min(1.0, self._best())
        last = [value for at, value in self._course if at > step - self.fallen_for * steps]
        stays = best >= self.peak and len(last) >= _MEAN and step >= self.fallen_for * steps
        if not stays or statistics.fmean(last) > self.fallen * best or max(last) >= 2 * self.fallen * best:
            return ""
        if self._comes_down(step):
            return ""
        return (
            f"near guessing for {self.fallen_for:.0%} of its budget up to step {step} of {steps}, although it was at "
            f"{best:.2g} of the way to the goal, and its loss does not come down"
        )

    def _never_left(self, seen: Observation) -> str:
        """Say that it is at guessing too late, or that its weights do not move."""
        steps, now = self._setting.steps, _mean(self._course[-_MEAN:])
        if self._best() >= self.chance:
            return ""
        if seen.step >= self.late * steps and not self._comes_down(seen.step):
            return f"at guessing all the way up to step {seen.step} of {steps}"
        return self._too_still(seen) if seen.step >= self.travel_from * steps and now > self.far else ""

    def _on_its_way(self, step: int) -> str:
        """Say that it comes up too slowly."""
        done, now = step / self._setting.steps, _mean(self._course[-_MEAN:])
        # What was at its goal already is not slow, whatever it does now.
        if self.chance <= now and self._best() < 1 and done >= self.slow_from:
            return self._too_slow(step, now, 1.0, self.slow)
        if now <= self.far and done >= self.far_from:
            return self._too_slow(step, now, 0.0, self.far_slow)
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
            self._rated.append(seen.learning_rate)
        self._norms.add(seen.gradient_norm)
        self._rates.append(seen.learning_rate)

    def _best(self) -> float:
        return max(_mean(self._course[end - _MEAN : end]) for end in range(_MEAN, len(self._course) + 1))

    def _comes_down(self, step: int) -> bool:
        losses = [loss for at, loss in self._losses if at > step - self._setting.steps / 5]
        return len(losses) > 2 * _MEAN and slope(losses) < -self.falling

    def _too_still(self, seen: Observation) -> str:
        rising = self._rates[-1] > 1.05 * self._rates[len(self._rates) // 2]
        if rising or len(self._updates) < _MEAN:
            return ""
        # The first steps of Adam are larger than all that follow.
        late = self._updates[len(self._updates) // 5 :]
        way = max(statistics.fmean(layer) for layer in zip(*late, strict=True)) * self._setting.steps
        # What learns late grows exponentially; it is taken to go on so from what was seen, two thirds of a stretch.
        sizes = (self._norms, *self._moves.values())
        times = max((size.times for size in sizes if size.times > 1), default=1.0)
        done = seen.step / self._setting.steps
        way *= math.exp(min(_LOG_MOST, math.log(times) * (1 - done) / (2 / 3 * done)))
        if way >= self.travel:
            return ""
        return (
            f"at guessing up to step {seen.step} of {self._setting.steps}, and no weight would move by more than "
            f"{way:.1%} of its size over the whole budget"
        )

    def _too_slow(self, step: int, now: float, aim: float, factor: float) -> str:
        quarter = self._setting.steps / 4
        gains = self._gains(quarter)
        if not gains or not math.isfinite(now):
            return ""
        before = self._gains(quarter, until=step - quarter / 2)
        # What accelerates may yet arrive.
        if before and gains[-1] > 1.2 * max(0.0, before[-1]):
            return ""
        left = self._setting.steps - step
        end = now + factor * max(0.0, *gains) / quarter * left
        if end >= aim:
            return ""
        what = "the goal" if aim else "guessing"
        return (
            f"at {now:.2g} of the way from guessing to the goal at step {step} of {self._setting.steps}; at "
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
