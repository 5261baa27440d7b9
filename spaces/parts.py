"""The live parts of one run, and the one place that says in which order a step uses them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from remedy.spaces.aim import Aim
from remedy.spaces.averaging import Averaging
from remedy.spaces.batches import Epochs, reloaded
from remedy.spaces.facts import Facts
from remedy.spaces.guard import Guard, rates_times
from remedy.spaces.objective import Criterion, Objective
from remedy.spaces.precision import Precision
from remedy.spaces.remedy import Receipt
from remedy.spaces.schedule import Schedule
from remedy.spaces.slot import Slot

Rule = Callable[[list[nn.Parameter]], Any]
_MODEL_SLOTS = (
    Slot.WIDTH,
    Slot.DEPTH,
    Slot.RESIDUAL,
    Slot.ACTIVATION,
    Slot.NORMALISATION,
    Slot.DROPOUT,
    Slot.INITIALISATION,
)
_ATTRIBUTES = {
    **dict.fromkeys(_MODEL_SLOTS, "model"),
    **dict.fromkeys((Slot.CLASS_WEIGHT, Slot.LABEL_SMOOTHING, Slot.LOGITS), "criterion"),
    **dict.fromkeys((Slot.OPTIMIZER, Slot.LEARNING_RATE, Slot.WEIGHT_DECAY), "optimizer"),
    Slot.TARGETS: "aim",
    Slot.SAMPLING: "sampler",
    Slot.BUDGET: "steps",
}
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
    aim: Aim = field(default_factory=Aim)
    optimizer: Optimizer = None  # type: ignore[assignment]  # built before the slot `optimizer`
    groups: int = 0  # parameter groups of the user's own optimizer
    schedule: Schedule = field(default_factory=Schedule)
    scheduler: Any = None
    weight_constraint: Rule | None = None
    gradient: Rule | None = None
    averaging: Averaging | None = None
    guard: Guard | None = None
    precision: Precision = field(default_factory=Precision)
    epochs: Epochs = None  # type: ignore[assignment]  # built last
    steps: int = 0
    untouched: tuple[int, int] = (0, 0)  # steps of the untouched training, and those of one epoch of it
    rehearsed: int = 0
    receipts: tuple[Receipt, ...] = ()

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The parameters the optimizer updates."""
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def value(self, slot: Slot) -> Any:
        """Return what a remedy of the slot receives."""
        if slot is Slot.OBJECTIVE:
            return Objective(self.model, self.criterion)
        if slot is Slot.BATCH_SIZE and isinstance(self.train, DataLoader):
            return self.train.batch_size
        return getattr(self, _ATTRIBUTES.get(slot, str(slot)))

    def put(self, slot: Slot, value: Any) -> None:
        """Take what a remedy of the slot returned, with everything that follows from it."""
        loader = self.train if isinstance(self.train, DataLoader) else None
        if slot is Slot.OBJECTIVE:
            self.model, self.criterion = value.model, value.criterion
            return
        if slot is Slot.SAMPLING and loader is not None:
            self.train = reloaded(loader, value, loader.batch_size)
        if slot is Slot.TARGETS and value.turn is not None:
            self.criterion = replace(self.criterion, turn=value.turn)
        if slot is Slot.BUDGET:
            self.facts = replace(self.facts, steps=value)
        if slot is Slot.BATCH_SIZE:
            self.facts = replace(self.facts, batch_size=value)
            if loader is not None:
                self.train = reloaded(loader, loader.sampler, value)
                return
        setattr(self, _ATTRIBUTES.get(slot, str(slot)), value)

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
