"""The precision of a run: the numbers the forward pass is computed in, and whether the loss is scaled."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch

_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Precision:
    """The value of the slot `precision`.

    `forward` is "float32", or "bfloat16" / "float16" for autocast on the forward pass and the loss; `scaled` whether
    the loss is scaled up before the backward pass, so that small gradients do not round to zero.
    """

    forward: str = "float32"
    scaled: bool = False

    @classmethod
    def of(cls, forward: str, device: torch.device) -> Precision:
        """Return what a training has that asks for this precision: half precision is scaled on an accelerator."""
        return cls(forward, forward == "float16" and device.type == "cuda")

    def autocast(self, device: torch.device) -> AbstractContextManager[Any]:
        """Return the context of the forward pass."""
        return torch.autocast(device.type, _DTYPES.get(self.forward), enabled=self.forward in _DTYPES)

    def scaler(self, device: torch.device) -> torch.amp.GradScaler:
        """Return the scaler of the loss, which does nothing where the loss is not scaled."""
        return torch.amp.GradScaler(device.type, enabled=self.scaled)
