"""What a remedy may know about the training it is applied to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import nn

from remedy.spaces.objective import TargetKind
from remedy.spaces.remedy import Receipt


@dataclass(frozen=True)
class Facts:
    """Plain facts, gathered once for a run and handed to remedies that ask for `facts`.

    Attributes:
        kind: what the targets are.
        classes: number of classes (1 for one 0/1 column, the number of labels for multi-label, 0 for real numbers).
        counts: train samples of each class, for exclusive classes (0/1 too); else empty. Where the targets do not lie
            in memory as one tensor, of up to 2,000 samples spread evenly.
        labels: class of each of these samples (int64), -100 where the loss leaves it out; else empty.
        inputs: a probe batch of up to 256 train inputs, on the CPU.
        targets: their targets.
        every_input: all train inputs where they lie in memory as one tensor; else the probe batch.
        every_target: all their targets where they lie in memory as one tensor; else of up to 2,000 samples.
        batch_size: as the remedies before this one have left it.
        steps: the full budget in optimizer steps; from the slot `budget` on that of the run, else the untouched one's.
        steps_per_epoch: likewise.
        rebuild: builds the user's model anew with knobs, e.g. `rebuild(width=0.25)`; None where the builder takes none.
        knobs: the names of the knobs the builder understands.
        mode: "max" or "min": which way the validation metric is better.
        precision: of the untouched training's forward pass: "float32", or "bfloat16" / "float16" for autocast.
        resampled: the training draws its samples by a sampler of its own.
        receipts: of the remedies applied before this one.
        model: as the remedies before this one have left it.
        rehearse: from the slot `learning_rate` on, trains one step with each of some factors on the learning rates,
            returns the losses, and puts everything back as it was.
    """

    kind: TargetKind
    classes: int
    counts: tuple[int, ...]
    labels: torch.Tensor = field(repr=False)
    inputs: torch.Tensor = field(repr=False)
    targets: torch.Tensor = field(repr=False)
    every_input: torch.Tensor = field(repr=False)
    every_target: torch.Tensor = field(repr=False)
    batch_size: int
    steps: int
    steps_per_epoch: int
    rebuild: Callable[..., nn.Module] = field(repr=False)
    knobs: tuple[str, ...] = ()
    mode: Literal["min", "max"] = "max"
    precision: str = "float32"
    resampled: bool = False
    receipts: tuple[Receipt, ...] = ()
    model: nn.Module | None = field(default=None, repr=False)
    rehearse: Callable[[list[float]], list[float]] | None = field(default=None, repr=False)

    def applied(self, *names: str) -> bool:
        """Whether one of these remedies was applied before."""
        return any(receipt.remedy in names for receipt in self.receipts)
