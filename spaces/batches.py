"""From the user's data to batches whose order is a function of (seed, epoch)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    Sampler,
    TensorDataset,
)

from remedy.spaces.error import InputError
from remedy.spaces.remedy import Inapplicable
from remedy.spaces.seeding import derive

EVALUATION_BATCH = 512
_PAIR = 2


def check_pair(data: object) -> tuple[Any, Any]:
    """Return (train, validation).

    Raises:
        InputError: `data()` returned anything but two non-empty Datasets or two DataLoaders.
    """
    if not isinstance(data, tuple | list) or len(data) != _PAIR:
        msg = f"data() returned {_kind(data)}; it may return a pair (train, validation)"
        raise InputError(msg)
    for name, part in zip(("train", "validation"), data, strict=True):
        if not isinstance(part, DataLoader | Dataset) and not (
            hasattr(part, "__getitem__") and hasattr(part, "__len__")
        ):
            msg = f"data(): {name} is {_kind(part)}; it may be a Dataset of (input, target) or a DataLoader"
            raise InputError(msg)
        if isinstance(part, IterableDataset):
            msg = f"data(): {name} is an IterableDataset; it may be a Dataset with a length, or a DataLoader"
            raise InputError(msg)
        if len(part) == 0:
            msg = f"data(): the {name} set is empty; it needs at least one sample"
            raise InputError(msg)
    if isinstance(data[0], DataLoader) != isinstance(data[1], DataLoader):
        msg = "data() returned one Dataset and one DataLoader; it may return two of the same"
        raise InputError(msg)
    return data[0], data[1]


def _kind(thing: object) -> str:
    return f"{type(thing).__name__}" + (f" of length {len(thing)}" if isinstance(thing, tuple | list) else "")


class Epochs:
    """The train batches. Iterating it over `epochs(first)` yields (epoch, batches); each order is drawn anew.

    Args:
        train: Dataset, or DataLoader (used as it is, its generators re-seeded).
        batch_size: samples a batch, ignored for a DataLoader.
        sampler: over the train set; None for a shuffled pass.
        collate_fn: as in DataLoader.
        seed: of the run.
        model: what the batches are for; with batch norm it would raise on a last batch of one sample, so that is
            left out.
    """

    def __init__(
        self,
        train: Any,
        batch_size: int | None,
        sampler: Sampler[int] | None,
        collate_fn: Callable[[list[Any]], Any] | None,
        seed: int,
        model: nn.Module | None = None,
    ) -> None:
        self._seed = seed
        self._generator = torch.Generator()
        if isinstance(train, DataLoader):
            self.loader: DataLoader[Any] = train
            own: Any = train.sampler
        else:
            own = sampler if sampler is not None else RandomSampler(train, generator=self._generator)
            size = batch_size or 1
            single = model is not None and _ends_single(own, size, model)
            self.loader = _loader(train, own, size, collate_fn, drop_last=single)
        self._sampler_generator: torch.Generator = self._generator
        if isinstance(own, Sampler) and hasattr(own, "generator"):
            if own.generator is None:
                own.generator = self._generator
            self._sampler_generator = own.generator

    def __len__(self) -> int:
        """Return batches in an epoch."""
        return len(self.loader)

    def epochs(self, first: int = 0) -> Iterator[tuple[int, Iterable[Any]]]:
        """Yield (epoch, its batches) without end."""
        epoch = first
        while True:
            self.begin(epoch)
            yield epoch, self.loader
            epoch += 1

    def begin(self, epoch: int) -> None:
        """Seed the generators for the batches of an epoch, which are read next."""
        for generator in {id(g): g for g in (self._generator, self._sampler_generator)}.values():
            generator.manual_seed(derive(self._seed, "batches", epoch))


def batches_in(train: Any, batch_size: int | None, sampler: Any, model: nn.Module) -> int:
    """Return the batches of an epoch, as `Epochs` forms them."""
    if isinstance(train, DataLoader):
        return len(train)
    drawn, size = train if sampler is None else sampler, batch_size or 1
    return -(-len(drawn) // size) - _ends_single(drawn, size, model)


def _ends_single(drawn: Any, batch_size: int, model: nn.Module) -> bool:
    """Whether the last batch is one sample, which has no variance, for a model with batch norm."""
    normed = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())  # noqa: SLF001
    return normed and len(drawn) > batch_size > 1 and len(drawn) % batch_size == 1


def evaluation(validation: Any, collate_fn: Callable[[list[Any]], Any] | None) -> DataLoader[Any]:
    """Return the validation batches, in fixed order."""
    if isinstance(validation, DataLoader):
        return validation
    order = range(len(validation))
    return _loader(validation, order, EVALUATION_BATCH, collate_fn, drop_last=False)


def _loader(
    dataset: Any,
    sampler: Any,
    batch_size: int,
    collate_fn: Callable[[list[Any]], Any] | None,
    *,
    drop_last: bool,
) -> DataLoader[Any]:
    if type(dataset) is TensorDataset and collate_fn is None:
        # Indexed with a whole batch at once: the same tensors as collating sample by sample, some ten times faster.
        batches = BatchSampler(sampler, batch_size, drop_last)
        return DataLoader(dataset, sampler=batches, batch_size=None)
    return DataLoader(dataset, batch_size, sampler=sampler, collate_fn=collate_fn, drop_last=drop_last)


def own_sampler(loader: DataLoader[Any]) -> Sampler[int] | None:
    """Return the sampler of a DataLoader where it does not shuffle, else None; its order may be fixed."""
    own = loader.sampler
    plain = isinstance(own, RandomSampler) or loader.batch_size is None
    return own if isinstance(own, Sampler) and not plain else None


def in_order(sampler: Any) -> bool:
    """Whether a sampler draws every sample once, in the same order each time."""
    if sampler is None or isinstance(sampler, RandomSampler):
        return False
    with torch.random.fork_rng(devices=[]):
        drawn = [list(sampler), list(sampler)]
    return drawn[0] == drawn[1] and len(set(drawn[0])) == len(drawn[0])


def reloaded(loader: DataLoader[Any], sampler: Any, batch_size: int | None) -> DataLoader[Any]:
    """Return the same DataLoader with another sampler (None: shuffled) and batch size.

    Raises:
        Inapplicable: it forms its batches by a batch sampler, which takes no other sampler.
    """
    if loader.batch_size is None:
        msg = "data() gives a DataLoader with a batch sampler, whose samples cannot be drawn otherwise"
        raise Inapplicable(msg)
    return DataLoader(
        loader.dataset,
        batch_size,
        sampler=sampler if sampler is not None else RandomSampler(loader.dataset),  # type: ignore[arg-type]
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        drop_last=loader.drop_last,
        timeout=loader.timeout,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
        prefetch_factor=loader.prefetch_factor,
        persistent_workers=loader.persistent_workers,
    )


def split(batch: Any) -> tuple[Any, torch.Tensor]:
    """Return (inputs, targets) of a batch.

    Raises:
        InputError: the batch is no pair.
    """
    if not isinstance(batch, tuple | list) or len(batch) != _PAIR:
        msg = f"a batch is {_kind(batch)}; it may be a pair (inputs, targets)"
        raise InputError(msg)
    return batch[0], torch.as_tensor(batch[1])


def to_device(value: Any, device: torch.device) -> Any:
    """Return the inputs of a batch, however they are nested, on a device."""
    if isinstance(value, torch.Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, dict):
        return {key: to_device(inner, device) for key, inner in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(to_device(inner, device) for inner in value)
    return value
