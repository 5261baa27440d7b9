"""One seed enters at submit; all others are functions of it."""

from __future__ import annotations

import hashlib
import random

import numpy as np
import torch

_BITS = 31


def derive(seed: int, *names: object) -> int:
    """Return a seed in [0, 2**31) that is a function of `seed` and the names alone."""
    text = "/".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") % (1 << _BITS)


def seed_all(seed: int) -> None:
    """Seed the global generators of Python, NumPy and torch (all devices)."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  (user code draws from the legacy generator)
    torch.manual_seed(seed)
