"""Remedies for the balance of classes and for overconfidence: sampling, class weights, label smoothing."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.data import Sampler, WeightedRandomSampler

from remedy.spaces.batches import in_order
from remedy.spaces.cross_entropy import CrossEntropy
from remedy.spaces.distribution import Choice, Float
from remedy.spaces.facts import Facts
from remedy.spaces.objective import Criterion, Loss, TargetKind
from remedy.spaces.python import Python
from remedy.spaces.reads import refuse_other_than_logits
from remedy.spaces.remedy import Change, Inapplicable, Remedy, remedy
from remedy.spaces.slot import Slot

_BALANCED = 1.5
_HEAVIEST = 20.0
_MANY = 100
_WEIGHTED = Python(loss="loss_fn.weight = torch.tensor($weights)")


@remedy(
    Slot.SAMPLING,
    treats=("class_takeover", "accuracy_collapse"),
    invasiveness=2,
    source="post 002: the data were oversampled; catalogue R10",
    python=Python(data="sampler = None  # every sample once an epoch, shuffled"),
)
def oversampling_off(sampler: Sampler[int] | None) -> Change:
    """Draws every sample once an epoch, shuffled, in place of the training's own sampler."""
    if sampler is None or in_order(sampler):
        raise Inapplicable("the training draws every sample once an epoch already")
    return Change(None, f"{type(sampler).__name__} -> every sample once an epoch, shuffled")


@remedy(
    Slot.SAMPLING,
    treats=("class_takeover", "chance_plateau"),
    invasiveness=2,
    source="post 002: oversampling; torch WeightedRandomSampler; catalogue R10",
    alpha=Float(0.1, 1.0),
    python=Python(
        data="""
counts = train_targets.bincount().clamp_min(1)
weights = counts.float().pow(-$alpha)[train_targets]
sampler = torch.utils.data.WeightedRandomSampler(weights.tolist(), len(weights))
""",
        needs=("index",),
    ),
)
def balanced_sampler(sampler: Sampler[int] | None, *, alpha: float = 1.0, facts: Facts) -> Change:
    """Draws rare classes more often: each sample with weight (samples of its class) ** -alpha."""
    if sampler is not None and not in_order(sampler):
        raise Inapplicable(f"the training has a sampler of its own, {type(sampler).__name__}")
    counts = _imbalanced(facts)
    if facts.labels.dim() != 1 or abs(len(facts.labels) / facts.batch_size - facts.steps_per_epoch) >= 1:
        raise Inapplicable("the classes are not known of every sample")
    weights = counts.clamp_min(1).pow(-alpha)[facts.labels.clamp_min(0)]
    made = WeightedRandomSampler(weights.tolist(), len(weights))
    index = (
        facts.kind is TargetKind.CLASS_INDEX
        and facts.every_target.dtype is torch.int64
        and facts.every_target.dim() == 1
    )
    told = {"index": True} if index and int(facts.labels.min()) >= 0 else {}
    return Change(made, f"shuffled -> classes of {_told(facts)} samples drawn with weight count ** -{alpha:g}", told)


@remedy(
    Slot.CLASS_WEIGHT,
    treats=("class_takeover", "chance_plateau"),
    invasiveness=2,
    source="Cui et al. 2019; torch CrossEntropyLoss(weight=); catalogue R11",
    python=_WEIGHTED,
)
def class_weights(criterion: Criterion, *, facts: Facts) -> Change:
    """Weights each class in the loss by its inverse frequency."""
    counts = _unbalanced_still(facts)
    weights = (counts.sum() / (len(counts) * counts.clamp_min(1))).clamp_max(_HEAVIEST)
    return _weighted(criterion, weights, facts)


@remedy(
    Slot.CLASS_WEIGHT,
    treats=("class_takeover", "chance_plateau"),
    invasiveness=2,
    source="Cui et al. 2019 (effective number of samples); catalogue R11",
    beta=Choice(0.9, 0.99, 0.999, 0.9999),
    python=_WEIGHTED,
)
def effective_number_weights(criterion: Criterion, *, beta: float = 0.99, facts: Facts) -> Change:
    """Weights each class in the loss by its effective number of samples, which grows less than their number."""
    counts = _unbalanced_still(facts)
    weights = (1 - beta) / (1 - beta ** counts.clamp_min(1))
    weights = (weights * len(counts) / weights.sum()).clamp_max(_HEAVIEST)
    return _weighted(criterion, weights, facts)


@remedy(
    Slot.CLASS_WEIGHT,
    treats=("class_takeover", "chance_plateau"),
    invasiveness=3,
    source="Menon et al. 2021 (logit adjustment); catalogue R12",
    tau=Float(0.5, 2.0),
    python=Python(
        loss="""
plain_loss, offsets = loss_fn, torch.tensor($offsets)


def loss_fn(outputs, targets):
    return plain_loss(outputs + offsets.to(outputs), targets)
"""
    ),
)
def logit_adjustment(criterion: Criterion, *, tau: float = 1.0, facts: Facts) -> Change:
    """Adds the logarithm of each class's share to its logit in the loss, so that a rare class needs a larger logit."""
    counts = _unbalanced_still(facts)
    refuse_other_than_logits(criterion, facts)
    shares = tau * (counts.clamp_min(1) / counts.sum()).log()
    told = ", ".join(f"{share:.3g}" for share in shares.tolist()[:10])
    made = criterion.with_loss(Adjusted(criterion.loss, shares))
    said = {"offsets": shares.tolist()} if criterion.plain and facts.targets.dim() == 1 else {}
    return Change(made, f"{told}{', ...' if len(shares) > 10 else ''} added to the logits that the loss sees", said)


@remedy(
    Slot.LABEL_SMOOTHING,
    treats=(
        "saturated_softmax",
        "accuracy_collapse",
        "class_takeover",
        "zero_gradient",
        "non_finite",
        "generalisation_gap",
    ),
    invasiveness=2,
    source="Szegedy et al. 2016; torch CrossEntropyLoss(label_smoothing=); catalogue R17",
    eps=Float(0.01, 0.3, log=True),
    python=Python(loss="loss_fn.label_smoothing = $eps", needs=("of_torch",)),
)
def label_smoothing(criterion: Criterion, *, eps: float = 0.1, facts: Facts) -> Change:
    """Gives a share of each label to all classes alike, so that no probability has to be 1."""
    loss: Loss = criterion.loss
    if facts.kind is TargetKind.REAL:
        raise Inapplicable("the targets are real numbers, not classes")
    if isinstance(loss, nn.CrossEntropyLoss):
        if loss.label_smoothing >= eps:
            raise Inapplicable(f"the loss smooths its labels by {loss.label_smoothing:g} already, at least {eps:g}")
        told = f"label smoothing of {type(loss).__name__} {loss.label_smoothing:g} -> {eps:g}"
        loss = copy.deepcopy(loss)
        loss.label_smoothing = eps
        return Change(criterion.with_loss(loss), told, {"of_torch": True} if criterion.plain else {})
    classes = 2 if facts.kind in (TargetKind.BINARY, TargetKind.MULTI_LABEL) else facts.classes
    if classes > _MANY:
        raise Inapplicable(f"the training's own loss would be computed once for each of {classes} classes")
    told = f"loss = {1 - eps:g} x the training's loss + {eps:g} x its mean over all {classes} classes"
    return Change(criterion.with_loss(Smoothed(loss, eps, facts.kind, classes)), told)


@dataclass(frozen=True)
class Adjusted:
    """A loss of logits to which an offset of each class was added."""

    loss: Loss
    offsets: torch.Tensor

    def __call__(self, scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the loss of the adjusted logits."""
        shape = (1, -1, *[1] * (scores.dim() - 2))
        return self.loss(scores + self.offsets.to(scores).reshape(shape), targets)


@dataclass(frozen=True)
class Weighted:
    """A mean-reduced loss of any kind, taken class by class and averaged with weights."""

    loss: Loss
    weights: torch.Tensor
    kind: TargetKind

    def __call__(self, scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the weighted mean over the samples."""
        labels = targets.argmax(1) if self.kind is TargetKind.ONE_HOT else targets.reshape(len(targets)).round().long()
        parts, shares = [], []
        for label in torch.bincount(labels[labels >= 0]).nonzero().flatten().tolist():
            mine = labels == label
            shares.append(self.weights[label].to(scores) * mine.sum())
            parts.append(shares[-1] * self.loss(scores[mine], targets[mine]))
        return torch.stack(parts).sum() / torch.stack(shares).sum()


@dataclass(frozen=True)
class Smoothed:
    """A loss of any kind with smoothed labels: mixed with its mean over all classes."""

    loss: Loss
    eps: float
    kind: TargetKind
    classes: int

    def __call__(self, scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the smoothed loss."""
        every = [self.loss(scores, self._all_of(label, targets)) for label in range(self.classes)]
        return (1 - self.eps) * self.loss(scores, targets) + self.eps * torch.stack(every).mean()

    def _all_of(self, label: int, targets: torch.Tensor) -> torch.Tensor:
        if self.kind is TargetKind.ONE_HOT:
            rows = torch.zeros_like(targets)
            rows[:, label] = 1
            return rows
        # A negative label is one that the loss leaves out.
        return torch.where(targets < 0, targets, torch.full_like(targets, label))


def _weighted(criterion: Criterion, weights: torch.Tensor, facts: Facts) -> Change:
    loss: Loss = criterion.loss
    sayable = criterion.plain and type(loss) is nn.CrossEntropyLoss and facts.targets.dtype is torch.int64
    said = {"weights": weights.tolist()} if sayable else {}
    if isinstance(loss, nn.CrossEntropyLoss) and loss.weight is not None:
        raise Inapplicable("the loss has class weights already")
    if type(loss) in (nn.CrossEntropyLoss, CrossEntropy) and isinstance(loss, nn.CrossEntropyLoss):
        loss = CrossEntropy(
            weights, ignore_index=loss.ignore_index, reduction=loss.reduction, label_smoothing=loss.label_smoothing
        )
    else:
        loss = Weighted(loss, weights, facts.kind)
    told = ", ".join(f"{weight:.3g}" for weight in weights.tolist()[:10])
    return Change(criterion.with_loss(loss), f"class weights {told}{', ...' if len(weights) > 10 else ''}", said)


def _unbalanced_still(facts: Facts) -> torch.Tensor:
    counts = _imbalanced(facts)
    if facts.applied("balanced_sampler") or (facts.resampled and not facts.applied("oversampling_off")):
        raise Inapplicable("the classes are balanced by a sampler already")
    return counts


def _imbalanced(facts: Facts) -> torch.Tensor:
    present = [count for count in facts.counts if count]
    if len(present) < 2 or facts.targets.dim() > (2 if facts.kind is not TargetKind.CLASS_INDEX else 1):
        raise Inapplicable("the targets are no classes of whole samples")
    if max(present) / min(present) <= _BALANCED:
        raise Inapplicable(f"the classes are balanced: {_told(facts)} samples")
    return torch.tensor(facts.counts, dtype=torch.float32)


def _told(facts: Facts) -> str:
    return f"{min(facts.counts)} to {max(facts.counts)}"


REMEDIES: tuple[Remedy, ...] = (
    oversampling_off,
    balanced_sampler,
    class_weights,
    effective_number_weights,
    logit_adjustment,
    label_smoothing,
)
