"""Easy data: N inputs, one-to-one to N classes, of the shape and type of a training's own ("aaa", "bbb", "ccc")."""

from __future__ import annotations

import math

import torch

from remedy.spaces.error import InputError
from remedy.spaces.facts import Facts
from remedy.spaces.objective import TargetKind

_MOST = 16
_TILE = 4
_PLAIN = (0.1, 10.0)
_NOISE, _OTHERS = 0.5, 0.2


def easy(facts: Facts, *, own_scale: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """Return as many inputs as there are classes (16 at most), and their targets.

    Floating inputs are a small random tile, another for each class, repeated over the whole sample: the features of
    a row, the pixels of an image, the steps of a sequence. They have mean 0 and standard deviation 1, or those of the
    training's own inputs. Whole numbers are one value of each column, as words of one letter.

    Raises:
        InputError: the training's inputs have too few values to tell the classes apart.
    """
    classes = _classes(facts)
    inputs = _inputs(facts, len(classes), own_scale=own_scale)
    if len(torch.unique(inputs.reshape(len(inputs), -1), dim=0)) < len(inputs):
        raise InputError("the inputs have too few values to make one easy input for each class")
    return inputs, _targets(facts, classes)


def known(facts: Facts, copies: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return known data, as the digits of a textbook are: noisy copies of the easy inputs, `copies` of each.

    Floating inputs get Gaussian noise of half their standard deviation; of whole numbers one in five is that of another
    input. Each stretch of as many samples as there are easy inputs holds one copy of each.

    Raises:
        InputError: as `easy`.
    """
    inputs, targets = easy(facts)
    drawn, count = torch.Generator().manual_seed(1), len(inputs)
    many = inputs.repeat(copies, *[1] * (inputs.dim() - 1))
    if many.is_floating_point():
        noise = torch.randn(many.shape, generator=drawn).to(many.dtype)
        many = many + _NOISE * float(inputs.float().std()) * noise
    else:
        others = inputs[torch.randint(count, (len(many),), generator=drawn)]
        many = torch.where(torch.rand(many.shape, generator=drawn) < _OTHERS, others, many)
    return many, targets.repeat(copies, *[1] * (targets.dim() - 1))


def _classes(facts: Facts) -> list[int]:
    if facts.kind is TargetKind.REAL:
        return list(range(min(8, len(facts.targets))))
    if facts.kind is TargetKind.BINARY:
        return [0, 1]
    if facts.kind is TargetKind.MULTI_LABEL and (facts.classes == 1 or facts.targets.dim() > 2):
        return [0, 1]  # a map: off everywhere, or on
    if facts.kind is TargetKind.MULTI_LABEL:
        return list(range(min(_MOST, facts.classes)))
    seen = [label for label, count in enumerate(facts.counts) if count]
    return seen[:_MOST]


def _inputs(facts: Facts, count: int, *, own_scale: bool) -> torch.Tensor:
    given, drawn = facts.inputs, torch.Generator().manual_seed(0)
    if not given.is_floating_point():
        columns = given.reshape(len(given), -1)
        made = torch.empty(count, columns.shape[1], dtype=given.dtype)
        for place, column in enumerate(columns.T):
            values = column.unique()
            made[:, place] = values[torch.arange(count) * len(values) // count] if len(values) >= count else (
                values[torch.randint(len(values), (count,), generator=drawn)]
            )  # fmt: skip
        return made.reshape(count, *given.shape[1:])
    shape = given.shape[1:]
    small = [min(_TILE, size) for size in shape] if len(shape) > 1 else list(shape)
    tiles = torch.randn(count, *small, generator=drawn)
    for dim, size in enumerate(shape, start=1):
        repeats = [1] * tiles.dim()
        repeats[dim] = math.ceil(size / tiles.shape[dim])
        tiles = tiles.repeat(repeats).narrow(dim, 0, size)
    if own_scale:
        finite = given[torch.isfinite(given)].float()
        tiles = tiles * finite.std() + finite.mean()
    return tiles.to(given.dtype)


def _targets(facts: Facts, classes: list[int]) -> torch.Tensor:
    like = facts.targets.detach()
    if facts.kind is TargetKind.REAL:
        rows = like[[place * (len(like) - 1) // max(1, len(classes) - 1) for place in classes]]
        mean, std = rows.float().mean(), rows.float().std()
        far = abs(float(mean)) > _PLAIN[1] or not _PLAIN[0] <= float(std) <= _PLAIN[1]
        return ((rows - mean) / std).to(like.dtype) if far and float(std) > 0 else rows
    labels = facts.kind is TargetKind.MULTI_LABEL and like.dim() == 2 and like.shape[1] > 1
    if facts.kind is TargetKind.ONE_HOT or labels:
        rows = torch.eye(like.shape[1])[classes].reshape(len(classes), -1, *[1] * (like.dim() - 2))
        return rows.expand(-1, -1, *like.shape[2:]).to(like.dtype).contiguous()
    rest = like.shape[1:]
    return torch.tensor(classes).reshape(-1, *[1] * len(rest)).expand(-1, *rest).to(like.dtype).contiguous()
