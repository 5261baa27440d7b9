"""Remedies for the optimizer: another rule for the step, over the same parameter groups."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop

from remedy.spaces.distribution import Choice, Float
from remedy.spaces.python import Python
from remedy.spaces.remedy import Change, Inapplicable, Remedy, remedy
from remedy.spaces.slot import Slot

# What an option of the old optimizer says about its own rule, and nothing about the new one.
_OF_THE_RULE = frozenset({"lr", "betas", "eps", "alpha", "momentum", "dampening", "nesterov", "decoupled_weight_decay"})


def rebuilt(kind: str, *define: object, more: str = "") -> Python:
    """Return code that builds another optimizer over the parameter groups there are, with the options of each."""
    return Python(define=define, optimizer=f"optimizer = {kind}($arguments{more})")


@remedy(
    Slot.OPTIMIZER,
    treats=("accuracy_collapse", "dead_units", "saturated_softmax"),
    invasiveness=2,
    source="post 003: SGD in place of Adam; catalogue R54",
    lr=Float(1e-3, 1.0, log=True),
    python=rebuilt("torch.optim.SGD"),
)
def sgd(optimizer: Optimizer, *, lr: float = 0.03) -> Change:
    """Steps by plain SGD, without momentum."""
    if type(optimizer) is SGD and not _momentum(optimizer):
        raise Inapplicable("the optimizer already is SGD without momentum")
    return exchanged(optimizer, SGD, lr=lr)


@remedy(
    Slot.OPTIMIZER,
    treats=("accuracy_collapse", "saturated_softmax", "zero_gradient", "non_finite", "class_takeover"),
    invasiveness=2,
    source="post 003: SGD in place of Adam; AutoTrainer (ICSE'21); catalogue R54, R60",
    lr=Float(1e-4, 0.3, log=True),
    momentum=Choice(0.5, 0.9, 0.95),
    python=rebuilt("torch.optim.SGD"),
)
def sgd_momentum(optimizer: Optimizer, *, lr: float = 0.01, momentum: float = 0.9) -> Change:
    """Steps by SGD with momentum."""
    if type(optimizer) is SGD and _momentum(optimizer):
        raise Inapplicable("the optimizer already is SGD with momentum")
    return exchanged(optimizer, SGD, lr=lr, momentum=momentum)


@remedy(
    Slot.OPTIMIZER,
    treats=(
        "chance_plateau",
        "dead_units",
        "zero_gradient",
        "vanishing_gradient",
        "exploding_gradient",
        "worse_than_guessing",
        "still_weights",
    ),
    invasiveness=2,
    source="posts 000, 001: change the optimizer; Kingma & Ba 2015; catalogue R55",
    lr=Float(1e-5, 1e-1, log=True),
    beta2=Choice(0.95, 0.99, 0.999),
    python=rebuilt("torch.optim.Adam"),
)
def adam(optimizer: Optimizer, *, lr: float = 1e-3, beta2: float = 0.999) -> Change:
    """Steps by Adam, which scales each parameter's step by the recent size of its gradient."""
    if type(optimizer) is Adam:
        raise Inapplicable("the optimizer already is Adam")
    return exchanged(optimizer, Adam, lr=lr, betas=(0.9, beta2))


@remedy(
    Slot.OPTIMIZER,
    treats=("chance_plateau", "dead_units", "vanishing_gradient", "class_takeover", "still_weights"),
    invasiveness=2,
    source="Loshchilov & Hutter 2019; catalogue R55, R77",
    lr=Float(1e-5, 1e-1, log=True),
    weight_decay=Float(1e-4, 0.3, log=True),
    python=rebuilt("torch.optim.AdamW"),
)
def adamw(optimizer: Optimizer, *, lr: float = 1e-3, weight_decay: float = 0.01) -> Change:
    """Steps by AdamW: Adam, with weight decay apart from the gradient; a decay the training has is kept."""
    if type(optimizer) is AdamW:
        raise Inapplicable("the optimizer already is AdamW")
    kept = any(group.get("weight_decay", 0) for group in optimizer.param_groups)
    return exchanged(optimizer, AdamW, lr=lr, **({} if kept else {"weight_decay": weight_decay}))


@remedy(
    Slot.OPTIMIZER,
    treats=("chance_plateau", "dead_units", "vanishing_gradient", "still_weights"),
    invasiveness=2,
    source="posts 000, 001: change the optimizer; Tieleman & Hinton 2012; catalogue R59",
    lr=Float(1e-5, 1e-1, log=True),
    python=rebuilt("torch.optim.RMSprop"),
)
def rmsprop(optimizer: Optimizer, *, lr: float = 1e-3) -> Change:
    """Steps by RMSprop: each parameter's step is scaled by the recent size of its gradient, without momentum."""
    if type(optimizer) is RMSprop:
        raise Inapplicable("the optimizer already is RMSprop")
    return exchanged(optimizer, RMSprop, lr=lr)


def _momentum(optimizer: Optimizer) -> float:
    return max(float(group.get("momentum", 0.0)) for group in optimizer.param_groups)


def exchanged(old: Optimizer, kind: Callable[..., Optimizer], *, lr: float, **options: Any) -> Change:
    """Build `kind` over the very groups of `old`: the first gets `lr`, the others keep their ratio to it."""
    first = float(old.param_groups[0]["lr"])
    known = kind([nn.Parameter(torch.zeros(1, 1))], lr=lr, **options).defaults
    groups, said = [], []
    for group in old.param_groups:
        kept = {key: value for key, value in group.items() if key in known and key not in _OF_THE_RULE}
        rate = lr * float(group["lr"]) / first if first else lr
        groups.append({**kept, **options, "params": group["params"], "lr": rate})
        other = {key: value for key, value in kept.items() if value != known[key] and key not in options}
        said.append({"lr": rate, **options, **other})
    new = kind(groups, lr=lr, **options)
    before = f"{type(old).__name__}(lr={first:g})"
    told = ", ".join(f"{key}={value}" for key, value in {"lr": f"{lr:g}", **options}.items())
    receipt = f"{before} -> {type(new).__name__}({told}) over {len(groups)} parameter group(s)"
    return Change(new, receipt, {"arguments": _arguments(said)})


def _arguments(groups: list[dict[str, Any]]) -> str:
    """Return how code would write them; several groups take over the parameters of the old optimizer's."""
    if len(groups) == 1:
        return ", ".join(["parameters", *(f"{key}={value!r}" for key, value in groups[0].items())])
    lines = [f"        {group!r}," for group in groups]
    both = [
        "group | own for group, own in zip(",
        '    [{"params": group["params"]} for group in optimizer.param_groups],',
    ]
    return "\n".join(
        [
            "[",
            *(f"    {line}" for line in both),
            "        [",
            *(f"    {line}" for line in lines),
            "        ],",
            "    )",
            "]",
        ]
    )


REMEDIES: tuple[Remedy, ...] = (sgd, sgd_momentum, adam, adamw, rmsprop)
