"""The metric rose well above chance and fell back to it."""

from __future__ import annotations

from remedy.spaces.symptom import Symptom
from remedy.spaces.verdict import Verdict
from remedy.workers.detectors.fall import Fall, FallThresholds
from remedy.workers.detectors.streak import Patience
from remedy.workers.detectors.threshold import Threshold
from remedy.workers.observation import Observation, Setting


class AccuracyCollapse(FallThresholds):
    """Stops where the metric had risen well above chance and stays at it since."""

    patience = Threshold(
        Patience(share=0.15, steps=60, samples=5),
        "noisy but sound runs touch chance for a few validations and come back",
    )

    def __init__(self, setting: Setting) -> None:
        """Begin a run."""
        self._setting = setting
        self._fall = Fall(setting, self)

    def observe(self, observation: Observation) -> Verdict | None:
        fall = self._fall
        fall.see(observation)
        if observation.metric is None or not self.patience.over(fall.streak, self._setting) or not fall.lasting:
            return None
        onset = fall.onset or fall.streak.begin
        return Verdict(
            Symptom.ACCURACY_COLLAPSE, observation.step, onset,
            f"the metric was {fall.peak_metric:.3g} at step {fall.peak_step} and is {fall.metric:.3g} now, "
            f"near guessing ({self._setting.chance:.3g}) in every validation since step {onset}",
        )  # fmt: skip
