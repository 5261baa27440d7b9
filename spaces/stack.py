"""Stacks of layers: Sequentials whose layers can be narrowed, left out or bridged without reading the user's code."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from remedy.spaces.calls import refuse_frozen, trace
from remedy.spaces.remedy import Inapplicable
from remedy.spaces.surgery import Weighted, tied


@dataclass
class Place:
    """One leaf of a stack: the module, and the Sequential and name under which it stands."""

    path: str
    parent: nn.Sequential
    name: str

    @property
    def module(self) -> nn.Module:
        """The module that stands here now."""
        return self.parent.get_submodule(self.name)

    def put(self, module: nn.Module) -> None:
        """Exchange the module."""
        self.parent.add_module(self.name, module)


@dataclass
class Block:
    """A layer with weights and what follows it up to the next one."""

    places: list[Place]

    @property
    def layer(self) -> Weighted:
        """The layer with weights."""
        module = self.places[0].module
        assert isinstance(module, Weighted)  # noqa: S101  (a block begins with one)
        return module

    @property
    def square(self) -> bool:
        """Whether what comes out has the shape of what goes in, and something bends it."""
        layer, rest = self.layer, [place.module for place in self.places[1:]]
        return isinstance(layer, nn.Linear) and layer.in_features == layer.out_features and bool(rest)


def stacks(model: nn.Module) -> list[list[Block]]:
    """Return the blocks of every outermost Sequential that holds at least two layers with weights, all their own."""
    refuse_frozen(model)
    found, inside, several = [], set[nn.Module](), tied(model)
    for path, module in model.named_modules():
        if type(module) is nn.Sequential and module not in inside:
            inside.update(module.modules())
            blocks: list[Block] = []
            for place in _leaves(module, path):
                if isinstance(place.module, Weighted):
                    blocks.append(Block([]))
                if blocks:
                    blocks[-1].places.append(place)
            own = {block.layer for block in blocks}
            shared = len(own) < len(blocks) or bool(own & several)
            if len(blocks) >= 2 and not shared:
                found.append(blocks)
    return found


def squares(model: nn.Module) -> list[Block]:
    """Return the hidden blocks whose output has the shape of their input."""
    return [block for blocks in stacks(model) for block in blocks[:-1] if block.square]


def _leaves(stack: nn.Sequential, path: str) -> Iterator[Place]:
    # A module that stands here twice is here twice, which `named_children` does not say.
    for name, module in stack.named_modules(remove_duplicate=False):
        if not name or "." in name:
            continue
        inner = f"{path}.{name}".lstrip(".")
        if type(module) is nn.Sequential:
            yield from _leaves(module, inner)
        else:
            yield Place(inner, stack, name)


def check_shape(model: nn.Module, inputs: torch.Tensor, before: torch.Size) -> None:
    """Refuse a model that surgery has left unable to give outputs of the old shape.

    Raises:
        Inapplicable: it raises, or returns another shape.
    """
    try:
        after = trace(model, inputs, training=True).outputs.shape
    except (RuntimeError, ValueError, IndexError) as error:
        raise Inapplicable(f"the layers depend on each other in a way that is not seen: {error}") from error
    if after != before:
        raise Inapplicable(f"the outputs would have the shape {tuple(after)} in place of {tuple(before)}")
