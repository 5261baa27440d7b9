"""The value of the slot `guard`: what looks at every step before it is made."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import nn
from torch.optim import Optimizer


class Guard(Protocol):
    """Called after the backward pass, before the gradient rule; returns a factor on this step's learning rates.

    1 lets the step through, 0 leaves it out altogether. A guard may also change weights and the optimizer's state
    (to put back older ones). What it remembers is in `state_dict`, so that a run that stops goes on as it was.
    """

    def __call__(self, loss: torch.Tensor, model: nn.Module, optimizer: Optimizer) -> float: ...


@contextmanager
def rates_times(optimizer: Optimizer, factor: float) -> Iterator[None]:
    """Multiply the learning rates for one step; a scheduler never sees it."""
    if factor == 1:
        yield
        return
    kept = [group["lr"] for group in optimizer.param_groups]
    for group in optimizer.param_groups:
        group["lr"] = group["lr"] * factor
    try:
        yield
    finally:
        for group, rate in zip(optimizer.param_groups, kept, strict=True):
            group["lr"] = rate
