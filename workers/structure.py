"""Pre-flight checks of how a training is put together: its objective, order of samples, weights, precision."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from remedy.spaces.batches import in_order
from remedy.spaces.objective import Objective, TargetKind
from remedy.spaces.parts import Parts
from remedy.spaces.remedies.matching import mean_reduction, mismatch
from remedy.spaces.remedy import Inapplicable
from remedy.spaces.surgery import Weighted
from remedy.workers.finding import Finding

_FAR_MEAN, _TARGET_STD = 5.0, (0.1, 10.0)
_LARGE, _SMALL = 5.0, 0.02
_HIGH_DROPOUT = 0.5
_MANY, _NEGATIVE = 50, 0.95
_ADAPTIVE = ("adam", "rmsprop", "lion", "adafactor", "adagrad", "adamax")
# UMLAUT warns from 0.01 on; small nets learn well at 0.02.
_USUAL, _USUAL_ADAPTIVE, _TINY = 1.0, 0.02, 1e-7
_LONG, _SIMULATED = 20, 20_000
_FEW = 8
_HALF = (torch.float16, torch.bfloat16)


def objective(parts: Parts) -> list[Finding]:
    """Compare the output's activation and the loss with the targets."""
    told = mismatch(Objective(parts.model, parts.original), parts.facts)
    return [Finding("objective", "error", told, ("match_objective",))] if told else []


def reduction(parts: Parts) -> list[Finding]:
    """Find a loss that grows with the batch."""
    try:
        mean_reduction.function(Objective(parts.model, parts.original), facts=parts.facts)
    except Inapplicable:
        return []
    message = "the loss is a sum over the batch, so that its gradient grows with the batch size"
    return [Finding("reduction", "warning", message, ("mean_reduction", "scale_down"))]


def targets(parts: Parts) -> list[Finding]:
    """Look at the scale of numbers to be learnt, and whether they carry a graph."""
    found, every = [], parts.facts.every_target
    if every.requires_grad:
        message = "the targets require a gradient: the second backward pass fails, or trains what made them"
        found.append(Finding("targets_with_gradient", "error", message, ("detach_targets",)))
    if parts.facts.kind is TargetKind.REAL:
        mean, std = float(every.detach().float().mean()), float(every.detach().float().std())
        if abs(mean) > max(_FAR_MEAN, _FAR_MEAN * std) or not _TARGET_STD[0] <= std <= _TARGET_STD[1]:
            message = f"targets have mean {mean:.3g} and standard deviation {std:.3g}; nets start near 0 and 1"
            found.append(Finding("target_scale", "warning", message, ("standardise_targets", "output_prior")))
    return found


def order(parts: Parts) -> list[Finding]:
    """Find samples that come in the same order each epoch."""
    if not in_order(parts.sampler):
        return []
    message = f"the samples come in the same order each epoch ({type(parts.sampler).__name__}), not shuffled"
    return [Finding("order", "warning", message, ("shuffle",))]


def weights(parts: Parts) -> list[Finding]:
    """Find frozen parameters, and initial weights that are all alike or far from the usual size."""
    found = []
    still = {name: parameter for name, parameter in parts.model.named_parameters() if not parameter.requires_grad}
    stepped = {parameter for group in parts.optimizer.param_groups for parameter in group["params"]}
    frozen = [name for name, parameter in still.items() if parameter in stepped or name in _last(parts)]
    if frozen:  # what the optimizer was not given either is meant so: a body that was trained before
        message = f"{len(frozen)} parameter(s) are frozen: {', '.join(frozen[:5])}"
        found.append(Finding("frozen", "warning", message, ("unfreeze",)))
    named = {path: module for path, module in parts.model.named_modules() if isinstance(module, Weighted)}
    with torch.no_grad():
        sizes = {path: (float(m.weight.std()), math.sqrt(m.weight[0].numel())) for path, m in named.items()}
    alike = [path for path, m in named.items() if m.weight.numel() > 1 and _alike(m.weight)]
    zero = [path for path in alike if not bool(named[path].weight.any())]
    if len(zero) <= len(named) / 2:  # a branch, or a last layer, that begins at zero is meant so
        alike = [path for path in alike if path not in zero]
    odd = [path for path, (std, root) in sizes.items() if std and not _SMALL < std * root < _LARGE]
    if alike:
        message = f"all weights of {', '.join(alike[:5])} are the same: every unit learns the same"
        found.append(Finding("equal_weights", "error", message, ("default_weights", "he", "xavier")))
    elif negative := [path for path, m in named.items() if _negative(m.weight)]:
        message = f"nearly all weights of {', '.join(negative[:5])} are negative"
        found.append(Finding("weight_sign", "warning", message, ("default_weights", "he", "xavier")))
    elif odd:
        message = f"weights of {', '.join(odd[:5])} have a spread of {sizes[odd[0]][0]:.3g}, far from the usual size"
        found.append(Finding("weight_scale", "warning", message, ("default_weights", "lsuv", "xavier", "he")))
    return found


def _last(parts: Parts) -> list[str]:
    """Return the parameters of the last layer: whoever freezes those trains nothing that fits the targets."""
    path = next((path for path, m in reversed(list(parts.model.named_modules())) if isinstance(m, Weighted)), None)
    if path is None:
        return []
    return [f"{path}.{name}".lstrip(".") for name, _ in parts.model.get_submodule(path).named_parameters()]


def _alike(weight: torch.Tensor) -> bool:
    """Whether every unit has the same weights."""
    return bool((weight == weight[:1]).all()) if len(weight) > 1 else float(weight.detach().std()) == 0


def _negative(weight: torch.Tensor) -> bool:
    return weight.numel() >= _MANY and float((weight < 0).float().mean()) > _NEGATIVE


def optimizer(parts: Parts) -> list[Finding]:
    """Find parameters that the optimizer does not step, and groups of learning rate 0."""
    held = {p for group in parts.optimizer.param_groups for p in group["params"]}
    named = {name: p for name, p in parts.model.named_parameters() if p.requires_grad}
    left = [name for name, p in named.items() if p not in held]
    if left:
        which = "none of the model's parameters" if len(left) == len(named) else f"not {_some(left)}"
        message = f"the optimizer steps {which}: built from another model, or before the layers were?"
        return [Finding("optimizer", "error", message, ("every_parameter",))]
    still = [place for place, rate in enumerate(_base_rates(parts)) if rate == 0]
    if still:
        message = f"the learning rate of parameter group {still[0]} is 0"
        return [Finding("optimizer", "warning", message)]
    return []


def _base_rates(parts: Parts) -> list[float]:
    return [float(group.get("initial_lr", group["lr"])) for group in parts.optimizer.param_groups]


def learning_rate(parts: Parts) -> list[Finding]:
    """Look at the largest learning rate, and at the way it takes over the training."""
    rates = _rates(parts)
    peak = max(rates, default=max(_base_rates(parts)))
    name = type(parts.optimizer).__name__
    adaptive = any(part in name.lower() for part in _ADAPTIVE)
    usual = _USUAL_ADAPTIVE if adaptive else _USUAL
    if peak > usual:
        message = f"the learning rate of {name} reaches {peak:g}; few nets stand more than {usual:g}"
        return [Finding("learning_rate", "warning", message, ("scale_down", "clip_norm", "warmup"))]
    if 0 < peak < _TINY:
        message = f"the learning rate of {name} is {peak:g}: hardly anything will move"
        return [Finding("learning_rate", "warning", message, ("scale_up", "range_test"))]
    if len(rates) < _LONG:
        return []
    # The last rate is that of the last step, or a warm-up over exactly the whole training would not be seen.
    if rates[-1] == peak > 1.5 * rates[len(rates) // 2]:
        message = "the learning rate still rises at the last step: the warm-up is longer than the training"
        return [Finding("schedule", "warning", message, ("constant", "warmup"))]
    early = rates[len(rates) // 10]
    if early < peak / 100 and max(rates[len(rates) // 10 :]) < peak / 100:
        message = f"the learning rate has fallen from {peak:.2g} to {early:.2g} within a tenth of the training"
        return [Finding("schedule", "warning", message, ("constant", "cosine"))]
    return []


def _rates(parts: Parts) -> list[float]:
    """Return the learning rate of the steps of the training, read off a copy of the schedule; empty without one."""
    schedule = parts.schedule
    if schedule.make is None:
        return []
    stand_in = torch.optim.SGD(
        [{"params": [nn.Parameter(torch.zeros(1))], "lr": rate} for rate in _base_rates(parts)], lr=1.0, momentum=0.9
    )
    scheduler = schedule.make(stand_in)
    if isinstance(scheduler, ReduceLROnPlateau):
        return []
    rates: list[float] = []
    turns = parts.steps if schedule.interval == "step" else -(-parts.steps // max(1, parts.facts.steps_per_epoch))
    for _ in range(min(turns, _SIMULATED)):
        rates.append(max(float(group["lr"]) for group in stand_in.param_groups))
        stand_in.step()
        scheduler.step()
    return rates if turns <= _SIMULATED else []


def small_batches(parts: Parts) -> list[Finding]:
    """Find batch norm over very few samples."""
    size = parts.facts.batch_size
    if size >= _FEW or not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in parts.model.modules()):  # noqa: SLF001
        return []
    message = f"batch norm over batches of {size}: its statistics are mostly noise"
    return [Finding("small_batches", "warning", message, ("group_norm", "larger_batch", "batch_norm_off"))]


def linear_pair(parts: Parts) -> list[Finding]:
    """Find two linear layers in a row that are one."""
    for path, module in parts.model.named_modules():
        if not isinstance(module, nn.Sequential):
            continue
        for (name, first), (other, second) in pairwise(module.named_children()):
            if not (isinstance(first, nn.Linear) and isinstance(second, nn.Linear)):
                continue
            if first.out_features < min(first.in_features, second.out_features):
                continue  # a factorised layer is meant so
            dot = f"{path}." if path else ""
            message = f"{dot}{name} and {dot}{other} are linear layers without an activation between them: one in two"
            return [Finding("linear_pair", "warning", message)]
    return []


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def dropout(parts: Parts) -> list[Finding]:
    """Find dropout that leaves little."""
    high = [f"{path} ({m.p:g})" for path, m in parts.model.named_modules()
            if isinstance(m, nn.modules.dropout._DropoutNd) and m.p > _HIGH_DROPOUT]  # noqa: SLF001  # fmt: skip
    if not high:
        return []
    message = f"dropout above {_HIGH_DROPOUT:g} leaves less than half of the units: {', '.join(high)}"
    return [Finding("dropout", "warning", message, ("dropout_off", "dropout_lower"))]


def precision(parts: Parts) -> list[Finding]:
    """Find half precision without what it needs."""
    if any(parameter.dtype in _HALF for parameter in parts.model.parameters()):
        message = "the model's own weights are in half precision, where small updates and Adam's epsilon round to 0"
        return [Finding("half_weights", "error", message, ("full_precision",))]
    if parts.precision.forward == "bfloat16" and parts.device.type == "cuda" and not torch.cuda.is_bf16_supported():
        message = "this GPU does not compute in bfloat16, which the training asks for"
        return [Finding("half_precision", "warning", message, ("full_precision",))]
    if parts.precision.forward == "float16" and not parts.precision.scaled:
        message = "the forward pass is in float16 and the loss is not scaled: small gradients round to 0"
        return [Finding("half_precision", "warning", message, ("loss_scaling", "bfloat16", "full_precision"))]
    return []


CHECKS = (
    objective,
    reduction,
    targets,
    order,
    weights,
    optimizer,
    learning_rate,
    small_batches,
    linear_pair,
    dropout,
    precision,
)
