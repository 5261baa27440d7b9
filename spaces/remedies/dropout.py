"""Remedies for dropout: off, lower, or on behind the hidden activations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.nn import functional as F

from remedy.spaces.calls import Places, Swapped, refuse_checkpointed, replace_forward, trace
from remedy.spaces.distribution import Float
from remedy.spaces.facts import Facts
from remedy.spaces.python import Python, put
from remedy.spaces.remedy import Change, Inapplicable, Remedy, remedy
from remedy.spaces.slot import Slot
from remedy.spaces.surgery import exchange, hidden_activations, swap_calls

DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
_CALLS = frozenset({"dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout"})


@remedy(
    Slot.DROPOUT,
    treats=("chance_plateau", "vanishing_gradient"),
    invasiveness=1,
    source="posts 000, 001: regularizers off; UMLAUT; catalogue R50",
    python=Python(
        model="""
for module in model.modules():
    if isinstance(module, nn.modules.dropout._DropoutNd):
        module.p = 0.0
    elif isinstance(module, nn.RNNBase | nn.MultiheadAttention):
        module.dropout = 0.0
""",
        needs=("only_modules",),
    ),
)
def dropout_off(model: nn.Module, *, facts: Facts) -> Change:
    """Turns every dropout off."""
    told = []
    for path, module in model.named_modules():
        if isinstance(module, DROPOUTS) and module.p > 0:
            told.append(f"{path} (p={module.p:g} -> 0)")
            module.p = 0.0
        elif isinstance(module, nn.RNNBase | nn.MultiheadAttention) and module.dropout > 0:
            told.append(f"{path} (dropout={module.dropout:g} -> 0)")
            module.dropout = 0.0
    calls = _calls_off(model, facts)
    told += calls
    if not told:
        raise Inapplicable("the model has no dropout")
    return Change(model, f"{len(told)} dropout(s) off: {', '.join(told)}", {} if calls else {"only_modules": True})


@remedy(
    Slot.DROPOUT,
    treats=("saturated_softmax", "accuracy_collapse", "generalisation_gap"),
    invasiveness=4,
    source="posts 000, 001: regularizers on; Srivastava et al. 2014; catalogue R50",
    p=Float(0.02, 0.5),
    python=Python(
        define=(put,),
        model="""
for path in $paths:
    put(model, path, nn.Sequential(model.get_submodule(path), nn.Dropout($p)))
""",
    ),
)
def dropout_on(model: nn.Module, *, p: float = 0.2, facts: Facts) -> Change:
    """Puts dropout behind every hidden activation."""
    if any(isinstance(module, DROPOUTS) and module.p > 0 for module in model.modules()):
        raise Inapplicable("the model has dropout already")
    hidden = hidden_activations(model, facts.inputs)
    if not len(hidden):
        raise Inapplicable("the model has no hidden activation that could be found")
    if hidden.names:
        swap_calls(model, facts.inputs, _Dropped(model, p))
    paths = exchange(model, {act: nn.Sequential(act, nn.Dropout(p)) for act in hidden.modules.values()})
    told = paths + [f"call of {name}" for name in hidden.names]
    said = {} if hidden.names or len(paths) != len(hidden.modules) else {"paths": paths}
    return Change(model, f"dropout of {p:g} behind {len(told)} hidden activation(s): {', '.join(told)}", said)


@remedy(
    Slot.DROPOUT,
    treats=("chance_plateau", "vanishing_gradient"),
    invasiveness=1,
    source="UMLAUT: p > 0.5; catalogue R50, F30",
    factor=Float(0.05, 0.7, log=True),
    python=Python(
        model="""
for module in model.modules():
    if isinstance(module, nn.modules.dropout._DropoutNd):
        module.p *= $factor
"""
    ),
)
def dropout_lower(model: nn.Module, *, factor: float = 0.3) -> Change:
    """Multiplies the share that every dropout module drops by a factor below one."""
    told = []
    for path, module in model.named_modules():
        if isinstance(module, DROPOUTS) and module.p > 0:
            old, module.p = module.p, module.p * factor
            told.append(f"{path} (p={old:g} -> {module.p:g})")
    if not told:
        raise Inapplicable("the model has no dropout module")
    return Change(model, f"{len(told)} dropout(s) lower: {', '.join(told)}")


@dataclass(frozen=True)
class _Dropped:
    model: nn.Module
    p: float

    def __call__(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return F.dropout(function(*args, **kwargs), self.p, self.model.training)


def _calls_off(model: nn.Module, facts: Facts) -> list[str]:
    """Turn off dropout that the forward pass calls as a function; a module's own call is among them, with p = 0."""
    known = {path for path, module in model.named_modules() if isinstance(module, (*DROPOUTS, nn.MultiheadAttention))}
    places = {}
    for mode in (True, False):
        mine = [call for call in trace(model, facts.inputs, training=mode).calls if call.name in _CALLS]
        found = frozenset(place for place, call in enumerate(mine) if call.owner not in known)
        places[mode] = Places(_CALLS, found, len(mine))
    if places[True].places:
        refuse_checkpointed(model, facts.inputs, _CALLS)
        replace_forward(model, Swapped(model, places, _not_dropped))
    return [f"call {place + 1} of dropout" for place in sorted(places[True].places)]


def _not_dropped(_function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return args[0] if args else kwargs["input"]


REMEDIES: tuple[Remedy, ...] = (dropout_off, dropout_lower, dropout_on)
