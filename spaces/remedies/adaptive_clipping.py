"""Remedies for the gradient that find the size to clip at by themselves."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from remedy.spaces.distribution import Float
from remedy.spaces.facts import Facts
from remedy.spaces.gradients import dense, norm_of, values
from remedy.spaces.groups import last_layer
from remedy.spaces.parts import Rule
from remedy.spaces.python import Python
from remedy.spaces.remedies.gradient import instead
from remedy.spaces.remedy import Change, Remedy, remedy
from remedy.spaces.slot import Slot

_LEAST = 1e-3
_TINY = 1e-6


class UnitClip:
    """Limits the gradient of each unit to a share of the norm of its weights; the last layer's is left alone."""

    def __init__(self, share: float, spared: set[nn.Parameter]) -> None:
        """Clip at `share` everything but the `spared`."""
        self._share, self._spared = share, spared

    @torch.no_grad()
    def __call__(self, parameters: list[nn.Parameter]) -> None:
        """Clip in place."""
        for parameter, grad in dense(parameters):
            if parameter not in self._spared:
                most = self._share * _units(parameter).clamp_min(_LEAST)
                grad.mul_((most / _units(grad).clamp_min(_TINY)).clamp_max(1.0))


def _units(tensor: torch.Tensor) -> torch.Tensor:
    inputs = tuple(range(1, tensor.dim()))
    sizes: torch.Tensor = torch.linalg.vector_norm(tensor, dim=inputs or None, keepdim=bool(inputs))
    return sizes


class ZClip:
    """Clips norms that lie more than `z` standard deviations above their moving average, the further the harder.

    Everything stays on the device. Norms that are not finite do not count.
    """

    alpha = 0.97
    begin = 25

    def __init__(self, z: float) -> None:
        """Begin without knowing any norm."""
        self._z = z
        self._steps = 0
        self._mean: torch.Tensor | None = None
        self._square: torch.Tensor | None = None

    @torch.no_grad()
    def __call__(self, parameters: list[nn.Parameter]) -> None:
        """Clip in place; the first steps only fill the averages."""
        norm = norm_of(parameters)
        mean = norm if self._mean is None else self._mean
        square = norm.square() if self._square is None else self._square
        if self._steps >= self.begin:
            spread = (square - mean.square()).clamp_min(0).sqrt() + _TINY
            z = (norm - mean) / spread
            most = torch.where(z > self._z, mean + spread * self._z**2 / z.clamp_min(_TINY), norm)
            for grad in values(parameters):
                grad.mul_(most / norm.clamp_min(_TINY))
            norm = most
        # As long as there is less than a window of norms, each counts alike.
        share = max(1 - self.alpha, 1 / (self._steps + 1))
        counted = torch.isfinite(norm)
        self._mean = torch.where(counted, mean + share * (norm - mean), mean)
        self._square = torch.where(counted, square + share * (norm.square() - square), square)
        self._steps += 1

    def state_dict(self) -> dict[str, Any]:
        """Return what has to be saved."""
        return {"steps": self._steps, "mean": self._mean, "square": self._square}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where another one stopped."""
        self._steps, self._mean, self._square = state["steps"], state["mean"], state["square"]


class AutoClip:
    """Clips the norm at a percentile of the last norms (this one among them)."""

    length = 256

    def __init__(self, percentile: float) -> None:
        """Begin without knowing any norm."""
        self._percentile = percentile
        self._norms: list[torch.Tensor] = []

    @torch.no_grad()
    def __call__(self, parameters: list[nn.Parameter]) -> None:
        """Clip in place."""
        norm = norm_of(parameters)
        self._norms = [*self._norms[1 - self.length :], norm]
        most = torch.nanquantile(torch.stack(self._norms), self._percentile / 100)
        for grad in values(parameters):
            grad.mul_((most / norm.clamp_min(_TINY)).clamp_max(1.0))

    def state_dict(self) -> dict[str, Any]:
        """Return what has to be saved."""
        return {"norms": self._norms}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where another one stopped."""
        self._norms = list(state["norms"])


@remedy(
    Slot.GRADIENT,
    treats=("exploding_gradient", "dead_units", "accuracy_collapse", "non_finite", "worse_than_guessing"),
    invasiveness=3,
    source="Brock et al. 2021 (adaptive gradient clipping); catalogue R73",
    share=Float(0.005, 0.3, log=True),
    python=Python(
        define=(dense, last_layer, "_LEAST, _TINY = 1e-3, 1e-6", _units, UnitClip),
        optimizer="adaptive_clip = UnitClip($share, last_layer(model))",
        gradient="adaptive_clip(parameters)",
    ),
)
def adaptive_clip(rule: Rule | None, *, share: float = 0.02, facts: Facts) -> Change:
    """Clips the gradient of each unit at a share of the norm of its weights, but for the last layer."""
    spared = last_layer(facts.model) if facts.model is not None else set()
    told = f"gradient of each unit clipped at {share:g} of the norm of its weights, the last layer's not"
    return Change(UnitClip(share, spared), told + instead(rule))


@remedy(
    Slot.GRADIENT,
    treats=("exploding_gradient", "accuracy_collapse", "non_finite", "dead_units", "stale_moments"),
    invasiveness=3,
    source="ZClip (2025); catalogue R74",
    z=Float(1.0, 4.0),
    python=Python(
        define=(values, norm_of, "_TINY = 1e-6", ZClip),
        optimizer="z_clip = ZClip($z)",
        gradient="z_clip(parameters)",
    ),
)
def z_clip(rule: Rule | None, *, z: float = 2.5) -> Change:
    """Clips a gradient whose norm lies far above the moving average of the norms."""
    told = f"gradient norms more than {z:g} standard deviations above their average clipped, after {ZClip.begin} steps"
    return Change(ZClip(z), told + instead(rule))


@remedy(
    Slot.GRADIENT,
    treats=("exploding_gradient", "dead_units", "accuracy_collapse", "class_takeover", "stale_moments"),
    invasiveness=3,
    source="Seetharaman et al. 2020 (AutoClip); catalogue R74",
    percentile=Float(5.0, 90.0),
    python=Python(
        define=(values, norm_of, "_TINY = 1e-6", AutoClip),
        optimizer="auto_clip = AutoClip($percentile)",
        gradient="auto_clip(parameters)",
    ),
)
def auto_clip(rule: Rule | None, *, percentile: float = 10.0) -> Change:
    """Clips the norm of the gradient at a percentile of the norms so far."""
    told = f"gradient norm clipped at percentile {percentile:g} of the last {AutoClip.length} norms"
    return Change(AutoClip(percentile), told + instead(rule))


REMEDIES: tuple[Remedy, ...] = (adaptive_clip, z_clip, auto_clip)
