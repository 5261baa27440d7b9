"""Remedies for the learning rate: the same optimizer, with all its rates scaled."""

from __future__ import annotations

from torch.optim import Optimizer

from remedy.spaces.distribution import Float
from remedy.spaces.remedy import Change, Remedy, remedy
from remedy.spaces.slot import Slot


@remedy(
    Slot.LEARNING_RATE,
    treats=(
        "accuracy_collapse", "saturated_softmax", "class_takeover", "dead_units", "exploding_gradient", "zero_gradient",
        "non_finite",
    ),
    invasiveness=1,
    source="posts 000, 003: reduce the learning rate; catalogue R64",
    factor=Float(0.003, 0.5, log=True),
)  # fmt: skip
def scale_down(optimizer: Optimizer, *, factor: float = 0.1) -> Change:
    """Multiplies every learning rate by a factor below one."""
    return _scaled(optimizer, factor)


@remedy(
    Slot.LEARNING_RATE,
    treats=("chance_plateau", "vanishing_gradient"),
    invasiveness=1,
    source="AutoTrainer (ICSE'21); catalogue R65",
    factor=Float(2.0, 30.0, log=True),
)
def scale_up(optimizer: Optimizer, *, factor: float = 10.0) -> Change:
    """Multiplies every learning rate by a factor above one."""
    return _scaled(optimizer, factor)


def _scaled(optimizer: Optimizer, factor: float) -> Change:
    told = []
    for group in optimizer.param_groups:
        old = float(group["lr"])
        for key in ("lr", "initial_lr"):
            if key in group:
                group[key] = group[key] * factor
        told.append(f"{old:g} -> {float(group['lr']):g}")
    return Change(optimizer, f"learning rate {', '.join(dict.fromkeys(told))} in {len(told)} parameter group(s)")


REMEDIES: tuple[Remedy, ...] = (scale_down, scale_up)
