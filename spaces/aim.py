"""The aim of a training: what the loss makes of the targets, and the scale of the outputs that goes with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from remedy.spaces.logits import mark


class Rescale(nn.Module):
    """Takes the numbers a model gives to the scale of the user's targets, and those targets to the model's."""

    mean: torch.Tensor
    spread: torch.Tensor

    def __init__(self, mean: torch.Tensor, spread: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("spread", spread)

    def forward(self, numbers: torch.Tensor) -> torch.Tensor:
        """Return what the model gives, in the user's scale."""
        return numbers * self.spread.to(numbers) + self.mean.to(numbers)

    def inverse(self, targets: torch.Tensor) -> torch.Tensor:
        """Return targets in the model's scale."""
        return (targets - self.mean.to(targets)) / self.spread.to(targets)


@dataclass(frozen=True)
class Aim:
    """The value of the slot `targets`.

    `turn` is applied to the targets before the loss. With `rescale` the model is trained on its inverse, and gives
    outputs in the user's scale all the same, so that metrics and inference see what they saw.
    """

    turn: Callable[[torch.Tensor], torch.Tensor] | None = None
    rescale: Rescale | None = None

    def attach(self, model: nn.Module) -> None:
        """Have the model give outputs in the user's scale, and remember them in its own."""
        if self.rescale is not None:
            rescale = self.rescale
            model.register_forward_hook(lambda _module, _args, output: mark(rescale(output), output))
