"""The value of the slot `averaging`: averages of the weights over the steps, used wherever the model is judged."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

Average = Callable[[list[torch.Tensor], list[torch.Tensor], int], Any]


class Averaging:
    """Keeps an average of all weights and floating-point buffers, from a step on.

    `average(averages, values, count)` goes on by one step, as torch's `get_ema_multi_avg_fn` and `get_swa_multi_avg_fn`
    do. Not torch's `AveragedModel`: that copies the whole model, which hooks and exchanged forward methods may forbid.
    """

    def __init__(self, average: Average, begin: int = 0) -> None:
        """Average from step `begin` on."""
        self._average, self._begin = average, begin
        self._steps = self._count = 0
        self._kept: list[torch.Tensor] = []

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take the weights after a step into the average."""
        self._steps += 1
        if self._steps <= self._begin:
            return
        values = _values(model)
        if self._count == 0:
            self._kept = [value.clone() for value in values]
        else:
            self._average(self._kept, values, self._count)
        self._count += 1

    @contextmanager
    def in_force(self, model: nn.Module) -> Iterator[None]:
        """Give the model the averaged weights for a while; before the average begins, leave it as it is."""
        if not self._count:
            yield
            return
        values = _values(model)
        own = [value.clone() for value in values]
        _copy(self._kept, values)
        try:
            yield
        finally:
            _copy(own, values)

    def state_dict(self) -> dict[str, Any]:
        """Return what has to be saved."""
        return {"steps": self._steps, "count": self._count, "kept": self._kept}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where another one stopped."""
        self._steps, self._count, self._kept = state["steps"], state["count"], list(state["kept"])


def _values(model: nn.Module) -> list[torch.Tensor]:
    buffers = [buffer for buffer in model.buffers() if buffer.is_floating_point()]
    return [*(parameter.detach() for parameter in model.parameters()), *buffers]


@torch.no_grad()
def _copy(values: list[torch.Tensor], into: list[torch.Tensor]) -> None:
    for value, target in zip(values, into, strict=True):
        target.copy_(value)


SOURCES = (_values, _copy, Averaging)
"""What code without us needs of this module."""
