"""The head of a model: the activations behind its last weights, found on a probe and exchanged for another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from remedy.spaces.calls import Places, Trace, Watched, refuse_frozen, replace_forward, trace
from remedy.spaces.logits import mark
from remedy.spaces.remedy import Inapplicable
from remedy.spaces.surgery import ACTIVATION_CALLS

Activation = Callable[[torch.Tensor], torch.Tensor]
_BENDING = ACTIVATION_CALLS | {"softmax", "log_softmax", "softmin", "exp", "clamp", "clamp_min", "clip", "threshold"}
_SHAPING = frozenset({"squeeze", "unsqueeze", "flatten", "reshape", "view", "contiguous", "float", "to"})
_INFINITE = float("inf")
_REACH = {
    "relu": (0.0, _INFINITE), "relu6": (0.0, 6.0), "softplus": (0.0, _INFINITE), "exp": (0.0, _INFINITE),
    "sigmoid": (0.0, 1.0), "hardsigmoid": (0.0, 1.0), "softmax": (0.0, 1.0), "softmin": (0.0, 1.0),
    "tanh": (-1.0, 1.0), "softsign": (-1.0, 1.0), "hardtanh": (-1.0, 1.0), "elu": (-1.0, _INFINITE),
    "celu": (-1.0, _INFINITE), "selu": (-1.7581, _INFINITE), "gelu": (-0.17, _INFINITE), "silu": (-0.2785, _INFINITE),
    "mish": (-0.3089, _INFINITE), "log_softmax": (-_INFINITE, 0.0), "logsigmoid": (-_INFINITE, 0.0),
}  # fmt: skip


@dataclass(frozen=True)
class Head:
    """What bends the outputs: names of activations, first to last, and the place of the first one's call.

    `places` is empty where the outputs are what the last weights give.
    """

    names: tuple[str, ...]
    outputs: torch.Tensor
    places: dict[bool, Places]

    @property
    def told(self) -> str:
        """The names in one text."""
        return " and ".join(self.names) if self.names else "no activation"

    def reaches(self, targets: torch.Tensor) -> bool:
        """Whether outputs bent like that can come near all these targets."""
        low, high = _REACH.get(self.names[-1], (-_INFINITE, _INFINITE)) if self.names else (-_INFINITE, _INFINITE)
        single = "softmax" in self.names and (self.outputs.dim() < 2 or self.outputs.shape[1] == 1)
        return not single and float(targets.min()) >= low and float(targets.max()) <= high


def head_of(model: nn.Module, inputs: torch.Tensor) -> Head:
    """Find the activations behind the last weights, written as modules or as calls.

    Raises:
        Inapplicable: the forward pass cannot be watched.
    """
    refuse_frozen(model)
    passes = {mode: trace(model, inputs, training=mode) for mode in (True, False)}
    outputs = passes[True].outputs
    if not isinstance(outputs, torch.Tensor):
        raise Inapplicable(f"model(inputs) returned {type(outputs).__name__}, no tensor")
    bends = {mode: _bends(seen) for mode, seen in passes.items()}
    names = tuple(passes[True].calls[place].name for place in bends[True])
    if names != tuple(passes[False].calls[place].name for place in bends[False]):
        raise Inapplicable("the model ends in other activations in training than in evaluation")
    return Head(names, outputs.detach(), {m: _first(passes[m], bends[m]) for m in passes} if names else {})


def _bends(seen: Trace) -> list[int]:
    """Return the places of the calls that bend the outputs, first to last."""
    found: list[int] = []
    tensor: torch.Tensor | None = seen.outputs
    place = len(seen.calls)
    while tensor is not None:
        place = next((i for i in range(place - 1, -1, -1) if seen.calls[i].result is tensor), -1)
        if place < 0 or seen.calls[place].name not in _BENDING | _SHAPING:
            break
        if seen.calls[place].name in _BENDING:
            found.insert(0, place)
        tensor = seen.calls[place].given
    return found


def _first(seen: Trace, bends: list[int]) -> Places:
    call = seen.calls[bends[0]]
    if seen.outputs.requires_grad and not call.saved:
        raise Inapplicable("the model uses activation checkpointing: its forward pass runs again without the change")
    same = [i for i, other in enumerate(seen.calls) if other.name == call.name]
    return Places(frozenset({call.name}), frozenset({same.index(bends[0])}), len(same))


def put_head(model: nn.Module, head: Head, activation: Activation | None) -> None:
    """Have the model end in this activation (None: in none), and its outputs carry what comes before it."""
    replace_forward(model, _Headed(model, head.places, activation))


class _Headed:
    """A forward method whose result is another activation of what the last weights gave."""

    def __init__(self, model: nn.Module, places: dict[bool, Places], activation: Activation | None) -> None:
        self._model, self._below, self._places, self._activation = model, model.forward, places, activation

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        before, outputs = self._before(*args, **kwargs)
        before = before.reshape(outputs.shape)
        return mark(before.clone() if self._activation is None else self._activation(before), before)

    def _before(self, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        if not self._places:
            outputs = self._below(*args, **kwargs)
            return outputs, outputs
        kept: list[torch.Tensor] = []

        def keep(function: Callable[..., Any], inner: tuple[Any, ...], named: dict[str, Any]) -> Any:
            kept.append(inner[0] if inner else named["input"])
            return function(kept[-1].clone(), *inner[1:], **{k: v for k, v in named.items() if k != "input"})

        with Watched(self._places[self._model.training], keep) as mode:
            outputs = self._below(*args, **kwargs)
        mode.check()
        return kept[0], outputs
