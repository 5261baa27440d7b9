"""Remedies for the targets: numbers brought to the scale nets start from, and cut off from any graph of their own."""

from __future__ import annotations

from dataclasses import replace

import torch

from remedy.spaces.aim import Aim, Rescale
from remedy.spaces.facts import Facts
from remedy.spaces.objective import TargetKind
from remedy.spaces.remedy import Change, Inapplicable, Remedy, remedy
from remedy.spaces.slot import Slot

_CENTRED, _NARROW, _WIDE = 0.1, 0.5, 2.0


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
)
def standardise_targets(aim: Aim, *, facts: Facts) -> Change:
    """Trains on targets of mean 0 and standard deviation 1; outputs, metric and inference keep the user's scale."""
    if facts.kind is not TargetKind.REAL:
        raise Inapplicable(f"the targets are of the kind {facts.kind.value!r}, not real numbers")
    rows = facts.every_target.detach().float()
    rows = rows[torch.isfinite(rows.flatten(1) if rows.dim() > 1 else rows[:, None]).all(1)]
    if not len(rows):
        raise Inapplicable("no target of the train set is finite")
    means, spreads = rows.mean(0), rows.std(0, correction=0)
    spreads = torch.where(spreads > 0, spreads, torch.ones_like(spreads))
    mean, spread = float(means.abs().max()), float(spreads.max())
    if mean < _CENTRED and float(spreads.min()) > _NARROW and spread < _WIDE:
        raise Inapplicable(f"the targets are standardised already: mean {mean:.2g}, standard deviation {spread:.2g}")
    rescale = Rescale(means, spreads)
    told = f"targets of mean {float(means.mean()):.3g} and standard deviation {spread:.3g} -> 0 and 1"
    made = replace(aim, turn=rescale.inverse, rescale=rescale)
    return Change(made, f"{told} in {means.numel()} column(s); outputs are given back in the user's scale")


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
