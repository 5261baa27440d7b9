"""The output is the same for every input."""

from __future__ import annotations

import math

from remedy.spaces.symptom import Symptom
from remedy.spaces.verdict import Verdict
from remedy.workers.detectors.growth import Growth
from remedy.workers.detectors.guessing import progress
from remedy.workers.detectors.streak import Patience, Streak
from remedy.workers.detectors.threshold import Threshold
from remedy.workers.detectors.weights import first_to_last
from remedy.workers.observation import Observation, Setting


class ConstantOutput:
    """Stops where outputs differ over inputs by rounding only, or ever less, and nothing grows; notes it before.

    Classes or real numbers alike: what is left to learn is then one output for all inputs.
    """

    rounding = Threshold(1e-6, "of their size: outputs that differ by less differ by float32's rounding only")
    growing = Threshold(
        1.5,
        "times the first third of the stretch: late bloomers with constant outputs are told by a gradient that grows "
        "from the first layer on (kind late_tanh)",
        least=1,
    )
    chance = Threshold(0.1, "a metric within a tenth of the way to the goal is no better than guessing", most=1)
    patience = Threshold(
        Patience(share=0.15, steps=60, samples=3), "long enough for a growth by half to show, if there is one"
    )
    fading = Threshold(
        0.5,
        "times the first third of a stretch below faint: the spread dies out, and the first layer's gradient with it, "
        "as under a weight decay that leaves nothing (kind far_too_much_decay)",
        most=1,
    )
    faint = Threshold(1e-2, "of their size: outputs that hardly depend on inputs")
    fading_patience = Threshold(Patience(share=0.2, steps=80, samples=4), "late_tanh fades for 5 % of its budget only")
    little = Threshold(1e-3, "catalogue D14: 2 % of good runs, so it is noted only")
    note_patience = Threshold(Patience(share=0.2, steps=50, samples=4), "as for a takeover that is noted")

    def __init__(self, setting: Setting) -> None:
        """Begin a run."""
        self._setting = setting
        self._same = Streak()
        self._alike = Streak()
        self._faint = Streak()
        self._growth = Growth(self.growing)
        self._spreads, self._ratios = Growth(self.fading), Growth(self.fading)
        self._noted = False

    def observe(self, observation: Observation) -> Verdict | None:
        seen, step = observation.validation, observation.step
        if self._same.since is not None:
            self._growth.add(first_to_last(observation))
        if self._faint.since is not None:
            self._ratios.add(first_to_last(observation))
        if seen is None or observation.metric is None:
            return None
        spread = seen.input_spread if seen.finite else math.nan
        guessing = not progress(self._setting, observation.metric) > self.chance
        if not self._same.see(step, holds=guessing and spread < self.rounding):
            self._growth = Growth(self.growing)
        self._alike.see(step, holds=guessing and spread < self.little)
        # Real outputs on their way to a far mean differ less and less in parts of their size, and lose nothing.
        faint = guessing and spread < self.faint and self._setting.classes > 0
        if self._faint.see(step, holds=faint):
            self._spreads.add(spread)
        else:
            self._spreads, self._ratios = Growth(self.fading), Growth(self.fading)
        if self.patience.over(self._same, self._setting) and not self._growth.grows:
            return Verdict(
                Symptom.CONSTANT_OUTPUT, step, self._same.begin,
                f"the outputs differ over inputs by {spread:.0e} of their size, which is rounding, since step "
                f"{self._same.begin}, no gradient grows, and the metric is no better than guessing "
                f"({self._setting.chance:.3g})",
            )  # fmt: skip
        fades = self._spreads.shrinks and self._ratios.shrinks
        if self.fading_patience.over(self._faint, self._setting) and fades:
            return Verdict(
                Symptom.CONSTANT_OUTPUT, step, self._faint.begin,
                f"the outputs differ over inputs by {spread:.0e} of their size, less and less since step "
                f"{self._faint.begin}, as does the first layer's gradient in parts of the last one's, and the metric "
                f"is no better than guessing ({self._setting.chance:.3g})",
            )  # fmt: skip
        if self._noted or not self.note_patience.over(self._alike, self._setting):
            return None
        self._noted = True
        return Verdict(
            Symptom.CONSTANT_OUTPUT, step, self._alike.begin,
            f"the outputs differ over inputs by {spread:.0e} of their size at step {step}, below {self.little:.0e} "
            f"since step {self._alike.begin}",
            stops=False,
        )  # fmt: skip
