"""Remedies for the learning rate: the same optimizer, with its rates scaled, found or spread anew."""

from __future__ import annotations

import math

from torch import nn
from torch.optim import Optimizer

from remedy.spaces.distribution import Choice, Float
from remedy.spaces.facts import Facts
from remedy.spaces.groups import last_layer, split
from remedy.spaces.python import Python
from remedy.spaces.remedy import Change, Inapplicable, Remedy, remedy
from remedy.spaces.slot import Slot

_LOWEST, _HIGHEST = 1e-5, 10.0
_STEPS = 100
_SMOOTH = 0.8
_LEARNS = 0.98


@remedy(
    Slot.LEARNING_RATE,
    treats=(
        "accuracy_collapse", "saturated_softmax", "class_takeover", "dead_units", "exploding_gradient", "zero_gradient",
        "non_finite", "worse_than_guessing", "constant_output", "drifting_logits", "stale_moments", "large_attention"),
    invasiveness=1,
    source="posts 000, 003: reduce the learning rate; catalogue R64",
    factor=Float(0.003, 0.5, log=True),
    python=Python(optimizer="for group in optimizer.param_groups:\n    group['lr'] *= $factor"),
)  # fmt: skip
def scale_down(optimizer: Optimizer, *, factor: float = 0.1) -> Change:
    """Multiplies every learning rate by a factor below one."""
    return _scaled(optimizer, factor)


@remedy(
    Slot.LEARNING_RATE,
    treats=("chance_plateau", "vanishing_gradient", "still_weights"),
    invasiveness=1,
    source="AutoTrainer (ICSE'21); catalogue R65",
    factor=Float(2.0, 30.0, log=True),
    python=Python(optimizer="for group in optimizer.param_groups:\n    group['lr'] *= $factor"),
)
def scale_up(optimizer: Optimizer, *, factor: float = 10.0) -> Change:
    """Multiplies every learning rate by a factor above one."""
    return _scaled(optimizer, factor)


@remedy(
    Slot.LEARNING_RATE,
    treats=(
        "chance_plateau", "accuracy_collapse", "dead_units", "exploding_gradient", "saturated_softmax",
        "class_takeover", "non_finite", "worse_than_guessing", "still_weights"),
    invasiveness=1,
    source="Smith 2017 (range test); fastai; catalogue R66",
    below=Float(2.0, 30.0, log=True),
)  # fmt: skip
def range_test(optimizer: Optimizer, *, below: float = 10.0, facts: Facts) -> Change:
    """Tries rising learning rates for some steps beforehand, and takes a rate well below the best of them."""
    first = float(optimizer.param_groups[0]["lr"])
    if first <= 0 or facts.rehearse is None:
        raise Inapplicable(f"learning rates can be tried as multiples of the first group's only, and that is {first:g}")
    rates = [_LOWEST * (_HIGHEST / _LOWEST) ** (place / (_STEPS - 1)) for place in range(_STEPS)]
    losses = [loss for loss in facts.rehearse([rate / first for rate in rates]) if math.isfinite(loss)]
    smooth = losses[:1]
    for loss in losses[1:]:
        smooth.append(_SMOOTH * smooth[-1] + (1 - _SMOOTH) * loss)
    best = min(range(len(smooth)), key=smooth.__getitem__, default=0)
    if not best or smooth[best] > _LEARNS * smooth[0]:
        raise Inapplicable(f"no learning rate from {_LOWEST:g} to {_HIGHEST:g} lowered the loss within {_STEPS} steps")
    told = f"best of {len(losses)} steps at {_LOWEST:g} to {rates[len(losses) - 1]:.2g}: {rates[best]:.2g}"
    change = _scaled(optimizer, rates[best] / below / first)
    return Change(change.value, f"{change.receipt}; {told}")


@remedy(
    Slot.LEARNING_RATE,
    treats=("dead_units", "accuracy_collapse", "exploding_gradient", "saturated_softmax", "large_attention"),
    invasiveness=2,
    source="Yang et al. 2022 (muP); Wortsman et al. 2023; catalogue R69, R47",
    base=Choice(16, 32, 64, 128),
    python=Python(
        define=(split,),
        optimizer="""
def rate(parameter, group):
    fan_in = parameter.shape[1:].numel() if parameter.dim() > 1 else 1
    return {"lr": group["lr"] * min(1.0, $base / fan_in)}


split(optimizer, rate)
""",
    ),
)
def rate_by_width(optimizer: Optimizer, *, base: int = 32) -> Change:
    """Lowers the learning rate of each matrix in proportion to the number of its inputs, from a base on."""

    def rate(parameter: nn.Parameter, group: dict[str, float]) -> dict[str, float]:
        inputs = parameter.shape[1:].numel() if parameter.dim() > 1 else 1
        return _rates(group, min(1.0, base / inputs))

    before = len(optimizer.param_groups)
    split(optimizer, rate)
    return _spread(optimizer, before, f"no layer has more than {base} inputs")


@remedy(
    Slot.LEARNING_RATE,
    treats=("class_takeover", "saturated_softmax", "accuracy_collapse", "drifting_logits"),
    invasiveness=2,
    source="layer-wise rates; Howard & Ruder 2018; catalogue R69",
    factor=Choice(0.01, 0.1, 0.3, 3.0, 10.0),
    python=Python(
        define=(split, last_layer),
        optimizer="""
last = last_layer(model)
split(optimizer, lambda parameter, group: {"lr": group["lr"] * ($factor if parameter in last else 1.0)})
""",
    ),
)
def last_layer_rate(optimizer: Optimizer, *, factor: float = 0.1, facts: Facts) -> Change:
    """Gives the last layer a learning rate of its own."""
    last = last_layer(facts.model) if facts.model is not None else set()
    before = len(optimizer.param_groups)
    split(optimizer, lambda parameter, group: _rates(group, factor if parameter in last else 1.0))
    return _spread(optimizer, before, "the last layer has a group of its own, and no other layer is trained")


def _rates(group: dict[str, float], factor: float) -> dict[str, float]:
    return {key: group[key] * factor for key in ("lr", "initial_lr") if key in group}


def _spread(optimizer: Optimizer, before: int, why_not: str) -> Change:
    after = len(optimizer.param_groups)
    if after == before:
        raise Inapplicable(why_not)
    told = ", ".join(dict.fromkeys(f"{float(group['lr']):.3g}" for group in optimizer.param_groups))
    return Change(optimizer, f"{before} parameter group(s) -> {after}, with learning rates {told}")


def _scaled(optimizer: Optimizer, factor: float) -> Change:
    told = []
    for group in optimizer.param_groups:
        old = float(group["lr"])
        for key in ("lr", "initial_lr"):
            if key in group:
                group[key] = group[key] * factor
        told.append(f"{old:g} -> {float(group['lr']):g}")
    return Change(optimizer, f"learning rate {', '.join(dict.fromkeys(told))} in {len(told)} parameter group(s)")


REMEDIES: tuple[Remedy, ...] = (scale_down, scale_up, range_test, rate_by_width, last_layer_rate)
