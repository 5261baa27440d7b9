"""Validation metrics, and the goal."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, Protocol

import torch

from remedy.spaces.error import InputError
from remedy.spaces.objective import IGNORED, Scale, TargetKind, ignored_by

Mode = Literal["min", "max"]
MODES: dict[str, Mode] = {"accuracy": "max", "balanced_accuracy": "max", "r2": "max", "loss": "min"}
_UPPER = {"accuracy": 1.0, "balanced_accuracy": 1.0, "r2": 1.0}
_DOUBLE = 0.1


def metric_mode(metric: object, mode: object) -> Mode:
    """Return whether larger or smaller is better.

    Raises:
        InputError: an unknown metric, or a mode that is missing or contradicts the metric.
    """
    if mode not in (None, "min", "max"):
        msg = f'mode is {mode!r}; it may be "min" or "max"'
        raise InputError(msg)
    if callable(metric):
        if mode is None:
            msg = 'mode is missing: with a metric of your own say mode="max" or mode="min"'
            raise InputError(msg)
        return mode
    if not isinstance(metric, str) or metric not in MODES:
        msg = f"metric is {metric!r}; it may be {', '.join(MODES)}, or a callable (outputs, targets) -> float"
        raise InputError(msg)
    if mode is not None and mode != MODES[metric]:
        msg = f"mode is {mode!r}, but {metric} is better when {'larger' if MODES[metric] == 'max' else 'smaller'}"
        raise InputError(msg)
    return MODES[metric]


def check_goal(metric: object, goal: object) -> None:
    """Refuse a goal that the metric cannot have.

    Raises:
        InputError: the goal is no number, not finite, or out of the metric's range.
    """
    if isinstance(goal, bool) or not isinstance(goal, int | float) or not math.isfinite(goal):
        msg = f"goal is {goal!r}; it may be a finite number"
        raise InputError(msg)
    name = metric if isinstance(metric, str) else ""
    if name in _UPPER and not 0 < goal <= _UPPER[name]:
        msg = f"goal is {goal:g}; for {name} it may be more than 0 and at most {_UPPER[name]:g}"
        raise InputError(msg)
    if name == "loss" and goal < 0:
        msg = f"goal is {goal:g}; for loss it may be 0 or more"
        raise InputError(msg)


def check_kind(metric: object, kind: TargetKind, outputs: torch.Tensor, targets: torch.Tensor) -> None:
    """Refuse a metric that means nothing for targets of this kind.

    Raises:
        InputError: an accuracy of real numbers, or the r2 of class indices.
    """
    may_be = ""
    if metric in ("accuracy", "balanced_accuracy") and kind is TargetKind.REAL:
        may_be = "r2, loss"
    if metric == "r2" and kind is not TargetKind.REAL and outputs.numel() != targets.numel():
        may_be = "accuracy, balanced_accuracy, loss"
    if may_be:
        msg = f"metric is {metric!r}, but the targets are of the kind {kind.value!r}; it may be {may_be} or a callable"
        raise InputError(msg)


def parse_goal(text: str, metric: object) -> float:
    """Read `0.9`, `'r2>=0.8'` or `'loss<=0.1'`.

    Raises:
        InputError: the text is neither, or names another metric or direction than the training has.
    """
    for sign, mode in ((">=", "max"), ("<=", "min")):
        if sign in text:
            name, _, number = text.partition(sign)
            own = metric if isinstance(metric, str) else "metric"
            if name.strip() not in (own, "metric") or (isinstance(metric, str) and MODES[metric] != mode):
                right = ">=" if not isinstance(metric, str) or MODES[metric] == "max" else "<="
                msg = f"--goal {text!r} does not fit the training's metric; it may be '{own}{right}NUMBER' or a number"
                raise InputError(msg)
            text = number
    try:
        goal = float(text)
    except ValueError:
        msg = f"--goal is {text!r}; it may be a number, or such as 'r2>=0.8' or 'loss<=0.1'"
        raise InputError(msg) from None
    check_goal(metric, goal)
    return goal


class Tally(Protocol):
    """A metric under way: fed with batches, read once."""

    def add(self, outputs: torch.Tensor, targets: torch.Tensor) -> None:
        """Take one batch into account."""

    def value(self) -> float:
        """Return the metric of all batches so far; NaN where it is undefined."""


def decide(
    outputs: torch.Tensor, targets: torch.Tensor, kind: TargetKind, scale: Scale, ignored: int = IGNORED
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return predictions and truths of the same shape: class indices, or 0/1 for one column and multi-label targets.

    Class index and one-hot: argmax over dim 1. One column or multi-label: cut at 0 where the loss in force takes
    logits, else at 0.5. A sample whose output is not finite is given the impossible prediction -1, so it is wrong.
    """
    if kind in (TargetKind.BINARY, TargetKind.MULTI_LABEL):
        predicted = (outputs > (0.0 if scale is Scale.LOGITS else 0.5)).long()
        predicted[~torch.isfinite(outputs)] = -1
        return predicted.flatten(), targets.reshape(predicted.shape).round().long().flatten()
    predicted = outputs.argmax(1)
    predicted[~torch.isfinite(outputs).all(1)] = -1
    truth = targets.argmax(1) if kind is TargetKind.ONE_HOT else targets.reshape(predicted.shape).long()
    # A class that the model has no output for is one that the loss leaves out, or it would have raised.
    kept = (truth != ignored) & (truth >= 0) & (truth < outputs.shape[1])
    return predicted[kept], truth[kept]


Decide = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


@dataclass
class _Accuracy:
    decide: Decide
    right: int = 0
    count: int = 0

    def add(self, outputs: torch.Tensor, targets: torch.Tensor) -> None:
        predicted, truth = self.decide(outputs, targets)
        self.right += int((predicted == truth).sum())
        self.count += truth.numel()

    def value(self) -> float:
        return self.right / self.count if self.count else math.nan


class _BalancedAccuracy:
    def __init__(self, decide: Decide) -> None:
        self.decide = decide
        self.right: dict[int, int] = {}
        self.count: dict[int, int] = {}

    def add(self, outputs: torch.Tensor, targets: torch.Tensor) -> None:
        predicted, truth = self.decide(outputs, targets)
        for label in set(truth.tolist()):
            mine = truth == label
            self.count[label] = self.count.get(label, 0) + int(mine.sum())
            self.right[label] = self.right.get(label, 0) + int((predicted[mine] == label).sum())

    def value(self) -> float:
        shares = [self.right[label] / count for label, count in self.count.items()]
        return sum(shares) / len(shares) if shares else math.nan


class _R2:
    def __init__(self) -> None:
        self.residual = self.total = self.square = 0.0
        self.count = 0

    def add(self, outputs: torch.Tensor, targets: torch.Tensor) -> None:
        truth = targets.double().flatten()
        self.residual += float(((outputs.double().flatten() - truth) ** 2).sum())
        self.total += float(truth.sum())
        self.square += float((truth**2).sum())
        self.count += truth.numel()

    def value(self) -> float:
        spread = self.square - self.total**2 / max(1, self.count)
        return 1 - self.residual / spread if spread > 0 else math.nan


class _Loss:
    """The mean over the samples, of a loss that is itself a mean or a sum over them."""

    def __init__(self, loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
        self.loss = loss
        self.sums: bool | None = None
        self.sum = 0.0
        self.count = 0

    def add(self, outputs: torch.Tensor, targets: torch.Tensor) -> None:
        value = float(self.loss(outputs, targets))
        if self.sums is None:
            self.sums = self._grows(value, outputs, targets)
        self.sum += value if self.sums else value * len(targets)
        self.count += len(targets)

    def value(self) -> float:
        return self.sum / self.count if self.count else math.nan

    def _grows(self, value: float, outputs: torch.Tensor, targets: torch.Tensor) -> bool | None:
        """Whether the loss of every sample taken twice is about double; None where this batch does not show it."""
        if value == 0 or not math.isfinite(value):
            return None
        try:
            twice = float(self.loss(torch.cat([outputs, outputs]), torch.cat([targets, targets])))
        except Exception:  # noqa: BLE001  (a user's loss may refuse the larger batch in any way)
            return False
        return abs(twice / value - 2) < _DOUBLE


class _Own:
    def __init__(self, metric: Callable[[torch.Tensor, torch.Tensor], float], kind: TargetKind) -> None:
        self.metric, self.kind = metric, kind
        self.outputs: list[torch.Tensor] = []
        self.targets: list[torch.Tensor] = []

    def add(self, outputs: torch.Tensor, targets: torch.Tensor) -> None:
        self.outputs.append(outputs.detach().cpu())
        self.targets.append(targets.detach().cpu())

    def value(self) -> float:
        outputs, targets = self.outputs, self.targets
        if self.kind is TargetKind.CLASS_INDEX and len({t.shape[1:] for t in targets}) > 1:
            # Sequences of different lengths: each position is a sample.
            outputs, targets = [o.movedim(1, -1).flatten(0, -2) for o in outputs], [t.flatten() for t in targets]
        return float(self.metric(torch.cat(outputs), torch.cat(targets)))


def tally(
    metric: str | Callable[[torch.Tensor, torch.Tensor], float],
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    kind: TargetKind,
    scale: Scale,
) -> Tally:
    """Start a metric. `loss` is the user's original loss, used by the metric "loss"; `scale` is that loss's."""
    if callable(metric):
        return _Own(metric, kind)
    decided = partial(decide, kind=kind, scale=scale, ignored=ignored_by(loss))
    if metric == "accuracy":
        return _Accuracy(decided)
    if metric == "balanced_accuracy":
        return _BalancedAccuracy(decided)
    return _R2() if metric == "r2" else _Loss(loss)


def meets(value: float, goal: float, mode: str) -> bool:
    """Whether a metric value meets the goal; NaN never does."""
    return value >= goal if mode == "max" else value <= goal
