"""Remedies that guard the steps: what would do harm is left out, made smaller, or undone."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from remedy.spaces.distribution import Float
from remedy.spaces.facts import Facts
from remedy.spaces.gradients import finite, norm_of, numbers, values
from remedy.spaces.guard import Guard, rates_times
from remedy.spaces.python import Python
from remedy.spaces.remedy import Change, Remedy, remedy
from remedy.spaces.slot import Slot
from remedy.spaces.spikes import Spikes

_LEAST_WINDOW, _LARGEST_WINDOW = 16, 128


class SkipNonFinite:
    """Leaves a step out whose loss or gradient is not finite."""

    def __call__(self, loss: torch.Tensor, model: nn.Module, optimizer: Optimizer) -> float:  # noqa: ARG002  (a Guard)
        """Return 0 for such a step."""
        return float(finite(loss, optimizer))


class SkipSpike:
    """Leaves a step out whose loss or gradient norm is a spike."""

    def __init__(self, sigmas: float, window: int) -> None:
        """Begin without knowing any step."""
        self._spikes = Spikes(sigmas, window)

    def __call__(self, loss: torch.Tensor, model: nn.Module, optimizer: Optimizer) -> float:  # noqa: ARG002  (a Guard)
        """Return 0 for such a step."""
        return float(not self._spikes.see(*numbers(loss, optimizer)))

    def state_dict(self) -> dict[str, Any]:
        """Return what has to be saved."""
        return self._spikes.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where another one stopped."""
        self._spikes.load_state_dict(state)


class BackOff:
    """Leaves a spike out and makes all later steps smaller; then waits for half a window."""

    def __init__(self, factor: float, sigmas: float, window: int) -> None:
        """Begin with the learning rate as it is."""
        self._factor, self._wait = factor, window // 2
        self._spikes = Spikes(sigmas, window)
        self._scale, self._pause = 1.0, 0

    def __call__(self, loss: torch.Tensor, model: nn.Module, optimizer: Optimizer) -> float:  # noqa: ARG002  (a Guard)
        """Return 0 for a spike, else the factor that the spikes so far have left."""
        spike = self._spikes.see(*numbers(loss, optimizer))
        self._pause = max(0, self._pause - 1)
        if not spike:
            return self._scale
        if not self._pause:
            self._scale, self._pause = self._scale * self._factor, self._wait
        return 0.0

    def state_dict(self) -> dict[str, Any]:
        """Return what has to be saved."""
        return {"scale": self._scale, "pause": self._pause, "spikes": self._spikes.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where another one stopped."""
        self._scale, self._pause = state["scale"], state["pause"]
        self._spikes.load_state_dict(state["spikes"])


class ResetState:
    """Clears what the optimizer remembers every so many steps, and raises the learning rate again from near 0."""

    def __init__(self, every: int, ramp: int) -> None:
        """Begin at step 0, without a ramp."""
        self._every, self._ramp, self._steps = every, ramp, 0

    def __call__(self, loss: torch.Tensor, model: nn.Module, optimizer: Optimizer) -> float:  # noqa: ARG002  (a Guard)
        """Return the place on the ramp."""
        since = self._steps % self._every
        if self._steps and not since:
            optimizer.state.clear()
        self._steps += 1
        return 1.0 if self._steps <= self._every else min(1.0, (since + 1) / self._ramp)

    def state_dict(self) -> dict[str, Any]:
        """Return what has to be saved."""
        return {"steps": self._steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where another one stopped."""
        self._steps = state["steps"]


@remedy(
    Slot.GUARD,
    treats=("non_finite",),
    invasiveness=1,
    source="torch GradScaler; OLMo-core; catalogue R86",
    python=Python(
        define=(rates_times, values, norm_of, numbers, finite, SkipNonFinite), guard="guard = SkipNonFinite()"
    ),
)
def skip_non_finite(guard: Guard | None) -> Change:
    """Leaves out every step whose loss or gradient is not finite."""
    return Change(SkipNonFinite(), f"steps whose loss or gradient is not finite are left out{_instead(guard)}")


@remedy(
    Slot.GUARD,
    treats=("accuracy_collapse", "exploding_gradient", "non_finite", "stale_moments"),
    invasiveness=1,
    source="OLMo-core SkipStepOptimizer; catalogue R87",
    sigmas=Float(2.0, 8.0),
    python=Python(
        define=(rates_times, values, norm_of, numbers, Spikes, SkipSpike),
        guard="guard = SkipSpike($sigmas, window=max(16, min(128, steps // 8)))",
    ),
)
def skip_spike(guard: Guard | None, *, sigmas: float = 4.0, facts: Facts) -> Change:
    """Leaves out every step whose loss or gradient norm lies far above the ones before it."""
    window = _window(facts)
    told = f"steps {sigmas:g} standard deviations above the last {window} (loss, gradient norm) are left out"
    return Change(SkipSpike(sigmas, window), told + _instead(guard))


@remedy(
    Slot.GUARD,
    treats=("accuracy_collapse", "exploding_gradient", "dead_units", "non_finite", "worse_than_guessing"),
    invasiveness=1,
    source="usual practice after a loss spike; catalogue R89",
    factor=Float(0.1, 0.7),
    sigmas=Float(2.0, 8.0),
    python=Python(
        define=(rates_times, values, norm_of, numbers, Spikes, BackOff),
        guard="guard = BackOff($factor, $sigmas, window=max(16, min(128, steps // 8)))",
    ),
)
def back_off(guard: Guard | None, *, factor: float = 0.3, sigmas: float = 4.0, facts: Facts) -> Change:
    """Leaves out spikes of the loss or the gradient, and lowers the learning rate by a factor after each."""
    window = _window(facts)
    told = f"learning rate x {factor:g} after a step {sigmas:g} standard deviations above the last {window}"
    return Change(BackOff(factor, sigmas, window), told + _instead(guard))


@remedy(
    Slot.GUARD,
    treats=("accuracy_collapse", "exploding_gradient", "stale_moments"),
    invasiveness=1,
    source="Huang et al. 2025 (SPAM: momentum reset); catalogue R90",
    share=Float(0.02, 0.5, log=True),
    python=Python(
        define=(rates_times, ResetState),
        guard="""
every = max(2, round($share * steps))
guard = ResetState(every, ramp=max(1, every // 4))
""",
    ),
)
def reset_optimizer(guard: Guard | None, *, share: float = 0.1, facts: Facts) -> Change:
    """Clears the optimizer's memory every share of the budget, and lets the learning rate rise again each time."""
    every = max(2, round(share * facts.steps))
    ramp = max(1, every // 4)
    told = f"the optimizer's memory cleared every {every} of {facts.steps} steps, each time a ramp over {ramp}"
    return Change(ResetState(every, ramp), told + _instead(guard))


def _window(facts: Facts) -> int:
    return max(_LEAST_WINDOW, min(_LARGEST_WINDOW, facts.steps // 8))


def _instead(guard: Guard | None) -> str:
    return "" if guard is None else ", in place of the guard that was there"


REMEDIES: tuple[Remedy, ...] = (skip_non_finite, skip_spike, back_off, reset_optimizer)
