"""Remedies for half precision: wider numbers, or a loss that is scaled so that small gradients survive."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from remedy.spaces.facts import Facts
from remedy.spaces.precision import Precision
from remedy.spaces.remedy import Change, Inapplicable, Remedy, remedy
from remedy.spaces.slot import Slot

_TREATS = ("non_finite", "zero_gradient", "chance_plateau", "vanishing_gradient", "loss_scale_collapse")
_HALF = (torch.float16, torch.bfloat16)


@remedy(
    Slot.PRECISION,
    treats=_TREATS,
    invasiveness=1,
    source="Hugging Face debug_utils; torch.autocast; catalogue R82, R84",
)
def full_precision(precision: Precision, *, facts: Facts) -> Change:
    """Computes in float32: without autocast, and with the model's own half-precision weights made float32."""
    model = facts.model
    half = [name for name, p in model.named_parameters() if p.dtype in _HALF] if model is not None else []
    if precision.forward == "float32" and not half:
        raise Inapplicable("the training computes in float32 already")
    told = [] if precision.forward == "float32" else [f"autocast to {precision.forward} off"]
    if half and model is not None:
        told.append(f"{len(half)} parameter(s) in half precision -> float32: {', '.join(half)}")
        model.float()
        model.register_forward_pre_hook(_widened)
    return Change(Precision("float32"), "; ".join(told))


def _widened(_model: nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return tuple(arg.float() if isinstance(arg, torch.Tensor) and arg.dtype in _HALF else arg for arg in args)


@remedy(
    Slot.PRECISION,
    treats=_TREATS,
    invasiveness=1,
    source="Hugging Face debug_utils; Kalamkar et al. 2019; catalogue R82",
)
def bfloat16(precision: Precision) -> Change:
    """Computes the forward pass in bfloat16 in place of float16: fewer digits, but the range of float32."""
    if precision.forward != "float16":
        raise Inapplicable(f"the forward pass is computed in {precision.forward}, not in float16")
    return Change(Precision("bfloat16"), "autocast of the forward pass float16 -> bfloat16")


@remedy(
    Slot.PRECISION,
    treats=("zero_gradient", "vanishing_gradient", "chance_plateau", "still_weights"),
    invasiveness=1,
    source="Micikevicius et al. 2018; torch.amp.GradScaler; catalogue R83",
)
def loss_scaling(precision: Precision) -> Change:
    """Scales the loss up before the backward pass in float16, so that small gradients do not round to zero."""
    if precision.forward != "float16":
        raise Inapplicable(f"the forward pass is computed in {precision.forward}, not in float16")
    if precision.scaled:
        raise Inapplicable("the loss is scaled already")
    return Change(replace(precision, scaled=True), "loss scaled by GradScaler's dynamic factor, from 65536 on")


REMEDIES: tuple[Remedy, ...] = (full_precision, bfloat16, loss_scaling)
