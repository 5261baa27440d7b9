"""Steps that are tried before a run begins, and undone: what a learning rate would do."""

from __future__ import annotations

import copy
import math

import torch

from remedy.spaces.batches import Epochs, split, to_device
from remedy.spaces.parts import Parts
from remedy.spaces.remedy import Inapplicable
from remedy.spaces.seeding import derive
from remedy.spaces.training import Training

_HOPELESS = 4.0


def rehearse(parts: Parts, training: Training, seed: int, factors: list[float]) -> list[float]:
    """Train one step with each factor on the learning rates, and put the parts back; returns the losses.

    It ends before the last factor once a loss is not finite or far above the first. The steps are counted in
    `parts.rehearsed`, so that a run's cost holds them.
    """
    if parts.optimizer is None:
        raise Inapplicable("there is no optimizer yet to try learning rates with")
    tensors = [*parts.model.parameters(), *parts.model.buffers()]
    weights = [tensor.detach().clone() for tensor in tensors]
    state = copy.deepcopy(parts.optimizer.state_dict())
    try:
        return _losses(parts, training, seed, factors)
    finally:
        with torch.no_grad():
            for tensor, weight in zip(tensors, weights, strict=True):
                tensor.copy_(weight)
        parts.optimizer.load_state_dict(state)
        parts.optimizer.zero_grad(set_to_none=True)


def _losses(parts: Parts, training: Training, seed: int, factors: list[float]) -> list[float]:
    rates = [group["lr"] for group in parts.optimizer.param_groups]
    losses: list[float] = []
    order = derive(seed, "rehearsal")
    epochs = Epochs(parts.train, parts.batch_size, parts.sampler, training.collate_fn, order, parts.model)
    for _epoch, batches in epochs.epochs():
        for batch in batches:
            inputs, targets = split(batch)
            parts.optimizer.zero_grad(set_to_none=True)
            with parts.precision.autocast(parts.device):
                loss = parts.criterion(parts.model(to_device(inputs, parts.device)), targets.to(parts.device))
            losses.append(float(loss.detach()))
            hopeless = not math.isfinite(losses[-1]) or losses[-1] > _HOPELESS * abs(losses[0])
            if hopeless or len(losses) == len(factors):
                return losses
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            if parts.gradient is not None:
                parts.gradient(parts.parameters)
            for group, rate in zip(parts.optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * factors[len(losses) - 1]
            parts.optimizer.step()
            parts.rehearsed += 1
    raise AssertionError
