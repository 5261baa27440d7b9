"""Remedies for the inputs: a transform that becomes part of the model, fitted on the train set."""

from __future__ import annotations

import torch
from torch import nn

from remedy.spaces.facts import Facts
from remedy.spaces.remedy import Change, Inapplicable, Remedy, remedy
from remedy.spaces.slot import Slot

_CENTRED, _NARROW, _WIDE = 0.1, 0.5, 2.0
_CONSTANT = 1e-6


class Repair(nn.Module):
    """Puts the train median of its feature in the place of every value that is not finite."""

    median: torch.Tensor

    def __init__(self, median: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("median", median)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return the repaired inputs."""
        return torch.where(torch.isfinite(inputs), inputs, self.median.to(inputs))


class Standardise(nn.Module):
    """Shifts and scales every feature by the mean and spread it has in the train set."""

    mean: torch.Tensor
    spread: torch.Tensor

    def __init__(self, mean: torch.Tensor, spread: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("spread", spread)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return the standardised inputs."""
        return (inputs - self.mean.to(inputs)) / self.spread.to(inputs)


@remedy(
    Slot.INPUTS,
    treats=("non_finite",),
    invasiveness=3,
    source="posts 000, 001: NaN fed into the loss; catalogue R03",
)
def repair_non_finite(transform: nn.Module | None, *, facts: Facts) -> Change:
    """Replaces inputs that are not finite by the median of their feature in the train set."""
    inputs = _real(facts)
    broken = ~torch.isfinite(inputs)
    if not bool(broken.any()):
        raise Inapplicable("every input of the train set is finite")
    rows = _rows(torch.where(broken, torch.nan, inputs))
    median = _shaped(torch.nan_to_num(rows.nanmedian(0).values), inputs)
    told = f"{int(broken.sum())} of {inputs.numel()} input values are not finite and become their feature's median"
    return Change(_after(transform, Repair(median)), told)


@remedy(
    Slot.INPUTS,
    treats=("exploding_gradient", "accuracy_collapse", "vanishing_gradient", "chance_plateau"),
    invasiveness=3,
    source="LeCun et al. 1998; TheDeepChecker (TOSEM'22); catalogue R01",
)
def standardise(transform: nn.Module | None, *, facts: Facts) -> Change:
    """Shifts and scales every feature (every channel of images) to mean 0 and standard deviation 1."""
    inputs = _real(facts)
    finite = inputs[torch.isfinite(inputs)]
    if not len(finite):
        raise Inapplicable("no input of the train set is finite")
    mean, spread = float(finite.mean()), float(finite.std(correction=0))
    if abs(mean) < _CENTRED and _NARROW < spread < _WIDE:
        raise Inapplicable(f"the inputs are standardised already: mean {mean:.2g}, standard deviation {spread:.2g}")
    rows = _rows(torch.where(torch.isfinite(inputs), inputs, torch.nan))
    means = torch.nan_to_num(rows.nanmean(0))
    spreads = torch.nan_to_num((rows - means).square().nanmean(0).sqrt())
    spreads = torch.where(spreads > _CONSTANT * max(spread, _CONSTANT), spreads, torch.ones_like(spreads))
    made = Standardise(_shaped(means, inputs), _shaped(spreads, inputs))
    told = f"{means.numel()} feature(s) of mean {mean:.3g} and standard deviation {spread:.3g} -> 0 and 1 each"
    return Change(_after(transform, made), told)


def _real(facts: Facts) -> torch.Tensor:
    if not isinstance(facts.every_input, torch.Tensor) or not facts.every_input.is_floating_point():
        raise Inapplicable("the inputs are no real numbers")
    return facts.every_input


def _rows(inputs: torch.Tensor) -> torch.Tensor:
    """Return one column for each feature; of images and volumes one for each channel."""
    if inputs.dim() >= 4:
        return inputs.movedim(1, -1).flatten(0, -2)
    return inputs.flatten(0, -2) if inputs.dim() > 1 else inputs.reshape(-1, 1)


def _shaped(values: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
    return values.reshape(-1, *[1] * (inputs.dim() - 2)) if inputs.dim() >= 4 else values


def _after(before: nn.Module | None, transform: nn.Module) -> nn.Module:
    return transform if before is None else nn.Sequential(before, transform)


REMEDIES: tuple[Remedy, ...] = (repair_non_finite, standardise)
