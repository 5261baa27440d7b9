"""The loss or a parameter became NaN or infinite."""

from __future__ import annotations

import math

from remedy.spaces.symptom import Symptom
from remedy.spaces.verdict import Verdict
from remedy.workers.detectors.streak import Streak
from remedy.workers.detectors.threshold import Threshold
from remedy.workers.observation import Observation, Setting


class NonFinite:
    """Stops at once where parameters are lost, and where every loss is NaN or infinite for ten observations."""

    patience = Threshold(
        10,
        "observations in a row: loss scaling and skipped steps make single losses infinite (catalogue D01, D02)",
        least=1,
    )

    def __init__(self, setting: Setting) -> None:  # noqa: ARG002  (the contract; what is lost is lost in any setting)
        """Begin a run."""
        self._streak = Streak()

    def observe(self, observation: Observation) -> Verdict | None:
        step, loss = observation.step, observation.loss
        broken = not math.isfinite(loss)
        # Catalogue D03: NaN times anything is NaN, so a broken parameter under a broken loss never recovers.
        if broken and not observation.finite_parameters:
            onset = self._streak.begin or step
            return Verdict(
                Symptom.NON_FINITE, step, onset,
                f"the loss was {loss} at step {onset} and parameters are not finite at step {step}: "
                "no later step can bring them back",
            )  # fmt: skip
        # A window that still holds a finite loss is a guarded training with bad batches, not a lost one.
        lost = self._streak.see(step, holds=broken and not math.isfinite(observation.mean_loss))
        if not lost or self._streak.samples < self.patience:
            return None
        return Verdict(
            Symptom.NON_FINITE, step, self._streak.begin,
            f"no loss from step {self._streak.begin} to {step} was finite ({self._streak.samples} observations in a "
            f"row), the last was {loss}",
        )  # fmt: skip
