"""AdamW whose update cannot outgrow what its second moment foresaw."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.optim import Optimizer


class StableAdamW(Optimizer):
    """AdamW with update clipping: each tensor's rate is divided by max(1, RMS of g**2 / v), Wortsman et al. 2023."""

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.99),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Make one step."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group)
        return loss

    def _update(self, parameter: torch.Tensor, grad: torch.Tensor, group: dict[str, Any]) -> None:
        state, (beta1, beta2), eps = self.state[parameter], group["betas"], group["eps"]
        if not state:
            state["step"] = 0
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        state["step"] += 1
        # Debiased by the share itself, as in the paper: the first step's moments are the gradient's.
        first, second = ((beta - beta ** state["step"]) / (1 - beta ** state["step"]) for beta in (beta1, beta2))
        state["exp_avg"].lerp_(grad, 1 - first)
        state["exp_avg_sq"].lerp_(grad.square(), 1 - second)
        excess = (grad.square() / state["exp_avg_sq"].clamp_min(eps**2)).mean().sqrt().clamp_min(1.0)
        rate = group["lr"] / excess
        parameter.mul_(1 - rate * group["weight_decay"])
        parameter.sub_(rate * state["exp_avg"] / (state["exp_avg_sq"].sqrt() + eps))
