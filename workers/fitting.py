"""Fits a combination of remedies to the live parts of a script, and puts the handles on what it gets back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch.optim.lr_scheduler import ReduceLROnPlateau

from remedy.spaces.assembly import assemble
from remedy.spaces.catalogue import REMEDIES
from remedy.spaces.combination import Combination
from remedy.spaces.facade import facade
from remedy.spaces.given import Given
from remedy.spaces.parts import Parts
from remedy.spaces.rebinding import Replaced
from remedy.spaces.remedy import Remedy
from remedy.spaces.script import Script
from remedy.spaces.slot import Slot
from remedy.spaces.training import Training
from remedy.workers.handles import Ear, ToldLoss, tell_batches, tell_steps


def fit(
    given: Given,
    script: Script,
    combination: Combination,
    *,
    seed: int,
    data_seed: int,
    own: Iterable[Remedy] = (),
) -> tuple[Training, Parts]:
    """Apply the combination to what the script made; returns the training that it is, and the parts as they are now.

    `own` are remedies beside the catalogue's.

    Raises:
        InputError: the parts cannot be what they are.
        Inapplicable: a remedy found nothing to change.
    """
    training = facade(given, script)
    catalogue = {remedy.name: remedy for remedy in (*REMEDIES, *own)}
    return training, assemble(training, combination, catalogue, seed=seed, data_seed=data_seed)


def handed(given: Given, parts: Parts, ear: Ear, *, ordered: bool) -> tuple[Any, ...]:
    """Return what the script gets back, in the order of its arguments.

    `ordered` is whether the order of the batches is a function of the run's seed.
    """
    new = {id(given.model): parts.model, id(given.optimizer): parts.optimizer}
    new[id(given.loss)] = ToldLoss(given.loss, parts.criterion, ear)
    tell_steps(parts, ear, parts.optimizer)
    train, *others = given.loaders
    begin = parts.epochs.begin if ordered else None
    new[id(train)] = tell_batches(parts.epochs.loader, ear, train=True, begin=begin)
    new |= {id(loader): tell_batches(loader, ear, train=False) for loader in others}
    if given.scheduler is not None and scheduled(parts):
        new[id(given.scheduler)] = Replaced(parts.optimizer, parts.scheduler)
    elif given.scheduler is not None and parts.scheduler is not None:
        new[id(given.scheduler)] = parts.scheduler
    return given.back(new)


def scheduled(parts: Parts) -> bool:
    """Whether a remedy schedules, and not the script."""
    return any(receipt.slot is Slot.SCHEDULE for receipt in parts.receipts)


def advance(parts: Parts, step: int, *, end_of_epoch: bool) -> None:
    """Step the schedule of a remedy after an optimizer step; beyond the budget it stays where it is."""
    if not scheduled(parts) or parts.scheduler is None or step > parts.steps or waits_for_metric(parts):
        return
    if parts.schedule.interval == "step" or end_of_epoch:
        parts.scheduler.step()


def waits_for_metric(parts: Parts) -> bool:
    """Whether a remedy's schedule is stepped by what the script reports."""
    return scheduled(parts) and isinstance(parts.scheduler, ReduceLROnPlateau)
