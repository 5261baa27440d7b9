"""Remedies for the logits: what the loss reads is kept from growing without bound."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from remedy.spaces.distribution import Float
from remedy.spaces.facts import Facts
from remedy.spaces.objective import Criterion, Loss
from remedy.spaces.python import Python
from remedy.spaces.reads import refuse_other_than_logits, said_if_plain
from remedy.spaces.remedy import Change, Remedy, remedy
from remedy.spaces.slot import Slot

Read = Callable[[torch.Tensor], torch.Tensor]
_TINY = 1e-7


@dataclass(frozen=True)
class SoftCap:
    """Reads logits, and bends them so that none exceeds the cap."""

    read: Read
    cap: float

    def __call__(self, outputs: torch.Tensor) -> torch.Tensor:
        """Return the capped logits."""
        return self.cap * torch.tanh(self.read(outputs) / self.cap)


@dataclass(frozen=True)
class Normed:
    """Reads logits, and brings those of each sample to one length."""

    read: Read
    length: float

    def __call__(self, outputs: torch.Tensor) -> torch.Tensor:
        """Return the logits at that length."""
        logits = self.read(outputs)
        sizes: torch.Tensor = torch.linalg.vector_norm(logits, dim=1, keepdim=True)
        return logits * (self.length / (sizes + _TINY))


@dataclass(frozen=True)
class WithZ:
    """A loss with a second term: the square of the logarithm of the softmax's denominator."""

    loss: Loss
    weight: float

    def __call__(self, scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the sum of the two."""
        return self.loss(scores, targets) + self.weight * scores.float().logsumexp(1).square().mean()


@remedy(
    Slot.LOGITS,
    treats=("class_takeover", "saturated_softmax", "exploding_gradient", "drifting_logits"),
    invasiveness=4,
    source="Gemma 2 (2024); posts 000, 001: equal and quite large logits; catalogue R31",
    cap=Float(5.0, 50.0, log=True),
    python=Python(
        loss="""
plain_loss = loss_fn


def loss_fn(outputs, targets):
    return plain_loss($cap * torch.tanh(outputs / $cap), targets)
""",
        needs=("plain",),
    ),
)
def logit_soft_cap(criterion: Criterion, *, cap: float = 15.0, facts: Facts) -> Change:
    """Bends the logits that the loss reads by a tanh, so that none exceeds a cap."""
    refuse_other_than_logits(criterion, facts, several=False)
    made = replace(criterion, read=SoftCap(criterion.read, cap))
    return Change(made, f"the loss reads {cap:g} tanh(logits / {cap:g})", said_if_plain(criterion))


@remedy(
    Slot.LOGITS,
    treats=("class_takeover", "saturated_softmax", "accuracy_collapse", "exploding_gradient"),
    invasiveness=4,
    source="Wei et al. 2022 (LogitNorm); catalogue R32",
    length=Float(3.0, 100.0, log=True),
    python=Python(
        loss="""
plain_loss = loss_fn


def loss_fn(outputs, targets):
    sizes = torch.linalg.vector_norm(outputs, dim=1, keepdim=True)
    return plain_loss(outputs * ($length / (sizes + 1e-7)), targets)
""",
        needs=("plain",),
    ),
)
def logit_norm(criterion: Criterion, *, length: float = 10.0, facts: Facts) -> Change:
    """Brings the logits of each sample to one length before the loss, so that only their direction counts."""
    refuse_other_than_logits(criterion, facts)
    made = replace(criterion, read=Normed(criterion.read, length))
    return Change(made, f"the loss reads {length:g} logits / |logits|", said_if_plain(criterion))


@remedy(
    Slot.LOGITS,
    treats=("class_takeover", "saturated_softmax", "drifting_logits", "exploding_gradient"),
    invasiveness=3,
    source="PaLM (2022); Wortsman et al. 2023; posts 000, 001: quite large logits; catalogue R24",
    weight=Float(1e-5, 0.1, log=True),
    python=Python(
        loss="""
plain_loss = loss_fn


def loss_fn(outputs, targets):
    return plain_loss(outputs, targets) + $weight * outputs.float().logsumexp(1).square().mean()
""",
        needs=("plain",),
    ),
)
def z_loss(criterion: Criterion, *, weight: float = 1e-3, facts: Facts) -> Change:
    """Adds the squared logarithm of the softmax's denominator to the loss, which holds the logits near 0."""
    refuse_other_than_logits(criterion, facts)
    made = criterion.with_loss(WithZ(criterion.loss, weight))
    return Change(made, f"loss + {weight:g} logsumexp(logits) ** 2", said_if_plain(criterion))


REMEDIES: tuple[Remedy, ...] = (logit_soft_cap, logit_norm, z_loss)
