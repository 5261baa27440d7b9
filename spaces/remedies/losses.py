"""Remedies that put another loss in the place of the training's: robust ones, and the same one in full precision."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import nn

from remedy.spaces.calls import trace
from remedy.spaces.cross_entropy import taken
from remedy.spaces.distribution import Float
from remedy.spaces.facts import Facts
from remedy.spaces.logits import Squash, find
from remedy.spaces.objective import Loss, Objective, Scale, TargetKind
from remedy.spaces.python import Python
from remedy.spaces.remedy import Change, Inapplicable, Remedy, remedy
from remedy.spaces.slot import Slot

_NORMAL = 1.4826  # the spread of a normal distribution over its median absolute deviation
_HALF = (torch.float16, torch.bfloat16)


@remedy(
    Slot.OBJECTIVE,
    treats=("exploding_gradient", "non_finite", "accuracy_collapse"),
    invasiveness=2,
    source="Huber 1964; torch HuberLoss; catalogue R27",
    delta=Float(0.1, 10.0, log=True),
    python=Python(loss="loss_fn = nn.HuberLoss(delta=$width)"),
)
def huber(objective: Objective, *, delta: float = 1.0, facts: Facts) -> Change:
    """Squares only the errors below a multiple of the targets' spread, so that outliers do not rule the gradient."""
    if facts.kind is not TargetKind.REAL:
        raise Inapplicable("the targets are classes, not real numbers")
    if isinstance(objective.criterion.loss, nn.HuberLoss | nn.SmoothL1Loss):
        raise Inapplicable(f"the loss already is {type(objective.criterion.loss).__name__}")
    aim = objective.criterion.turn(facts.every_target.detach()).float().flatten()
    spread = _NORMAL * float((aim - aim.median()).abs().median()) or float(aim.std()) or 1.0
    loss = nn.HuberLoss(delta=delta * spread)
    told = f"HuberLoss, squared below {delta * spread:.3g} ({delta:g} x the targets' robust spread), in place of"
    criterion = replace(objective.criterion, loss=loss, cross_entropy=False)
    said = {"width": delta * spread} if objective.criterion.plain else {}
    return Change(Objective(objective.model, criterion), f"{told} {_named(objective.criterion.loss)}", said)


@remedy(
    Slot.OBJECTIVE,
    treats=("accuracy_collapse", "class_takeover", "exploding_gradient"),
    invasiveness=3,
    source="Zhang & Sabuncu 2018, noisy labels; catalogue R28",
    q=Float(0.2, 0.95),
)
def generalised_cross_entropy(objective: Objective, *, q: float = 0.7, facts: Facts) -> Change:
    """Bounds the loss of a sample, (1 - p^q) / q of its class, so that wrong labels do not rule the gradient."""
    return _of_logits(objective, facts, Generalised(q, objective.criterion.ignored), f"(1 - p^{q:g}) / {q:g}")


@remedy(
    Slot.OBJECTIVE,
    treats=("saturated_softmax", "zero_gradient"),
    invasiveness=4,
    source="Prieto et al. 2025, softmax collapse; catalogue R35",
)
def stable_max(objective: Objective, *, facts: Facts) -> Change:
    """Turns logits into probabilities by x + 1 and 1 / (1 - x) in place of the exponential, which cannot saturate."""
    loss = StableMax(objective.criterion.ignored)
    return _of_logits(objective, facts, loss, "-log of StableMax's probability of the class")


@remedy(
    Slot.OBJECTIVE,
    treats=("non_finite", "saturated_softmax", "zero_gradient"),
    invasiveness=3,
    source="post 002: the precision of the data type limits probabilities; catalogue R29, R84",
)
def loss_in_float32(objective: Objective, *, facts: Facts) -> Change:
    """Computes the loss in float32, outside autocast, from outputs in half precision."""
    dtype = trace(objective.model, facts.inputs, training=True).outputs.dtype
    if facts.precision == "float32" and dtype not in _HALF:
        raise Inapplicable(f"the loss is computed in {str(dtype).removeprefix('torch.')} already")
    criterion = objective.criterion.with_loss(InFloat32(objective.criterion.loss))
    old = str(dtype).removeprefix("torch.") if dtype in _HALF else facts.precision
    told = f"{_named(objective.criterion.loss)} computed in {old} -> float32, outside autocast"
    return Change(Objective(objective.model, criterion), told)


@dataclass(frozen=True)
class InFloat32:
    """A loss in float32, whatever its arguments and the forward pass are in."""

    loss: Loss

    def __call__(self, scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the loss."""
        with torch.autocast(scores.device.type, enabled=False):
            return self.loss(scores.float(), targets.float() if targets.dtype in _HALF else targets)


@dataclass(frozen=True)
class Generalised:
    """The generalised cross-entropy of logits: between cross-entropy (q = 0) and the absolute error (q = 1)."""

    q: float
    ignored: int

    def __call__(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the mean over the samples."""
        logs, kept = _of_class(logits.float().log_softmax(1), targets, self.ignored)
        return ((1 - (self.q * logs).exp()) / self.q)[kept].mean()


@dataclass(frozen=True)
class StableMax:
    """The cross-entropy of probabilities that are proportional to x + 1 above zero and to 1 / (1 - x) below."""

    ignored: int

    def __call__(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the mean over the samples."""
        scores = logits.float()
        sizes = torch.where(scores >= 0, scores + 1, 1 / (1 - scores.clamp_max(0)))
        logs, kept = _of_class((sizes / sizes.sum(1, keepdim=True)).log(), targets, self.ignored)
        return -logs[kept].mean()


def _of_class(logs: torch.Tensor, targets: torch.Tensor, ignored: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the logarithm of each sample's own class, and which samples count."""
    labels = targets.argmax(1) if targets.shape == logs.shape else targets.reshape(logs.select(1, 0).shape).long()
    kept = labels != ignored
    return logs.gather(1, torch.where(kept, labels, 0).unsqueeze(1)).squeeze(1), kept


def _of_logits(objective: Objective, facts: Facts, loss: Loss, formula: str) -> Change:
    if facts.kind not in (TargetKind.CLASS_INDEX, TargetKind.ONE_HOT):
        raise Inapplicable(f"the targets are of the kind {facts.kind.value!r}, not exclusive classes")
    criterion = objective.criterion
    outputs = trace(objective.model, facts.inputs, training=True).outputs.detach().float()
    seen = taken(criterion.loss, outputs.shape, facts.targets[: len(outputs)], Squash.SOFTMAX)
    made = replace(criterion, loss=loss, cross_entropy=False)
    told = f"loss = {formula}, in place of {_named(criterion.loss)}"
    squash = next((s for s in (Squash.SOFTMAX, Squash.LOG_SOFTMAX) if s.fits(outputs)), None)
    if squash is Squash.SOFTMAX:
        logits = find(objective.model, facts.inputs, squash)
        return Change(Objective(objective.model, replace(made, read=logits.read)), f"{told}; it reads {logits.found}")
    if squash is None and (seen is None or seen.scale is not Scale.LOGITS):
        raise Inapplicable("the model's outputs are neither probabilities nor known to be logits")
    return Change(Objective(objective.model, made), told)  # the logarithms of probabilities are logits of theirs


def _named(loss: Loss) -> str:
    return type(loss).__name__ if isinstance(loss, nn.Module) else f"`{getattr(loss, '__name__', 'the own loss')}`"


REMEDIES: tuple[Remedy, ...] = (huber, generalised_cross_entropy, stable_max, loss_in_float32)
