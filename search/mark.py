"""What is marked on the curves of one run: since which step its verdict holds, and the figures it saw."""

from __future__ import annotations

from dataclasses import dataclass

from remedy.workers.result import RunResult

CURVES = ("loss", "gradient_norm", "metric")
"""What a verdict is seen on, of all that is kept of a run."""


@dataclass(frozen=True)
class Mark:
    """A finding on a run's curves, which holds from `onset` to `step`; `kind` says what came of it."""

    symptom: str
    onset: int
    step: int
    kind: str
    evidence: str

    @property
    def said(self) -> str:
        """What is marked, for people."""
        return f"{self.symptom} {self.kind}, step {self.step}; it holds since step {self.onset}"


def mark_of(result: RunResult) -> Mark | None:
    """Return what is marked: the verdict, one that an audit did not let end the run, or else the first note."""
    found, kind = result.verdict, "ended the run"
    if result.spared is not None:
        found, kind = result.spared, "did not end the run, which was audited"
    if found is None and result.notes:
        found, kind = result.notes[0], "was noted"
    if found is None:
        return None
    return Mark(found.symptom.value, min(found.onset_step, found.step), found.step, kind, found.evidence)
