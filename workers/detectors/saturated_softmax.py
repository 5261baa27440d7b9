"""The softmax gives probability 1 to wrong classes and no gradient flows back."""

from __future__ import annotations

import math
from collections import deque

from remedy.spaces.symptom import Symptom
from remedy.spaces.verdict import Verdict
from remedy.workers.detectors.guessing import Mean, guessing_loss
from remedy.workers.detectors.streak import Patience, Streak
from remedy.workers.detectors.threshold import Threshold
from remedy.workers.detectors.weights import all_zero
from remedy.workers.detectors.zero_gradient import Freeze, FreezeThresholds
from remedy.workers.observation import Observation, Outputs, Setting


class SaturatedSoftmax(FreezeThresholds):
    """Stops where saturated outputs leave all weight gradients exactly 0, or next to nothing of them."""

    patience = Threshold(
        Patience(share=0.02, steps=20),
        "exact zeros at a loss that is not small: no false alarm on 226 healthy runs (cases.md); what revived by "
        "itself at such a loss did so within 12 steps (catalogue A8)",
    )
    interrupted = Threshold(
        Patience(share=0.1, steps=40, samples=8),
        "with a gradient here and there on the way: a frozen net still drifts by its momentum",
    )
    least_probability = Threshold(0.99, "mean of the largest probability over a batch (catalogue D11)", most=1)
    least_wrong = Threshold(0.5, "share of the samples that are wrong with probability 1 (catalogue D11)", most=1)
    little = Threshold(
        1e-4,
        "share of the usual gradient: D11 is soft by itself (6 % of good runs), and absorbing where the gradient is "
        "gone; D20 found 1e-3 safe together with a chance-level loss",
        most=1,
    )
    long_patience = Threshold(Patience(share=0.1, steps=50, samples=5), "as for little: no zero is exact here")

    blind_share = Threshold(
        0.4,
        "of the samples of a stretch are wrong without a gradient: from logits a wrong sample always has one, so the "
        "loss is clipped, and what it no longer sees it cannot learn (kinds clipped_wide, double_softmax_hot)",
        most=1,
    )
    blind_span = Threshold(Patience(share=0.1, steps=40, samples=8), "the stretch for that")

    def __init__(self, setting: Setting) -> None:
        """Begin a run."""
        self._setting = setting
        self._blind: deque[tuple[int, bool]] = deque()
        self._freeze = Freeze(setting, self)
        self._wrong = Streak()
        self._usual = Mean()
        self._saturated_wrong = math.nan

    def observe(self, observation: Observation) -> Verdict | None:
        self._freeze.see(observation)
        if observation.validation is not None:
            self._saturated_wrong = observation.validation.saturated_wrong
        batch = observation.batch
        if batch is None:
            return None
        blind = self._blinded(observation, batch)
        return self._frozen(observation.step, batch) or blind or self._almost(observation, batch)

    def _frozen(self, step: int, batch: Outputs) -> Verdict | None:
        freeze = self._freeze
        patience = self.interrupted if freeze.streak.gaps else self.patience
        surely = batch.top_probability >= self.least_probability or self._saturated_wrong > self.least_wrong
        if not surely or not patience.over(freeze.streak, self._setting) or not freeze.unfit:
            return None
        evidence = f"{freeze.figures}, while the largest probability is {batch.top_probability:.4f} on average"
        return Verdict(Symptom.SATURATED_SOFTMAX, step, freeze.streak.begin, evidence)

    def _blinded(self, observation: Observation, batch: Outputs) -> Verdict | None:
        step, span, guess = observation.step, self.blind_span, guessing_loss(self._setting)
        high = math.isnan(guess) or observation.loss >= self.least_loss * guess
        wrong = batch.accuracy <= self.most_accuracy and high
        self._blind.append((step, all_zero(observation) and wrong))
        length = max(span.steps, span.share * self._setting.steps)
        # One sample older than the stretch is kept, so that what is kept covers it.
        while len(self._blind) > 1 and self._blind[1][0] <= step - length:
            self._blind.popleft()
        blind = [at for at, holds in self._blind if holds]
        covered = step - self._blind[0][0] >= length and len(self._blind) >= span.samples
        surely = batch.top_probability >= self.least_probability or self._saturated_wrong > self.least_wrong
        if not covered or not surely or len(blind) < self.blind_share * len(self._blind):
            return None
        return Verdict(
            Symptom.SATURATED_SOFTMAX, step, blind[0],
            f"{len(blind)} of {len(self._blind)} samples from step {self._blind[0][0]} to {step} have all weight "
            f"gradients exactly 0 with a quarter of their batch wrong or more, at a largest probability of "
            f"{batch.top_probability:.4f} on average",
        )  # fmt: skip

    def _almost(self, observation: Observation, batch: Outputs) -> Verdict | None:
        step, norm = observation.step, observation.gradient_norm
        gone = norm <= self.little * self._usual.value
        wrong = batch.saturated_wrong > self.least_wrong and self._saturated_wrong > self.least_wrong
        if not self._wrong.see(step, holds=gone and wrong):
            self._usual.add(norm)
            return None
        if not self.long_patience.over(self._wrong, self._setting):
            return None
        return Verdict(
            Symptom.SATURATED_SOFTMAX, step, self._wrong.begin,
            f"{self._saturated_wrong:.0%} of the validation samples get probability 1 for a wrong class and the "
            f"gradient norm is {norm:.1e} (before: {self._usual.value:.1e}), from step {self._wrong.begin} to {step}",
        )  # fmt: skip
