"""The objective of a training: what the loss reads of the model's output, and the loss itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum

import torch
from torch import nn

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
IGNORED = -100


def ignored_by(loss: object) -> int:
    """Return the class that a loss leaves out: its `ignore_index` where it has one, else torch's usual one."""
    own = getattr(loss, "ignore_index", IGNORED)
    return own if isinstance(own, int) else IGNORED


class TargetKind(StrEnum):
    """What the targets are; found from the data."""

    CLASS_INDEX = "class index"
    ONE_HOT = "one-hot"
    BINARY = "one 0/1 column"
    MULTI_LABEL = "multi-label"
    REAL = "real numbers"


class Scale(StrEnum):
    """What the criterion takes the scores for; decides where a binary decision is cut (0 for logits, else 0.5)."""

    LOGITS = "logits"
    PROBABILITIES = "probabilities"
    VALUES = "values"


def _as_is(outputs: torch.Tensor) -> torch.Tensor:
    return outputs


@dataclass(frozen=True)
class Then:
    """One reading of the outputs after another."""

    first: Callable[[torch.Tensor], torch.Tensor]
    second: Callable[[torch.Tensor], torch.Tensor]

    def __call__(self, outputs: torch.Tensor) -> torch.Tensor:
        """Return what the second makes of the first's result."""
        return self.second(self.first(outputs))


@dataclass(frozen=True)
class Criterion:
    """A loss in three acts: `read(outputs)` gives the scores, `turn(targets)` the aim, `loss(scores, aim)` the scalar.

    `read` and `turn` are the identity unless a remedy takes the logits from inside the model, or exchanges the scale
    of the targets. `scale` says what the user's loss
    takes the *outputs* for, `cross_entropy` whether it is the mean cross-entropy in nats (weighted or smoothed ones
    too), so that guessing has a known level.
    """

    loss: Loss
    scale: Scale = Scale.VALUES
    read: Callable[[torch.Tensor], torch.Tensor] = _as_is
    cross_entropy: bool = False
    turn: Callable[[torch.Tensor], torch.Tensor] = _as_is

    @property
    def ignored(self) -> int:
        """The class that the loss leaves out."""
        return ignored_by(self.loss)

    @property
    def plain(self) -> bool:
        """Whether the loss is computed from the very outputs and targets."""
        return self.read is _as_is and self.turn is _as_is

    def __call__(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the scalar loss of a batch."""
        return self.loss(self.read(outputs), self.turn(targets))

    def with_loss(self, loss: Loss) -> Criterion:
        """Exchange the loss and keep what is read."""
        return replace(self, loss=loss)

    def after(self, first: Callable[[torch.Tensor], torch.Tensor]) -> Criterion:
        """Read what `first` makes of the outputs."""
        return replace(self, read=Then(first, self.read))


@dataclass(frozen=True)
class Objective:
    """The value of the slot `objective`: the model and its criterion, since one act may concern both."""

    model: nn.Module
    criterion: Criterion
