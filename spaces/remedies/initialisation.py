"""Remedies for the initial weights of Linear and Conv layers; norm layers and embeddings keep theirs."""

from __future__ import annotations

import math
from functools import partial
from typing import cast

import torch
from torch import nn
from torch.nn.utils import parametrize

from remedy.spaces.calls import trace
from remedy.spaces.distribution import Float
from remedy.spaces.facts import Facts
from remedy.spaces.objective import TargetKind
from remedy.spaces.python import Python
from remedy.spaces.remedy import Change, Inapplicable, Remedy, remedy
from remedy.spaces.slot import Slot
from remedy.spaces.surgery import layers
from remedy.spaces.weights import Draw, fill, lecun_normal_, path_of, put_weight, redraw

_TRIES, _NEAR, _TINY = 10, 0.05, 1e-4


def _drawing(draw: str) -> Python:
    return Python(
        model=f"""
for path in $paths:
    layer = model.get_submodule(path)
    {draw}
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
"""
    )


@remedy(
    Slot.INITIALISATION,
    treats=("vanishing_gradient", "exploding_gradient", "chance_plateau", "worse_than_guessing", "constant_output"),
    invasiveness=4,
    source="He et al. 2015; AutoTrainer (ICSE'21); catalogue R38",
    python=_drawing("nn.init.kaiming_normal_(layer.weight, a=$slope, nonlinearity='leaky_relu')"),
)
def he(model: nn.Module) -> Change:
    """Draws weights that keep a signal's size through ReLU layers, and sets biases to zero."""
    slopes = [float(m.negative_slope) for m in model.modules() if isinstance(m, nn.LeakyReLU)]
    slope = slopes[0] if slopes else 0.0
    draw = partial(nn.init.kaiming_normal_, a=slope, nonlinearity="leaky_relu")
    return _drawn(model, draw, f"He normal (slope {slope:g})", slope=slope)


@remedy(
    Slot.INITIALISATION,
    treats=("exploding_gradient", "vanishing_gradient", "chance_plateau", "worse_than_guessing", "constant_output"),
    invasiveness=4,
    source="Glorot & Bengio 2010; AutoTrainer (ICSE'21); catalogue R38",
    gain=Float(0.3, 2.0, log=True),
    python=_drawing("nn.init.xavier_uniform_(layer.weight, gain=$gain)"),
)
def xavier(model: nn.Module, *, gain: float = 1.0) -> Change:
    """Draws weights that keep a signal's size forwards and backwards, and sets biases to zero."""
    return _drawn(model, partial(nn.init.xavier_uniform_, gain=gain), f"Xavier uniform, gain {gain:g}")


@remedy(
    Slot.INITIALISATION,
    treats=("vanishing_gradient", "exploding_gradient", "chance_plateau"),
    invasiveness=4,
    source="post 002: orthogonal initialisation; Saxe et al. 2014; catalogue R39",
    gain=Float(0.5, 2.0, log=True),
    python=_drawing("nn.init.orthogonal_(layer.weight, gain=$gain)"),
)
def orthogonal(model: nn.Module, *, gain: float = 1.4) -> Change:
    """Draws orthogonal weights, and sets biases to zero."""
    return _drawn(model, partial(nn.init.orthogonal_, gain=gain), f"orthogonal, gain {gain:g}")


@remedy(
    Slot.INITIALISATION,
    treats=("saturated_softmax", "exploding_gradient", "non_finite"),
    invasiveness=4,
    source="Zhang et al. 2019 (Fixup); catalogue R33",
    std=Float(1e-4, 0.1, log=True),
    python=_drawing("nn.init.normal_(layer.weight, std=$std)"),
)
@torch.no_grad()
def small_last_layer(model: nn.Module, *, std: float = 1e-2, facts: Facts) -> Change:
    """Draws small weights for the last layer, so that training starts from even outputs."""
    found = layers(model, facts.inputs)
    if not found:
        raise Inapplicable("the model has no Linear or Conv layer that runs")
    last = found[-1]
    before = float(last.module.weight.std())
    fill(last.module, partial(nn.init.normal_, std=std))
    return Change(
        model,
        f"weights of {last.path or 'the model'}: spread {before:.3g} -> normal, std {std:g}; bias 0",
        _where(last.module, last.path),
    )


@remedy(
    Slot.INITIALISATION,
    treats=("exploding_gradient", "vanishing_gradient", "chance_plateau", "worse_than_guessing"),
    invasiveness=4,
    source="LeCun et al. 1998; Klambauer et al. 2017; catalogue R37, R38",
    python=_drawing("nn.init.normal_(layer.weight, std=1 / math.sqrt(layer.weight[0].numel()))"),
)
def lecun(model: nn.Module) -> Change:
    """Draws weights of variance 1 / fan-in, for tanh and SELU nets, and sets biases to zero."""
    return _drawn(model, lecun_normal_, "LeCun normal")


@remedy(
    Slot.INITIALISATION,
    treats=("exploding_gradient", "saturated_softmax", "class_takeover"),
    invasiveness=4,
    source="BERT, GPT-2; OLMo 2: N(0, 0.02); catalogue R38",
    std=Float(0.005, 0.2, log=True),
    python=_drawing("nn.init.trunc_normal_(layer.weight, std=$std, a=-2 * $std, b=2 * $std)"),
)
def truncated_normal(model: nn.Module, *, std: float = 0.02) -> Change:
    """Draws small weights of one spread for all layers and embeddings, cut at two spreads; biases zero."""
    draw = partial(nn.init.trunc_normal_, std=std, a=-2 * std, b=2 * std)
    embeddings = [path for path, module in model.named_modules() if isinstance(module, nn.Embedding)]
    with torch.no_grad():
        for path in embeddings:
            draw(cast("nn.Embedding", model.get_submodule(path)).weight)
    change = _drawn(model, draw, f"truncated normal, std {std:g}")
    told = f"; embeddings too: {', '.join(embeddings)}" if embeddings else ""
    return Change(model, change.receipt + told, {} if embeddings else change.told)


@remedy(
    Slot.INITIALISATION,
    treats=(
        "chance_plateau",
        "zero_gradient",
        "dead_units",
        "exploding_gradient",
        "saturated_softmax",
        "worse_than_guessing",
    ),
    invasiveness=4,
    source="fifty trainings from forums: weights all zero, all one or N(0, 1); catalogue R38, P21",
    python=Python(
        model="""
for path in $paths:
    module = model.get_submodule(path)
    (module.reset_parameters if hasattr(module, "reset_parameters") else module._reset_parameters)()
"""
    ),
)
def default_weights(model: nn.Module) -> Change:
    """Draws every weight anew as torch does by default: norm, recurrent and embedding layers too."""
    drawn = []
    for path, module in model.named_modules():
        reset = getattr(module, "reset_parameters", None) or getattr(module, "_reset_parameters", None)
        if callable(reset) and any(True for _ in module.parameters(recurse=False)):
            reset()
            drawn.append(path or "the model")
    if not drawn:
        raise Inapplicable("the model has no layer of torch's that could be reset")
    return Change(
        model,
        f"weights of {len(drawn)} layer(s) drawn anew as torch does by default: {', '.join(drawn)}",
        {"paths": [path_of(path) for path in drawn]},
    )


@remedy(
    Slot.INITIALISATION,
    treats=("vanishing_gradient", "exploding_gradient", "chance_plateau", "saturated_softmax"),
    invasiveness=4,
    source="Mishkin & Matas 2016; catalogue R40",
)
@torch.no_grad()
def lsuv(model: nn.Module, *, facts: Facts) -> Change:
    """Draws orthogonal weights and scales each layer until its output has spread 1 on a batch; biases zero."""
    found = layers(model, facts.inputs)
    if not found:
        raise Inapplicable("the model has no Linear or Conv layer that runs")
    for layer in found:
        fill(layer.module, nn.init.orthogonal_)
    told = []
    for layer in found:
        began = spread = _spread(model, layer.module, facts.inputs)
        for _ in range(_TRIES):
            if spread < _TINY or not math.isfinite(spread) or abs(spread - 1) < _NEAR:
                break
            put_weight(layer.module, layer.module.weight / spread)
            spread = _spread(model, layer.module, facts.inputs)
        told.append(f"{layer.path or 'the model'} {began:.3g} -> {spread:.3g}")
    return Change(model, f"orthogonal weights; spread of the output of {len(told)} layer(s): {', '.join(told)}")


@remedy(
    Slot.INITIALISATION,
    treats=("class_takeover", "chance_plateau", "exploding_gradient", "dead_units"),
    invasiveness=4,
    source="Lin et al. 2017 (RetinaNet); Karpathy 2019; catalogue R13",
    python=Python(
        model="""
with torch.no_grad():
    model.get_submodule($path).bias.copy_(torch.tensor($bias))
"""
    ),
)
@torch.no_grad()
def output_prior(model: nn.Module, *, facts: Facts) -> Change:
    """Sets the last bias so that training starts from the classes' shares, or from the mean of the numbers."""
    found = layers(model, facts.inputs)
    if not found or found[-1].module.bias is None:
        raise Inapplicable("the model's last layer has no bias")
    last, bias = found[-1], found[-1].module.bias
    prior = _prior(facts)
    if prior.numel() not in (1, bias.numel()):
        raise Inapplicable(f"the last layer has {bias.numel()} outputs, the targets {prior.numel()}")
    old = float(bias.norm())
    new = prior.to(bias).expand_as(bias)
    if torch.allclose(new, new.mean(), atol=_NEAR) and len(new) > 1:
        raise Inapplicable("the classes are balanced, so that a bias says nothing")
    bias.copy_(new)
    return Change(
        model,
        f"bias of {last.path or 'the model'}: norm {old:.3g} -> {float(bias.norm()):.3g}",
        {"path": repr(last.path), "bias": new.tolist()},
    )


@remedy(
    Slot.INITIALISATION,
    treats=("dead_units", "zero_gradient"),
    invasiveness=4,
    source="Lu et al. 2019, dying ReLU; catalogue R41",
    value=Float(0.01, 1.0, log=True),
    python=Python(
        model="""
for path in $paths:
    nn.init.constant_(model.get_submodule(path).bias, $value)
"""
    ),
)
@torch.no_grad()
def positive_bias(model: nn.Module, *, value: float = 0.1, facts: Facts) -> Change:
    """Sets the biases of the hidden layers to a positive number, so that ReLUs start awake."""
    hidden = [layer for layer in layers(model, facts.inputs)[:-1] if layer.module.bias is not None]
    if not hidden:
        raise Inapplicable("the model has no hidden Linear or Conv layer with a bias")
    for layer in hidden:
        cast("torch.Tensor", layer.module.bias).fill_(value)
    paths = ", ".join(layer.path for layer in hidden)
    return Change(
        model,
        f"biases of {len(hidden)} hidden layer(s) set to {value:g}: {paths}",
        {"paths": [layer.path for layer in hidden]},
    )


@remedy(
    Slot.INITIALISATION,
    treats=("chance_plateau", "vanishing_gradient", "still_weights"),
    invasiveness=3,
    source="37 reasons why your neural network is not working (Ivanov 2017); catalogue R93",
    python=Python(
        model="""
for parameter in model.parameters():
    if parameter.is_floating_point():
        parameter.requires_grad_()
"""
    ),
)
def unfreeze(model: nn.Module) -> Change:
    """Trains parameters that were frozen."""
    frozen = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
    if not frozen:
        raise Inapplicable("every parameter is trained already")
    for name in frozen:
        parameter = model.get_parameter(name)
        if parameter.is_floating_point():
            parameter.requires_grad_()
    return Change(model, f"{len(frozen)} frozen parameter(s) are trained: {', '.join(frozen)}")


def _prior(facts: Facts) -> torch.Tensor:
    """Return the last bias that guesses best."""
    if facts.kind is TargetKind.REAL:
        return facts.every_target.float().flatten(1).mean(0) if facts.every_target.dim() > 1 else _mean(facts)
    if facts.kind in (TargetKind.CLASS_INDEX, TargetKind.ONE_HOT):
        counts = torch.tensor(facts.counts, dtype=torch.float32).clamp_min(0.5)
        return (counts / counts.sum()).log()
    share = facts.every_target.float().flatten(1).mean(0) if facts.every_target.dim() > 1 else _mean(facts)
    return torch.logit(share.clamp(_TINY, 1 - _TINY))


def _mean(facts: Facts) -> torch.Tensor:
    return facts.every_target.float().mean().reshape(1)


def _spread(model: nn.Module, layer: nn.Module, inputs: torch.Tensor) -> float:
    seen: list[torch.Tensor] = []
    handle = layer.register_forward_hook(lambda _module, _args, output: seen.append(output))
    try:
        trace(model, inputs, training=True)
    finally:
        handle.remove()
    return float(seen[-1].float().std()) if seen else math.nan


def _drawn(model: nn.Module, draw: Draw, name: str, **more: float) -> Change:
    paths = redraw(model, draw)
    found = [path_of(path) for path in paths]
    sayable = not any(parametrize.is_parametrized(model.get_submodule(path)) for path in found)
    told = {"paths": found, **more} if sayable else {}
    return Change(model, f"weights of {len(paths)} layer(s) drawn anew ({name}), biases 0: {', '.join(paths)}", told)


def _where(layer: nn.Module, path: str) -> dict[str, list[str]]:
    return {} if parametrize.is_parametrized(layer) else {"paths": [path]}


REMEDIES: tuple[Remedy, ...] = (
    he,
    xavier,
    orthogonal,
    lecun,
    truncated_normal,
    default_weights,
    lsuv,
    small_last_layer,
    output_prior,
    positive_bias,
    unfreeze,
)
