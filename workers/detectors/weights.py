"""What the gradients of the weights say at one step."""

from __future__ import annotations

import math

from remedy.workers.observation import Observation


def all_zero(seen: Observation) -> bool:
    """Whether there are weights and every entry of every weight's gradient is exactly 0."""
    return bool(seen.layers) and all(layer.zero_share >= 1 for layer in seen.layers)


def first_zero(seen: Observation) -> bool:
    """Whether the gradient of the first weight is exactly 0."""
    return bool(seen.layers) and seen.layers[0].zero_share >= 1


def first_to_last(seen: Observation) -> float:
    """Return the first weight's gradient norm over the last one's; NaN for fewer than two, or no gradient."""
    if len(seen.layers) < 2 or not 0 < seen.layers[-1].gradient_norm < math.inf:
        return math.nan
    return seen.layers[0].gradient_norm / seen.layers[-1].gradient_norm
