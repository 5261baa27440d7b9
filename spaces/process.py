"""What is global in a process: brought to one known state before every run, so that none sees what another left."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Globals:
    """Settings of torch that a user's file may change when it is imported."""

    dtype: torch.dtype
    device: Any
    deterministic: bool
    warn_only: bool
    precision: str
    anomaly: bool

    @classmethod
    def now(cls) -> Globals:
        """Read them as they are."""
        return cls(
            torch.get_default_dtype(),
            torch.get_default_device(),
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
            torch.get_float32_matmul_precision(),
            torch.is_anomaly_enabled(),
        )

    def put(self) -> None:
        """Set them so, with what every run has: one thread, gradients on, no denormal numbers."""
        torch.set_default_dtype(self.dtype)
        # None where it can be: any device that is set, "cpu" too, makes every torch call pass through Python.
        torch.set_default_device(None if self.device == torch.device("cpu") else self.device)
        torch.use_deterministic_algorithms(self.deterministic, warn_only=self.warn_only)
        torch.set_float32_matmul_precision(self.precision)
        torch.autograd.set_detect_anomaly(mode=self.anomaly)
        torch.set_num_threads(1)
        torch.set_grad_enabled(True)
        # A dying net's numbers become denormal, and a CPU is many times slower on those.
        torch.set_flush_denormal(True)
        if torch.cuda.is_available():
            torch.backends.cudnn.benchmark = False
            torch.backends.cudnn.deterministic = True


DEFAULTS = Globals(
    torch.float32, torch.device("cpu"), deterministic=False, warn_only=False, precision="highest", anomaly=False
)


def reset_process() -> None:
    """Undo what the run before may have left behind in this process."""
    DEFAULTS.put()
