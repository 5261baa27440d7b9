"""Pre-flight checks of the samples: their values, how they are drawn, what both sets share."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset, RandomSampler

from remedy.spaces import gather
from remedy.spaces.objective import IGNORED, TargetKind
from remedy.spaces.parts import Parts
from remedy.workers.finding import Finding

_IMBALANCE = 10
_READ_TWICE = 16
_HASHED = 20_000
_SHARED, _SHARED_WORDS = 0.01, 0.2
_EVEN = 0.8
_DRAWN = 20_000
_PADDED, _EVENLY = 0.5, 0.05
_ENOUGH, _OFTEN = 20, 0.1


def inputs(parts: Parts) -> list[Finding]:
    """Look for inputs that are NaN or infinite, or the same for every sample."""
    every, given = parts.facts.every_input, parts.facts.inputs
    if every.is_floating_point() and (odd := int((~torch.isfinite(every)).sum())):
        message = f"{odd} of {every.numel()} input values looked at are NaN or infinite"
        return [Finding("non_finite_inputs", "error", message, ("repair_non_finite",))]
    if len(given) > 1 and bool((given == given[:1]).all()):
        value = given.flatten()[0].item()
        what = f"all {value:g}" if bool((given == value).all()) else "the same"
        message = f"the inputs of all {len(given)} samples looked at are {what}: nothing tells their targets apart"
        return [Finding("same_inputs", "error", message)]
    return []


def balance(parts: Parts) -> list[Finding]:
    """Compare how many samples the classes have."""
    present = [count for count in parts.facts.counts if count]
    # A sampler of the user's own, or weights in the loss, already deal with it, one way or another.
    if not present or parts.facts.resampled or _weighted(parts.original.loss) or _words(parts):
        return []
    if max(present) <= _IMBALANCE * min(present):
        return []
    message = f"the largest class has {max(present)} samples, the smallest {min(present)}"
    return [Finding("class_imbalance", "warning", message, ("class_weights", "balanced_sampler"))]


def _weighted(loss: object) -> bool:
    return any(isinstance(getattr(loss, name, None), torch.Tensor) for name in ("weight", "pos_weight"))


def _words(parts: Parts) -> bool:
    """Whether each position of a text has a target of its own: words are never balanced."""
    tokens, targets = parts.facts.inputs, parts.facts.targets
    same = not tokens.is_floating_point() and tokens.dim() > 1 and tokens.shape == targets.shape
    return same and parts.facts.kind is TargetKind.CLASS_INDEX


def labels(parts: Parts) -> list[Finding]:
    """Find classes that never occur, and targets that are mostly left out."""
    facts, found = parts.facts, []
    if facts.kind is not TargetKind.CLASS_INDEX or not len(facts.labels):
        return []
    if facts.targets[0].numel() == 1 and len(facts.labels) >= _ENOUGH * len(facts.counts):
        seen = [label for label, count in enumerate(facts.counts) if count]
        if facts.counts[0] == 0 and len(seen) == len(facts.counts) - 1 > 1:
            message = f"class 0 never occurs, and every other one up to {seen[-1]} does: are the labels counted from 1?"
            found.append(Finding("labels", "warning", message))
        elif seen[-1] + 1 < len(facts.counts):
            message = f"the model gives {len(facts.counts)} outputs, but no target is above {seen[-1]}"
            found.append(Finding("labels", "warning", message))
    width = facts.targets[0].numel()
    whole = len(facts.labels) // width * width  # sequences of different lengths are laid flat
    share = float((facts.labels[:whole] == IGNORED).reshape(-1, width).all(1).float().mean())
    if share**facts.batch_size * facts.steps > _OFTEN:
        message = (
            f"{share:.0%} of the samples have no target but {parts.original.ignored}, which the loss leaves out: "
            f"a batch of {facts.batch_size} may hold no other, and the mean of none is NaN"
        )
        found.append(Finding("ignored_targets", "warning", message, ("skip_non_finite",)))
    return found


def copied(parts: Parts) -> list[Finding]:
    """Find texts whose targets are the inputs themselves."""
    if not _words(parts) or not bool((parts.facts.inputs == parts.facts.targets).all()):
        return []
    message = "the target of each position is its own input: was the shift by one forgotten?"
    return [Finding("copied_targets", "warning", message)]


def non_finite_targets(parts: Parts) -> list[Finding]:
    """Find targets that no loss can be computed of."""
    every = parts.facts.every_target
    if not every.is_floating_point():
        return []
    odd = int((~torch.isfinite(every)).sum())
    message = f"{odd} of {every.numel()} target values looked at are NaN or infinite"
    return [Finding("non_finite_targets", "error", message, ("skip_non_finite",))] if odd else []


def alignment(parts: Parts) -> list[Finding]:
    """Read some samples twice: the same input must come with the same target."""
    dataset: Any = parts.train.dataset if isinstance(parts.train, DataLoader) else parts.train
    if isinstance(dataset, IterableDataset):
        return []
    count = len(dataset)
    for turn in range(min(_READ_TWICE, count)):
        place = turn * (count - 1) // max(1, min(_READ_TWICE, count) - 1)
        first, again = dataset[place], dataset[place]
        if _same(first[0], again[0]) and not _same(first[1], again[1]):
            message = f"sample {place} comes with target {first[1]} at one reading and {again[1]} at the next"
            return [Finding("alignment", "error", message)]
    return []


def _same(one: Any, other: Any) -> bool:
    one, other = torch.as_tensor(one), torch.as_tensor(other)
    return one.shape == other.shape and bool(torch.equal(one, other))


def batch_labels(parts: Parts) -> list[Finding]:
    """Compare how mixed the classes of a batch are with how mixed they could be."""
    labels = parts.facts.labels
    places = _batches(parts)
    if not places or not len(labels) or max(max(batch) for batch in places) >= len(labels):
        return []
    batches = [labels[torch.tensor(batch)] for batch in places]
    batches = [kept for batch in batches if len(kept := batch[batch != IGNORED]) > 1]
    if len(batches) < 2:
        return []
    pool = torch.cat(batches)
    mixed = pool[torch.randperm(len(pool), generator=torch.Generator().manual_seed(0))]
    could = _mean_entropy(torch.split(mixed, [len(batch) for batch in batches]))
    does = _mean_entropy(tuple(batches))
    if could == 0 or does >= _EVEN * could:
        return []
    message = (
        f"the classes come in blocks: a batch holds {math.exp(does):.1f} classes in effect, and shuffled it would hold "
        f"{math.exp(could):.1f}"
    )
    return [Finding("batch_labels", "warning", message, ("shuffle", "balanced_sampler"))]


def _mean_entropy(batches: tuple[torch.Tensor, ...]) -> float:
    total = 0.0
    for batch in batches:
        shares = torch.bincount(batch).float() / len(batch)
        total += float(-(shares * shares.clamp(min=1e-12).log()).sum())
    return total / len(batches)


def _batches(parts: Parts) -> list[list[int]]:
    """Return the places of the samples of each batch of an epoch, where the training says how they are drawn."""
    loader = parts.train if isinstance(parts.train, DataLoader) else None
    if loader is not None:
        if isinstance(loader.dataset, IterableDataset) or loader.batch_sampler is None:
            return []
        if isinstance(loader.sampler, RandomSampler) and loader.batch_size is not None:
            return []
        return [list(map(int, batch)) for batch in loader.batch_sampler] if len(loader.dataset) <= _DRAWN else []  # type: ignore[arg-type]
    if parts.sampler is None or len(parts.train) > _DRAWN:
        return []
    drawn, size = list(map(int, parts.sampler)), parts.batch_size or 1
    return [drawn[first : first + size] for first in range(0, len(drawn), size)]


def leakage(parts: Parts) -> list[Finding]:
    """Find validation samples that are trained on."""
    train, held = parts.train, parts.validation
    sets: list[Any] = [loaded.dataset if isinstance(loaded, DataLoader) else loaded for loaded in (train, held)]
    probe = parts.facts.inputs
    kept = gather.inputs_of(held, probe)
    every = parts.facts.every_input
    # The same set for both is meant so. And samples that do not lie in memory are not read for this.
    if sets[0] is sets[1] or kept is probe or (every is probe and len(sets[0]) > len(probe)):
        return []
    rows = _rows(every)
    known = set(rows)
    twice = 1 - len(known) / len(rows)  # few values make equal rows by chance, in one set as between the two
    both = sum(row in known for row in _rows(kept)) / len(kept)
    # Short texts of few words meet again by chance.
    if both <= max(_SHARED if every.is_floating_point() else _SHARED_WORDS, 3 * twice):
        return []
    message = f"{both:.1%} of the validation samples are in the train set, too: the metric flatters"
    return [Finding("leakage", "warning", message)]


def _rows(inputs: torch.Tensor) -> list[int]:
    flat = inputs[:_HASHED].detach().cpu().contiguous().reshape(min(len(inputs), _HASHED), -1)
    return [hash(row.tobytes()) for row in flat.view(torch.uint8).numpy()]


def padding(parts: Parts) -> list[Finding]:
    """Find padded positions that a loss over every position learns from."""
    if not _words(parts):
        return []
    tokens, targets = parts.facts.inputs, parts.facts.targets
    pad = int(tokens.flatten().mode().values)
    there = tokens == pad
    aims, both = targets[there], there[:, 1:] & there[:, :-1]
    ends = [int(both.sum()) / max(1, int(side.sum())) for side in (there[:, 1:], there[:, :-1])]
    if max(ends) < 1 - _EVENLY:
        return []  # a word like any other: padding goes on to one end
    if float(there.float().mean()) <= _PADDED or not bool((aims == aims[0]).float().mean() > 1 - _EVENLY):
        return []
    if int(aims[0]) == parts.original.ignored:
        return []
    message = (
        f"{float(there.float().mean()):.0%} of the tokens are {pad}, and the loss learns their target {int(aims[0])}: "
        f"if that is padding, give it the target {parts.original.ignored}, which the loss leaves out"
    )
    return [Finding("padding", "warning", message)]


CHECKS = (inputs, balance, labels, copied, non_finite_targets, alignment, batch_labels, leakage, padding)
