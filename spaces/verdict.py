"""What a detector found."""

from __future__ import annotations

from dataclasses import dataclass

from remedy.spaces.symptom import Symptom


@dataclass(frozen=True)
class Verdict:
    """Why a run was stopped, or (`stops` false) what was noted while it goes on.

    `step` is the optimizer step of the finding, `onset_step` the step since which it is seen, `evidence` a sentence
    with figures.
    """

    symptom: Symptom
    step: int
    onset_step: int
    evidence: str
    stops: bool = True

    def __post_init__(self) -> None:
        """Refuse a verdict without a reason."""
        if not self.evidence.strip():
            msg = f"a verdict of {self.symptom} needs evidence in figures, not an empty text"
            raise ValueError(msg)
