"""A look at one step: its figures are asked of the device at once, and made an observation when they have come."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from remedy.spaces.objective import TargetKind
from remedy.spaces.parts import Parts
from remedy.workers.observation import Observation, Outputs
from remedy.workers.probe import Probe
from remedy.workers.reading import Reading
from remedy.workers.statistics import few, figures, read
from remedy.workers.strain import strain


@dataclass(frozen=True)
class Look:
    """One that is under way."""

    step: int
    rate: float
    kind: TargetKind
    samples: int
    probe: Probe
    reading: Reading

    @classmethod
    def at(
        cls,
        parts: Parts,
        probe: Probe,
        step: int,
        pending: Sequence[torch.Tensor],
        gradients: torch.Tensor,
        worn: Sequence[torch.Tensor],
        batch: tuple[torch.Tensor, torch.Tensor] | None,
    ) -> Look:
        """Look at a step that was made; `pending` are the losses since the last look, `batch` outputs and targets.

        `gradients` and `worn` are the figures of the probe and the gauge.
        """
        losses = torch.stack([loss if loss.dim() == 0 else loss.reshape(()) for loss in pending]).float()
        told, kind, samples = losses.new_zeros(0), parts.facts.kind, 0
        if batch is not None:
            outputs, targets = few(*batch)
            samples = len(outputs)
            told = figures(outputs, targets, kind, parts.original.scale, parts.original.ignored)
        rate = float(parts.optimizer.param_groups[0]["lr"])
        return cls(step, rate, kind, samples, probe, Reading([losses, gradients, probe.moved(), *worn, told]))

    def observation(self) -> Observation:
        """Return what was seen, once it is here."""
        losses, gradients, moved, *worn, told = self.reading.values()
        finite = [value for value in losses if math.isfinite(value)]
        layers, finite_parameters = self.probe.layers(gradients, moved)
        batch: Outputs | None = read(told, self.kind, self.samples) if told else None
        return Observation(
            step=self.step,
            # The first loss of the window that is not finite is the one to report.
            loss=next((value for value in losses if not math.isfinite(value)), losses[-1]),
            mean_loss=sum(finite) / len(finite) if finite else math.nan,
            batch=batch,
            gradient_norm=gradients[0],
            layers=layers,
            finite_parameters=finite_parameters,
            learning_rate=self.rate,
            strain=strain([value for (value,) in worn]),
        )
