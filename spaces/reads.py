"""Whether the loss in force reads logits: what a remedy for logits has to know."""

from __future__ import annotations

from torch import nn

from remedy.spaces.facts import Facts
from remedy.spaces.objective import Criterion, Scale, TargetKind
from remedy.spaces.remedy import Inapplicable

FUSED = ("fused_cross_entropy", "fused_binary_cross_entropy")
_OF_LOGITS = (nn.CrossEntropyLoss, nn.BCEWithLogitsLoss)


def innermost(loss: object) -> object:
    """Return the loss that other ones are wrapped around."""
    while not isinstance(loss, nn.Module) and hasattr(loss, "loss"):
        loss = loss.loss
    return loss


def refuse_other_than_logits(criterion: Criterion, facts: Facts, *, several: bool = True) -> None:
    """Refuse a loss that reads something else; with `several` also one of less than two exclusive classes.

    Raises:
        Inapplicable: it does.
    """
    told = isinstance(innermost(criterion.loss), _OF_LOGITS) or facts.applied(*FUSED)
    if facts.applied("mixed_probabilities") or not (told or criterion.scale is Scale.LOGITS):
        raise Inapplicable("the loss does not read logits")
    if several and facts.kind not in (TargetKind.CLASS_INDEX, TargetKind.ONE_HOT):
        raise Inapplicable(f"the targets are {facts.kind}, not one of several classes, each with a logit")


def said_if_plain(criterion: Criterion) -> dict[str, bool]:
    """Return what tells a remedy's Python code that the outputs are what the loss reads."""
    return {"plain": True} if criterion.plain else {}
