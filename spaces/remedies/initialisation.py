"""Remedies for the initial weights of Linear and Conv layers; norm layers and embeddings keep theirs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from remedy.spaces.distribution import Float
from remedy.spaces.facts import Facts
from remedy.spaces.remedy import Change, Inapplicable, Remedy, remedy
from remedy.spaces.slot import Slot
from remedy.spaces.surgery import Weighted, layers


@remedy(
    Slot.INITIALISATION,
    treats=("vanishing_gradient", "exploding_gradient", "chance_plateau"),
    invasiveness=4,
    source="He et al. 2015; AutoTrainer (ICSE'21); catalogue R38",
)
def he(model: nn.Module) -> Change:
    """Draws weights that keep a signal's size through ReLU layers, and sets biases to zero."""
    slopes = [float(m.negative_slope) for m in model.modules() if isinstance(m, nn.LeakyReLU)]
    slope = slopes[0] if slopes else 0.0
    draw = partial(nn.init.kaiming_normal_, a=slope, nonlinearity="leaky_relu")
    return _drawn(model, draw, f"He normal (slope {slope:g})")


@remedy(
    Slot.INITIALISATION,
    treats=("exploding_gradient", "vanishing_gradient", "chance_plateau"),
    invasiveness=4,
    source="Glorot & Bengio 2010; AutoTrainer (ICSE'21); catalogue R38",
    gain=Float(0.3, 2.0, log=True),
)
def xavier(model: nn.Module, *, gain: float = 1.0) -> Change:
    """Draws weights that keep a signal's size forwards and backwards, and sets biases to zero."""
    return _drawn(model, partial(nn.init.xavier_uniform_, gain=gain), f"Xavier uniform, gain {gain:g}")


@remedy(
    Slot.INITIALISATION,
    treats=("vanishing_gradient", "exploding_gradient", "chance_plateau"),
    invasiveness=4,
    source="post 002: orthogonal initialisation; Saxe et al. 2014; catalogue R39",
    gain=Float(0.5, 2.0, log=True),
)
def orthogonal(model: nn.Module, *, gain: float = 1.4) -> Change:
    """Draws orthogonal weights, and sets biases to zero."""
    return _drawn(model, partial(nn.init.orthogonal_, gain=gain), f"orthogonal, gain {gain:g}")


@remedy(
    Slot.INITIALISATION,
    treats=("saturated_softmax", "exploding_gradient", "non_finite"),
    invasiveness=4,
    source="Zhang et al. 2019 (Fixup); catalogue R33",
    std=Float(1e-4, 0.1, log=True),
)
@torch.no_grad()
def small_last_layer(model: nn.Module, *, std: float = 1e-2, facts: Facts) -> Change:
    """Draws small weights for the last layer, so that training starts from even outputs."""
    found = layers(model, facts.inputs)
    if not found:
        raise Inapplicable("the model has no Linear or Conv layer that runs")
    last = found[-1]
    before = float(last.module.weight.std())
    _fill(last.module, partial(nn.init.normal_, std=std))
    return Change(model, f"weights of {last.path or 'the model'}: spread {before:.3g} -> normal, std {std:g}; bias 0")


@torch.no_grad()
def _drawn(model: nn.Module, draw: Callable[[torch.Tensor], torch.Tensor], name: str) -> Change:
    found = {path: module for path, module in model.named_modules() if isinstance(module, Weighted)}
    if not found:
        raise Inapplicable("the model has no Linear or Conv layer")
    for module in found.values():
        _fill(module, draw)
    paths = ", ".join(path or "the model" for path in found)
    return Change(model, f"weights of {len(found)} layer(s) drawn anew ({name}), biases 0: {paths}")


def _fill(layer: Weighted, draw: Callable[[torch.Tensor], torch.Tensor]) -> None:
    draw(layer.weight)
    if layer.bias is not None:
        layer.bias.zero_()


REMEDIES: tuple[Remedy, ...] = (he, xavier, orthogonal, small_last_layer)
