"""Remedies for the logits: what the loss reads is kept from growing without bound."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import nn

from remedy.spaces.distribution import Float
from remedy.spaces.facts import Facts
from remedy.spaces.objective import Criterion, Scale
from remedy.spaces.remedy import Change, Inapplicable, Remedy, remedy
from remedy.spaces.slot import Slot

_FUSED = ("fused_cross_entropy", "fused_binary_cross_entropy")


@dataclass(frozen=True)
class SoftCap:
    """Reads logits, and bends them so that none exceeds the cap."""

    read: Callable[[torch.Tensor], torch.Tensor]
    cap: float

    def __call__(self, outputs: torch.Tensor) -> torch.Tensor:
        """Return the capped logits."""
        return self.cap * torch.tanh(self.read(outputs) / self.cap)


@remedy(
    Slot.LOGITS,
    treats=("class_takeover", "saturated_softmax", "exploding_gradient"),
    invasiveness=4,
    source="Gemma 2 (2024); posts 000, 001: equal and quite large logits; catalogue R31",
    cap=Float(5.0, 50.0, log=True),
)
def logit_soft_cap(criterion: Criterion, *, cap: float = 15.0, facts: Facts) -> Change:
    """Bends the logits that the loss reads by a tanh, so that none exceeds a cap."""
    if facts.applied("mixed_probabilities") or not (
        facts.applied(*_FUSED) or criterion.scale is Scale.LOGITS or isinstance(criterion.loss, nn.CrossEntropyLoss)
    ):
        raise Inapplicable("the loss does not read logits")
    made = replace(criterion, read=SoftCap(criterion.read, cap))
    return Change(made, f"the loss reads {cap:g} tanh(logits / {cap:g})")


REMEDIES: tuple[Remedy, ...] = (logit_soft_cap,)
