"""torch's Muon for the matrices inside a model, AdamW for everything else, as one optimizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim import AdamW, Optimizer


class MuonAdamW(Optimizer):
    """Holds the groups; two optimizers of torch's work on them, with their rates and decays of the moment.

    Both keep their state in this one's `state`, so that it is saved and cleared with it.
    """

    def __init__(self, params: Any, by_adamw: set[nn.Parameter], lr: float = 1e-3, weight_decay: float = 0.0) -> None:
        """Step `by_adamw`, and whatever is no matrix, by AdamW."""
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})
        self._by_adamw = by_adamw
        self._inner: list[tuple[Optimizer, list[dict[str, Any]]]] = []

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Make one step."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if not self._inner:  # not before: the groups may still be split
            self._inner = [*self._built(torch.optim.Muon, matrices=True), *self._built(AdamW, matrices=False)]
        for optimizer, groups in self._inner:
            for mine, outer in zip(optimizer.param_groups, groups, strict=True):
                mine.update(lr=outer["lr"], weight_decay=outer["weight_decay"])
            optimizer.state = self.state
            optimizer.step()
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over a state; the groups are new objects afterwards."""
        super().load_state_dict(state_dict)
        self._inner = []

    def _built(self, kind: Callable[..., Optimizer], *, matrices: bool) -> list[tuple[Optimizer, list[dict[str, Any]]]]:
        made, groups = [], []
        for group in self.param_groups:
            mine = [p for p in group["params"] if (p.dim() == 2 and p not in self._by_adamw) == matrices]
            if mine:
                made.append({"params": mine, "lr": group["lr"], "weight_decay": group["weight_decay"]})
                groups.append(group)
        # With this option Muon's steps are as large as AdamW's, so that one learning rate serves both.
        options = {"adjust_lr_fn": "match_rms_adamw"} if matrices else {}
        return [(kind(made, **options), groups)] if made else []
