"""A run under way in another process: what is known of it on this side, and how long it may take."""

from __future__ import annotations

import dataclasses
import math
import time
from dataclasses import dataclass
from typing import Any

from remedy.spaces.outcome import Outcome
from remedy.workers.order import WorkOrder
from remedy.workers.result import RunResult

START_SECONDS = 300.0
GRACE_SECONDS = 10.0


@dataclass
class UnderWay:
    """A run under way. `began` is None until its worker has begun, `cancelled` until somebody wants it to end."""

    order: WorkOrder
    actor: Any
    sent: float
    began: float | None = None
    cancelled: float | None = None
    steps: int = 0

    @property
    def deadline(self) -> float:
        """When this run has to be killed, on the monotonic clock."""
        if self.began is None:
            return self.sent + START_SECONDS
        limit = math.inf if self.order.timeout is None else self.began + self.order.timeout
        return limit if self.cancelled is None else min(limit, self.cancelled + GRACE_SECONDS)

    def result(self, outcome: Outcome, reason: str) -> RunResult:
        """Return a result made of what is known on this side."""
        seconds = time.monotonic() - (self.began or self.sent)
        return RunResult(self.order.number, outcome, reason, steps=self.steps, seconds=seconds)

    def killed(self) -> RunResult:
        """Return the result of a run that did not end in its time."""
        if self.cancelled is not None:
            return self.stopped()
        if self.began is None:
            return self.result(Outcome.LOST, f"its worker did not begin within {START_SECONDS:g} s")
        return self.result(Outcome.FAILED, f"took longer than {self.order.timeout:g} s (--run-timeout)")

    def stopped(self) -> RunResult:
        """Return the result of a cancelled run that left none."""
        result = self.result(Outcome.STOPPED, "the search had no more use for this run")
        return dataclasses.replace(result, saved_by="controller")
