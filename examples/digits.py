"""The data of all examples: 1,797 handwritten digits of 8 x 8 pixels, which scikit-learn brings along."""

from collections.abc import Sequence
from functools import lru_cache

import torch
from sklearn.datasets import load_digits  # type: ignore[import-untyped]
from torch import Tensor
from torch.utils.data import TensorDataset

PIXELS = 64
CLASSES = 10
HELD_FOR_VALIDATION = 360
IMBALANCED = (130, 130, 90, 60, 40, 30, 20, 15, 10, 8)  # how many of each digit, from 0 to 9, are left to train on


@lru_cache(maxsize=1)
def _shuffled() -> tuple[Tensor, Tensor]:
    """All images, as rows of 64 values between 0 and 16, and their digits, in one fixed random order."""
    images, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    return torch.as_tensor(images, dtype=torch.float32)[order], torch.as_tensor(labels, dtype=torch.int64)[order]


def digits(scale: float = 1 / 16, per_class: Sequence[int] | None = None) -> tuple[TensorDataset, TensorDataset]:
    """The training set and the validation set, the same split at every call.

    Pixels are multiplied by `scale`; 1 leaves them raw, from 0 to 16. `per_class` thins out the training set
    to at most that many images of each digit; the validation set stays balanced.
    """
    images, labels = _shuffled()
    images = images * scale
    train = torch.arange(HELD_FOR_VALIDATION, len(labels))
    if per_class is not None:
        kept = [train[labels[train] == digit][:count] for digit, count in enumerate(per_class)]
        train = torch.cat(kept)
    return (
        TensorDataset(images[train], labels[train]),
        TensorDataset(images[:HELD_FOR_VALIDATION], labels[:HELD_FOR_VALIDATION].clone()),
    )
