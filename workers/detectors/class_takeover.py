"""One class takes over."""

from __future__ import annotations

from remedy.spaces.symptom import Symptom
from remedy.spaces.verdict import Verdict
from remedy.workers.detectors.fall import Fall, FallThresholds
from remedy.workers.detectors.streak import Patience, Streak
from remedy.workers.detectors.threshold import Threshold
from remedy.workers.observation import Observation, Outputs, Setting


class ClassTakeover(FallThresholds):
    """Stops where one class took over after the run had learnt something; notes it where it never had."""

    share = Threshold(0.95, "one class gets almost all predictions: the cause of the fall is in sight", most=1)
    patience = Threshold(
        Patience(share=0.1, steps=40, samples=4),
        "a fall with its cause in sight is believed sooner than a fall alone",
    )
    note_share = Threshold(
        0.99,
        "late bloomers give every prediction to one class for 50 to 70 % of their budget (cases.md): only a note",
        most=1,
    )
    note_prior = Threshold(0.5, "catalogue D13: only where no class is that large anyway", most=1)
    note_patience = Threshold(
        Patience(share=0.2, steps=50, samples=4), "as for note_share: what ends within a fifth is not even noted"
    )

    def __init__(self, setting: Setting) -> None:
        """Begin a run."""
        self._setting = setting
        self._fall = Fall(setting, self)
        self._taken = Streak()
        self._constant = Streak()
        self._noted = setting.prior >= self.note_prior

    def observe(self, observation: Observation) -> Verdict | None:
        fall, seen, step = self._fall, observation.validation, observation.step
        fall.see(observation)
        if seen is None:
            return None
        fell = fall.streak.since is not None
        self._taken.see(step, holds=fell and seen.top_share >= self.share)
        self._constant.see(step, holds=seen.top_share >= self.note_share)
        if self.patience.over(self._taken, self._setting) and fall.lasting:
            return Verdict(
                Symptom.CLASS_TAKEOVER, step, self._taken.begin,
                f"class {seen.top_class} gets {seen.top_share:.0%} of the predictions, one class almost all since step "
                f"{self._taken.begin}, and the metric fell from {fall.peak_metric:.3g} at step {fall.peak_step} to "
                f"{fall.metric:.3g} (guessing: {self._setting.chance:.3g})",
            )  # fmt: skip
        return self._note(step, seen)

    def _note(self, step: int, seen: Outputs) -> Verdict | None:
        if self._noted or not self.note_patience.over(self._constant, self._setting):
            return None
        self._noted = True
        return Verdict(
            Symptom.CLASS_TAKEOVER, step, self._constant.begin,
            f"class {seen.top_class} gets {seen.top_share:.0%} of the predictions at step {step}, and one class had "
            f"almost all since step {self._constant.begin}",
            stops=False,
        )  # fmt: skip
