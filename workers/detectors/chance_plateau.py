"""The loss stays at the entropy of the labels, the metric at guessing."""

from __future__ import annotations

import math

from remedy.spaces.symptom import Symptom
from remedy.spaces.verdict import Verdict
from remedy.workers.detectors.guessing import Mean, guessing_loss, progress
from remedy.workers.detectors.streak import Patience, Streak
from remedy.workers.detectors.threshold import Threshold
from remedy.workers.observation import Observation, Setting


class ChancePlateau:
    """Notes a plateau at chance; never stops, since 9 to 42 % of healthy runs pass through one (catalogue A8, D04)."""

    near = Threshold(0.02, "catalogue D04: a mean loss within 2 % of the entropy of the labels", most=1)
    chance = Threshold(0.1, "a metric within a tenth of the way to the goal counts as guessing", most=1)
    patience = Threshold(
        Patience(share=0.25, steps=50, samples=5), "9 to 42 % of healthy runs pass through a plateau (catalogue A8)"
    )

    def __init__(self, setting: Setting) -> None:
        """Begin a run."""
        self._setting = setting
        self._flat = Streak()
        self._guessing = Streak()
        self._loss = Mean()
        self._noted = False

    def observe(self, observation: Observation) -> Verdict | None:
        if self._noted:
            return None
        step, loss, setting = observation.step, observation.mean_loss, self._setting
        levels = (setting.entropy, guessing_loss(setting))
        near = any(abs(loss - level) < self.near * level for level in levels) if setting.cross_entropy else False
        self._flat.see(step, holds=near)
        if observation.metric is not None:
            self._guessing.see(step, holds=abs(progress(setting, observation.metric)) < self.chance)
        flat, guessing = self.patience.over(self._flat, setting), self.patience.over(self._guessing, setting)
        if self._flat.since is None and self._guessing.since is None:
            self._loss = Mean()
        self._loss.add(loss)
        if not flat and not guessing:
            return None
        self._noted = True
        onset = self._flat.begin if flat else self._guessing.begin
        level = "" if math.isnan(setting.entropy) else f" (guessing by frequency: {setting.entropy:.4g})"
        what = "within 2 % of it" if flat else "with the metric at guessing"
        return Verdict(
            Symptom.CHANCE_PLATEAU, step, onset,
            f"the mean loss is {self._loss.value:.4g}{level} from step {onset} to {step}, {what}",
            stops=False,
        )  # fmt: skip
