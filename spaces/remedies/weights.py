"""Remedies for the size of the weights: weight decay in the optimizer, constraints after each step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.optim import Optimizer

from remedy.spaces.distribution import Float
from remedy.spaces.groups import split
from remedy.spaces.python import Python
from remedy.spaces.remedy import Change, Inapplicable, Remedy, remedy
from remedy.spaces.slot import Slot

Rule = Callable[[list[nn.Parameter]], None]


@dataclass(frozen=True)
class Clamp:
    """Keeps every entry of the weights (not of biases and norm layers) within [-limit, limit]."""

    limit: float

    @torch.no_grad()
    def __call__(self, parameters: list[nn.Parameter]) -> None:
        """Clamp in place."""
        for weight in _matrices(parameters):
            weight.clamp_(-self.limit, self.limit)


@dataclass(frozen=True)
class MaxNorm:
    """Keeps the norm of the weights into each unit at most `limit`."""

    limit: float

    @torch.no_grad()
    def __call__(self, parameters: list[nn.Parameter]) -> None:
        """Scale down in place, the units that are too long only."""
        for weight in _matrices(parameters):
            norms = weight.flatten(1).norm(dim=1).clamp_min(torch.finfo(weight.dtype).tiny)
            factor = (self.limit / norms).clamp_max(1.0)
            weight.mul_(factor.reshape(-1, *[1] * (weight.dim() - 1)))


def _matrices(parameters: list[nn.Parameter]) -> list[nn.Parameter]:
    return [parameter for parameter in parameters if parameter.dim() >= 2]


@remedy(
    Slot.WEIGHT_DECAY,
    treats=(
        "class_takeover",
        "saturated_softmax",
        "accuracy_collapse",
        "exploding_gradient",
        "generalisation_gap",
        "drifting_logits",
        "large_attention",
    ),
    invasiveness=1,
    source="posts 000, 001: regularizers on; Wortsman et al. 2023; catalogue R77",
    value=Float(1e-6, 1e-1, log=True),
    python=Python(
        optimizer="""
decays = any(group["weight_decay"] for group in optimizer.param_groups)
for group in optimizer.param_groups:
    if group["weight_decay"] or not decays:  # a group without decay beside one with decay is meant so
        group["weight_decay"] = $value
"""
    ),
)
def weight_decay_on(optimizer: Optimizer, *, value: float = 1e-3) -> Change:
    """Turns weight decay on, or up where it is already on."""
    old = _decays(optimizer)
    if max(old) >= value:
        raise Inapplicable(f"the optimizer already decays the weights by {max(old):g}, at least {value:g}")
    for group in optimizer.param_groups:
        # A group without decay beside one with decay (biases, norm layers) was left out on purpose.
        if group["weight_decay"] > 0 or not any(old):
            group["weight_decay"] = value
    return Change(optimizer, f"weight decay {_told(old)} -> {_told(_decays(optimizer))}")


@remedy(
    Slot.WEIGHT_DECAY,
    treats=("chance_plateau", "vanishing_gradient", "constant_output"),
    invasiveness=1,
    source="posts 000, 001: regularizers off; TheDeepChecker (TOSEM'22); catalogue R78",
    python=Python(optimizer='for group in optimizer.param_groups:\n    group["weight_decay"] = 0.0'),
)
def weight_decay_off(optimizer: Optimizer) -> Change:
    """Turns weight decay off."""
    old = _decays(optimizer)
    if not any(old):
        raise Inapplicable("the optimizer does not decay the weights")
    for group in optimizer.param_groups:
        group["weight_decay"] = 0.0
    return Change(optimizer, f"weight decay {_told(old)} -> 0")


@remedy(
    Slot.WEIGHT_DECAY,
    treats=("chance_plateau", "vanishing_gradient"),
    invasiveness=2,
    source="OLMo 2; usual practice for norm layers and biases; catalogue R62",
    python=Python(
        define=(split,),
        optimizer="""
split(
    optimizer, lambda parameter, group: {"weight_decay": group["weight_decay"] if parameter.dim() > 1 else 0.0}
)
""",
    ),
)
def decay_matrices_only(optimizer: Optimizer) -> Change:
    """Spares biases and norm layers the weight decay; matrices and larger keep it."""
    old, before = _decays(optimizer), len(optimizer.param_groups)
    spared = [p for g in optimizer.param_groups if g["weight_decay"] for p in g["params"] if p.dim() < 2]
    if not spared:
        raise Inapplicable("no bias or norm layer is decayed")
    split(optimizer, lambda parameter, group: {"weight_decay": group["weight_decay"] if parameter.dim() > 1 else 0.0})
    told = f"weight decay {_told(old)} -> 0 for {len(spared)} biases and norm parameters"
    return Change(optimizer, f"{told}; {before} parameter group(s) -> {len(optimizer.param_groups)}")


def _decays(optimizer: Optimizer) -> list[float]:
    if any("weight_decay" not in group for group in optimizer.param_groups):
        raise Inapplicable(f"{type(optimizer).__name__} knows no weight decay")
    return [float(group["weight_decay"]) for group in optimizer.param_groups]


def _told(values: list[float]) -> str:
    return ", ".join(dict.fromkeys(f"{value:g}" for value in values))


@remedy(
    Slot.WEIGHT_CONSTRAINT,
    treats=("accuracy_collapse", "class_takeover", "saturated_softmax", "exploding_gradient", "non_finite"),
    invasiveness=3,
    source="posts 000, 001: weight clamping; catalogue R79",
    limit=Float(0.5, 10.0, log=True),
    python=Python(
        after_step="""
with torch.no_grad():
    for parameter in parameters:
        if parameter.dim() >= 2:  # no biases, no norm layers
            parameter.clamp_(-$limit, $limit)
"""
    ),
)
def clamp_weights(rule: Rule | None, *, limit: float = 1.0) -> Change:
    """Clamps every weight after each step."""
    return Change(Clamp(limit), f"every weight of a matrix kept within +-{limit:g} after each step{_instead(rule)}")


@remedy(
    Slot.WEIGHT_CONSTRAINT,
    treats=("exploding_gradient", "accuracy_collapse", "class_takeover", "saturated_softmax"),
    invasiveness=3,
    source="Hinton et al. 2012, max-norm constraint; catalogue R79",
    limit=Float(0.5, 10.0, log=True),
    python=Python(
        after_step="""
with torch.no_grad():
    for parameter in parameters:
        if parameter.dim() >= 2:
            norms = parameter.flatten(1).norm(dim=1).clamp_min(torch.finfo(parameter.dtype).tiny)
            parameter *= ($limit / norms).clamp_max(1.0).reshape(-1, *[1] * (parameter.dim() - 1))
"""
    ),
)
def max_norm(rule: Rule | None, *, limit: float = 3.0) -> Change:
    """Limits the norm of the weights into each unit after each step."""
    return Change(MaxNorm(limit), f"norm of each unit's weights kept below {limit:g} after each step{_instead(rule)}")


def _instead(rule: Rule | None) -> str:
    return "" if rule is None else ", in place of the training's own constraint"


REMEDIES: tuple[Remedy, ...] = (weight_decay_on, weight_decay_off, decay_matrices_only, clamp_weights, max_norm)
