"""Remedies for the objective: the activation of the output and the loss, which have to match."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from remedy.spaces.calls import trace
from remedy.spaces.cross_entropy import NegativeLog, Taken, fused, taken
from remedy.spaces.distribution import Float
from remedy.spaces.facts import Facts
from remedy.spaces.logits import Squash, find
from remedy.spaces.objective import Criterion, Objective, Scale
from remedy.spaces.python import Python
from remedy.spaces.remedy import Change, Inapplicable, Remedy, remedy
from remedy.spaces.slot import Slot

_TREATS = (
    "saturated_softmax", "non_finite", "zero_gradient", "class_takeover", "accuracy_collapse", "chance_plateau",
)  # fmt: skip

_PAST = Python(
    loss="""
kept = {}
model.get_submodule($path).register_forward_hook(lambda module, args, output: kept.update(logits=args[0]))
plain_loss = $loss


def loss_fn(outputs, targets):  # call it on outputs that the model has just returned
    return plain_loss(kept["logits"], targets)
"""
)


@remedy(
    Slot.OBJECTIVE,
    treats=_TREATS,
    invasiveness=3,
    source="posts 000, 001, 003: softmax and cross-entropy in one, from logits; catalogue R20, R34",
    python=_PAST,
)
def fused_cross_entropy(objective: Objective, *, facts: Facts) -> Change:
    """Computes the cross-entropy from the logits, past the softmax that the model keeps."""
    return _fused(objective, facts, Squash.SOFTMAX)


@remedy(
    Slot.OBJECTIVE,
    treats=_TREATS,
    invasiveness=3,
    source="torch BCEWithLogitsLoss; posts 000, 002; catalogue R21, R34",
    python=_PAST,
)
def fused_binary_cross_entropy(objective: Objective, *, facts: Facts) -> Change:
    """Computes the binary cross-entropy from the logits, past the sigmoid that the model keeps."""
    return _fused(objective, facts, Squash.SIGMOID)


@remedy(
    Slot.OBJECTIVE,
    treats=("saturated_softmax", "zero_gradient", "class_takeover", "non_finite"),
    invasiveness=3,
    source="post 002: outputs kept away from 0 and 1, here without a flat region; catalogue R22",
    eps=Float(1e-7, 1e-2, log=True),
)
def mixed_probabilities(objective: Objective, *, eps: float = 1e-4, facts: Facts) -> Change:
    """Mixes the probabilities with the uniform distribution before their logarithm, in place of clipping them."""
    outputs = _outputs(objective, facts)
    squash = Squash.SOFTMAX if Squash.SOFTMAX.fits(outputs) else Squash.SIGMOID
    if not squash.fits(outputs):
        raise Inapplicable("the model's outputs are no probabilities")
    seen = _taken(objective.criterion, outputs, facts, squash)
    if seen.scale is not Scale.PROBABILITIES:
        raise Inapplicable("the loss takes logits, not probabilities")
    classes = outputs.shape[1] if squash is Squash.SOFTMAX else 2
    mix = Mix(min(eps, 0.5 / classes), classes)
    criterion = replace(objective.criterion, read=mix, loss=NegativeLog(squash, seen.reduction))
    told = f"loss = -log(p') of p' = {1 - mix.classes * mix.eps:g} p + {mix.eps:g}, over {classes} classes"
    return Change(Objective(objective.model, criterion), told)


@dataclass(frozen=True)
class Mix:
    """Mixes probabilities with the uniform distribution, so that none is below `eps`."""

    eps: float
    classes: int

    def __call__(self, probabilities: torch.Tensor) -> torch.Tensor:
        """Return the mixed probabilities."""
        return (1 - self.classes * self.eps) * probabilities + self.eps


def _fused(objective: Objective, facts: Facts, squash: Squash) -> Change:
    outputs = _outputs(objective, facts)
    if squash is Squash.SOFTMAX and Squash.LOG_SOFTMAX.fits(outputs):
        squash = Squash.LOG_SOFTMAX
    seen = _taken(objective.criterion, outputs, facts, squash)
    loss = fused(objective.criterion.loss, seen, squash)
    kept = "the training's own loss" if seen.safe else f"{type(loss).__name__} in place of the training's loss"
    if squash.fits(outputs):
        logits = find(objective.model, facts.inputs, squash)
        criterion = replace(objective.criterion, read=logits.read, loss=loss)
        plain = objective.criterion.plain and _as_torch_takes_it(outputs, facts.targets, squash)
        name = "nn.CrossEntropyLoss()" if squash is Squash.SOFTMAX else "nn.BCEWithLogitsLoss()"
        sayable = logits.path is not None and plain and (seen.safe or seen.reduction == "mean")
        said = {"path": repr(logits.path), "loss": "loss_fn" if seen.safe else name} if sayable else {}
        return Change(Objective(objective.model, criterion), f"{kept} reads the logits: {logits.found}", said)
    if seen.safe:
        raise Inapplicable("the outputs are logits already, and the loss is computed from them in one safe step")
    if seen.scale is Scale.PROBABILITIES:
        raise Inapplicable(f"the model's outputs are no probabilities of a {squash.value}")
    criterion = objective.criterion.with_loss(loss)
    return Change(Objective(objective.model, criterion), f"{kept}, which computed the {squash.value} by itself")


def _as_torch_takes_it(outputs: torch.Tensor, targets: torch.Tensor, squash: Squash) -> bool:
    """Whether torch's own loss takes the targets as they are."""
    if squash is Squash.SOFTMAX:
        return targets.dtype is torch.int64 and targets.dim() == outputs.dim() - 1
    return targets.dtype is torch.float32 and targets.shape[1:] == outputs.shape[1:]


def _outputs(objective: Objective, facts: Facts) -> torch.Tensor:
    outputs = trace(objective.model, facts.inputs, training=True).outputs
    return outputs.detach().float()


def _taken(criterion: Criterion, outputs: torch.Tensor, facts: Facts, squash: Squash) -> Taken:
    seen = taken(criterion.loss, outputs.shape, facts.targets[: len(outputs)], squash)
    if seen is None:
        name = "binary cross-entropy" if squash is Squash.SIGMOID else "cross-entropy"
        raise Inapplicable(f"the training's loss is no {name}, neither of probabilities nor of logits")
    return seen


REMEDIES: tuple[Remedy, ...] = (fused_cross_entropy, fused_binary_cross_entropy, mixed_probabilities)
