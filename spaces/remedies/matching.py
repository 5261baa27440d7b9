"""Remedies for an objective that does not fit its targets: output activation and loss, matched to their kind."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import nn

from remedy.spaces.calls import calls_of, trace
from remedy.spaces.cross_entropy import BinaryCrossEntropy, CrossEntropy, Taken, taken
from remedy.spaces.facts import Facts
from remedy.spaces.head import Activation, Head, head_of, put_head
from remedy.spaces.logits import Squash, find, remembered
from remedy.spaces.objective import Criterion, Loss, Objective, Scale, TargetKind
from remedy.spaces.python import Python
from remedy.spaces.remedy import Change, Inapplicable, Remedy, remedy
from remedy.spaces.slot import Slot

_CLASS_LOSSES = frozenset(
    {"cross_entropy", "nll_loss", "log_softmax", "binary_cross_entropy", "binary_cross_entropy_with_logits"}
)
_DOUBLE = 0.05


@remedy(
    Slot.OBJECTIVE,
    treats=("chance_plateau", "zero_gradient", "class_takeover", "saturated_softmax", "non_finite", "dead_units"),
    invasiveness=3,
    source="UMLAUT; AutoTrainer (ICSE'21); the commonest fault of 50 trainings from forums; catalogue R20, R21, R34",
)
def match_objective(objective: Objective, *, facts: Facts) -> Change:
    """Gives classes the cross-entropy of their logits and numbers outputs without limits, whatever stands there."""
    if facts.kind is TargetKind.REAL:
        return _numbers(objective, facts)
    return _classes(objective, facts)


def _classes(objective: Objective, facts: Facts) -> Change:
    model, criterion = objective.model, objective.criterion
    exclusive = facts.kind in (TargetKind.CLASS_INDEX, TargetKind.ONE_HOT)
    head = head_of(model, facts.inputs)
    wants = _wanted(criterion, head.outputs, facts, exclusive=exclusive)
    summed = head.outputs.dim() > 1 and Squash.SOFTMAX.fits(head.outputs.float())
    if _right(head, wants, summed=summed):
        raise Inapplicable(f"outputs with {head.told} and the loss fit targets of the kind {facts.kind.value!r}")
    if exclusive and summed and wants.name == "" and head.names in ((), ("softmax",)):
        raise Inapplicable("only a softmax stands between the logits and their loss: see fused_cross_entropy")
    loss = criterion.loss
    if not (wants.seen is not None and wants.seen.safe and wants.seen.reduction == "mean"):
        kept = getattr(loss, "weight", None) if isinstance(loss, nn.NLLLoss) else None
        loss = CrossEntropy(kept, ignore_index=criterion.ignored) if exclusive else BinaryCrossEntropy()
    if not head.names and summed and exclusive:  # a softmax written by hand
        logits = find(model, facts.inputs, Squash.SOFTMAX)
        made = replace(criterion, read=logits.read, loss=loss, cross_entropy=True)
        return Change(Objective(model, made), f"{type(loss).__name__} reads the logits: {logits.found}")
    put_head(model, head, wants.activation)
    made = replace(criterion, read=remembered, loss=loss, cross_entropy=True)
    now = wants.name or "no activation"
    told = f"the outputs end in {now} in place of {head.told}; {_named(loss)} of what comes before it"
    return Change(Objective(model, made), f"{told}, in place of {_named(criterion.loss)}")


@dataclass(frozen=True)
class Wanted:
    """The output activation that the user's loss and metric take for granted, and what is known of that loss."""

    name: str
    activation: Activation | None
    seen: Taken | None
    known: bool


def _wanted(criterion: Criterion, outputs: torch.Tensor, facts: Facts, *, exclusive: bool) -> Wanted:
    loss, targets = criterion.loss, facts.targets[: len(outputs)]
    squash, name = (Squash.SOFTMAX, "softmax") if exclusive else (Squash.SIGMOID, "sigmoid")
    seen = taken(loss, outputs.shape, targets, squash)
    if seen is not None and seen.scale is Scale.LOGITS:
        return Wanted("", None, seen, known=True)
    if exclusive and seen is None:
        logs = taken(loss, outputs.shape, targets, Squash.LOG_SOFTMAX)
        if isinstance(loss, nn.NLLLoss) or (logs is not None and logs.scale is Scale.PROBABILITIES):
            return Wanted("log_softmax", Squash.LOG_SOFTMAX, None, known=True)
    return Wanted(name, squash, None, known=seen is not None or (isinstance(loss, nn.BCELoss) and not exclusive))


def _right(head: Head, wants: Wanted, *, summed: bool) -> bool:
    if not wants.known:
        return False
    if wants.name == "softmax":
        return summed and head.names in ((), ("softmax",))
    return head.names == ((wants.name,) if wants.name else ()) and not (wants.name == "" and summed)


def mismatch(objective: Objective, facts: Facts) -> str:
    """Say what of the outputs' activation and the loss cannot fit the targets; empty where all may be meant so.

    It changes nothing. A loss of the user's own that is not known may fit with any outputs that reach the targets.
    """
    head = head_of(objective.model, facts.inputs)
    if facts.kind is TargetKind.REAL:
        return "; ".join(told for _, told in _misfits(objective.criterion, head, facts))
    exclusive = facts.kind in (TargetKind.CLASS_INDEX, TargetKind.ONE_HOT)
    wants = _wanted(objective.criterion, head.outputs, facts, exclusive=exclusive)
    summed = head.outputs.dim() > 1 and Squash.SOFTMAX.fits(head.outputs.float())
    ends = f"the model ends in {head.told}"
    if odd := _oddity(head, exclusive=exclusive):
        return f"{ends}{odd}"
    softmaxed = exclusive and summed and wants.name == ""  # one softmax too many: another check says so
    if wants.known and not softmaxed and not _right(head, wants, summed=summed):
        taken_for = f"what {wants.name} gives" if wants.name else "logits: outputs without an activation"
        return f"{ends}, but the loss takes {taken_for}"
    if isinstance(objective.criterion.loss, nn.CrossEntropyLoss) and not exclusive:
        return f"CrossEntropyLoss is for exclusive classes, but the targets are of the kind {facts.kind.value!r}"
    return ""


def _oddity(head: Head, *, exclusive: bool) -> str:
    """Say what is wrong with outputs of classes that end so, whatever the loss."""
    if "softmax" in head.names and (head.outputs.dim() < 2 or head.outputs.shape[1] == 1):
        return " over one unit, which is always 1"
    if "softmax" in head.names and not exclusive:
        return ", of which one label can be near 1 only, but the targets hold several"
    if head.names and head.names[-1] in ("relu", "tanh", "relu6", "softplus", "exp"):
        return ", which gives neither logits nor probabilities of classes"
    return ""


def _numbers(objective: Objective, facts: Facts) -> Change:
    model, criterion = objective.model, objective.criterion
    head = head_of(model, facts.inputs)
    found = _misfits(criterion, head, facts)
    if not found:
        raise Inapplicable("the outputs can reach every target, and the loss is one of numbers")
    faults = {fault for fault, _ in found}
    loss = nn.MSELoss() if "loss" in faults else criterion.loss
    if "shape" in faults:
        loss = Aligned(loss)
    if "reach" in faults:
        put_head(model, head, None)
    done = {
        "loss": "MSELoss in its place",
        "shape": "the targets are given the shape of the outputs before the loss",
        "reach": "the model ends in no activation now",
    }
    told = "; ".join(f"{told}: {done[fault]}" for fault, told in found)
    return Change(Objective(model, replace(criterion, loss=loss)), told)


def _misfits(criterion: Criterion, head: Head, facts: Facts) -> list[tuple[str, str]]:
    targets, found = criterion.turn(facts.every_target.detach()), []
    some = criterion.turn(facts.targets.detach())[: len(head.outputs)]
    if _of_classes(criterion.loss, head.outputs, some) and not (
        float(targets.min()) >= 0 and float(targets.max()) <= 1
    ):
        found.append(("loss", f"{_named(criterion.loss)} is made for classes, but the targets are numbers"))
    if head.outputs.shape[1:] != facts.targets.shape[1:]:
        shapes = tuple(head.outputs.shape[1:]), tuple(facts.targets.shape[1:])
        told = f"outputs of shape {shapes[0]} are compared with targets of shape {shapes[1]}, each with each"
        found.append(("shape", told))
    if not head.reaches(targets):
        found.append(("reach", f"the model ends in {head.told}, which cannot reach every target"))
    return found


def _of_classes(loss: Loss, outputs: torch.Tensor, targets: torch.Tensor) -> bool:
    """Whether a loss is made for classes or probabilities: by its type, or by what it calls."""
    if isinstance(loss, nn.CrossEntropyLoss | nn.NLLLoss | nn.BCELoss | nn.BCEWithLogitsLoss):
        return True
    try:
        with torch.no_grad():
            _, names = calls_of(loss, outputs, targets.to(outputs))
    except Exception:  # noqa: BLE001  (a user's loss may refuse a probe in any way; then nothing is known)
        return False
    return bool(names & _CLASS_LOSSES)


@dataclass(frozen=True)
class Aligned:
    """A loss whose targets are given the shape of the outputs first, so that none is compared with another's."""

    loss: Loss

    def __call__(self, scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the loss."""
        return self.loss(scores, targets.reshape(scores.shape).to(scores.dtype))


@remedy(
    Slot.OBJECTIVE,
    treats=(
        "exploding_gradient",
        "class_takeover",
        "dead_units",
        "non_finite",
        "accuracy_collapse",
        "worse_than_guessing",
    ),
    invasiveness=2,
    source="TheDeepChecker (TOSEM'22): poor reduction of the loss; catalogue R23, F11",
    python=Python(loss="loss_fn.reduction = 'mean'", needs=("attribute",)),
)
def mean_reduction(objective: Objective, *, facts: Facts) -> Change:
    """Takes the mean over the samples where the loss takes the sum."""
    criterion, loss = objective.criterion, objective.criterion.loss
    outputs = trace(objective.model, facts.inputs, training=True).outputs.detach()
    if not _sums(loss, criterion.read, outputs, criterion.turn(facts.targets[: len(outputs)])):
        raise Inapplicable("the loss of a batch taken twice is no larger: it is a mean already")
    if getattr(loss, "reduction", None) == "sum":
        made: Loss = copy.deepcopy(loss)
        made.reduction = "mean"  # type: ignore[attr-defined]  # torch's losses have it
        classes = isinstance(loss, nn.CrossEntropyLoss | nn.BCEWithLogitsLoss | nn.NLLLoss | nn.BCELoss)
        changed = replace(criterion, loss=made, cross_entropy=classes and facts.kind is not TargetKind.REAL)
        return Change(
            Objective(objective.model, changed), f"reduction of {type(loss).__name__} sum -> mean", {"attribute": True}
        )
    changed = criterion.with_loss(PerSample(loss))
    return Change(Objective(objective.model, changed), f"{_named(loss)}, a sum, divided by the samples of the batch")


def _sums(loss: Loss, read: Callable[[torch.Tensor], torch.Tensor], outputs: torch.Tensor, aim: torch.Tensor) -> bool:
    if getattr(loss, "reduction", None) == "sum":
        return True
    double = partial(torch.cat, dim=0)
    try:
        with torch.no_grad():
            once = float(loss(read(outputs), aim))
            twice = float(loss(double([read(outputs)] * 2), double([aim] * 2)))
    except Exception:  # noqa: BLE001  (a user's loss may refuse another batch in any way)
        return False
    return once != 0 and abs(twice / once - 2) < _DOUBLE


@dataclass(frozen=True)
class PerSample:
    """A loss that sums, divided by the samples of the batch."""

    loss: Loss

    def __call__(self, scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the mean."""
        return self.loss(scores, targets) / len(targets)


def _named(loss: Loss) -> str:
    if isinstance(loss, nn.Module):
        return type(loss).__name__
    return f"`{getattr(loss, '__name__', type(loss).__name__)}`"


REMEDIES: tuple[Remedy, ...] = (match_objective, mean_reduction)
