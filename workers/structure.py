"""Pre-flight checks of how a training is put together: its objective, order of samples, weights, precision."""

from __future__ import annotations

import math

import torch
from torch import nn

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
    frozen = [name for name, parameter in parts.model.named_parameters() if not parameter.requires_grad]
    if frozen:
        message = f"{len(frozen)} parameter(s) are frozen: {', '.join(frozen[:5])}"
        found.append(Finding("frozen", "warning", message, ("unfreeze",)))
    named = {path: module for path, module in parts.model.named_modules() if isinstance(module, Weighted)}
    with torch.no_grad():
        sizes = {path: (float(m.weight.std()), math.sqrt(m.weight[0].numel())) for path, m in named.items()}
    alike = [path for path, (std, _) in sizes.items() if std == 0 and named[path].weight.numel() > 1]
    odd = [path for path, (std, root) in sizes.items() if std and not _SMALL < std * root < _LARGE]
    if alike:
        message = f"all weights of {', '.join(alike[:5])} are the same: every unit learns the same"
        found.append(Finding("equal_weights", "error", message, ("default_weights", "he", "xavier")))
    elif odd:
        message = f"weights of {', '.join(odd[:5])} have a spread of {sizes[odd[0]][0]:.3g}, far from the usual size"
        found.append(Finding("weight_scale", "warning", message, ("default_weights", "lsuv", "xavier", "he")))
    return found


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
    if parts.precision.forward == "float16" and not parts.precision.scaled:
        message = "the forward pass is in float16 and the loss is not scaled: small gradients round to 0"
        return [Finding("half_precision", "warning", message, ("loss_scaling", "bfloat16", "full_precision"))]
    return []


CHECKS = (objective, reduction, targets, order, weights, dropout, precision)
