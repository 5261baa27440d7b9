"""Remedies for the targets: numbers brought to the scale nets start from, and cut off from any graph of their own."""

from __future__ import annotations

from dataclasses import replace

import torch

from remedy.spaces.aim import Aim, Rescale
from remedy.spaces.facts import Facts
from remedy.spaces.objective import TargetKind
from remedy.spaces.python import Python
from remedy.spaces.remedy import Change, Inapplicable, Remedy, remedy
from remedy.spaces.slot import Slot

_CENTRED, _NARROW, _WIDE = 0.1, 0.5, 2.0


def _fitted(targets: torch.Tensor) -> Rescale:
    rows = targets.detach().float()
    rows = rows[torch.isfinite(rows.flatten(1) if rows.dim() > 1 else rows[:, None]).all(1)]
    means, spreads = rows.mean(0), rows.std(0, correction=0)
    return Rescale(means, torch.where(spreads > 0, spreads, torch.ones_like(spreads)))


@remedy(
    Slot.TARGETS,
    treats=(
        "exploding_gradient",
        "non_finite",
        "dead_units",
        "vanishing_gradient",
        "chance_plateau",
        "worse_than_guessing",
        "constant_output",
    ),
    invasiveness=3,
    source="TheDeepChecker (TOSEM'22): unnormalised targets; LeCun et al. 1998; catalogue R15",
    python=Python(
        define=(Rescale, _fitted),
        # Below every change of the loss: it is that loss that is given other targets.
        optimizer="""
rescale, own_scale, plain_loss = _fitted(train_targets), {}, loss_fn


def rescaled(module, args, output):
    own_scale["outputs"] = output
    return rescale(output)


def loss_fn(outputs, targets):  # call it on outputs that the model has just returned
    return plain_loss(own_scale["outputs"], rescale.inverse(targets))


model.register_forward_hook(rescaled)
""",
        needs=("every",),
    ),
)
def standardise_targets(aim: Aim, *, facts: Facts) -> Change:
    """Trains on targets of mean 0 and standard deviation 1; outputs, metric and inference keep the user's scale."""
    if facts.kind is not TargetKind.REAL:
        raise Inapplicable(f"the targets are of the kind {facts.kind.value!r}, not real numbers")
    rescale = _fitted(facts.every_target)
    means, spreads = rescale.mean, rescale.spread
    if not bool(torch.isfinite(means).all()):
        raise Inapplicable("no target of the train set is finite")
    mean, spread = float(means.abs().max()), float(spreads.max())
    if mean < _CENTRED and float(spreads.min()) > _NARROW and spread < _WIDE:
        raise Inapplicable(f"the targets are standardised already: mean {mean:.2g}, standard deviation {spread:.2g}")
    told = f"targets of mean {float(means.mean()):.3g} and standard deviation {spread:.3g} -> 0 and 1"
    made = replace(aim, turn=rescale.inverse, rescale=rescale)
    every = abs(len(facts.every_target) / facts.batch_size - facts.steps_per_epoch) < 1
    told = f"{told} in {means.numel()} column(s); outputs are given back in the user's scale"
    return Change(made, told, {"every": True} if every else {})


@remedy(
    Slot.TARGETS,
    treats=("chance_plateau",),
    invasiveness=3,
    source="posts 000, 001: stop_gradient on the targets; catalogue R16, F08",
)
def detach_targets(aim: Aim, *, facts: Facts) -> Change:
    """Cuts targets that were computed with gradients off their graph."""
    if not facts.targets.requires_grad:
        raise Inapplicable("the targets carry no gradient")
    return Change(replace(aim, turn=torch.Tensor.detach), "targets that require a gradient -> detached")


REMEDIES: tuple[Remedy, ...] = (standardise_targets, detach_targets)
