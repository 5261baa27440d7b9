"""Remedies for the gradient: what happens to it between the backward pass and the optimizer step."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn
from torch.nn.utils import clip_grad_norm_, clip_grad_value_

from remedy.spaces.distribution import Float
from remedy.spaces.parts import Rule
from remedy.spaces.python import Python
from remedy.spaces.remedy import Change, Inapplicable, Remedy, remedy
from remedy.spaces.slot import Slot


@dataclass(frozen=True)
class ClipNorm:
    """Scales all gradients together so that their joint norm is at most `limit`."""

    limit: float

    def __call__(self, parameters: list[nn.Parameter]) -> None:
        """Clip in place."""
        clip_grad_norm_(parameters, self.limit)


@dataclass(frozen=True)
class ClipValue:
    """Cuts every entry of every gradient to [-limit, limit]."""

    limit: float

    def __call__(self, parameters: list[nn.Parameter]) -> None:
        """Clip in place."""
        clip_grad_value_(parameters, self.limit)


@remedy(
    Slot.GRADIENT,
    treats=(
        "dead_units",
        "exploding_gradient",
        "zero_gradient",
        "accuracy_collapse",
        "class_takeover",
        "non_finite",
        "worse_than_guessing",
        "stale_moments",
    ),
    invasiveness=1,
    source="Pascanu et al. 2013; tuning playbook; catalogue R71",
    max_norm=Float(0.1, 10.0, log=True),
    python=Python(gradient="nn.utils.clip_grad_norm_(parameters, $max_norm)"),
)
def clip_norm(rule: Rule | None, *, max_norm: float = 1.0) -> Change:
    """Clips the norm of the whole gradient before each step."""
    return Change(ClipNorm(max_norm), f"gradient norm clipped at {max_norm:g} before each step{instead(rule)}")


@remedy(
    Slot.GRADIENT,
    treats=("exploding_gradient", "dead_units", "accuracy_collapse", "worse_than_guessing"),
    invasiveness=1,
    source="torch.nn.utils.clip_grad_value_; catalogue R72",
    limit=Float(0.01, 10.0, log=True),
    python=Python(gradient="nn.utils.clip_grad_value_(parameters, $limit)"),
)
def clip_value(rule: Rule | None, *, limit: float = 0.1) -> Change:
    """Clips every entry of the gradient before each step."""
    return Change(ClipValue(limit), f"gradient entries clipped at {limit:g} before each step{instead(rule)}")


@remedy(
    Slot.GRADIENT,
    treats=("chance_plateau", "vanishing_gradient", "still_weights"),
    invasiveness=1,
    source="tuning playbook: where most steps are clipped the limit is the learning rate; catalogue R71",
    python=Python(gradient="# no clipping any more"),
)
def clip_off(rule: Rule | None) -> Change:
    """Takes the training's own clipping of the gradient away."""
    if rule is None:
        raise Inapplicable("the training does not clip its gradient")
    return Change(None, "the training's own clipping of the gradient is taken away")


def instead(rule: Rule | None) -> str:
    """Return the end of a receipt: what became of the training's own clipping."""
    return "" if rule is None else ", in place of the training's own clipping"


REMEDIES: tuple[Remedy, ...] = (clip_norm, clip_value, clip_off)
