"""The live parts of one run, and the one place that says in which order a step uses them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from remedy.spaces.averaging import Averaging
from remedy.spaces.batches import Epochs
from remedy.spaces.facts import Facts
from remedy.spaces.guard import Guard, rates_times
from remedy.spaces.objective import Criterion
from remedy.spaces.remedy import Receipt
from remedy.spaces.schedule import Schedule

Rule = Callable[[list[nn.Parameter]], Any]
_RULES = ("weight_constraint", "gradient", "averaging", "guard")


@dataclass
class Parts:
    """The live parts of one run, the only mutable thing in it."""

    train: Any
    validation: DataLoader[Any]
    facts: Facts
    device: torch.device
    model: nn.Module
    original: Criterion
    criterion: Criterion
    sampler: Any = None
    batch_size: int | None = None
    inputs: nn.Module | None = None
    optimizer: Optimizer = None  # type: ignore[assignment]  # built before the slot `optimizer`
    schedule: Schedule = field(default_factory=Schedule)
    scheduler: Any = None
    weight_constraint: Rule | None = None
    gradient: Rule | None = None
    averaging: Averaging | None = None
    guard: Guard | None = None
    epochs: Epochs = None  # type: ignore[assignment]  # built last
    steps: int = 0
    rehearsed: int = 0
    receipts: tuple[Receipt, ...] = ()

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The parameters the optimizer updates."""
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def update(self, loss: torch.Tensor, scaler: Any = None) -> None:
        """Make one optimizer step, after the backward pass: guard, gradient rule, step, weight constraint, average.

        A `scaler` has its gradients unscaled already. The scheduler is the caller's.
        """
        factor = 1.0 if self.guard is None else self.guard(loss.detach(), self.model, self.optimizer)
        if not factor:
            return
        if self.gradient is not None:
            self.gradient(self.parameters)
        with rates_times(self.optimizer, factor):
            if scaler is None:
                self.optimizer.step()
            else:
                scaler.step(self.optimizer)
        if self.weight_constraint is not None:
            with torch.no_grad():
                self.weight_constraint(self.parameters)
        if self.averaging is not None:
            self.averaging.update(self.model)

    @contextmanager
    def judged(self) -> Iterator[None]:
        """Give the model, for a while, the weights it is judged by: the averaged ones where there are any."""
        if self.averaging is None:
            yield
            return
        with self.averaging.in_force(self.model):
            yield

    def state_dict(self) -> dict[str, Any]:
        """Return the state of those rules that have one; the other parts have their own."""
        rules = {name: getattr(self, name) for name in _RULES}
        return {name: rule.state_dict() for name, rule in rules.items() if hasattr(rule, "state_dict")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put the rules back into a state that was kept."""
        for name, kept in state.items():
            getattr(self, name).load_state_dict(kept)
