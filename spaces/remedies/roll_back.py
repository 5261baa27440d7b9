"""A remedy that undoes: where what was learnt is being lost, the last good weights come back."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from remedy.spaces.distribution import Float
from remedy.spaces.facts import Facts
from remedy.spaces.gradients import finite, norm_of, numbers, values
from remedy.spaces.guard import Guard, rates_times
from remedy.spaces.python import Python
from remedy.spaces.remedy import Change, Remedy, remedy
from remedy.spaces.slot import Slot

_SMOOTH = 0.9
_FIRST = 5
_WORSE = 1.5
_LEARNT = 0.5


class RollBack:
    """Keeps the weights at the lowest smoothed loss, and puts them back where half of the progress is lost.

    The batches go on: what led there is not seen again. After each return the learning rate is made smaller.
    """

    def __init__(self, factor: float, every: int) -> None:
        """Keep weights at most every `every` steps."""
        self._factor, self._every = factor, every
        self._steps = self._taken = 0
        self._scale = 1.0
        self._first: list[float] = []
        self._smooth = self._best = math.nan
        self._tensors: list[torch.Tensor] = []
        self._state: dict[str, Any] = {}

    def __call__(self, loss: torch.Tensor, model: nn.Module, optimizer: Optimizer) -> float:
        """Return 0 where it has gone back, else what the returns have left of the learning rate."""
        if not self._tensors:
            self._take(model, optimizer)
        self._steps += 1
        value = float(loss)
        if not finite(loss, optimizer) or self._lost(value):
            self._back(model, optimizer)
            return 0.0
        if self._smooth < self._best or math.isnan(self._best):
            self._best = self._smooth
            if self._steps - self._taken >= self._every:
                self._take(model, optimizer)
        return self._scale

    def _lost(self, loss: float) -> bool:
        if len(self._first) < _FIRST:
            self._first.append(loss)
        self._smooth = loss if math.isnan(self._smooth) else _SMOOTH * self._smooth + (1 - _SMOOTH) * loss
        start = sum(self._first) / len(self._first)
        if len(self._first) < _FIRST or start <= 0:
            return False
        learnt = self._best < _LEARNT * start
        return self._smooth > _WORSE * start or (learnt and self._smooth > (start + self._best) / 2)

    @torch.no_grad()
    def _take(self, model: nn.Module, optimizer: Optimizer) -> None:
        self._tensors = [tensor.detach().clone() for tensor in (*model.parameters(), *model.buffers())]
        self._state = copy.deepcopy(optimizer.state_dict()["state"])
        self._taken = self._steps

    @torch.no_grad()
    def _back(self, model: nn.Module, optimizer: Optimizer) -> None:
        for tensor, kept in zip((*model.parameters(), *model.buffers()), self._tensors, strict=True):
            tensor.copy_(kept)
        now = optimizer.state_dict()
        optimizer.load_state_dict({**now, "state": copy.deepcopy(self._state)})
        self._smooth = self._best
        self._scale *= self._factor

    def state_dict(self) -> dict[str, Any]:
        """Return what has to be saved."""
        return {name.lstrip("_"): getattr(self, name) for name in vars(self) if name not in ("_factor", "_every")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where another one stopped."""
        for name, value in state.items():
            setattr(self, f"_{name}", value)


@remedy(
    Slot.GUARD,
    treats=("accuracy_collapse", "non_finite", "dead_units", "class_takeover", "saturated_softmax", "stale_moments"),
    invasiveness=3,
    source="PaLM (2022): go back and leave the batches out; catalogue R88",
    factor=Float(0.1, 1.0),
    python=Python(
        define=(
            rates_times,
            values,
            norm_of,
            numbers,
            finite,
            f"_SMOOTH, _FIRST, _WORSE, _LEARNT = {_SMOOTH}, {_FIRST}, {_WORSE}, {_LEARNT}",
            RollBack,
        ),
        guard="guard = RollBack($factor, every=max(5, steps // 40))",
    ),
)
def roll_back(guard: Guard | None, *, factor: float = 0.5, facts: Facts) -> Change:
    """Puts the last good weights back where half of the progress is lost, and goes on at a lower learning rate."""
    every = max(5, facts.steps // 40)
    kept = "" if guard is None else ", in place of the guard that was there"
    told = f"the best weights (kept at most every {every} steps) come back where half of the progress is lost, then "
    return Change(RollBack(factor, every), f"{told}the learning rate x {factor:g}{kept}")


REMEDIES: tuple[Remedy, ...] = (roll_back,)
