"""Cross-entropy from logits in one numerically safe step, and what a user's loss takes its first argument for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn
from torch.nn import functional as F

from remedy.spaces.calls import calls_of
from remedy.spaces.logits import Squash
from remedy.spaces.objective import Criterion, Loss, Scale, TargetKind

_CLOSE = 0.01
_DRAWS = (1.0, 0.5)
_ROWS = 64
_SAFE = frozenset(
    {
        "cross_entropy",
        "log_softmax",
        "logsumexp",
        "binary_cross_entropy_with_logits",
        "logsigmoid",
        "softplus",
    }
)
Reduction = Literal["mean", "sum"]


class CrossEntropy(nn.CrossEntropyLoss):
    """`nn.CrossEntropyLoss` in at least float32, for class indices or one-hot targets of any type."""

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:  # noqa: A002  (torch's own names)
        """Return the loss of logits."""
        scores = input.float() if input.dtype in (torch.float16, torch.bfloat16) else input
        weight = None if self.weight is None else self.weight.to(scores)
        return F.cross_entropy(
            scores,
            as_classes(scores, target),
            weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            label_smoothing=self.label_smoothing,
        )


class BinaryCrossEntropy(nn.BCEWithLogitsLoss):
    """`nn.BCEWithLogitsLoss` in at least float32, for 0/1 targets of any type, as a column or flat."""

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:  # noqa: A002  (torch's own names)
        """Return the loss of logits."""
        scores = input.float() if input.dtype in (torch.float16, torch.bfloat16) else input
        weight = None if self.weight is None else self.weight.to(scores)
        return F.binary_cross_entropy_with_logits(scores, as_zero_one(scores, target), weight, reduction=self.reduction)


def as_classes(scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return targets as `F.cross_entropy` takes them: class indices, or one-hot rows as real numbers."""
    if targets.shape == scores.shape:
        return targets.to(scores.dtype)
    flat = targets.squeeze(1) if targets.dim() == scores.dim() and targets.shape[1] == 1 else targets
    return flat.long()


def as_zero_one(scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return 0/1 targets in the type and shape of the scores."""
    return targets.reshape(scores.shape).to(scores.dtype)


@dataclass(frozen=True)
class Taken:
    """What a loss takes its first argument for, how it is reduced, and whether it is computed safely from logits.

    `whole` is whether the loss is known to be that cross-entropy and nothing else.
    """

    scale: Scale
    reduction: Reduction
    safe: bool
    whole: bool = True


def taken(
    loss: Loss, shape: torch.Size, targets: torch.Tensor, squash: Squash, dtype: torch.dtype = torch.float32
) -> Taken | None:
    """Find whether a loss is the cross-entropy of logits, or of what `squash` makes of them, from its values.

    torch's own losses are known by their type; one of the user's that calls torch's function on logits by that call,
    where its values are others (class weights, a second term). Made-up outputs have no probability near 0 or 1, so
    that it does not matter whether the loss clips them.
    """
    if isinstance(loss, nn.BCEWithLogitsLoss if squash is Squash.SIGMOID else nn.CrossEntropyLoss):
        return Taken(Scale.LOGITS, _reduction(loss.reduction), safe=True)
    found: list[Taken | None] = []
    try:
        for seed, spread in enumerate(_DRAWS):  # on one draw alone another loss may have the same value by accident
            logits = (spread * torch.randn(shape, generator=torch.Generator().manual_seed(seed))).to(dtype)
            seen, names = _taken_for(loss, logits, targets, squash)
            found.append(seen)
    except Exception:  # noqa: BLE001  (a user's loss may refuse made-up outputs in any way; then nothing is known)
        return None
    if found[0] is not None and found.count(found[0]) == len(found):
        return found[0]
    called = "binary_cross_entropy_with_logits" if squash is Squash.SIGMOID else "cross_entropy"
    # The logarithm of probabilities is no set of logits of theirs.
    return Taken(Scale.LOGITS, "mean", safe=True, whole=False) if called in names and "log" not in names else None


def _taken_for(
    loss: Loss, logits: torch.Tensor, targets: torch.Tensor, squash: Squash
) -> tuple[Taken | None, frozenset[str]]:
    truth = _truth(logits, targets, squash)
    names = frozenset[str]()
    for scale, scores in ((Scale.PROBABILITIES, squash(logits)), (Scale.LOGITS, logits)):
        with torch.no_grad():
            value, names = calls_of(loss, scores, targets)
        for reduction, expected in truth.items():
            if abs(float(value) - expected) < _CLOSE * abs(expected):
                return Taken(scale, reduction, safe=scale is Scale.LOGITS and bool(names & _SAFE)), names
    return None, names


def reading(loss: Loss, kind: TargetKind, outputs: torch.Tensor, targets: torch.Tensor) -> Criterion:
    """Return the user's loss with what it takes the model's outputs for: found on the training's own targets."""
    if kind is TargetKind.REAL:
        return Criterion(loss)
    outputs, targets = outputs[:_ROWS], targets[:_ROWS]
    classes = kind in (TargetKind.CLASS_INDEX, TargetKind.ONE_HOT)
    squash = Squash.SOFTMAX if classes else Squash.SIGMOID
    seen = taken(loss, outputs.shape, targets, squash, outputs.dtype)
    if seen is not None:
        return Criterion(loss, seen.scale, cross_entropy=seen.whole and seen.reduction == "mean")
    if isinstance(loss, nn.NLLLoss if classes else nn.BCELoss):  # weighted, so that its values are others
        scale = Scale.VALUES if classes else Scale.PROBABILITIES
        return Criterion(loss, scale, cross_entropy=loss.reduction == "mean")
    seen = taken(loss, outputs.shape, targets, Squash.LOG_SOFTMAX, outputs.dtype) if classes else None
    return Criterion(loss, cross_entropy=seen is not None and seen.whole and seen.reduction == "mean")


def _reduction(name: str) -> Reduction:
    return "sum" if name == "sum" else "mean"


def _truth(logits: torch.Tensor, targets: torch.Tensor, squash: Squash) -> dict[Reduction, float]:
    reductions: tuple[Reduction, ...] = ("mean", "sum")
    if squash is not Squash.SIGMOID:
        classes = as_classes(logits, targets)
        return {r: float(F.cross_entropy(logits, classes, reduction=r)) for r in reductions}
    labels = as_zero_one(logits, targets)
    return {r: float(F.binary_cross_entropy_with_logits(logits, labels, reduction=r)) for r in reductions}


def fused(loss: Loss, seen: Taken, squash: Squash) -> Loss:
    """Return the loss from logits that means the same as the user's: the very same one where that is safe already."""
    if seen.safe:
        return loss
    if squash is not Squash.SIGMOID:
        return CrossEntropy(reduction=seen.reduction)
    weight = loss.weight if isinstance(loss, nn.BCELoss) else None
    return BinaryCrossEntropy(weight, reduction=seen.reduction)


@dataclass(frozen=True)
class NegativeLog:
    """The cross-entropy of probabilities that are known to stay away from 0."""

    squash: Squash
    reduction: Reduction

    def __call__(self, probabilities: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the loss."""
        if self.squash is Squash.SIGMOID:
            labels = as_zero_one(probabilities, targets)
            return F.binary_cross_entropy(probabilities, labels, reduction=self.reduction)
        # The logarithm of probabilities is a set of logits, but for rows that do not sum to one.
        classes, logs = as_classes(probabilities, targets), probabilities.log()
        if classes.is_floating_point():
            each = -(classes * logs).sum(1)
            return each.mean() if self.reduction == "mean" else each.sum()
        return F.nll_loss(logs, classes, reduction=self.reduction)
