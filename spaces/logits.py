"""The logits inside a model that gives out probabilities: found on a probe, and remembered for the loss.

The model goes on returning what it returned. Each output tensor carries the logits it was computed from, so that they
live exactly as long as it does and can never be those of another batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch
from torch import nn

from remedy.spaces.calls import Places, Trace, Watched, refuse_frozen, replace_forward, trace
from remedy.spaces.remedy import Inapplicable

_CLOSE = 1e-5
_MARK = "_remedy_logits"


class Squash(Enum):
    """How logits become probabilities, or their logarithms."""

    SOFTMAX = "softmax"
    LOG_SOFTMAX = "log_softmax"
    SIGMOID = "sigmoid"

    def __call__(self, logits: torch.Tensor) -> torch.Tensor:
        """Return what the model makes of logits."""
        if self is Squash.SIGMOID:
            return logits.sigmoid()
        return logits.softmax(1) if self is Squash.SOFTMAX else logits.log_softmax(1)

    def fits(self, outputs: torch.Tensor) -> bool:
        """Whether these outputs can have been made so."""
        if self is Squash.LOG_SOFTMAX:
            return Squash.SOFTMAX.fits(outputs.exp())
        inside = bool(((outputs >= 0) & (outputs <= 1 + _CLOSE)).all())
        if self is Squash.SIGMOID or not inside:
            return inside
        ones = torch.ones((), dtype=outputs.dtype)
        return outputs.dim() > 1 and outputs.shape[1] > 1 and torch.allclose(outputs.sum(1), ones, atol=1e-4)

    def inverse(self, probabilities: torch.Tensor) -> torch.Tensor:
        """Return logits of these outputs: finite, but flat where a probability is 0 to the last bit."""
        if self is Squash.LOG_SOFTMAX:
            return probabilities
        tiny = torch.finfo(probabilities.dtype).tiny
        logs = probabilities.clamp_min(tiny).log()
        return logs if self is Squash.SOFTMAX else logs - (1 - probabilities).clamp_min(tiny).log()


@dataclass(frozen=True)
class Logits:
    """How the loss gets at the logits, and a sentence about where they are."""

    read: Callable[[torch.Tensor], torch.Tensor]
    found: str
    path: str | None = None
    """Of the module whose input they are, where they are that."""


class UnknownLogitsError(RuntimeError):
    """A loss was given something else than the model's own outputs, so that their logits are not known."""


def remembered(outputs: torch.Tensor) -> torch.Tensor:
    """Return the logits that this very tensor was computed from.

    Raises:
        UnknownLogitsError: it is no output of the model, but something made from one.
    """
    logits = getattr(outputs, _MARK, None)
    if logits is None:
        msg = (
            f"the loss was given a tensor of shape {tuple(outputs.shape)} that is not what the model returned: "
            "its logits are known only for the model's own, unchanged outputs"
        )
        raise UnknownLogitsError(msg)
    return logits  # type: ignore[no-any-return]


def find(model: nn.Module, inputs: torch.Tensor, squash: Squash) -> Logits:
    """Find the tensor that the output is the softmax (or sigmoid) of, and have the model remember it from now on.

    Raises:
        Inapplicable: the outputs are no probabilities, or the forward pass cannot be watched.
    """
    refuse_frozen(model)
    passes = {mode: trace(model, inputs, training=mode) for mode in (True, False)}
    outputs = passes[True].outputs
    if not isinstance(outputs, torch.Tensor) or not squash.fits(outputs.detach().float()):
        raise Inapplicable(f"the model's outputs are no probabilities of a {squash.value}")
    head = _head(model, passes[True], squash)
    if head is not None:
        path, module = head
        module.register_forward_hook(_mark)
        where = next(own for own, found in model.named_modules() if found is module)
        return Logits(remembered, f"the input of {path} ({type(module).__name__})", where)
    places = {mode: _place(seen, squash) for mode, seen in passes.items()}
    if (found := places[True]) is None:
        told = f"no tensor that the outputs are the {squash.value} of, so the logarithm of the outputs is used"
        return Logits(squash.inverse, told)
    replace_forward(model, _Remembering(model, places))
    return Logits(remembered, f"the result of {_told(found)} in the forward pass")


def _told(places: Places) -> str:
    place = min(places.places) + 1
    return f"call {place} of {places.total} of `{', '.join(places.names)}`"


def mark(outputs: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """Have outputs carry the logits they were computed from; returns the outputs."""
    setattr(outputs, _MARK, logits)
    return outputs


def _mark(_module: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
    mark(output, args[0])


def _head(model: nn.Module, seen: Trace, squash: Squash) -> tuple[str, nn.Module] | None:
    """Return the Softmax or Sigmoid module whose output is, as an object, the model's output."""
    if squash is Squash.LOG_SOFTMAX:
        return None
    kind = nn.Softmax if squash is Squash.SOFTMAX else nn.Sigmoid
    named = dict(model.named_modules())
    for path, output in seen.modules:
        module = named[path]
        if output is seen.outputs and isinstance(module, kind) and getattr(module, "dim", 1) in (1, 1 - output.dim()):
            return path or "the model", module
    return None


def _place(seen: Trace, squash: Squash) -> Places | None:
    """Return the last call, among the calls of its name, whose result the outputs are the softmax of."""
    outputs = seen.outputs.detach()
    calls = list(seen.calls)
    # What is computed from the outputs afterwards (a logarithm of them, say) is not what they come from.
    first = next((i for i, call in enumerate(calls) if _same(call.result, outputs)), len(calls))
    if squash is Squash.LOG_SOFTMAX and first < len(calls) and calls[first].name == squash.value:
        raise Inapplicable("the model ends in a log_softmax, which is computed in one safe step already")
    for place in range(first - 1, -1, -1):
        name, result = calls[place].name, calls[place].result
        if result is not None and _matches(result, outputs, squash):
            if seen.outputs.requires_grad and not result.requires_grad:
                msg = "the logits were found but carry no gradient: detached, or under activation checkpointing"
                raise Inapplicable(msg)
            same = [i for i, other in enumerate(calls) if other.name == name]
            return Places(frozenset({name}), frozenset({same.index(place)}), len(same))
    return None


def _same(result: torch.Tensor | None, outputs: torch.Tensor) -> bool:
    return (
        result is not None
        and result.shape == outputs.shape
        and result.dtype == outputs.dtype
        and torch.equal(result.detach(), outputs)
    )


def _matches(result: torch.Tensor, outputs: torch.Tensor, squash: Squash) -> bool:
    return (
        result.shape == outputs.shape
        and result.is_floating_point()
        and torch.allclose(squash(result.detach().float()), outputs.float(), rtol=_CLOSE, atol=_CLOSE)
    )


class _Remembering:
    """A forward method that marks its outputs with the result of one call made inside it."""

    def __init__(self, model: nn.Module, places: dict[bool, Places | None]) -> None:
        self._model, self._below, self._places = model, model.forward, places

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        places = self._places[self._model.training]
        if places is None:
            return self._below(*args, **kwargs)
        kept: list[torch.Tensor] = []

        def keep(function: Callable[..., Any], inner: tuple[Any, ...], named: dict[str, Any]) -> Any:
            kept.append(function(*inner, **named))
            return kept[-1]

        with Watched(places, keep) as mode:
            outputs = self._below(*args, **kwargs)
        mode.check()
        return mark(outputs, kept[0])
