"""Finds layers and activations in a model, and exchanges them in place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from remedy.spaces.calls import (
    Instead,
    Places,
    Swapped,
    Trace,
    refuse_checkpointed,
    refuse_frozen,
    replace_forward,
    trace,
)
from remedy.spaces.remedy import Inapplicable

Weighted = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d
NORMS = (
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    nn.SyncBatchNorm,
    nn.InstanceNorm1d,
    nn.InstanceNorm2d,
    nn.InstanceNorm3d,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.LocalResponseNorm,
    nn.RMSNorm,
)
ACTIVATIONS = (
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.PReLU,
    nn.RReLU,
    nn.ELU,
    nn.SELU,
    nn.CELU,
    nn.GELU,
    nn.SiLU,
    nn.Mish,
    nn.Hardswish,
    nn.Hardtanh,
    nn.Hardsigmoid,
    nn.Tanh,
    nn.Sigmoid,
    nn.Softplus,
    nn.Softsign,
    nn.LogSigmoid,
    nn.Tanhshrink,
)
ACTIVATION_CALLS = frozenset(
    {
        "relu",
        "relu6",
        "leaky_relu",
        "prelu",
        "rrelu",
        "elu",
        "selu",
        "celu",
        "gelu",
        "silu",
        "mish",
        "hardswish",
        "hardtanh",
        "hardsigmoid",
        "tanh",
        "sigmoid",
        "softplus",
        "softsign",
        "logsigmoid",
    }
)


@dataclass(frozen=True)
class Layer:
    """A layer that multiplies by weights, as it ran on the probe."""

    path: str
    module: Weighted
    shape: torch.Size


@dataclass(frozen=True)
class Hidden:
    """The hidden activations of a model: modules by path, and calls of functions (for training and evaluation)."""

    modules: dict[str, nn.Module]
    calls: dict[bool, Places]
    names: tuple[str, ...]

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.modules) + len(self.names)


def layers(model: nn.Module, inputs: torch.Tensor) -> list[Layer]:
    """Return the layers that run, in the order in which they run; the last one is the output's."""
    refuse_frozen(model)
    found: dict[str, Layer] = {}
    named = dict(model.named_modules())
    for path, output in trace(model, inputs, training=True).modules:
        module = named[path]
        if isinstance(module, Weighted):
            found.pop(path, None)  # a shared layer stands where it runs last
            found[path] = Layer(path, module, output.shape)
    return list(found.values())


def tied(model: nn.Module) -> set[nn.Module]:
    """Return the modules that hold a parameter which another module holds, too."""
    holders: dict[int, list[nn.Module]] = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            holders.setdefault(id(parameter), []).append(module)
    return {module for several in holders.values() if len(several) > 1 for module in several}


def hidden_activations(model: nn.Module, inputs: torch.Tensor) -> Hidden:
    """Find the activations that a layer with weights comes after; those of the output are not among them."""
    refuse_frozen(model)
    passes = {mode: trace(model, inputs, training=mode) for mode in (True, False)}
    named = dict(model.named_modules())
    owners = {path for path, module in named.items() if isinstance(module, ACTIVATIONS)}
    inside: dict[str, bool] = {}
    for place, call in enumerate(passes[True].calls):
        if call.owner in owners:
            inside[call.owner] = inside.get(call.owner, True) and place < passes[True].last_weighted()
    modules = {path: named[path] for path, hidden in inside.items() if hidden}
    calls = {mode: _places(seen, owners) for mode, seen in passes.items()}
    activations = [call for call in passes[True].calls if call.name in ACTIVATION_CALLS]
    return Hidden(modules, calls, tuple(activations[place].name for place in sorted(calls[True].places)))


def _places(seen: Trace, owners: set[str]) -> Places:
    last, found, total = seen.last_weighted(), set(), 0
    for place, call in enumerate(seen.calls):
        if call.name in ACTIVATION_CALLS:
            if place < last and call.owner not in owners:
                found.add(total)
            total += 1
    return Places(ACTIVATION_CALLS, frozenset(found), total)


def exchange(model: nn.Module, new: Mapping[Any, nn.Module]) -> list[str]:
    """Put a new module wherever the old one stands, shared ones everywhere; returns the paths."""
    paths = []
    for path, module in list(model.named_modules(remove_duplicate=False)):
        if module in new and path:
            parent, _, name = path.rpartition(".")
            model.get_submodule(parent).add_module(name, new[module])
            paths.append(path)
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoderLayer):
            module.activation_relu_or_gelu = 0  # its fused evaluation would use the activation it was built with
    return paths


def swap_activations(
    model: nn.Module, inputs: torch.Tensor, differs: Callable[[nn.Module | str], bool], build: Callable[[], nn.Module]
) -> tuple[list[str], list[str]]:
    """Exchange the hidden activations that differ from the new one; returns the paths and the names of the calls."""
    hidden = hidden_activations(model, inputs)
    if not len(hidden):
        raise Inapplicable("the model has no hidden activation that could be found")
    paths = exchange(model, {module: build() for module in hidden.modules.values() if differs(module)})
    names = [name for name in hidden.names if differs(name)]
    if names:
        # The modules may be other ones now, and each counts as a call.
        swap_calls(model, inputs, _Applied(build(), frozenset(names)))
    return paths, names


def swap_calls(model: nn.Module, inputs: torch.Tensor, instead: Instead) -> None:
    """Exchange the calls of activation functions in the model's forward pass."""
    refuse_checkpointed(model, inputs, ACTIVATION_CALLS)
    hidden = hidden_activations(model, inputs)
    replace_forward(model, Swapped(model, hidden.calls, instead))


@dataclass(frozen=True)
class _Applied:
    """Calls a module in place of the functions of these names."""

    module: nn.Module
    names: frozenset[str]

    def __call__(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if function.__name__ not in self.names:
            return function(*args, **kwargs)
        return self.module(args[0] if args else kwargs["input"])


def unregistered(model: nn.Module) -> list[nn.Parameter]:
    """Return the parameters of activations that stand in the place of calls, which no module of the model holds."""
    forward = model.__dict__.get("forward")
    instead = getattr(forward, "instead", None)
    return list(instead.module.parameters()) if isinstance(instead, _Applied) else []


def append(layer: nn.Module, after: nn.Module) -> None:
    """Have a module run on everything another one returns, as a part of it: paths and weights stay what they are."""
    layer.add_module("remedy_after", after)
    layer.register_forward_hook(_after)


def _after(layer: nn.Module, _args: Any, output: torch.Tensor) -> torch.Tensor:
    return layer.get_submodule("remedy_after")(output)  # type: ignore[no-any-return]
