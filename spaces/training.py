"""Door A: what the user submits, as builders; the worker owns the loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch

from remedy.spaces.error import InputError
from remedy.spaces.metric import check_goal, metric_mode
from remedy.spaces.objective import Loss

if TYPE_CHECKING:
    from remedy.spaces.fix import Fix

_INTERVALS = ("epoch", "step")
_PRECISIONS = ("float32", "bfloat16", "float16")


@dataclass(frozen=True, kw_only=True)
class Training:
    """One training: how to build it, its budget and its goal. Checked when built.

    Args:
        model: `() -> nn.Module`; may take the knobs it understands by name (`width`, `depth`: factors, 1.0 as is).
        data: `() -> (train, validation)`, Datasets of (input, target) or DataLoaders. Called under the study's data
            seed, so that every run sees the same split.
        loss: `(outputs, targets) -> scalar tensor`.
        optimizer: `parameters -> torch.optim.Optimizer`.
        schedule: `optimizer -> LRScheduler`, or None.
        schedule_interval: "epoch" or "step"; how often the schedule is stepped.
        batch_size: samples a batch; left out where `data` gives DataLoaders.
        epochs, steps: the budget; exactly one of the two.
        sampler: `train set -> Sampler`, or None for a shuffled pass.
        metric: "accuracy", "balanced_accuracy", "r2", "loss", or `(outputs, targets) -> float` on the whole
            validation set.
        mode: "max" or "min"; needed with a callable metric, known for the others.
        goal: the validation metric that counts as converged.
        clip: the user's own clipping, `parameters -> None`, called before each optimizer step.
        precision: "float32", or "bfloat16" / "float16" for autocast on the forward pass.
        collate_fn: as in DataLoader.
        knobs: names (and usual values) of keyword arguments the model builder understands beside its own defaults.
        device: such as "cpu" or "cuda"; None takes the accelerator where there is one.
        fix: a found fix that every run of this training has applied; set by `Fix.apply`.

    Raises:
        InputError: something cannot be right; the message names the argument, its value and what it may be.
    """

    model: Callable[..., torch.nn.Module]
    data: Callable[[], tuple[Any, Any]]
    loss: Loss
    optimizer: Callable[[Any], torch.optim.Optimizer]
    schedule: Callable[[torch.optim.Optimizer], Any] | None = None
    schedule_interval: Literal["epoch", "step"] = "epoch"
    batch_size: int | None = None
    epochs: int | None = None
    steps: int | None = None
    sampler: Callable[[Any], Any] | None = None
    metric: str | Callable[[torch.Tensor, torch.Tensor], float] = "accuracy"
    mode: Literal["min", "max"] | None = None
    goal: float | None = None
    clip: Callable[[Any], Any] | None = None
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    collate_fn: Callable[[list[Any]], Any] | None = None
    knobs: Mapping[str, Any] = field(default_factory=dict)
    device: str | None = None
    fix: Fix | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be right, one clear sentence each."""
        if isinstance(self.model, torch.nn.Module):
            fresh = "a builder such as `lambda: nn.Sequential(...)`, since every run starts from fresh weights"
            _refuse("model", type(self.model), fresh)
        for name, optional in {
            "model": False,
            "data": False,
            "loss": False,
            "optimizer": False,
            "schedule": True,
            "sampler": True,
            "clip": True,
            "collate_fn": True,
        }.items():
            value = getattr(self, name)
            if not callable(value) and not (optional and value is None):
                _refuse(name, value, "a callable" + (" or None" if optional else ""))
        if (self.epochs is None) == (self.steps is None):
            msg = f"epochs is {self.epochs!r} and steps is {self.steps!r}: give exactly one of the two"
            raise InputError(msg)
        for name in ("epochs", "steps", "batch_size"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                _refuse(name, value, "a whole number of at least 1")
        if self.schedule_interval not in _INTERVALS:
            _refuse("schedule_interval", self.schedule_interval, '"epoch" or "step"')
        if self.precision not in _PRECISIONS:
            _refuse("precision", self.precision, ", ".join(f'"{p}"' for p in _PRECISIONS))
        if not isinstance(self.knobs, Mapping):
            _refuse("knobs", self.knobs, "a mapping of names to values")
        object.__setattr__(self, "mode", metric_mode(self.metric, self.mode))
        if self.goal is None:
            msg = "goal is missing: it is the validation metric that counts as converged, such as goal=0.9"
            raise InputError(msg)
        check_goal(self.metric, self.goal)


def _refuse(name: str, value: object, may_be: str) -> None:
    msg = f"{name} is {value!r}; it may be {may_be}"
    raise InputError(msg)
