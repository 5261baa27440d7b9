"""The trivial predictor: what guessing reaches."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch.utils.data import DataLoader

from remedy.spaces import gather
from remedy.spaces.batches import split
from remedy.spaces.metric import tally
from remedy.spaces.objective import Criterion, Scale, TargetKind

if TYPE_CHECKING:
    from typing import Any

    from remedy.spaces.facts import Facts
    from remedy.spaces.training import Training

_EDGE = 1e-6


def entropy(counts: tuple[int, ...]) -> float:
    """Return the entropy of the labels in nats, the cross-entropy of guessing by frequency; NaN without classes."""
    total = sum(counts)
    shares = [count / total for count in counts if count] if total else []
    return -sum(share * math.log(share) for share in shares) if shares else math.nan


def trivial_outputs(
    training: Training, facts: Facts, criterion: Criterion, width: tuple[int, ...], train: Any
) -> torch.Tensor:
    """Return the row of outputs that ignores the input and guesses best: class or label shares, or the mean.

    `width` is the shape of the model's outputs of one sample. Class shares are the same at every position of a sample,
    so there the row has one place for each further dimension.
    """
    if facts.counts and facts.kind is not TargetKind.BINARY:
        shares = torch.tensor(facts.counts, dtype=torch.float32)
        shares = (shares / shares.sum()).reshape(-1, *[1] * (len(width) - 1))
        logs = criterion.scale is Scale.LOGITS or (criterion.scale is Scale.VALUES and criterion.cross_entropy)
        return shares.clamp(min=_EDGE).log() if logs else shares
    mean = gather.targets_of(train, training.collate_fn).float().mean(0).reshape(width)
    if facts.kind is TargetKind.REAL or criterion.scale is not Scale.LOGITS:
        return mean
    return torch.logit(mean.clamp(_EDGE, 1 - _EDGE))


def chance(
    training: Training, facts: Facts, criterion: Criterion, outputs: torch.Tensor, data: tuple[Any, Any]
) -> float:
    """Return the validation metric of the trivial predictor; NaN where a metric of the user's own refuses it.

    `outputs` is any batch of the model's outputs (for its shape), `data` is (train, validation batches).
    """
    train, validation = data
    try:
        width = tuple(outputs.shape[1:])
        row = trivial_outputs(training, facts, criterion, width, train)
        if row.shape[:1] != width[:1]:
            return math.nan
        total = tally(training.metric, criterion, facts.kind, criterion.scale)
        with torch.no_grad():
            for batch in validation:
                targets = split(batch)[1].cpu()
                # Sequences may have another length in each batch.
                places = targets.shape[1 - len(width) :] if len(width) > 1 else ()
                total.add(row.expand(len(targets), *width[:1], *places).clone(), targets)
        return total.value()
    except Exception:  # noqa: BLE001  (a loss or metric of the user's may refuse constant outputs in any way)
        return math.nan


def held_classes(validation: DataLoader[Any], kind: TargetKind, ignored: int) -> int:
    """Return how many different classes the validation targets hold; 0 where targets are no classes."""
    seen: set[int] = set()
    for batch in validation:
        targets = split(batch)[1]
        if kind is TargetKind.REAL:
            break
        labels = targets.argmax(1) if kind is TargetKind.ONE_HOT else targets.round().long()
        seen |= set(labels.flatten().tolist())
    return len(seen - {ignored})
