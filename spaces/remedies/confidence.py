"""Remedies for the weight of sure and unsure predictions in the loss."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from remedy.spaces.cross_entropy import CrossEntropy, as_classes
from remedy.spaces.distribution import Float
from remedy.spaces.facts import Facts
from remedy.spaces.objective import Criterion, Loss
from remedy.spaces.python import Python
from remedy.spaces.reads import FUSED, innermost, refuse_other_than_logits, said_if_plain
from remedy.spaces.remedy import Change, Inapplicable, Remedy, remedy
from remedy.spaces.slot import Slot


class Focal(CrossEntropy):
    """The cross-entropy, times (1 - p of the target) ** gamma."""

    def __init__(self, gamma: float, like: nn.CrossEntropyLoss) -> None:
        """Take everything but `gamma` from another cross-entropy."""
        super().__init__(
            like.weight,
            ignore_index=like.ignore_index,
            reduction=like.reduction,
            label_smoothing=like.label_smoothing,
        )
        self.gamma = gamma

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:  # noqa: A002  (torch's own names)
        """Return the loss of logits."""
        scores = input.float() if input.dtype in (torch.float16, torch.bfloat16) else input
        classes = as_classes(scores, target)
        weight = None if self.weight is None else self.weight.to(scores)
        plain = F.cross_entropy(scores, classes, ignore_index=self.ignore_index, reduction="none")
        each = F.cross_entropy(
            scores,
            classes,
            weight,
            ignore_index=self.ignore_index,
            reduction="none",
            label_smoothing=self.label_smoothing,
        )
        total = ((1 - (-plain).exp()).clamp_min(0) ** self.gamma * each).sum()
        if self.reduction == "sum":
            return total
        counted = plain.numel() if classes.is_floating_point() else (classes != self.ignore_index).sum().clamp_min(1)
        return total / counted


@dataclass(frozen=True)
class Penalised:
    """A loss of logits, less a share of the entropy of the softmax."""

    loss: Loss
    beta: float

    def __call__(self, scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the difference of the two."""
        logs = scores.float().log_softmax(1)
        return self.loss(scores, targets) + self.beta * (logs.exp() * logs).sum(1).mean()


@remedy(
    Slot.LABEL_SMOOTHING,
    treats=("saturated_softmax", "class_takeover", "accuracy_collapse"),
    invasiveness=3,
    source="Pereyra et al. 2017; catalogue R25",
    beta=Float(0.01, 1.0, log=True),
    python=Python(
        loss="""
plain_loss = loss_fn


def loss_fn(outputs, targets):
    logs = outputs.float().log_softmax(1)
    return plain_loss(outputs, targets) + $beta * (logs.exp() * logs).sum(1).mean()
""",
        needs=("plain",),
    ),
)
def confidence_penalty(criterion: Criterion, *, beta: float = 0.1, facts: Facts) -> Change:
    """Takes a share of the prediction's entropy off the loss, so that being sure has a price."""
    refuse_other_than_logits(criterion, facts)
    made = criterion.with_loss(Penalised(criterion.loss, beta))
    return Change(made, f"loss - {beta:g} x entropy of the softmax", said_if_plain(criterion))


@remedy(
    Slot.CLASS_WEIGHT,
    treats=("class_takeover", "chance_plateau"),
    invasiveness=3,
    source="Lin et al. 2017 (focal loss); catalogue R26",
    gamma=Float(0.5, 5.0),
    python=Python(
        define=(as_classes, CrossEntropy, Focal), loss="loss_fn = Focal($gamma, loss_fn)", needs=("plain", "of_torch")
    ),
)
def focal_loss(criterion: Criterion, *, gamma: float = 2.0, facts: Facts) -> Change:
    """Weights each sample of the cross-entropy down the surer it is right."""
    refuse_other_than_logits(criterion, facts)
    own = innermost(criterion.loss)
    if isinstance(own, Focal):
        raise Inapplicable(f"the loss is a focal loss already, with gamma {own.gamma:g}")
    exchanged = any(r.slot is Slot.OBJECTIVE and r.remedy not in FUSED for r in facts.receipts)
    if not isinstance(own, nn.CrossEntropyLoss) and (exchanged or not criterion.cross_entropy):
        raise Inapplicable("the loss is more, or other, than a mean cross-entropy, and would be lost")
    like = own if isinstance(own, nn.CrossEntropyLoss) else nn.CrossEntropyLoss()
    told = f"{type(own).__name__} x (1 - p of the target) ** {gamma:g}"
    said = {**said_if_plain(criterion), **({"of_torch": True} if like is criterion.loss else {})}
    return Change(criterion.with_loss(Focal(gamma, like)), told, said)


REMEDIES: tuple[Remedy, ...] = (confidence_penalty, focal_loss)
