"""Remedies for the direction of the gradient: what does not help is taken out of it, or noise put in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from remedy.spaces.distribution import Float
from remedy.spaces.gradients import dense
from remedy.spaces.parts import Rule
from remedy.spaces.python import Python
from remedy.spaces.remedy import Change, Remedy, remedy
from remedy.spaces.slot import Slot


@dataclass(frozen=True)
class Centred:
    """Takes the mean over the inputs of a unit out of its gradient, for matrices and larger."""

    own: Rule | None

    @torch.no_grad()
    def __call__(self, parameters: list[nn.Parameter]) -> None:
        """Change in place, then let the training's own rule follow."""
        for _, grad in dense(parameters):
            if grad.dim() > 1:
                grad.sub_(grad.mean(dim=tuple(range(1, grad.dim())), keepdim=True))
        if self.own is not None:
            self.own(parameters)


@dataclass(frozen=True)
class Orthogonal:
    """Takes the part along the weights out of the gradient, and keeps its norm, for matrices and larger."""

    own: Rule | None

    @torch.no_grad()
    def __call__(self, parameters: list[nn.Parameter]) -> None:
        """Change in place, then let the training's own rule follow."""
        for parameter, grad in dense(parameters):
            if grad.dim() > 1:
                tiny = torch.finfo(grad.dtype).tiny
                before = grad.norm()
                grad.sub_(parameter * ((parameter * grad).sum() / parameter.square().sum().clamp_min(tiny)))
                grad.mul_(before / grad.norm().clamp_min(tiny))
        if self.own is not None:
            self.own(parameters)


class Noise:
    """Adds noise to the gradient, of a variance that falls with the steps."""

    decay = 0.55

    def __init__(self, variance: float, own: Rule | None) -> None:
        """Begin at step 0."""
        self._variance, self._own, self._steps = variance, own, 0

    @torch.no_grad()
    def __call__(self, parameters: list[nn.Parameter]) -> None:
        """Change in place, after the training's own rule: a clip would cut the noise."""
        if self._own is not None:
            self._own(parameters)
        size = (self._variance / (1 + self._steps) ** self.decay) ** 0.5
        for _, grad in dense(parameters):
            grad.add_(torch.randn_like(grad), alpha=size)
        self._steps += 1

    def state_dict(self) -> dict[str, Any]:
        """Return what has to be saved; the numbers come from the global generator."""
        return {"steps": self._steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where another one stopped."""
        self._steps = state["steps"]


@remedy(
    Slot.GRADIENT,
    treats=("accuracy_collapse", "exploding_gradient", "class_takeover"),
    invasiveness=3,
    source="Yong et al. 2020 (gradient centralisation); catalogue R75",
    python=Python(
        gradient="""
for parameter in parameters:
    if parameter.grad is not None and parameter.grad.dim() > 1:
        parameter.grad -= parameter.grad.mean(dim=tuple(range(1, parameter.dim())), keepdim=True)
clip(parameters)  # yours, where you clip
"""
    ),
)
def centred_gradient(rule: Rule | None) -> Change:
    """Takes the mean out of the gradient of every unit's weights."""
    return Change(Centred(rule), f"the mean over a unit's inputs taken out of its gradient{_and(rule)}")


@remedy(
    Slot.GRADIENT,
    treats=("saturated_softmax", "class_takeover", "accuracy_collapse"),
    invasiveness=3,
    source="Prieto et al. 2025 (orthogonal gradient); catalogue R81",
    python=Python(
        gradient="""
for parameter in parameters:
    if parameter.grad is not None and parameter.grad.dim() > 1:
        weight, grad = parameter.detach(), parameter.grad
        tiny, before = torch.finfo(grad.dtype).tiny, grad.norm()
        grad -= weight * ((weight * grad).sum() / weight.square().sum().clamp_min(tiny))
        grad *= before / grad.norm().clamp_min(tiny)
clip(parameters)  # yours, where you clip
"""
    ),
)
def orthogonal_gradient(rule: Rule | None) -> Change:
    """Takes the part along the weights out of every matrix's gradient, so that logits do not grow for nothing."""
    return Change(Orthogonal(rule), f"the part along the weights taken out of every matrix's gradient{_and(rule)}")


@remedy(
    Slot.GRADIENT,
    treats=("chance_plateau", "vanishing_gradient", "zero_gradient"),
    invasiveness=3,
    source="Neelakantan et al. 2015 (gradient noise); catalogue R75",
    variance=Float(1e-6, 0.3, log=True),
    python=Python(
        optimizer="noisy_steps = 0",
        gradient="""
clip(parameters)  # yours, where you clip
for parameter in parameters:
    if parameter.grad is not None:
        size = ($variance / (1 + noisy_steps) ** 0.55) ** 0.5
        parameter.grad.add_(torch.randn_like(parameter.grad), alpha=size)
noisy_steps += 1
""",
    ),
)
def gradient_noise(rule: Rule | None, *, variance: float = 1e-2) -> Change:
    """Adds noise to the gradient, less with every step."""
    told = f"noise of variance {variance:g} / (1 + step) ** {Noise.decay:g} added to the gradient{_and(rule)}"
    return Change(Noise(variance, rule), told)


def _and(rule: Rule | None) -> str:
    return "" if rule is None else "; the training's own clipping is kept"


REMEDIES: tuple[Remedy, ...] = (centred_gradient, orthogonal_gradient, gradient_noise)
