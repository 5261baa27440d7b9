"""The catalogue of remedies: a tuple of frozen records, nothing registered at import."""

from __future__ import annotations

from remedy.spaces.remedies import (
    activation,
    architecture,
    balance,
    dropout,
    gradient,
    initialisation,
    inputs,
    learning_rate,
    logits,
    normalisation,
    objective,
    optimizer,
    schedule,
    weights,
)
from remedy.spaces.remedy import Remedy

REMEDIES: tuple[Remedy, ...] = (
    *learning_rate.REMEDIES,
    *schedule.REMEDIES,
    *gradient.REMEDIES,
    *weights.REMEDIES,
    *optimizer.REMEDIES,
    *balance.REMEDIES,
    *dropout.REMEDIES,
    *objective.REMEDIES,
    *logits.REMEDIES,
    *inputs.REMEDIES,
    *initialisation.REMEDIES,
    *activation.REMEDIES,
    *normalisation.REMEDIES,
    *architecture.REMEDIES,
)
