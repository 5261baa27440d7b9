"""Remedies for the architecture: narrower, wider, shallower, deeper, with residual paths."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from remedy.spaces.calls import trace
from remedy.spaces.distribution import Float
from remedy.spaces.facts import Facts
from remedy.spaces.remedy import Change, Inapplicable, Remedy, remedy
from remedy.spaces.slot import Slot
from remedy.spaces.stack import Block, check_shape, squares, stacks
from remedy.spaces.surgery import Weighted

_POST = "posts 000, 001: wide and shallow nets are difficult"


class Residual(nn.Module):
    """Adds what goes in to what comes out."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, inputs: Any) -> Any:
        """Return the sum."""
        return inputs + self.body(inputs)


class ScaledResidual(Residual):
    """Adds a learned multiple of what comes out, none of it at the start."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__(body)
        self.scale = nn.Parameter(torch.zeros(()))

    def forward(self, inputs: Any) -> Any:
        """Return the sum."""
        return inputs + self.scale * self.body(inputs)


@remedy(
    Slot.WIDTH,
    treats=(
        "accuracy_collapse",
        "saturated_softmax",
        "exploding_gradient",
        "class_takeover",
        "non_finite",
        "generalisation_gap",
    ),
    invasiveness=5,
    source=f"{_POST}; catalogue R47",
    factor=Float(0.125, 0.5, log=True),
)
def narrower(model: nn.Module, *, factor: float = 0.25, facts: Facts) -> Change:
    """Makes the hidden layers narrower."""
    return _resized_stacks(model, facts, factor)


@remedy(
    Slot.WIDTH,
    treats=("chance_plateau", "dead_units", "class_takeover"),
    invasiveness=5,
    source="fifty trainings from forums: XOR with 2 units; Karpathy 2019; catalogue R49",
    factor=Float(1.5, 16.0, log=True),
)
def wider(model: nn.Module, *, factor: float = 4.0, facts: Facts) -> Change:
    """Makes the hidden layers wider."""
    return _resized_stacks(model, facts, factor)


def _resized_stacks(model: nn.Module, facts: Facts, factor: float) -> Change:
    if "width" in facts.knobs:
        return _rebuilt(model, facts, "width", factor)
    before, told = trace(model, facts.inputs, training=True).outputs.shape, []
    for blocks in stacks(model):
        old = new = 1
        for block in blocks[:-1]:
            layer = _resized(block.layer, old, new, factor)
            old, new = _fans(block.layer)[1], _fans(layer)[1]
            told.append(f"{block.places[0].path} {old} -> {new}")
            block.places[0].put(layer)
            _fit(block, old, new)
        blocks[-1].places[0].put(_resized(blocks[-1].layer, old, new, 1.0))
    word = "narrower" if factor < 1 else "wider"
    if not told:
        raise Inapplicable("the model declares no `width` and has no stack of layers that could be resized")
    check_shape(model, facts.inputs, before)
    return Change(model, f"{len(told)} hidden layer(s) {word}, weights drawn anew: {', '.join(told)}")


@remedy(
    Slot.DEPTH,
    treats=(
        "vanishing_gradient",
        "dead_units",
        "class_takeover",
        "accuracy_collapse",
        "exploding_gradient",
        "constant_output",
    ),
    invasiveness=5,
    source=f"{_POST}; catalogue R48",
    factor=Float(0.1, 0.8, log=True),
)
def shallower(model: nn.Module, *, factor: float = 0.15, facts: Facts) -> Change:
    """Leaves hidden layers out."""
    if _deep(facts):
        return _rebuilt(model, facts, "depth", factor)
    found = squares(model)
    out = found[: len(found) - max(1, round(len(found) * factor))]
    if not out:
        raise Inapplicable("the model declares no `depth` and has no hidden layers of equal width to leave out")
    for block in out:
        for place in block.places:
            place.put(nn.Identity())
    paths = ", ".join(block.places[0].path for block in out)
    return Change(model, f"{len(out)} of {len(found)} hidden layers of equal width left out: {paths}")


@remedy(
    Slot.DEPTH,
    treats=("chance_plateau",),
    invasiveness=5,
    source="Karpathy 2019, A Recipe for Training Neural Networks; catalogue R48, R49",
    factor=Float(1.5, 4.0, log=True),
)
def deeper(model: nn.Module, *, factor: float = 2.0, facts: Facts) -> Change:
    """Adds hidden layers behind the last one, each like it with fresh weights."""
    if _deep(facts):
        return _rebuilt(model, facts, "depth", factor)
    before, told = trace(model, facts.inputs, training=True).outputs.shape, []
    for blocks in stacks(model):
        last = blocks[-2]
        width = _fans(last.layer)[1]
        if not isinstance(last.layer, nn.Linear) or len(last.places) < 2:
            continue
        more = max(1, round((factor - 1) * (len(blocks) - 1)))
        made = [m for _ in range(more) for m in _block(last, width)]
        end = last.places[-1]
        end.put(nn.Sequential(end.module, *made))
        told.append(f"{more} of width {width} behind {end.path}")
    if not told:
        raise Inapplicable("the model declares no `depth` and has no stack with a hidden Linear layer")
    check_shape(model, facts.inputs, before)
    return Change(model, f"hidden layers added: {', '.join(told)}")


def _deep(facts: Facts) -> bool:
    """Whether the model can be built with another depth without undoing another width."""
    return "depth" in facts.knobs and ("width" in facts.knobs or not facts.applied("narrower", "wider"))


def _block(like: Block, width: int) -> list[nn.Module]:
    rest = [copy.deepcopy(place.module) for place in like.places[1:]]
    return [nn.Linear(width, width, bias=like.layer.bias is not None), *rest]


@remedy(
    Slot.RESIDUAL,
    treats=("dead_units", "vanishing_gradient", "zero_gradient", "constant_output"),
    invasiveness=5,
    source="He et al. 2016; catalogue R46",
)
def residual(model: nn.Module) -> Change:
    """Adds the input of every hidden layer of equal width to the output of its activation."""
    paths = _bridged(model, Residual)
    return Change(model, f"a path around {len(paths)} hidden layer(s) with their activation: {', '.join(paths)}")


@remedy(
    Slot.RESIDUAL,
    treats=(
        "vanishing_gradient",
        "exploding_gradient",
        "dead_units",
        "zero_gradient",
        "class_takeover",
        "constant_output",
    ),
    invasiveness=5,
    source="Bachlechner et al. 2021 (ReZero); De & Smith 2020 (SkipInit); catalogue R46",
)
def rezero(model: nn.Module) -> Change:
    """Adds every hidden layer of equal width to its input times a learned factor, which starts at 0."""
    paths = _bridged(model, ScaledResidual)
    told = f"x + a f(x) with a = 0 at the start around {len(paths)} hidden layer(s)"
    return Change(model, f"{told} with their activation: {', '.join(paths)}")


def _bridged(model: nn.Module, build: Callable[[nn.Module], nn.Module]) -> list[str]:
    found = squares(model)
    if not found:
        raise Inapplicable("the model has no hidden layers of equal width in a stack")
    for block in found:
        block.places[0].put(build(nn.Sequential(*[place.module for place in block.places])))
        for place in block.places[1:]:
            place.put(nn.Identity())
    return [block.places[0].path for block in found]


def _rebuilt(model: nn.Module, facts: Facts, knob: str, factor: float) -> Change:
    old, new = _size(model), facts.rebuild(**{knob: factor})
    if _size(new) == old:
        raise Inapplicable(f"the model has {old} parameters with {knob}={factor:g} too")
    return Change(new, f"model built with {knob}={factor:g}: {old} -> {_size(new)} parameters")


def _size(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _fans(layer: Weighted) -> tuple[int, int]:
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features
    return layer.in_channels, layer.out_channels


def _resized(layer: Weighted, old: int, new: int, factor: float) -> Weighted:
    """Return a fresh layer for `new` channels in place of `old` coming in, and a part of those going out."""
    fan_in, fan_out = _fans(layer)
    if fan_in % old or type(layer).__module__.split(".")[0] != "torch" or getattr(layer, "groups", 1) != 1:
        raise Inapplicable(f"a {type(layer).__name__} of {fan_in} inputs cannot be resized")
    sizes, bias = (fan_in // old * new, max(1, round(fan_out * factor))), layer.bias is not None
    if isinstance(layer, nn.Linear):
        return nn.Linear(*sizes, bias=bias)
    shared: dict[str, Any] = {
        key: getattr(layer, key) for key in ("kernel_size", "stride", "padding", "dilation", "padding_mode")
    }
    if isinstance(layer, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d):
        shared["output_padding"] = layer.output_padding
    return type(layer)(*sizes, bias=bias, **shared)


def _fit(block: Block, old: int, new: int) -> None:
    """Have the norm layers and parametric activations behind a layer follow its new width."""
    for place in block.places[1:]:
        match place.module:
            case nn.BatchNorm1d() | nn.BatchNorm2d() | nn.BatchNorm3d() as norm:
                place.put(type(norm)(new, norm.eps, norm.momentum, norm.affine, norm.track_running_stats))
            case nn.LayerNorm(normalized_shape=(width,)) as norm if width == old:
                place.put(nn.LayerNorm(new, norm.eps, norm.elementwise_affine))
            case nn.GroupNorm() as norm:
                place.put(nn.GroupNorm(math.gcd(norm.num_groups, new), new, norm.eps, norm.affine))
            case nn.PReLU(num_parameters=count) if count == old:
                place.put(nn.PReLU(new))
            case _:
                pass


REMEDIES: tuple[Remedy, ...] = (narrower, wider, shallower, deeper, residual, rezero)
