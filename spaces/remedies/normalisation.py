"""Remedies for normalisation: norm layers on, off, or of another kind."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from remedy.spaces.facts import Facts
from remedy.spaces.remedy import Change, Inapplicable, Remedy, remedy
from remedy.spaces.slot import Slot
from remedy.spaces.surgery import NORMS, Layer, append, exchange, layers

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_SEQUENCE = (nn.RNNBase, nn.MultiheadAttention)
_POST = "posts 000, 001: batch normalisation on or off"
_GROUPS = 8


@remedy(
    Slot.NORMALISATION,
    treats=(
        "vanishing_gradient", "dead_units", "class_takeover", "accuracy_collapse", "exploding_gradient",
        "zero_gradient", "saturated_softmax",
    ),
    invasiveness=4,
    source=f"{_POST}; Ioffe & Szegedy 2015; catalogue R42",
)  # fmt: skip
def batch_norm_on(model: nn.Module, *, facts: Facts) -> Change:
    """Puts batch normalisation behind every hidden layer, before its activation."""
    if any(isinstance(module, _SEQUENCE) for module in model.modules()):
        raise Inapplicable("the model is recurrent or a transformer, where samples of a batch do not share statistics")
    if facts.batch_size < 2:
        raise Inapplicable("a batch of one sample has no variance")
    return _appended(model, facts, "BatchNorm", _batch_norm)


@remedy(
    Slot.NORMALISATION,
    treats=("vanishing_gradient", "accuracy_collapse", "exploding_gradient", "dead_units", "saturated_softmax"),
    invasiveness=4,
    source="Ba et al. 2016; catalogue R44",
)
def layer_norm_on(model: nn.Module, *, facts: Facts) -> Change:
    """Puts layer normalisation behind every hidden layer, before its activation."""
    return _appended(model, facts, "LayerNorm", _layer_norm)


@remedy(
    Slot.NORMALISATION,
    treats=("accuracy_collapse", "non_finite"),
    invasiveness=4,
    source=f"{_POST}; catalogue R43",
)
def batch_norm_off(model: nn.Module) -> Change:
    """Takes every batch normalisation out."""
    return _exchanged(model, lambda _norm: nn.Identity())


@remedy(
    Slot.NORMALISATION,
    treats=("accuracy_collapse", "non_finite"),
    invasiveness=4,
    source=f"{_POST}; Wu & He 2018; catalogue R43",
)
def group_norm(model: nn.Module) -> Change:
    """Replaces every batch normalisation by group normalisation, which does not depend on the batch."""
    return _exchanged(model, _group_norm)


def _appended(model: nn.Module, facts: Facts, name: str, build: Callable[[Layer], nn.Module | None]) -> Change:
    present = [path for path, module in model.named_modules() if isinstance(module, NORMS)]
    if present:
        raise Inapplicable(f"the model has norm layers already: {', '.join(present)}")
    paths = []
    for layer in layers(model, facts.inputs)[:-1]:
        norm = build(layer)
        if norm is not None:
            append(layer.module, norm)
            paths.append(layer.path)
    if not paths:
        raise Inapplicable(f"the model has no hidden Linear or Conv layer that {name} fits behind")
    return Change(model, f"{name} behind {len(paths)} hidden layer(s): {', '.join(paths)}")


def _batch_norm(layer: Layer) -> nn.Module | None:
    if isinstance(layer.module, nn.Linear):
        return nn.BatchNorm1d(layer.shape[1]) if len(layer.shape) == 2 else None
    kinds: dict[int, type[nn.Module]] = {3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
    return kinds[len(layer.shape)](layer.shape[1]) if len(layer.shape) in kinds else None


def _layer_norm(layer: Layer) -> nn.Module:
    if isinstance(layer.module, nn.Linear):
        return nn.LayerNorm(layer.shape[-1])
    return nn.GroupNorm(1, layer.shape[1])  # over all channels and places: what layer norm is for images


def _exchanged(model: nn.Module, build: Callable[[nn.Module], nn.Module]) -> Change:
    new = {module: build(module) for module in model.modules() if isinstance(module, _BATCH_NORMS)}
    paths = exchange(model, new)
    if not paths:
        raise Inapplicable("the model has no batch normalisation")
    kinds = ", ".join(sorted({type(module).__name__ for module in new.values()}))
    return Change(model, f"{kinds} in place of {len(paths)} batch norm layer(s): {', '.join(paths)}")


def _group_norm(norm: nn.Module) -> nn.Module:
    channels = int(norm.num_features)  # type: ignore[arg-type]
    return nn.GroupNorm(next(g for g in range(_GROUPS, 0, -1) if channels % g == 0), channels)


REMEDIES: tuple[Remedy, ...] = (batch_norm_on, layer_norm_on, batch_norm_off, group_norm)
