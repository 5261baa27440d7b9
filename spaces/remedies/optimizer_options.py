"""Remedies that keep the optimizer and change one of its numbers, or the parameters it steps."""

from __future__ import annotations

from typing import Any

from torch.optim import Optimizer

from remedy.spaces.distribution import Choice, Float
from remedy.spaces.facts import Facts
from remedy.spaces.python import Python
from remedy.spaces.remedy import Change, Inapplicable, Remedy, remedy
from remedy.spaces.slot import Slot

_MOMENTUM = Python(
    optimizer="""
for group in optimizer.param_groups:
    if "momentum" in group:
        group["momentum"] = $momentum
        if "nesterov" in group and not $momentum:
            group["nesterov"] = False
    else:
        group["betas"] = ($momentum, group["betas"][1])
"""
)


@remedy(
    Slot.OPTIMIZER,
    treats=("accuracy_collapse", "stale_moments", "exploding_gradient"),
    invasiveness=1,
    source="Wortsman et al. 2023; catalogue R56",
    beta2=Choice(0.9, 0.95, 0.98, 0.99),
    python=Python(
        optimizer="""
for group in optimizer.param_groups:
    group["betas"] = (group["betas"][0], min($beta2, group["betas"][1]))
"""
    ),
)
def lower_beta2(optimizer: Optimizer, *, beta2: float = 0.95) -> Change:
    """Has Adam forget the size of old gradients sooner, so that a sudden large one does not make a huge step."""
    old = [float(group["betas"][1]) for group in _with(optimizer, "betas")]
    if max(old) <= beta2:
        raise Inapplicable(f"beta2 is {max(old):g} already, not above {beta2:g}")
    for group in optimizer.param_groups:
        group["betas"] = (group["betas"][0], min(beta2, group["betas"][1]))
    return Change(optimizer, f"beta2 of {type(optimizer).__name__} {max(old):g} -> {beta2:g}")


@remedy(
    Slot.OPTIMIZER,
    treats=(
        "accuracy_collapse",
        "exploding_gradient",
        "saturated_softmax",
        "drifting_logits",
        "stale_moments",
        "large_attention",
    ),
    invasiveness=1,
    source="Molybog et al. 2023; TheDeepChecker: Adam's epsilon too low; catalogue R57",
    eps=Float(1e-6, 0.1, log=True),
    python=Python(optimizer='for group in optimizer.param_groups:\n    group["eps"] = $eps'),
)
def adam_eps(optimizer: Optimizer, *, eps: float = 1e-2) -> Change:
    """Raises Adam's epsilon, so that small gradients make small steps."""
    _with(optimizer, "betas")
    old = [float(group["eps"]) for group in _with(optimizer, "eps")]
    if max(old) >= eps:
        raise Inapplicable(f"epsilon is {max(old):g} already, at least {eps:g}")
    for group in optimizer.param_groups:
        group["eps"] = eps
    return Change(optimizer, f"epsilon of {type(optimizer).__name__} {max(old):g} -> {eps:g}")


@remedy(
    Slot.OPTIMIZER,
    treats=("chance_plateau", "zero_gradient", "still_weights"),
    invasiveness=1,
    source="Adam's update stalls where gradients are as small as epsilon; catalogue R57",
    eps=Choice(1e-8, 1e-10, 1e-12, 1e-15),
    python=Python(optimizer='for group in optimizer.param_groups:\n    group["eps"] = min($eps, group["eps"])'),
)
def smaller_eps(optimizer: Optimizer, *, eps: float = 1e-8) -> Change:
    """Lowers Adam's epsilon, so that small gradients make steps, too."""
    _with(optimizer, "betas")
    old = [float(group["eps"]) for group in _with(optimizer, "eps")]
    if max(old) <= eps:
        raise Inapplicable(f"epsilon is {max(old):g} already, not above {eps:g}")
    for group in optimizer.param_groups:
        group["eps"] = min(eps, group["eps"])
    return Change(optimizer, f"epsilon of {type(optimizer).__name__} {max(old):g} -> {eps:g}")


@remedy(
    Slot.OPTIMIZER,
    treats=("accuracy_collapse", "exploding_gradient"),
    invasiveness=1,
    source="Reddi et al. 2018 (AMSGrad); catalogue R59",
    python=Python(optimizer='for group in optimizer.param_groups:\n    group["amsgrad"] = True'),
)
def amsgrad(optimizer: Optimizer) -> Change:
    """Has Adam divide by the largest size of the gradient so far, so that its steps never grow again."""
    if all(group["amsgrad"] for group in _with(optimizer, "amsgrad")):
        raise Inapplicable("the optimizer keeps the largest second moment already")
    for group in optimizer.param_groups:
        group["amsgrad"] = True
    return Change(optimizer, f"{type(optimizer).__name__} divides by the largest second moment (AMSGrad)")


@remedy(
    Slot.OPTIMIZER,
    treats=("exploding_gradient", "dead_units", "accuracy_collapse", "non_finite", "worse_than_guessing"),
    invasiveness=1,
    source="AutoTrainer (ICSE'21): op_momentum; catalogue R60",
    momentum=Choice(0.0, 0.3, 0.5, 0.7),
    python=_MOMENTUM,
)
def less_momentum(optimizer: Optimizer, *, momentum: float = 0.0) -> Change:
    """Lowers the momentum, and with it the step in a lasting direction, which is rate / (1 - momentum)."""
    old = _momentum(optimizer)
    if old <= momentum:
        raise Inapplicable(f"the momentum is {old:g} already, not above {momentum:g}")
    return _with_momentum(optimizer, momentum, old)


@remedy(
    Slot.OPTIMIZER,
    treats=("chance_plateau", "vanishing_gradient"),
    invasiveness=1,
    source="AutoTrainer (ICSE'21): op_momentum; catalogue R60",
    momentum=Choice(0.9, 0.95, 0.99),
    python=_MOMENTUM,
)
def more_momentum(optimizer: Optimizer, *, momentum: float = 0.9) -> Change:
    """Raises the momentum, and with it the step in a lasting direction, which is rate / (1 - momentum)."""
    old = _momentum(optimizer)
    if old >= momentum:
        raise Inapplicable(f"the momentum is {old:g} already, at least {momentum:g}")
    return _with_momentum(optimizer, momentum, old)


@remedy(
    Slot.OPTIMIZER,
    treats=("chance_plateau", "vanishing_gradient", "still_weights"),
    invasiveness=3,
    source="torcheck; Karpathy's list; catalogue R63",
    python=Python(
        optimizer="""
known = {parameter for group in optimizer.param_groups for parameter in group["params"]}
largest = max(optimizer.param_groups, key=lambda group: sum(p.numel() for p in group["params"]))
largest["params"] += [p for p in model.parameters() if p.requires_grad and p not in known]
"""
    ),
)
def every_parameter(optimizer: Optimizer, *, facts: Facts) -> Change:
    """Has the optimizer step every parameter that takes a gradient, also those it was not given."""
    known = {p for group in optimizer.param_groups for p in group["params"]}
    named = facts.model.named_parameters() if facts.model is not None else ()
    missing = {name: p for name, p in named if p.requires_grad and p not in known}
    if not missing:
        raise Inapplicable("the optimizer steps every parameter that takes a gradient")
    group = max(optimizer.param_groups, key=lambda group: sum(p.numel() for p in group["params"]))
    group["params"] += missing.values()
    told = ", ".join(list(missing)[:5]) + (", ..." if len(missing) > 5 else "")
    return Change(optimizer, f"{len(missing)} parameter(s) added to the optimizer's largest group: {told}")


def _with(optimizer: Optimizer, option: str) -> list[dict[str, Any]]:
    if any(option not in group for group in optimizer.param_groups):
        raise Inapplicable(f"{type(optimizer).__name__} has no {option}")
    return optimizer.param_groups


def _momentum(optimizer: Optimizer) -> float:
    groups = optimizer.param_groups
    if all("momentum" in group for group in groups):
        return max(float(group["momentum"]) for group in groups)
    if all("betas" in group for group in groups):
        return max(float(group["betas"][0]) for group in groups)
    raise Inapplicable(f"{type(optimizer).__name__} knows no momentum")


def _with_momentum(optimizer: Optimizer, momentum: float, old: float) -> Change:
    for group in optimizer.param_groups:
        if "momentum" in group:
            group["momentum"] = momentum
            if "nesterov" in group and not momentum:
                group["nesterov"] = False  # without momentum SGD refuses it
        else:
            group["betas"] = (momentum, group["betas"][1])
    name = "momentum" if "momentum" in optimizer.param_groups[0] else "beta1"
    return Change(optimizer, f"{name} of {type(optimizer).__name__} {old:g} -> {momentum:g}")


REMEDIES: tuple[Remedy, ...] = (
    lower_beta2,
    adam_eps,
    smaller_eps,
    amsgrad,
    less_momentum,
    more_momentum,
    every_parameter,
)
