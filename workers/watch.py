"""Watches one run: feeds detectors, keeps curves, decides when the run ends."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from remedy.spaces.metric import meets
from remedy.spaces.outcome import Outcome
from remedy.spaces.verdict import Verdict
from remedy.workers.detectors.base import Detector
from remedy.workers.detectors.catalogue import detectors
from remedy.workers.forecast import Forecast
from remedy.workers.observation import Observation, Setting
from remedy.workers.order import WorkOrder

LAST = 3
_EARLIEST_SUCCESS = 0.3
"""Of the budget. Of runs that had held their goal so long by then 1.1 % miss it at the end; from 0.6 on 0.8 %."""
_HELD = 5


@dataclass
class Watch:
    """The only state of a run beside the training itself."""

    setting: Setting
    detectors: list[Detector]
    may_succeed_early: bool = False
    audited: bool = False
    forecast: Forecast | None = None
    """Where the run may be given up for being too slow for its budget."""
    verdict: Verdict | None = None
    spared: Verdict | None = None
    """The verdict that did not end the run, since it is audited; from there on it is trained to its end."""
    notes: list[Verdict] = field(default_factory=list)
    curves: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    step: int = 0
    succeeded: bool = False
    given_up: str = ""
    """Why the forecast gave the run up."""
    foretold: str = ""
    """Why it would have, had the run not been audited; from there on it is trained to its end."""
    foretold_step: int = 0

    @classmethod
    def of(cls, order: WorkOrder, setting: Setting, *, watched: bool = True) -> Watch:
        """Watch a run as its order has it; unwatched, it goes on to its end."""
        if not watched:
            return cls(setting, [], order.may_succeed_early, order.audited)
        forecast = Forecast.of(setting, order.detectors) if order.may_be_given_up else None
        return cls(setting, detectors(setting, order.detectors), order.may_succeed_early, order.audited, forecast)

    def see(self, observation: Observation) -> bool:
        """Take an observation into account; return whether the run goes on."""
        self.step = observation.step
        self._keep(observation)
        if self.spared is not None or self.foretold:
            return True
        for detector in self.detectors:
            verdict = detector.observe(observation)
            if verdict is None:
                continue
            if verdict.stops and self.audited:
                self.spared = verdict
                return True
            if verdict.stops:
                self.verdict = verdict
                return False
            self.notes.append(verdict)
        self.succeeded = self.may_succeed_early and self._success()
        why = self.forecast.hopeless(observation) if self.forecast is not None and not self.succeeded else ""
        if why and self.audited:
            self.foretold, self.foretold_step = why, self.step
            return True
        self.given_up = why
        return not self.succeeded and not why

    @property
    def metrics(self) -> list[tuple[int, float]]:
        """The validation metric over steps."""
        return self.curves.get("metric", [])

    @property
    def metric(self) -> float:
        """The mean of the last three validation values; NaN where there is none, or one of them is NaN."""
        last = [value for _, value in self.metrics[-LAST:]]
        return sum(last) / len(last) if last else math.nan

    @property
    def outcome(self) -> Outcome:
        """How the run ended, when it was not cut off."""
        if self.verdict is not None:
            return Outcome.COLLAPSED
        if self.given_up:
            return Outcome.MISSED
        if meets(self.metric, self.setting.goal, self.setting.mode):
            return Outcome.CONVERGED
        return Outcome.COLLAPSED if self.spared is not None else Outcome.MISSED

    @property
    def goal_step(self) -> int | None:
        """The first step from which on the metric stayed at the goal."""
        first = None
        for step, value in reversed(self.metrics):
            if not meets(value, self.setting.goal, self.setting.mode):
                break
            first = step
        return first

    def _success(self) -> bool:
        held = [value for _, value in self.metrics[-_HELD:]]
        return (
            _EARLIEST_SUCCESS * self.setting.steps <= self.step < self.setting.steps
            and len(held) == _HELD
            and all(meets(value, self.setting.goal, self.setting.mode) for value in held)
        )

    def _keep(self, seen: Observation) -> None:
        values: dict[str, float | None] = {
            "loss": seen.loss if not math.isfinite(seen.loss) else seen.mean_loss,
            "gradient_norm": seen.gradient_norm,
            "learning_rate": seen.learning_rate,
            "metric": seen.metric,
        }
        if seen.layers:
            values["zero_gradient_share"] = sum(layer.zero_share for layer in seen.layers) / len(seen.layers)
            ratios = [layer.update_ratio for layer in seen.layers if not math.isnan(layer.update_ratio)]
            values["update_ratio"] = max(ratios) if ratios else None
        if seen.batch is not None:
            values["train_accuracy"] = seen.batch.accuracy
        if seen.validation is not None:
            values["top_class_share"] = seen.validation.top_share
            values["prediction_entropy"] = seen.validation.prediction_entropy
            values["top_probability"] = seen.validation.top_probability
            values["logit_spread"] = seen.validation.class_spread
        values["logit_offset"] = seen.strain.offset
        values["second_moment_staleness"] = seen.strain.staleness
        values["attention_logit"] = seen.strain.attention
        values["loss_scale"] = seen.strain.loss_scale
        if seen.activations:
            values["dead_unit_share"] = max(activation.dead_share for activation in seen.activations)
        for name, value in values.items():
            # NaN means "not defined here" for all but the loss and the gradient norm, where it is the finding.
            if value is not None and (not math.isnan(value) or name in ("loss", "gradient_norm", "metric")):
                self.curves.setdefault(name, []).append((seen.step, value))
