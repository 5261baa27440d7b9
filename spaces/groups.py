"""The parameter groups of an optimizer that has not stepped yet: split where options differ, kept in their order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn
from torch.optim import Optimizer


def split(optimizer: Optimizer, options: Callable[[nn.Parameter, dict[str, Any]], dict[str, Any]]) -> None:
    """Give every parameter options of its own; those of a group that get the same ones stay together."""
    groups: list[dict[str, Any]] = []
    for group in optimizer.param_groups:
        made: dict[tuple[Any, ...], dict[str, Any]] = {}
        for parameter in group["params"]:
            own = options(parameter, group)
            made.setdefault(tuple(own.items()), {**group, **own, "params": []})["params"].append(parameter)
        groups += made.values() or [group]
    optimizer.param_groups[:] = groups


def last_layer(model: nn.Module) -> set[nn.Parameter]:
    """Return the last matrix among the model's parameters, and what follows it (its bias)."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    matrices = [place for place, parameter in enumerate(parameters) if parameter.dim() > 1]
    return set(parameters[matrices[-1] :]) if matrices else set()
