"""Remedies for the activation: every hidden activation is exchanged, never the one of the output."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from remedy.spaces.distribution import Float
from remedy.spaces.facts import Facts
from remedy.spaces.python import Python, put
from remedy.spaces.remedy import Change, Inapplicable, Remedy, remedy
from remedy.spaces.slot import Slot
from remedy.spaces.surgery import NORMS, exchange, swap_activations, unregistered
from remedy.spaces.weights import lecun_normal_, path_of, redraw

_OFF = "posts 000, 001: change the activation"


def _put(activation: str) -> Python:
    return Python(define=(put,), model=f"for path in $paths:\n    put(model, path, {activation})")


@remedy(
    Slot.ACTIVATION,
    treats=("dead_units", "zero_gradient", "vanishing_gradient", "constant_output"),
    invasiveness=4,
    source=f"{_OFF}; post 002 (slope 1/3); Maas et al. 2013; catalogue R36",
    slope=Float(0.01, 0.34, log=True),
    python=_put("nn.LeakyReLU($slope)"),
)
def leaky_relu(model: nn.Module, *, slope: float = 0.1, facts: Facts) -> Change:
    """Swaps the hidden activations for leaky ReLU, which has no flat half."""
    return _swapped(model, facts, "leaky_relu", partial(nn.LeakyReLU, slope))


@remedy(
    Slot.ACTIVATION,
    treats=("dead_units", "zero_gradient", "vanishing_gradient"),
    invasiveness=4,
    source=f"{_OFF}; Clevert et al. 2016; AutoTrainer (ICSE'21); catalogue R37",
    python=_put("nn.ELU()"),
)
def elu(model: nn.Module, *, facts: Facts) -> Change:
    """Swaps the hidden activations for ELU, which goes on below zero and saturates there."""
    return _swapped(model, facts, "elu", nn.ELU)


@remedy(
    Slot.ACTIVATION,
    treats=("dead_units", "zero_gradient", "vanishing_gradient"),
    invasiveness=4,
    source=f"{_OFF}; Hendrycks & Gimpel 2016; catalogue R37",
    python=_put("nn.GELU()"),
)
def gelu(model: nn.Module, *, facts: Facts) -> Change:
    """Swaps the hidden activations for GELU, a smooth ReLU."""
    return _swapped(model, facts, "gelu", nn.GELU)


@remedy(
    Slot.ACTIVATION,
    treats=("dead_units", "zero_gradient", "vanishing_gradient"),
    invasiveness=4,
    source=f"{_OFF}; Ramachandran et al. 2017; catalogue R37",
    python=_put("nn.SiLU()"),
)
def silu(model: nn.Module, *, facts: Facts) -> Change:
    """Swaps the hidden activations for SiLU, a smooth ReLU."""
    return _swapped(model, facts, "silu", nn.SiLU)


@remedy(
    Slot.ACTIVATION,
    treats=("vanishing_gradient", "dead_units", "exploding_gradient", "non_finite"),
    invasiveness=4,
    source=f"{_OFF}; LeCun et al. 1998; AutoTrainer (ICSE'21); catalogue R37",
    python=_put("nn.Tanh()"),
)
def tanh(model: nn.Module, *, facts: Facts) -> Change:
    """Swaps the hidden activations for tanh, whose output is bounded and centred."""
    return _swapped(model, facts, "tanh", nn.Tanh)


@remedy(
    Slot.ACTIVATION,
    treats=("vanishing_gradient", "chance_plateau", "constant_output"),
    invasiveness=4,
    source=f"{_OFF}; Glorot et al. 2011; AutoTrainer (ICSE'21); catalogue R37",
    python=_put("nn.ReLU()"),
)
def relu(model: nn.Module, *, facts: Facts) -> Change:
    """Swaps saturating hidden activations for ReLU, which passes the gradient undiminished."""
    return _swapped(model, facts, "relu", nn.ReLU)


@remedy(
    Slot.ACTIVATION,
    treats=("dead_units", "zero_gradient", "vanishing_gradient"),
    invasiveness=4,
    source=f"{_OFF}; He et al. 2015; catalogue R36",
    slope=Float(0.01, 0.5, log=True),
    python=_put("nn.PReLU(init=$slope)"),
)
def prelu(model: nn.Module, *, slope: float = 0.25, facts: Facts) -> Change:
    """Swaps the hidden activations for PReLU, a leaky ReLU whose slope is learned."""
    change = _swapped(model, facts, "prelu", partial(nn.PReLU, init=slope))
    for place, added in enumerate(unregistered(model)):
        # A call has no module of its own; as a parameter of the model the slope is trained and no Sequential runs it.
        model.register_parameter(f"remedy_slope_{place}", added)
    return change


@remedy(
    Slot.ACTIVATION,
    treats=("dead_units", "vanishing_gradient", "zero_gradient", "exploding_gradient"),
    invasiveness=4,
    source=f"{_OFF}; Klambauer et al. 2017, self-normalising nets; AutoTrainer (ICSE'21); catalogue R37",
    python=Python(
        define=(put,),
        model="""
for path in $paths:
    put(model, path, nn.SELU())
for path in $drawn:
    layer = model.get_submodule(path)
    nn.init.normal_(layer.weight, std=1 / math.sqrt(layer.weight[0].numel()))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
""",
        needs=("no_dropout",),
    ),
)
def selu(model: nn.Module, *, facts: Facts) -> Change:
    """Swaps the hidden activations for SELU, with LeCun's initial weights and alpha dropout, which belong to it."""
    norms = [path for path, module in model.named_modules() if isinstance(module, NORMS)]
    if norms:
        raise Inapplicable(f"SELU normalises by itself and does not go with norm layers: {', '.join(norms)}")
    change = _swapped(model, facts, "selu", nn.SELU)
    dropouts = exchange(model, {m: nn.AlphaDropout(m.p) for m in model.modules() if type(m) is nn.Dropout})
    drawn = redraw(model, lecun_normal_)
    told = f"; weights of {len(drawn)} layer(s) drawn anew (LeCun normal)"
    told += f"; alpha dropout in place of {len(dropouts)} dropout(s)" if dropouts else ""
    more = {} if dropouts else {"no_dropout": True}
    return Change(model, change.receipt + told, {**change.told, **more, "drawn": [path_of(path) for path in drawn]})


def _swapped(model: nn.Module, facts: Facts, name: str, build: Callable[[], nn.Module]) -> Change:
    new = build()

    def differs(old: nn.Module | str) -> bool:
        if isinstance(old, str):
            return old != name
        return type(old) is not type(new) or getattr(old, "negative_slope", 0) != getattr(new, "negative_slope", 0)

    paths, calls = swap_activations(model, facts.inputs, differs, build)
    if not paths and not calls:
        raise Inapplicable(f"every hidden activation already is {new}")
    told = [f"{len(paths)} module(s): {', '.join(paths)}"] if paths else []
    told += [f"{len(calls)} call(s) of {', '.join(sorted(set(calls)))}"] if calls else []
    sayable = not calls and len({model.get_submodule(path) for path in paths}) == len(paths)
    sayable = sayable and not any(isinstance(m, nn.TransformerEncoderLayer) for m in model.modules())
    return Change(model, f"{new} in place of {' and '.join(told)}", {"paths": paths} if sayable else {})


REMEDIES: tuple[Remedy, ...] = (leaky_relu, elu, gelu, silu, tanh, relu, prelu, selu)
