"""The initial weights of Linear and Conv layers: drawing them anew, parametrised ones too."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn
from torch.nn.utils import parametrize

from remedy.spaces.remedy import Inapplicable
from remedy.spaces.surgery import Weighted

Draw = Callable[[torch.Tensor], torch.Tensor]
_WHOLE = "the model"


def lecun_normal_(weight: torch.Tensor) -> torch.Tensor:
    """Draw weights of variance 1 / fan-in in place."""
    return nn.init.normal_(weight, std=1 / math.sqrt(weight[0].numel()))


@torch.no_grad()
def redraw(model: nn.Module, draw: Draw) -> list[str]:
    """Draw the weights of every Linear and Conv layer anew, and set their biases to zero; returns the paths.

    Raises:
        Inapplicable: there is none.
    """
    found = {path: module for path, module in model.named_modules() if isinstance(module, Weighted)}
    if not found:
        raise Inapplicable("the model has no Linear or Conv layer")
    for module in found.values():
        fill(module, draw)
    return [path or _WHOLE for path in found]


def path_of(told: str) -> str:
    """Return the path that `redraw` told: a model that is one layer has an empty one."""
    return "" if told == _WHOLE else told


@torch.no_grad()
def fill(layer: Weighted, draw: Draw) -> None:
    """Draw the weights of one layer, and set its bias to zero."""
    put_weight(layer, draw(layer.weight.detach().clone()))
    if layer.bias is not None:
        layer.bias.zero_()


@torch.no_grad()
def put_weight(layer: Weighted, weight: torch.Tensor) -> None:
    """Give a layer this weight; one that is computed from other parameters (weight norm) gets those that make it."""
    if parametrize.is_parametrized(layer, "weight"):
        layer.weight = weight  # the parametrisation's right inverse takes it
    else:
        layer.weight.copy_(weight)
