"""Every weight gradient is exactly 0 although the loss is not."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from remedy.spaces.symptom import Symptom
from remedy.spaces.verdict import Verdict
from remedy.workers.detectors.guessing import Mean, batch_accuracy, guessing_loss, progress
from remedy.workers.detectors.streak import Patience, Streak
from remedy.workers.detectors.threshold import Threshold
from remedy.workers.detectors.weights import all_zero
from remedy.workers.observation import Observation, Setting


class FreezeThresholds:
    """When what froze is far from having learnt its task."""

    # Softmax fed into a cross-entropy has a floor of 1.46 for ten classes: the loss alone would call that unfit.
    least_loss = Threshold(
        0.5,
        "of the loss of guessing: a converged net has exact zeros too, for 72 to 96 steps, at a loss near 0 "
        "(catalogue D06)",
    )
    most_accuracy = Threshold(
        0.75, "a training that froze with a quarter of its own batches wrong did not converge", most=1
    )
    least_lone_loss = Threshold(
        0.9, "of the loss of guessing, where only the loss is known: no false alarm (catalogue A8)"
    )
    most_progress = Threshold(
        0.5, "of the way to the goal, where not even the level of guessing is known: no better than half way", most=1
    )


@dataclass
class Freeze:
    """A stretch of steps with exactly zero weight gradients in a training that has not learnt its task.

    Attributes:
        loss: mean loss of the stretch.
        accuracy: mean accuracy on its batches.
        validated: validations in the stretch.
    """

    setting: Setting
    limits: FreezeThresholds
    # Catalogue D06: momentum keeps moving weights; a single gradient that is not zero is no recovery.
    streak: Streak = field(default_factory=lambda: Streak(tolerance=1))
    loss: Mean = field(default_factory=Mean)
    accuracy: Mean = field(default_factory=Mean)
    validated: int = 0
    _first_loss: float = math.nan
    _progress: float = math.nan

    def see(self, seen: Observation) -> None:
        """Take an observation into account."""
        if math.isnan(self._first_loss) and math.isfinite(seen.mean_loss):
            self._first_loss = seen.mean_loss
        if seen.metric is not None:
            self._progress = progress(self.setting, seen.metric)
        if not self.streak.see(seen.step, holds=all_zero(seen)):
            self.loss, self.accuracy, self.validated = Mean(), Mean(), 0
            return
        self.loss.add(seen.mean_loss)
        self.accuracy.add(batch_accuracy(seen))
        self.validated += seen.metric is not None

    @property
    def unfit(self) -> bool:
        """Whether what froze is far from having learnt its task."""
        limits = self.limits
        loss, accuracy, guess = self.loss.value, self.accuracy.value, guessing_loss(self.setting)
        if not math.isnan(accuracy):
            high = math.isnan(guess) or loss >= limits.least_loss * guess
            return high and accuracy <= limits.most_accuracy and not self._progress >= 1
        if not math.isnan(guess):
            return loss >= limits.least_lone_loss * guess
        return self._progress <= limits.most_progress and loss >= limits.least_loss * self._first_loss

    @property
    def figures(self) -> str:
        """The stretch in figures."""
        streak, accuracy, guess = self.streak, self.accuracy.value, guessing_loss(self.setting)
        beside = "" if math.isnan(guess) else f" (guessing: {guess:.3g})"
        right = "" if math.isnan(accuracy) else f", with {accuracy:.0%} of its batches' samples right"
        return (
            f"all weight gradients are exactly 0 from step {streak.begin} to {streak.until} ({streak.samples} of "
            f"{streak.samples + streak.gaps} samples) at a mean loss of {self.loss.value:.3g}{beside}{right}"
        )


class ZeroGradient(FreezeThresholds):
    """Stops a freeze that neither saturation nor dead units explain (these detectors stand before this one)."""

    patience = Threshold(
        Patience(share=0.02, steps=50, samples=4),
        "50 steps had no false alarm; streaks that ended by themselves at a high loss reached 12 (catalogue D06, A8)",
    )

    def __init__(self, setting: Setting) -> None:
        """Begin a run."""
        self._setting = setting
        self._freeze = Freeze(setting, self)

    def observe(self, observation: Observation) -> Verdict | None:
        self._freeze.see(observation)
        streak = self._freeze.streak
        # A validation inside the stretch lets the detectors with an explanation speak first.
        if self._freeze.validated and self.patience.over(streak, self._setting) and self._freeze.unfit:
            return Verdict(Symptom.ZERO_GRADIENT, observation.step, streak.begin, self._freeze.figures)
        return None
