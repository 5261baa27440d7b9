"""What a spike is: a loss or a gradient norm far above the ones before it."""

from __future__ import annotations

import math
from typing import Any


class Spikes:
    """Remembers the last losses and gradient norms, as plain numbers, and finds what lies far above them."""

    def __init__(self, sigmas: float, window: int) -> None:
        """Take `sigmas` standard deviations above the mean of the last `window` steps for far."""
        self._sigmas, self._window = sigmas, window
        self._past: dict[str, list[float]] = {"loss": [], "norm": []}

    def see(self, loss: float, norm: float) -> bool:
        """Take a step into account; return whether it is a spike. What is not finite is one, and is not remembered."""
        if not (math.isfinite(loss) and math.isfinite(norm)):
            return True
        found = False
        for name, value in (("loss", loss), ("norm", norm)):
            past = self._past[name]
            found |= self._far(value, past)
            past.append(value)
            del past[: -self._window]
        return found

    def _far(self, value: float, past: list[float]) -> bool:
        if len(past) < self._window // 2:
            return False
        mean = sum(past) / len(past)
        return value > mean + self._sigmas * math.sqrt(sum((p - mean) ** 2 for p in past) / len(past))

    def state_dict(self) -> dict[str, Any]:
        """Return what has to be saved."""
        return {name: list(past) for name, past in self._past.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where another one stopped."""
        self._past = {name: list(past) for name, past in state.items()}
