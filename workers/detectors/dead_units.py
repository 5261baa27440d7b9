"""A hidden layer is zero for every input."""

from __future__ import annotations

from remedy.spaces.symptom import Symptom
from remedy.spaces.verdict import Verdict
from remedy.workers.detectors.streak import Patience, Streak
from remedy.workers.detectors.threshold import Threshold
from remedy.workers.detectors.weights import first_zero
from remedy.workers.observation import Activation, Observation, Setting


class DeadUnits:
    """Stops where a dead layer lets nothing through in either direction; notes a half dead one."""

    dead = Threshold(
        0.99, "catalogue D09: units without output over at least 256 samples; 0 of 17 healthy ReLU runs", most=1
    )
    # With a path around the layer it is harmless, hence two further conditions: the output no longer depends on the
    # input, and the first weight's gradient is exactly 0.
    least_spread = Threshold(1e-6, "outputs that differ over inputs by less than float32 rounds do not depend on them")
    patience = Threshold(
        Patience(share=0.02, steps=20), "exact zeros are absorbing: 20 steps had no false alarm (catalogue A8)"
    )
    half = Threshold(0.5, "D09: half dead on a single batch is seen in 6 % of good runs, so a note", most=1)
    note_samples = Threshold(2, "the same validations in a row, since one batch says little", least=1)

    def __init__(self, setting: Setting) -> None:
        """Begin a run."""
        self._setting = setting
        self._silent = Streak()
        self._half = Streak()
        self._noted = False
        self._layer: Activation | None = None

    def observe(self, observation: Observation) -> Verdict | None:
        step = observation.step
        if observation.validation is not None:
            worst = max(observation.activations, key=lambda a: a.dead_share, default=None)
            constant = observation.validation.finite and observation.validation.input_spread <= self.least_spread
            self._layer = worst if worst is not None and worst.dead_share >= self.dead and constant else None
        self._silent.see(step, holds=first_zero(observation))
        if self._layer is not None and self.patience.over(self._silent, self._setting):
            return Verdict(
                Symptom.DEAD_UNITS, step, self._silent.begin,
                f"{self._layer.dead_share:.1%} of the units of {self._layer.name!r} are zero for every validation "
                f"sample, the output does not depend on the input, and the first layer's gradient is exactly 0 from "
                f"step {self._silent.begin} to {step}",
            )  # fmt: skip
        return self._note(observation)

    def _note(self, observation: Observation) -> Verdict | None:
        if self._noted or not observation.activations:
            return None
        worst = max(observation.activations, key=lambda a: a.dead_share)
        self._half.see(observation.step, holds=worst.dead_share >= self.half)
        if not self._half.held(0, self.note_samples):
            return None
        self._noted = True
        return Verdict(
            Symptom.DEAD_UNITS, observation.step, self._half.begin,
            f"{worst.dead_share:.0%} of the units of {worst.name!r} are zero for every validation sample "
            f"since step {self._half.begin}",
            stops=False,
        )  # fmt: skip
