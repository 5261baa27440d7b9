"""The batches are learnt, the validation data are not."""

from __future__ import annotations

from remedy.spaces.symptom import Symptom
from remedy.spaces.verdict import Verdict
from remedy.workers.detectors.guessing import batch_accuracy, progress, skill
from remedy.workers.detectors.streak import Patience, Streak
from remedy.workers.detectors.threshold import Threshold
from remedy.workers.observation import Observation, Setting


class GeneralisationGap:
    """Notes a run that is right on its batches and far from the goal on validation data; never stops.

    Grokking looks so for most of its budget and ends well (kind late_modular), so this is never more than a note.
    """

    learnt = Threshold(0.9, "of the way from guessing to every sample of the batches right", most=1)
    far = Threshold(0.5, "of the way to the goal on validation data", most=1)
    patience = Threshold(Patience(share=0.1, steps=40, samples=3), "several validations in a row")
    window = Threshold(5, "batches whose mean is taken", least=1)

    def __init__(self, setting: Setting) -> None:
        """Begin a run."""
        self._setting = setting
        self._apart = Streak()
        self._skills: list[float] = []
        self._noted = False

    def observe(self, observation: Observation) -> Verdict | None:
        here = skill(self._setting, batch_accuracy(observation))
        self._skills = [*self._skills, here][-self.window :]
        if observation.metric is None or self._noted:
            return None
        right = sum(self._skills) / len(self._skills)
        now = progress(self._setting, observation.metric)
        holds = len(self._skills) == self.window and right >= self.learnt and now < self.far
        self._apart.see(observation.step, holds=holds)
        if not self.patience.over(self._apart, self._setting):
            return None
        self._noted = True
        return Verdict(
            Symptom.GENERALISATION_GAP, observation.step, self._apart.begin,
            f"the batches are right {right:.0%} of the way from guessing, the validation metric is "
            f"{observation.metric:.3g} (guessing: {self._setting.chance:.3g}, goal: {self._setting.goal:.3g}), since "
            f"step {self._apart.begin}",
            stops=False,
        )  # fmt: skip
