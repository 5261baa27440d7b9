"""Sizes of gradients, without a wait for the device."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn
from torch.optim import Optimizer


def dense(parameters: Iterable[nn.Parameter]) -> list[tuple[nn.Parameter, torch.Tensor]]:
    """Return the parameters that have a gradient which is no sparse one, with it."""
    return [(p, p.grad) for p in parameters if p.grad is not None and not p.grad.is_sparse]


def values(parameters: Iterable[nn.Parameter]) -> list[torch.Tensor]:
    """Return the entries of every gradient; of a sparse one those that are there."""
    grads = [p.grad.detach() for p in parameters if p.grad is not None]
    return [grad.coalesce().values() if grad.is_sparse else grad for grad in grads]


def norm_of(parameters: Iterable[nn.Parameter], order: float = 2.0) -> torch.Tensor:
    """Return the norm of all gradients together, on their device; 0 where there are none.

    NaN anywhere gives NaN, infinity gives infinity; the largest entry (`order` infinity) overflows in no other case.
    """
    grads = values(parameters)
    if not grads:
        return torch.zeros(())
    each = torch.stack([torch.linalg.vector_norm(grad, order).float().to(grads[0].device) for grad in grads])
    norm: torch.Tensor = torch.linalg.vector_norm(each, order)
    return norm


def numbers(loss: torch.Tensor, optimizer: Optimizer, order: float = 2.0) -> tuple[float, float]:
    """Return the loss and the norm of the gradient as plain numbers: the one wait for the device."""
    norm = norm_of((p for group in optimizer.param_groups for p in group["params"]), order)
    value, size = torch.stack([loss.float().reshape(()), norm.to(loss.device)]).tolist()
    return value, size


def finite(loss: torch.Tensor, optimizer: Optimizer) -> bool:
    """Whether the loss and every entry of the gradient are finite."""
    return all(math.isfinite(number) for number in numbers(loss, optimizer, math.inf))
