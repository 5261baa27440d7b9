"""Adam's second moments lag behind its gradients, and the loss rises."""

from __future__ import annotations

import math
import statistics
from collections import deque

from remedy.spaces.symptom import Symptom
from remedy.spaces.verdict import Verdict
from remedy.workers.detectors.streak import Streak
from remedy.workers.detectors.threshold import Threshold
from remedy.workers.observation import Observation, Setting


class StaleMoments:
    """Notes gradients far above what Adam's second moments foretell, where the loss rises with them; never stops.

    Gradients that grow are no fault by themselves: a run that blooms late has them while its loss falls.
    """

    rms = Threshold(
        2.3,
        "catalogue D26: of gradients over the roots of their second moments; 1 where these are up to date, above 2.3 "
        "one to eight steps before the loss spikes (Wortsman et al. 2023)",
    )
    young = Threshold(
        1000, "steps, 1 / (1 - beta2) for torch's beta2: until then the moments are the mean of few gradients"
    )
    grace = Threshold(
        0.1,
        "of the budget at most, for the same: short runs would not be judged else, and bias correction helps",
        most=1,
    )
    risen = Threshold(
        0.25,
        "of what the loss had gained, or of half its beginning where that is next to nothing: a transformer whose "
        "gradients grow on its plateau has a loss that wavers by 0.05",
        most=1,
    )
    samples = Threshold(
        3, "looks in a row with a loss so far up: one odd batch is stale, too, and is over at once", least=1
    )
    lag = Threshold(8, "steps from stale moments to the spike that they foretell (Wortsman et al. 2023)")
    window = Threshold(5, "looks before, of whose losses the median is what it rose from", least=1)

    def __init__(self, setting: Setting) -> None:
        """Begin a run."""
        self._begin = max(setting.warmup, min(self.young, self.grace * setting.steps))
        self._losses: deque[float] = deque(maxlen=self.window)
        self._first = math.nan
        self._least = math.inf
        self._since = self._until = 0  # where the moments were stale
        self._worst = self._before = self._peak = 0.0
        self._up = Streak()
        self._noted = False

    def observe(self, observation: Observation) -> Verdict | None:
        step, loss, staleness = observation.step, observation.mean_loss, observation.strain.staleness
        if self._noted or not math.isfinite(loss):
            return None
        self._first = loss if math.isnan(self._first) else self._first
        if step > self._begin and staleness > self.rms and self._losses:
            if not self._since:
                self._since, self._up, self._worst, self._peak = step, Streak(), 0.0, 0.0
                self._before = statistics.median(self._losses)
            self._until, self._worst = step, max(self._worst, staleness)
        if self._since:
            self._peak = max(self._peak, loss)
            gained = max(self._first - self._least, abs(self._first) / 2)
            up = self._up.see(step, holds=loss > self._before + self.risen * gained)
            if not up and step - self._until >= self.lag:
                self._since = 0
        if not self._since:
            self._losses.append(loss)
            self._least = min(self._least, loss)
            return None
        if self._up.samples < self.samples:
            return None
        self._noted = True
        return Verdict(
            Symptom.STALE_MOMENTS, step, self._since,
            f"gradients are up to {self._worst:.3g} times what Adam's second moments foretell from step {self._since} "
            f"to {self._until}, and the mean loss went from {self._before:.3g} to {self._peak:.3g} by step {step}",
            stops=False,
        )  # fmt: skip
