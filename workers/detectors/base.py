"""The contract of a detector."""

from __future__ import annotations

from typing import Protocol

from remedy.spaces.verdict import Verdict
from remedy.workers.observation import Observation, Setting


class Detector(Protocol):
    """One small class with one method, made anew for every run with the run's setting.

    It is fed with every observation of the run in order and may keep what it needs between them. It returns a verdict
    (`stops=True` ends the run, `stops=False` is a note), or None. A note is given once. Its thresholds are fields of
    the class, each a `Threshold(value, why)`: what is written so is listed, and can be set in a study file.
    """

    def __init__(self, setting: Setting) -> None:
        """Begin a run."""

    def observe(self, observation: Observation) -> Verdict | None:
        """Look at one observation."""
