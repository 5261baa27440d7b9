"""A double of a training's parts, to try things on: what is done to it leaves the training as it was."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.overrides import TorchFunctionMode

from remedy.spaces.objective import Criterion
from remedy.spaces.parts import Parts
from remedy.spaces.seeding import Generators

_DROPOUTS = frozenset(
    {
        F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, F.feature_alpha_dropout, torch.dropout,
        torch.alpha_dropout, torch.feature_dropout, torch.feature_alpha_dropout,
    }
)  # fmt: skip


@dataclass
class Double:
    """The live parts of a run once more: model, criterion, optimizer and scheduler, none shared with the original."""

    parts: Parts
    model: nn.Module
    criterion: Criterion
    optimizer: Optimizer
    scheduler: Any

    @classmethod
    def of(cls, parts: Parts) -> Double:
        """Copy them together, so that the optimizer's copy steps the parameters of the model's copy."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            given = (parts.model, parts.criterion, parts.optimizer, parts.scheduler)
            model, criterion, optimizer, scheduler = copy.deepcopy(given)
        return cls(parts, model.train(), criterion, optimizer, scheduler)

    def loss(self, inputs: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (outputs, loss) of a batch, in the precision of the training."""
        with self.parts.precision.autocast(self.parts.device):
            outputs = self.model(inputs)
            return outputs, self.criterion(outputs, targets)

    def step(self, loss: torch.Tensor, optimizer: Optimizer | None = None) -> None:
        """Make one step by the training's own optimizer, its clipping and its schedule, or by another optimizer."""
        stepping = optimizer or self.optimizer
        stepping.zero_grad(set_to_none=True)
        scaler = self.parts.precision.scaler(self.parts.device)
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        scaler.unscale_(stepping)
        if optimizer is None and self.parts.gradient is not None:
            self.parts.gradient([p for group in stepping.param_groups for p in group["params"]])
        scaler.step(stepping)
        if optimizer is None and self.scheduler is not None and self.parts.schedule.interval == "step":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the copied optimizer's `step` is not the one that it wrapped
                self.scheduler.step()

    def without_dropout(self) -> Double:
        """Switch off the dropout inside of modules that `steady` cannot reach."""
        for module in self.model.modules():
            if isinstance(module, nn.RNNBase | nn.MultiheadAttention):
                module.dropout = 0.0
        return self


class _NoDropout(TorchFunctionMode):
    """Lets every dropout pass its input through, written as a module or as a call."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _DROPOUTS:
            return args[0] if args else (kwargs or {})["input"]
        if func is F.scaled_dot_product_attention and kwargs and "dropout_p" in kwargs:
            kwargs = {**kwargs, "dropout_p": 0.0}
        return func(*args, **(kwargs or {}))


def steady() -> TorchFunctionMode:
    """Return a context without dropout."""
    return _NoDropout()


@contextmanager
def unmoved(parts: Parts) -> Iterator[None]:
    """Put back the random generators, and the gradients a loss with a hand on the model may have left."""
    before = Generators.now()
    gradients = [(p, p.grad) for p in parts.model.parameters()]
    try:
        yield
    finally:
        before.put()
        for parameter, gradient in gradients:
            parameter.grad = gradient
