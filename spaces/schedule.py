"""The value of the slot `schedule`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from torch.optim import Optimizer

Interval = Literal["epoch", "step"]


@dataclass(frozen=True)
class Schedule:
    """How the learning rate changes: `make(optimizer)` builds the scheduler, stepped every epoch or every step.

    `make` is None for a constant learning rate. A `ReduceLROnPlateau` is given the validation metric.
    """

    make: Callable[[Optimizer], Any] | None = None
    interval: Interval = "epoch"
