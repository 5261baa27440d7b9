"""Reads a training's facts from its data."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, Subset, TensorDataset, default_collate

from remedy.spaces.batches import split
from remedy.spaces.error import InputError
from remedy.spaces.objective import IGNORED, TargetKind
from remedy.spaces.training import Training

PROBE = 256
_LABELS_READ = 2_000
KNOBS = ("width", "depth")
_SPREAD = frozenset({"DistributedDataParallel", "FullyShardedDataParallel", "DataParallel", "FSDPModule", "DDP"})
"""Wrappers by class, and the classes that `fully_shard` and `replicate` mix into a module's own."""
_FROZEN = frozenset({"OptimizedModule", "ScriptModule", "RecursiveScriptModule"})
Collate = Callable[[list[Any]], Any] | None


def probe_batch(train: Any, collate_fn: Collate = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Return up to 256 samples, spread evenly over the train set, as batches hold them, on the CPU.

    Raises:
        InputError: a sample or a batch is no pair, or its inputs are no tensor.
    """
    if isinstance(train, DataLoader):
        inputs, targets = split(next(iter(train)))
    else:
        inputs, targets = _collated(train, _spread(len(train), PROBE), collate_fn)
    if not isinstance(inputs, torch.Tensor):
        msg = f"the inputs of a batch are a {type(inputs).__name__}; they may be one tensor, a row for each sample"
        raise InputError(msg)
    return inputs[:PROBE].cpu(), targets[:PROBE].cpu()


def inputs_of(train: Any, probe: torch.Tensor) -> torch.Tensor:
    """Return all inputs of the train set where they lie in memory as one tensor, else the probe batch."""
    whole = _whole(train.dataset if isinstance(train, DataLoader) else train, 0)
    # A collate_fn may make something else of the samples: then the batch is what the model gets.
    return whole.cpu() if whole is not None and _alike(whole, probe) else probe


def targets_of(train: Any, collate_fn: Collate = None) -> torch.Tensor:
    """Return the targets of the train set as batches hold them, on the CPU.

    Of all samples where they lie in memory as one tensor; else of up to 2,000 that are spread evenly (the first ones
    of a DataLoader whose samples cannot be read one by one). Those of sequences of different lengths are laid flat.
    """
    dataset = train
    if isinstance(train, DataLoader):
        if train.batch_sampler is None or isinstance(train.dataset, IterableDataset):
            whole = _whole(train.dataset, 1)
            return whole.cpu() if whole is not None else _joined(_first_batches(train))
        dataset, collate_fn = train.dataset, train.collate_fn
    whole = _whole(dataset, 1)
    if whole is not None:
        places = _spread(len(whole), PROBE)
        if collate_fn in (None, default_collate) or _same(_collated(dataset, places, collate_fn)[1], whole[places]):
            return whole.cpu()
    places = _spread(len(dataset), _LABELS_READ)
    try:
        return _joined(_in_parts(dataset, places, PROBE, collate_fn))
    except RuntimeError:  # samples of different sizes, which only a batch sampler brings together
        return _joined(_in_parts(dataset, places, 1, collate_fn))


def _whole(dataset: Any, place: int) -> torch.Tensor | None:
    """Return the inputs (0) or targets (1) of all samples where they lie in memory as one tensor."""
    if type(dataset) is TensorDataset:
        return dataset.tensors[place]
    if type(dataset) is Subset and type(dataset.dataset) is TensorDataset:
        return dataset.dataset.tensors[place][torch.as_tensor(dataset.indices)]
    return None


def _alike(whole: torch.Tensor, probe: torch.Tensor) -> bool:
    return whole.shape[1:] == probe.shape[1:] and whole.dtype == probe.dtype


def _same(read: torch.Tensor, lying: torch.Tensor) -> bool:
    return read.shape == lying.shape and read.dtype == lying.dtype and torch.equal(read.cpu(), lying.cpu())


def _spread(samples: int, most: int) -> list[int]:
    count = min(most, samples)
    return [place * (samples - 1) // max(1, count - 1) for place in range(count)]


def _collated(dataset: Any, places: list[int], collate_fn: Collate) -> tuple[Any, torch.Tensor]:
    samples = [dataset[place] for place in places]
    if collate_fn is None and (not isinstance(samples[0], tuple | list) or len(samples[0]) != 2):
        msg = f"a sample is {type(samples[0]).__name__}; it may be a pair (input, target)"
        raise InputError(msg)
    return split((collate_fn or default_collate)(samples))


def _in_parts(dataset: Any, places: list[int], size: int, collate_fn: Collate) -> list[torch.Tensor]:
    parts = [places[first : first + size] for first in range(0, len(places), size)]
    return [_collated(dataset, part, collate_fn)[1].cpu() for part in parts]


def _first_batches(loader: DataLoader[Any]) -> list[torch.Tensor]:
    found: list[torch.Tensor] = []
    for batch in loader:
        found.append(split(batch)[1].cpu())
        if sum(map(len, found)) >= _LABELS_READ:
            break
    return found


def _joined(parts: list[torch.Tensor]) -> torch.Tensor:
    same = len({part.shape[1:] for part in parts}) == 1
    return torch.cat(parts if same else [part.flatten() for part in parts])


def kind_of(targets: torch.Tensor, outputs: torch.Tensor | None = None) -> TargetKind:
    """Find what the targets are, from their type, shape and values (and the width of the output where it is known)."""
    whole = not targets.is_floating_point()
    zero_one = bool(((targets == 0) | (targets == 1)).all())
    same = outputs is not None and outputs.shape[1:] == targets.shape[1:]
    width = 0 if outputs is None else 1 if outputs.dim() == 1 else outputs.shape[1]
    if targets[:1].numel() != 1:
        if zero_one and (same or (outputs is None and not whole)):
            exclusive = targets.shape[1] > 1 and bool((targets.sum(1) == 1).all())
            return TargetKind.ONE_HOT if exclusive else TargetKind.MULTI_LABEL
        if same:
            return TargetKind.REAL
    if width == 1 or (outputs is None and not whole):
        return TargetKind.BINARY if zero_one else TargetKind.REAL
    return TargetKind.CLASS_INDEX if whole or _integral(targets, width) else TargetKind.REAL


def _integral(targets: torch.Tensor, classes: int) -> bool:
    """Whether real numbers are class indices all the same, for a loss that casts them."""
    return bool((((targets >= 0) & (targets < classes) & (targets == targets.round())) | (targets == IGNORED)).all())


def class_counts(
    targets: torch.Tensor, kind: TargetKind, classes: int, ignored: int = IGNORED
) -> tuple[tuple[int, ...], torch.Tensor]:
    """Return samples of each class and the class of each sample; empty for kinds without exclusive classes.

    The class that the loss leaves out is -100 among the classes of the samples, and counted nowhere.
    """
    if kind is TargetKind.ONE_HOT:
        labels = targets.argmax(1)
    elif kind in (TargetKind.CLASS_INDEX, TargetKind.BINARY):
        labels = targets.flatten().round().long()
        labels = torch.where(labels == ignored, IGNORED, labels)
    else:
        return (), torch.empty(0, dtype=torch.long)
    kept = labels[labels != IGNORED]
    if len(kept) and int(kept.min()) < 0:
        return (), torch.empty(0, dtype=torch.long)
    return tuple(torch.bincount(kept, minlength=max(classes, 2)).tolist()), labels


def open_knobs(training: Training) -> tuple[str, ...]:
    """Return the knobs the model builder understands: parameters called width or depth, or declared ones."""
    try:
        parameters = inspect.signature(training.model).parameters
    except (TypeError, ValueError):
        return tuple(training.knobs)
    return tuple(name for name in parameters if name in KNOBS or name in training.knobs)


def build_model(training: Training, knobs: dict[str, Any]) -> nn.Module:
    """Build the user's model.

    Raises:
        InputError: the builder returned something else.
    """
    model = training.model(**{**training.knobs, **knobs})
    if not isinstance(model, nn.Module):
        msg = f"model() returned {type(model).__name__}; it may return a torch.nn.Module"
        raise InputError(msg)
    refuse_wrapped(model, "model() returned", "return")
    return model


def refuse_wrapped(model: nn.Module, said: str, verb: str) -> None:
    """Refuse a model that is compiled or scripted, and one that is spread over devices, or whose parts are.

    Raises:
        InputError: it is; the sentence begins as `said`.
    """
    may_be = f"it may {verb} the plain module, which remedy can change"
    if type(model).__name__ in _FROZEN:
        raise InputError(f"{said} a {type(model).__name__}; {may_be}")
    if getattr(model, "_compiled_call_impl", None) is not None:
        raise InputError(f"{said} a {type(model).__name__} after its compile(); {may_be}")
    for path, module in model.named_modules():
        found = _SPREAD & {kind.__name__ for kind in type(module).__mro__}
        if found:
            part = f" whose part {path!r} is a {type(module).__name__}" if path else ""
            raise InputError(f"{said} a {type(model).__name__}{part}; {may_be}")
