"""The remedy that starts every residual block as the identity, and how the layers that end a branch are found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.overrides import TorchFunctionMode

from remedy.spaces.calls import PROBE, refuse_frozen
from remedy.spaces.facts import Facts
from remedy.spaces.python import Python
from remedy.spaces.remedies.dropout import DROPOUTS
from remedy.spaces.remedy import Change, Inapplicable, Remedy, remedy
from remedy.spaces.slot import Slot
from remedy.spaces.surgery import NORMS, Weighted, tied

_KNOWN = {
    "TransformerEncoderLayer": ("linear2", "self_attn.out_proj"),
    "TransformerDecoderLayer": ("linear2", "self_attn.out_proj", "multihead_attn.out_proj"),
    "BasicBlock": ("bn2",),  # torchvision's
    "Bottleneck": ("bn3",),
}
"""Blocks whose branches do not end in a call of a layer's module, or are added to a layer's output."""
_ADDING = frozenset({"add", "add_", "__add__", "__radd__", "__iadd__"})
_DROPPING = frozenset({"dropout", "dropout1d", "dropout2d", "dropout3d"})


@remedy(
    Slot.INITIALISATION,
    treats=("exploding_gradient", "accuracy_collapse"),
    invasiveness=4,
    source="Zhang et al. 2019 (Fixup); Goyal et al. 2017; catalogue R46",
    python=Python(
        model="""
for path in $paths:
    for parameter in model.get_submodule(path).parameters():
        nn.init.zeros_(parameter)
"""
    ),
)
def zero_residual_branches(model: nn.Module, *, facts: Facts) -> Change:
    """Sets the last weights of each residual branch to zero, so that every block starts as the identity."""
    ends = dict.fromkeys([*_of_known_blocks(model), *_before_a_sum(model, facts.inputs)])
    zeroed = [path for path in ends if not _parametrised(model.get_submodule(path))]
    if not zeroed:
        raise Inapplicable(
            "the weights that end its residual branches are computed from others"
            if ends
            else "the model has no residual branch that ends in a layer"
        )
    with torch.no_grad():
        for path in zeroed:
            for parameter in model.get_submodule(path).parameters():
                parameter.zero_()
    told = f"weights of {len(zeroed)} layer(s) that end a residual branch set to 0: {', '.join(zeroed)}"
    return Change(model, told, {"paths": zeroed})


def _of_known_blocks(model: nn.Module) -> Iterator[str]:
    for path, module in model.named_modules():
        for inner in _KNOWN.get(type(module).__name__, ()):
            found = f"{path}.{inner}".lstrip(".")
            try:
                model.get_submodule(found)
            except AttributeError:  # a block of the user's own of that name
                continue
            yield found


def _parametrised(layer: nn.Module) -> bool:
    return any(parametrize.is_parametrized(module) for module in layer.modules())


def _before_a_sum(model: nn.Module, inputs: torch.Tensor) -> list[str]:
    """Return the layers whose output, each time, is added to something that it was computed from."""
    refuse_frozen(model)
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    sums = _Sums()
    probe = inputs[:PROBE]
    if probe.is_floating_point():
        probe = probe.detach().clone().requires_grad_()  # the first block may add to the inputs themselves
    model.train()
    try:
        with torch.random.fork_rng(devices=[]), torch.enable_grad(), _noted(model, sums), sums:
            model(probe)
    finally:
        with torch.no_grad():
            for name, buffer in model.named_buffers():
                buffer.copy_(buffers[name])
    named, several = dict(model.named_modules()), tied(model)
    return [path for path, runs in sums.runs.items() if sums.added[path] == runs and named[path] not in several]


@dataclass
class _Sums(TorchFunctionMode):
    """Follows the outputs of layers, also through dropout, into the sums that they are a part of."""

    runs: Counter[str] = field(default_factory=Counter)
    added: Counter[str] = field(default_factory=Counter)
    _from: dict[int, tuple[str, torch.Tensor]] = field(default_factory=dict)
    """By the id of an output its layer; with the output, so that the id stays its own."""

    def __post_init__(self) -> None:
        """Be a mode."""
        super().__init__()

    def ran(self, path: str, output: torch.Tensor) -> None:
        """Take note of a layer's output."""
        self.runs[path] += 1
        self._from[id(output)] = path, output

    def dropped(self, before: Any, after: Any) -> None:
        """Take note that zeros stay zeros from one tensor to the other."""
        if id(before) in self._from and isinstance(after, torch.Tensor):
            self._from[id(after)] = self._from[id(before)][0], after

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = str(getattr(func, "__name__", ""))
        if name in _ADDING and len(args) == 2:
            for branch, other in (args, args[::-1]):
                if id(branch) in self._from and _depends(branch, other):  # before the sum: it may be made in place
                    self.added[self._from[id(branch)][0]] += 1
        result = func(*args, **(kwargs or {}))
        if name in _DROPPING and args:
            self.dropped(args[0], result)
        return result


def _depends(branch: torch.Tensor, other: Any) -> bool:
    """Whether a tensor was computed from another one of its shape."""
    if not isinstance(other, torch.Tensor) or branch.shape != other.shape or branch is other:
        return False
    if not (branch.requires_grad and other.requires_grad):
        return False
    [found] = torch.autograd.grad(branch.sum(), other, retain_graph=True, allow_unused=True)
    return found is not None


@contextmanager
def _noted(model: nn.Module, sums: _Sums) -> Iterator[None]:
    def layer(path: str) -> Any:
        return lambda _module, _args, output: sums.ran(path, output)

    handles = []
    for path, module in model.named_modules():
        if isinstance(module, (Weighted, *NORMS)) and next(module.parameters(), None) is not None:
            handles.append(module.register_forward_hook(layer(path)))
        elif isinstance(module, DROPOUTS):
            handles.append(module.register_forward_hook(lambda _module, args, output: sums.dropped(args[0], output)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


REMEDIES: tuple[Remedy, ...] = (zero_residual_branches,)
