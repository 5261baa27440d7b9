"""Remedies for the inputs: a transform that becomes part of the model, fitted on the train set."""

from __future__ import annotations

import torch
from torch import nn

from remedy.spaces.distribution import Float
from remedy.spaces.facts import Facts
from remedy.spaces.python import Python
from remedy.spaces.remedy import Change, Inapplicable, Remedy, remedy
from remedy.spaces.slot import Slot

_CENTRED, _NARROW, _WIDE = 0.1, 0.5, 2.0
_CONSTANT = 1e-6
_FAR, _TAIL = 5.0, 20.0


def _rows(inputs: torch.Tensor) -> torch.Tensor:
    """Return one column for each feature; of images and volumes one for each channel."""
    if inputs.dim() >= 4:
        return inputs.movedim(1, -1).flatten(0, -2)
    return inputs.flatten(0, -2) if inputs.dim() > 1 else inputs.reshape(-1, 1)


def _shaped(values: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
    return values.reshape(-1, *[1] * (inputs.dim() - 2)) if inputs.dim() >= 4 else values


def _means_and_spreads(inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the mean and the spread of every feature; 1 for the spread of one that does not vary."""
    finite = torch.isfinite(inputs)
    spread = float(inputs[finite].std(correction=0))
    rows = _rows(torch.where(finite, inputs, torch.nan))
    means = torch.nan_to_num(rows.nanmean(0))
    spreads = torch.nan_to_num((rows - means).square().nanmean(0).sqrt())
    spreads = torch.where(spreads > _CONSTANT * max(spread, _CONSTANT), spreads, torch.ones_like(spreads))
    return _shaped(means, inputs), _shaped(spreads, inputs)


def _finite(inputs: torch.Tensor) -> torch.Tensor:
    """Return the rows of features that are finite, 100,000 to 200,000 of them at most."""
    rows = _rows(inputs)
    rows = rows[torch.isfinite(rows).all(1)]
    return rows[:: max(1, len(rows) // 100_000)].float()


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


class SignedLog(nn.Module):
    """Replaces x by sign(x) log(1 + |x| / size), which bends long tails in and keeps zero and the order."""

    size: torch.Tensor

    def __init__(self, size: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("size", size)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return the bent inputs."""
        return inputs.sign() * torch.log1p(inputs.abs() / self.size.to(inputs))


class Clip(nn.Module):
    """Keeps every feature within the bounds it has in the train set, but for its outermost values."""

    low: torch.Tensor
    high: torch.Tensor

    def __init__(self, low: torch.Tensor, high: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("low", low)
        self.register_buffer("high", high)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return the inputs within the bounds."""
        return torch.minimum(torch.maximum(inputs, self.low.to(inputs)), self.high.to(inputs))


def _fitted_min_max(inputs: torch.Tensor) -> Standardise:
    rows = _finite(inputs)
    low, high = rows.amin(0), rows.amax(0)
    half = (high - low) / 2
    half = torch.where(half > 0, half, torch.ones_like(half))
    return Standardise(_shaped((low + high) / 2, inputs), _shaped(half, inputs))


def _fitted_robust_scale(inputs: torch.Tensor) -> nn.Module:
    low, middle, high = (_finite(inputs).quantile(share, 0) for share in (0.25, 0.5, 0.75))
    spread = torch.where(high > low, high - low, torch.ones_like(high))
    bound = _shaped(torch.full_like(middle, _FAR), inputs)
    return nn.Sequential(Standardise(_shaped(middle, inputs), _shaped(spread, inputs)), Clip(-bound, bound))


def _fitted_clip(inputs: torch.Tensor, q: float) -> Clip:
    rows = _finite(inputs)
    return Clip(_shaped(rows.quantile(1 - q, 0), inputs), _shaped(rows.quantile(q, 0), inputs))


def _fitted_signed_log(inputs: torch.Tensor) -> SignedLog:
    sizes = _finite(inputs).abs()
    size = sizes.median(0).values
    size = torch.where(size > 0, size, sizes.mean(0).clamp_min(_CONSTANT))
    return SignedLog(_shaped(size, inputs))


def _python(made: str, *define: object) -> Python:
    """Return the code that fits a transform on the train set and puts it before the model."""
    return Python(
        define=(_rows, _shaped, _finite, *define),
        model=f"""
transform = {made}
model.register_forward_pre_hook(lambda module, args: (transform(args[0]), *args[1:]))
""",
        needs=("every",),
    )


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
    treats=(
        "exploding_gradient",
        "accuracy_collapse",
        "vanishing_gradient",
        "chance_plateau",
        "worse_than_guessing",
        "constant_output",
    ),
    invasiveness=3,
    source="LeCun et al. 1998; TheDeepChecker (TOSEM'22); catalogue R01",
    python=Python(
        define=(f"_CONSTANT = {_CONSTANT}", _rows, _shaped, _means_and_spreads, Standardise),
        model="""
standardise = Standardise(*_means_and_spreads(train_inputs))
model.register_forward_pre_hook(lambda module, args: (standardise(args[0]), *args[1:]))
""",
        needs=("every",),
    ),
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
    made = Standardise(*_means_and_spreads(inputs))
    told = f"{made.mean.numel()} feature(s) of mean {mean:.3g} and standard deviation {spread:.3g} -> 0 and 1 each"
    return Change(_after(transform, made), told, _said(facts))


@remedy(
    Slot.INPUTS,
    treats=("exploding_gradient", "accuracy_collapse", "vanishing_gradient", "chance_plateau", "dead_units"),
    invasiveness=3,
    source="UMLAUT: inputs outside [-1, 1]; LeCun et al. 1998; catalogue R01",
    python=_python("_fitted_min_max(train_inputs)", Standardise, _fitted_min_max),
)
def min_max(transform: nn.Module | None, *, facts: Facts) -> Change:
    """Shifts and scales every feature (every channel of images) to the range from -1 to 1."""
    rows, inputs = _finite_rows(facts)
    low, high = rows.amin(0), rows.amax(0)
    if float(low.min()) >= -_WIDE and float(high.max()) <= _WIDE and float((high - low).max()) > 1:
        raise Inapplicable(f"the inputs lie between {float(low.min()):.3g} and {float(high.max()):.3g} already")
    told = f"{low.numel()} feature(s) between {float(low.min()):.3g} and {float(high.max()):.3g} -> -1 and 1 each"
    return Change(_after(transform, _fitted_min_max(inputs)), told, _said(facts))


@remedy(
    Slot.INPUTS,
    treats=("exploding_gradient", "accuracy_collapse", "chance_plateau", "dead_units"),
    invasiveness=3,
    source="scikit-learn RobustScaler; catalogue R01",
    python=_python("_fitted_robust_scale(train_inputs)", f"_FAR = {_FAR}", Standardise, Clip, _fitted_robust_scale),
)
def robust_scale(transform: nn.Module | None, *, facts: Facts) -> Change:
    """Shifts and scales every feature by its median and quartiles, which outliers do not move, and cuts what is far."""
    rows, inputs = _finite_rows(facts)
    low, middle, high = (rows.quantile(share, 0) for share in (0.25, 0.5, 0.75))
    spread = high - low
    if float(middle.abs().max()) < _CENTRED and float((rows - middle).abs().max()) <= _FAR * _WIDE:
        raise Inapplicable("the inputs are centred already, and none is far from its feature's median")
    spread = torch.where(spread > 0, spread, torch.ones_like(spread))
    told = f"{middle.numel()} feature(s) of median {float(middle.mean()):.3g} and quartile range"
    told += f" {float(spread.mean()):.3g} -> 0 and 1 each, cut at +-{_FAR:g}"
    return Change(_after(transform, _fitted_robust_scale(inputs)), told, _said(facts))


@remedy(
    Slot.INPUTS,
    treats=("exploding_gradient", "non_finite", "accuracy_collapse", "chance_plateau"),
    invasiveness=3,
    source="TheDeepChecker (TOSEM'22); winsorising; catalogue R02",
    python=_python("_fitted_clip(train_inputs, $q)", Clip, _fitted_clip),
    q=Float(0.9, 0.999),
)
def winsorise(transform: nn.Module | None, *, q: float = 0.98, facts: Facts) -> Change:
    """Cuts every feature at two quantiles of the train set, so that no outlier is far out."""
    rows, inputs = _finite_rows(facts)
    low, high = rows.quantile(1 - q, 0), rows.quantile(q, 0)
    # What is within two spreads of the cut ones is no outlier.
    reach = (high - low).clamp_min(_CONSTANT)
    out = ((rows > high + reach) | (rows < low - reach)).sum()
    if not int(out):
        raise Inapplicable("no input is far outside the range of the others of its feature")
    told = f"{int(out)} outlying values of {rows.numel()}: every feature cut at its quantiles {1 - q:.3g} and {q:.3g}"
    return Change(_after(transform, _fitted_clip(inputs, q)), told, _said(facts))


@remedy(
    Slot.INPUTS,
    treats=("exploding_gradient", "non_finite", "accuracy_collapse", "chance_plateau"),
    invasiveness=3,
    source="TheDeepChecker (TOSEM'22); log transform of long tails; catalogue R02",
    python=_python("_fitted_signed_log(train_inputs)", f"_CONSTANT = {_CONSTANT}", SignedLog, _fitted_signed_log),
)
def signed_log(transform: nn.Module | None, *, facts: Facts) -> Change:
    """Takes the logarithm of every feature's size, with its sign, so that long tails come in."""
    rows, inputs = _finite_rows(facts)
    made = _fitted_signed_log(inputs)
    size = made.size.flatten()
    ratio = float((rows.abs().amax(0) / size).max())
    if ratio < _TAIL:
        raise Inapplicable(f"no feature has a long tail: the largest value is {ratio:.3g} times the median size")
    told = f"{size.numel()} feature(s) -> sign(x) log(1 + |x| / median size); the largest was {ratio:.3g} median sizes"
    return Change(_after(transform, made), told, _said(facts))


def _finite_rows(facts: Facts) -> tuple[torch.Tensor, torch.Tensor]:
    inputs = _real(facts)
    rows = _finite(inputs)
    if not len(rows):
        raise Inapplicable("no input of the train set is finite")
    return rows, inputs


def _said(facts: Facts) -> dict[str, bool]:
    """Return what tells a remedy's Python code that it was fitted on every sample, as that code is."""
    return {"every": True} if abs(len(facts.every_input) / facts.batch_size - facts.steps_per_epoch) < 1 else {}


def _real(facts: Facts) -> torch.Tensor:
    if not isinstance(facts.every_input, torch.Tensor) or not facts.every_input.is_floating_point():
        raise Inapplicable("the inputs are no real numbers")
    return facts.every_input


def _after(before: nn.Module | None, transform: nn.Module) -> nn.Module:
    return transform if before is None else nn.Sequential(before, transform)


REMEDIES: tuple[Remedy, ...] = (repair_non_finite, standardise, min_max, robust_scale, winsorise, signed_log)
