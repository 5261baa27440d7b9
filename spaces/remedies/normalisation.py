"""Remedies for normalisation: norm layers on, off, or of another kind."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn
from torch.nn.utils import parametrizations, parametrize

from remedy.spaces.facts import Facts
from remedy.spaces.python import Python, put
from remedy.spaces.remedy import Change, Inapplicable, Remedy, remedy
from remedy.spaces.slot import Slot
from remedy.spaces.surgery import NORMS, Layer, append, exchange, layers, tied

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_SEQUENCE = (nn.RNNBase, nn.MultiheadAttention)
_POST = "posts 000, 001: batch normalisation on or off"
_GROUPS = 8
_APPENDED = Python(
    model="""
for path, norm in $norms.items():
    layer = model.get_submodule(path)
    layer.add_module("norm_after", norm)  # a part of the layer, so that every path stays what it is
    layer.register_forward_hook(lambda layer, args, output: layer.norm_after(output))
"""
)
_PUT = Python(define=(put,), model="for path, module in $norms.items():\n    put(model, path, module)")


def _parametrising(name: str) -> Python:
    line = f"nn.utils.parametrizations.{name}(model.get_submodule(path))"
    return Python(model=f"for path in $paths:\n    {line}")


def _said(norms: dict[str, nn.Module]) -> dict[str, str]:
    return {"norms": "\n".join(["{", *(f"    {path!r}: nn.{norm!r}," for path, norm in norms.items()), "}"])}


@remedy(
    Slot.NORMALISATION,
    treats=(
        "vanishing_gradient", "dead_units", "class_takeover", "accuracy_collapse", "exploding_gradient",
        "zero_gradient", "saturated_softmax", "worse_than_guessing", "constant_output"),
    invasiveness=4,
    source=f"{_POST}; Ioffe & Szegedy 2015; catalogue R42",
    python=_APPENDED,
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
    treats=(
        "vanishing_gradient",
        "accuracy_collapse",
        "exploding_gradient",
        "dead_units",
        "saturated_softmax",
        "worse_than_guessing",
        "constant_output",
    ),
    invasiveness=4,
    source="Ba et al. 2016; catalogue R44",
    python=_APPENDED,
)
def layer_norm_on(model: nn.Module, *, facts: Facts) -> Change:
    """Puts layer normalisation behind every hidden layer, before its activation."""
    return _appended(model, facts, "LayerNorm", _layer_norm)


@remedy(
    Slot.NORMALISATION,
    treats=("vanishing_gradient", "exploding_gradient", "accuracy_collapse", "dead_units"),
    invasiveness=4,
    source="Zhang & Sennrich 2019; catalogue R44",
    python=_APPENDED,
)
def rms_norm_on(model: nn.Module, *, facts: Facts) -> Change:
    """Puts RMS normalisation, which scales and does not shift, behind every hidden Linear layer."""
    return _appended(model, facts, "RMSNorm", _rms_norm)


@remedy(
    Slot.NORMALISATION,
    treats=("exploding_gradient", "chance_plateau", "accuracy_collapse", "vanishing_gradient"),
    invasiveness=5,
    source="Xiong et al. 2020; tuning playbook: Norm(x + f(x)) is known to cause issues; catalogue R44",
    python=Python(
        model="""
for module in model.modules():
    if isinstance(module, nn.TransformerEncoderLayer | nn.TransformerDecoderLayer):
        module.norm_first = True
"""
    ),
)
def pre_norm(model: nn.Module) -> Change:
    """Moves the norm of transformer layers into the residual branch: x + f(Norm(x)) in place of Norm(x + f(x))."""
    moved = []
    for path, module in model.named_modules():
        if isinstance(module, nn.TransformerEncoderLayer | nn.TransformerDecoderLayer) and not module.norm_first:
            module.norm_first = True
            moved.append(path or "the model")
    if not moved:
        raise Inapplicable("the model has no transformer layer of torch's that normalises after the residual path")
    return Change(model, f"norm before attention and feed-forward in {len(moved)} layer(s): {', '.join(moved)}")


@remedy(
    Slot.NORMALISATION,
    treats=("exploding_gradient", "accuracy_collapse"),
    invasiveness=4,
    source="Salimans & Kingma 2016; torch.nn.utils.parametrizations.weight_norm; catalogue R52",
    python=_parametrising("weight_norm"),
)
def weight_norm(model: nn.Module, *, facts: Facts) -> Change:
    """Learns the length and the direction of each hidden unit's weights apart."""
    return _parametrised(model, facts, "weight norm", parametrizations.weight_norm)


@remedy(
    Slot.NORMALISATION,
    treats=("exploding_gradient", "non_finite", "accuracy_collapse"),
    invasiveness=4,
    source="Miyato et al. 2018; torch.nn.utils.parametrizations.spectral_norm; catalogue R52",
    python=_parametrising("spectral_norm"),
)
def spectral_norm(model: nn.Module, *, facts: Facts) -> Change:
    """Divides the weights of every hidden layer by their largest singular value."""
    return _parametrised(model, facts, "spectral norm", parametrizations.spectral_norm)


@remedy(
    Slot.NORMALISATION,
    treats=("exploding_gradient", "accuracy_collapse", "vanishing_gradient", "saturated_softmax"),
    invasiveness=4,
    source="Takase et al. 2023, Spike No More; catalogue R53",
    python=_APPENDED,
)
def embedding_norm(model: nn.Module) -> Change:
    """Puts layer normalisation behind every embedding."""
    found = {path: module for path, module in model.named_modules() if isinstance(module, nn.Embedding)}
    if not found:
        raise Inapplicable("the model has no embedding")
    norms: dict[str, nn.Module] = {path: nn.LayerNorm(module.embedding_dim) for path, module in found.items()}
    for path, norm in norms.items():
        append(found[path], norm)
    return Change(model, f"LayerNorm behind {len(found)} embedding(s): {', '.join(found)}", _said(norms))


@remedy(
    Slot.NORMALISATION,
    treats=("accuracy_collapse", "non_finite", "generalisation_gap"),
    invasiveness=4,
    source=f"{_POST}; catalogue R43",
    python=_PUT,
)
def batch_norm_off(model: nn.Module) -> Change:
    """Takes every batch normalisation out."""
    return _exchanged(model, lambda _norm: nn.Identity())


@remedy(
    Slot.NORMALISATION,
    treats=("accuracy_collapse", "non_finite", "generalisation_gap"),
    invasiveness=4,
    source=f"{_POST}; Wu & He 2018; catalogue R43",
    python=_PUT,
)
def group_norm(model: nn.Module) -> Change:
    """Replaces every batch normalisation by group normalisation, which does not depend on the batch."""
    return _exchanged(model, _group_norm)


def _appended(model: nn.Module, facts: Facts, name: str, build: Callable[[Layer], nn.Module | None]) -> Change:
    if facts.applied("selu"):
        raise Inapplicable("SELU normalises by itself and does not go with norm layers")
    present = [path for path, module in model.named_modules() if isinstance(module, NORMS)]
    if present:
        raise Inapplicable(f"the model has norm layers already: {', '.join(present)}")
    paths = {}
    for layer in layers(model, facts.inputs)[:-1]:
        norm = build(layer)
        if norm is not None:
            append(layer.module, norm)
            paths[layer.path] = norm
    if not paths:
        raise Inapplicable(f"the model has no hidden Linear or Conv layer that {name} fits behind")
    return Change(model, f"{name} behind {len(paths)} hidden layer(s): {', '.join(paths)}", _said(paths))


def _parametrised(model: nn.Module, facts: Facts, name: str, build: Callable[[nn.Module], nn.Module]) -> Change:
    hidden = layers(model, facts.inputs)[:-1]
    done = [layer.path for layer in hidden if parametrize.is_parametrized(layer.module)]
    if done:
        raise Inapplicable(f"weights are parametrised already: {', '.join(done)}")
    several = tied(model)
    hidden = [layer for layer in hidden if layer.module not in several]
    if not hidden:
        raise Inapplicable("the model has no hidden Linear or Conv layer with weights of its own")
    for layer in hidden:
        build(layer.module)
    paths = [layer.path for layer in hidden]
    return Change(model, f"{name} on {len(hidden)} hidden layer(s): {', '.join(paths)}", {"paths": paths})


def _rms_norm(layer: Layer) -> nn.Module | None:
    return nn.RMSNorm(layer.shape[-1]) if isinstance(layer.module, nn.Linear) else None


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
    told = _said({path: model.get_submodule(path) for path in paths}) if len(new) == len(paths) else {}
    return Change(model, f"{kinds} in place of {len(paths)} batch norm layer(s): {', '.join(paths)}", told)


def _group_norm(norm: nn.Module) -> nn.Module:
    channels = int(norm.num_features)  # type: ignore[arg-type]
    return nn.GroupNorm(next(g for g in range(_GROUPS, 0, -1) if channels % g == 0), channels)


REMEDIES: tuple[Remedy, ...] = (
    batch_norm_on,
    layer_norm_on,
    rms_norm_on,
    pre_norm,
    weight_norm,
    spectral_norm,
    embedding_norm,
    batch_norm_off,
    group_norm,
)
