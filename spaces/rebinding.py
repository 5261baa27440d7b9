"""Schedulers of torch's, built anew for another optimizer, or for one whose learning rates have changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch.optim import Optimizer
from torch.optim import lr_scheduler as torch_schedulers

_READ: dict[str, tuple[str, ...]] = {
    "StepLR": ("step_size", "gamma"),
    "ExponentialLR": ("gamma",),
    "CosineAnnealingLR": ("T_max", "eta_min"),
    "CosineAnnealingWarmRestarts": ("T_0", "T_mult", "eta_min"),
    "LinearLR": ("start_factor", "end_factor", "total_iters"),
    "ConstantLR": ("factor", "total_iters"),
    "PolynomialLR": ("total_iters", "power"),
    "ReduceLROnPlateau": ("mode", "factor", "patience", "threshold", "threshold_mode", "cooldown", "eps"),
}
"""What a scheduler was made from, where it keeps that under the very names."""

_OTHERS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "MultiStepLR": lambda old: {"milestones": sorted(old.milestones.elements()), "gamma": old.gamma},
    "LambdaLR": lambda old: {"lr_lambda": old.lr_lambdas},
    "MultiplicativeLR": lambda old: {"lr_lambda": old.lr_lambdas},
}
_JOINED = ("SequentialLR", "ChainedScheduler")
_OWN_RATES = ("OneCycleLR", "CyclicLR")


@dataclass(frozen=True)
class Rebuilt:
    """Builds the same scheduler on another optimizer."""

    old: Any

    def __call__(self, optimizer: Optimizer) -> Any:
        """Return the new scheduler, not stepped yet."""
        return _rebuilt(self.old, optimizer)


def _rebuilt(old: Any, optimizer: Optimizer) -> Any:
    kind, name = type(old), type(old).__name__
    if name == "SequentialLR":
        return kind(optimizer, [_rebuilt(one, optimizer) for one in old._schedulers], milestones=list(old._milestones))  # noqa: SLF001
    if name == "ChainedScheduler":
        return kind([_rebuilt(one, optimizer) for one in old._schedulers], optimizer=optimizer)  # noqa: SLF001
    if name in _OTHERS:
        return kind(optimizer, **_OTHERS[name](old))
    made_from = {key: getattr(old, key) for key in _READ[name]}
    if name == "ReduceLROnPlateau":
        made_from["min_lr"] = list(old.min_lrs)
    return kind(optimizer, **made_from)


def unknown(scheduler: Any) -> str:
    """Return why a scheduler cannot be built anew; empty where it can."""
    name = type(scheduler).__name__
    if name in _OWN_RATES:
        return f"{name} sets its own learning rates"
    if getattr(torch_schedulers, name, None) is not type(scheduler):
        return f"the scheduler is a {name}, which is none of torch's"
    if name not in (*_READ, *_OTHERS, *_JOINED):
        return f"{name} cannot be built anew for another optimizer"
    if getattr(scheduler, "last_epoch", 0) > 0:
        return "the scheduler was stepped before remedy.prepare"
    parts = getattr(scheduler, "_schedulers", ()) if name in _JOINED else ()
    return next((why for part in parts if (why := unknown(part))), "")


def schedule_of(scheduler: Any) -> Callable[[Optimizer], Any] | None:
    """Return what builds the scheduler anew; None where there is none, or one that cannot be."""
    return None if scheduler is None or unknown(scheduler) else Rebuilt(scheduler)


def unscheduled(optimizer: Optimizer) -> None:
    """Put the learning rates back to what they were before a scheduler was bound to the optimizer."""
    for group in optimizer.param_groups:
        if "initial_lr" in group:
            group["lr"] = group.pop("initial_lr")


class Replaced:
    """What a script holds where its scheduler was, once a remedy schedules: its `step` does nothing."""

    def __init__(self, optimizer: Optimizer, scheduler: Any) -> None:
        """Stand for `scheduler`, which somebody else steps."""
        self.optimizer, self._scheduler = optimizer, scheduler

    def step(self, *_args: Any, **_kwargs: Any) -> None:
        """Leave it to whoever steps the schedule that is in force."""

    def get_last_lr(self) -> list[float]:
        """Return the learning rates in force, as torch's schedulers do."""
        return [float(group["lr"]) for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """Return what has to be saved, as torch's schedulers do."""
        return dict(self._scheduler.state_dict())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where another one stopped."""
        self._scheduler.load_state_dict(state)
