"""Remedies for the schedule of the learning rate."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    ExponentialLR,
    OneCycleLR,
    PolynomialLR,
    ReduceLROnPlateau,
    StepLR,
)

from remedy.spaces.distribution import Choice, Float, Int
from remedy.spaces.facts import Facts
from remedy.spaces.python import Python
from remedy.spaces.remedy import Change, Inapplicable, Remedy, remedy
from remedy.spaces.schedule import Schedule
from remedy.spaces.slot import Slot


class Warmup:
    """Multiplies what another schedule says by a factor that rises from near 0 to 1 over the first `steps`.

    Stepped every step; the schedule below it is stepped every `every` steps, and never sees the factor.
    """

    def __init__(self, optimizer: Optimizer, steps: int, below: Callable[[Optimizer], Any] | None, every: int) -> None:
        self.optimizer = optimizer
        self._below = below(optimizer) if below is not None else None
        self._steps, self._every, self._taken = steps, every, 0
        self._scale(self._factor())

    def step(self) -> None:
        """Go on by one optimizer step."""
        self._scale(1 / self._factor())
        self._taken += 1
        if self._below is not None and self._taken % self._every == 0:
            self._below.step()
        self._scale(self._factor())

    def get_last_lr(self) -> list[float]:
        """Return the learning rates in force, as torch's schedulers do."""
        return [float(group["lr"]) for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """Return what has to be saved, as torch's schedulers do."""
        return {"taken": self._taken, "below": self._below.state_dict() if self._below is not None else None}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where another one stopped; the optimizer's own state carries the learning rates."""
        self._taken = state["taken"]
        if self._below is not None:
            self._below.load_state_dict(state["below"])

    def _factor(self) -> float:
        return min(1.0, (self._taken + 1) / self._steps)

    def _scale(self, factor: float) -> None:
        if not math.isclose(factor, 1.0, rel_tol=0, abs_tol=0):
            for group in self.optimizer.param_groups:
                group["lr"] = group["lr"] * factor


@dataclass(frozen=True)
class _WarmedUp:
    steps: int
    below: Callable[[Optimizer], Any] | None
    every: int

    def __call__(self, optimizer: Optimizer) -> Warmup:
        return Warmup(optimizer, self.steps, self.below, self.every)


@remedy(
    Slot.SCHEDULE,
    treats=("accuracy_collapse", "class_takeover", "saturated_softmax"),
    invasiveness=1,
    source="post 003: a scheduler that decreases the learning rate; catalogue R68",
    factor=Float(0.03, 0.7, log=True),
    drops=Int(1, 6),
    python=Python(
        scheduler="scheduler = torch.optim.lr_scheduler.StepLR(optimizer, max(1, steps // ($drops + 1)), $factor)",
        stepped="step",
    ),
)
def step_decay(schedule: Schedule, *, factor: float = 0.3, drops: int = 3, facts: Facts) -> Change:
    """Drops the learning rate by a factor several times, evenly over the budget."""
    every = max(1, facts.steps // (drops + 1))
    made = Schedule(partial(StepLR, step_size=every, gamma=factor), "step")
    return Change(made, f"learning rate x {factor:g} every {every} of {facts.steps} steps{_instead(schedule)}")


@remedy(
    Slot.SCHEDULE,
    treats=("accuracy_collapse", "exploding_gradient", "class_takeover", "saturated_softmax", "worse_than_guessing"),
    invasiveness=1,
    source="post 003; Loshchilov & Hutter 2017; catalogue R68",
    python=Python(
        scheduler="scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)", stepped="step"
    ),
)
def cosine(schedule: Schedule, *, facts: Facts) -> Change:
    """Lowers the learning rate along half a cosine to zero at the end of the budget."""
    made = Schedule(partial(CosineAnnealingLR, T_max=facts.steps), "step")
    return Change(made, f"learning rate falls along a cosine over {facts.steps} steps{_instead(schedule)}")


@remedy(
    Slot.SCHEDULE,
    treats=("accuracy_collapse",),
    invasiveness=1,
    source="post 003: a scheduler that decreases the learning rate; torch ReduceLROnPlateau; catalogue R68",
    factor=Float(0.03, 0.7, log=True),
    patience=Int(0, 5),
    python=Python(
        scheduler="scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(\n"
        "    optimizer, mode=$mode, factor=$factor, patience=$patience\n)",
        stepped="epoch",
    ),
)
def plateau(schedule: Schedule, *, factor: float = 0.1, patience: int = 1, facts: Facts) -> Change:
    """Drops the learning rate when the validation metric has not improved for some epochs."""
    epochs = facts.steps // max(1, facts.steps_per_epoch)
    if epochs < patience + 3:
        msg = f"the budget of {epochs} whole epochs is too short for a patience of {patience} epochs"
        raise Inapplicable(msg)
    make = partial(ReduceLROnPlateau, mode=facts.mode, factor=factor, patience=patience)
    told = f"learning rate x {factor:g} after {patience} epoch(s) without a better metric ({facts.mode})"
    return Change(Schedule(make, "epoch"), told + _instead(schedule), {"mode": repr(facts.mode)})


@remedy(
    Slot.SCHEDULE,
    treats=("exploding_gradient", "dead_units", "accuracy_collapse", "worse_than_guessing", "large_attention"),
    invasiveness=1,
    source="tuning playbook; Goyal et al. 2017; catalogue R67",
    share=Float(0.01, 0.5),
    python=Python(
        scheduler="""
rise = max(2, round($share * steps))
scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / rise))
""",
        stepped="step",
        needs=("alone",),
    ),
)
def warmup(schedule: Schedule, *, share: float = 0.1, facts: Facts) -> Change:
    """Raises the learning rate linearly over the first share of the budget, times what the training's schedule says."""
    below = _named(schedule)
    if below == ReduceLROnPlateau.__name__:
        raise Inapplicable("the training's own ReduceLROnPlateau waits for a metric and cannot be multiplied")
    steps = max(2, round(share * facts.steps))
    every = 1 if schedule.interval == "step" else facts.steps_per_epoch
    kept = f", multiplying the training's own schedule ({below})" if below else ""
    told = f"learning rate rises linearly over the first {steps} of {facts.steps} steps{kept}"
    made = Schedule(_WarmedUp(steps, schedule.make, every), "step")
    return Change(made, told, {} if below else {"alone": True})


@dataclass(frozen=True)
class _OneCycle:
    steps: int
    peak: float

    def __call__(self, optimizer: Optimizer) -> OneCycleLR:
        rates = [float(group["lr"]) * self.peak for group in optimizer.param_groups]
        # The cycle of the momentum that torch's builder adds is a second change, and not every optimizer has one.
        return OneCycleLR(optimizer, rates, total_steps=self.steps, cycle_momentum=False)


@remedy(
    Slot.SCHEDULE,
    treats=("dead_units", "exploding_gradient", "accuracy_collapse", "chance_plateau"),
    invasiveness=1,
    source="Smith & Topin 2018; torch OneCycleLR; catalogue R68",
    peak=Float(0.1, 10.0, log=True),
    python=Python(
        scheduler="""
peaks = [group["lr"] * $peak for group in optimizer.param_groups]
scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, peaks, total_steps=steps, cycle_momentum=False)
""",
        stepped="step",
    ),
)
def one_cycle(schedule: Schedule, *, peak: float = 1.0, facts: Facts) -> Change:
    """Raises the learning rate from 1/25 of a peak to the peak, and lowers it to nearly 0 at the end of the budget."""
    made = Schedule(_OneCycle(facts.steps, peak), "step")
    told = f"learning rate rises to x {peak:g} at 30% of {facts.steps} steps and falls to nearly 0"
    return Change(made, told + _instead(schedule))


@remedy(
    Slot.SCHEDULE,
    treats=("accuracy_collapse", "class_takeover", "exploding_gradient"),
    invasiveness=1,
    source="post 003: a scheduler that decreases the learning rate; torch ExponentialLR; catalogue R68",
    last=Float(1e-4, 0.3, log=True),
    python=Python(
        scheduler="scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=$last ** (1 / steps))",
        stepped="step",
    ),
)
def exponential(schedule: Schedule, *, last: float = 0.01, facts: Facts) -> Change:
    """Lowers the learning rate by the same factor every step, to a share of it at the end of the budget."""
    made = Schedule(partial(ExponentialLR, gamma=last ** (1 / facts.steps)), "step")
    told = f"learning rate falls exponentially to x {last:g} over {facts.steps} steps"
    return Change(made, told + _instead(schedule))


@remedy(
    Slot.SCHEDULE,
    treats=("accuracy_collapse", "class_takeover", "exploding_gradient"),
    invasiveness=1,
    source="post 003: a scheduler that decreases the learning rate; torch PolynomialLR; catalogue R68",
    power=Choice(1.0, 2.0, 3.0),
    python=Python(
        scheduler="scheduler = torch.optim.lr_scheduler.PolynomialLR(optimizer, total_iters=steps, power=$power)",
        stepped="step",
    ),
)
def polynomial(schedule: Schedule, *, power: float = 1.0, facts: Facts) -> Change:
    """Lowers the learning rate as a power of the budget that is left (1: in a straight line to zero)."""
    made = Schedule(partial(PolynomialLR, total_iters=facts.steps, power=power), "step")
    told = f"learning rate falls with (1 - step / {facts.steps}) ** {power:g}"
    return Change(made, told + _instead(schedule))


@remedy(
    Slot.SCHEDULE,
    treats=("chance_plateau", "vanishing_gradient", "still_weights"),
    invasiveness=1,
    source="a rate that falls too soon stalls the training (Karpathy's recipe: turn decay off at first); catalogue R68",
    python=Python(scheduler="scheduler = None  # the learning rate stays what the optimizer was given"),
)
def constant(schedule: Schedule) -> Change:
    """Takes the training's own schedule away: the learning rate stays what the optimizer was given."""
    if schedule.make is None:
        raise Inapplicable("the learning rate is constant already")
    return Change(Schedule(), f"constant learning rate{_instead(schedule)}")


def _instead(schedule: Schedule) -> str:
    own = _named(schedule)
    return f", in place of the training's own schedule ({own})" if own else ""


def _named(schedule: Schedule) -> str:
    """Return the type of the training's scheduler, found on a stand-in optimizer; empty where there is none."""
    if schedule.make is None:
        return ""
    stand_in = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0, momentum=0.9)
    try:
        made = schedule.make(stand_in)
        return type(getattr(made, "below", made)).__name__
    except Exception:  # noqa: BLE001  (a user's builder may count on the user's optimizer; the name is only told)
        return "of a kind not found out"


REMEDIES: tuple[Remedy, ...] = (
    step_decay,
    cosine,
    plateau,
    warmup,
    one_cycle,
    exponential,
    polynomial,
    constant,
)
