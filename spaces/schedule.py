"""The value of the slot `schedule`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

Interval = Literal["epoch", "step"]


@dataclass(frozen=True)
class Schedule:
    """How the learning rate changes: `make(optimizer)` builds the scheduler, stepped every epoch or every step.

    `make` is None for a constant learning rate. A `ReduceLROnPlateau` is given the validation metric.
    """

    make: Callable[[Optimizer], Any] | None = None
    interval: Interval = "epoch"

    def stretched(self, ratio: float) -> Schedule:
        """Return the schedule over a budget that a remedy changed: stepped `ratio` times for each step of the run."""
        return self if self.make is None or ratio == 1 else Schedule(Stretch(self.make, ratio), self.interval)


@dataclass(frozen=True)
class Stretch:
    """Builds a scheduler of the user's over another horizon."""

    below: Callable[[Optimizer], Any]
    ratio: float

    def __call__(self, optimizer: Optimizer) -> Any:
        """Build it; one that waits for a metric has no horizon and stays as it is."""
        made = self.below(optimizer)
        return made if isinstance(made, ReduceLROnPlateau) else Stretched(made, self.ratio)


class Stretched:
    """Steps the scheduler below `ratio` times, in the mean, for each step of its own."""

    _rounding = 1e-9

    def __init__(self, below: Any, ratio: float) -> None:
        self.below, self._ratio, self._taken = below, ratio, 0

    def step(self) -> None:
        """Go on by one."""
        before, self._taken = int(self._taken * self._ratio + self._rounding), self._taken + 1
        for _ in range(int(self._taken * self._ratio + self._rounding) - before):
            self.below.step()

    def get_last_lr(self) -> list[float]:
        """Return the learning rates in force, as torch's schedulers do."""
        return [float(rate) for rate in self.below.get_last_lr()]

    def state_dict(self) -> dict[str, Any]:
        """Return what has to be saved, as torch's schedulers do."""
        return {"taken": self._taken, "below": self.below.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where another one stopped."""
        self._taken = state["taken"]
        self.below.load_state_dict(state["below"])
