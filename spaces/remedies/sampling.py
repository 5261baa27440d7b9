"""Remedies for the order and the size of batches."""

from __future__ import annotations

from typing import Any

from remedy.spaces.batches import in_order
from remedy.spaces.distribution import Int
from remedy.spaces.facts import Facts
from remedy.spaces.python import Python
from remedy.spaces.remedy import Change, Inapplicable, Remedy, remedy
from remedy.spaces.schedule import Stretched
from remedy.spaces.slot import Slot

_NORMED = 2


@remedy(
    Slot.SAMPLING,
    treats=("chance_plateau", "class_takeover", "accuracy_collapse", "generalisation_gap"),
    invasiveness=1,
    source="37 reasons why your neural network is not working (Ivanov 2017); catalogue R04, F16",
    python=Python(data="sampler = None  # shuffled anew each epoch"),
)
def shuffle(sampler: Any) -> Change:
    """Draws the samples in a new order each epoch where they come in a fixed one."""
    if not in_order(sampler):
        raise Inapplicable("the samples do not come in a fixed order")
    return Change(None, f"{type(sampler).__name__}, the same order each epoch -> shuffled anew each epoch")


@remedy(
    Slot.BATCH_SIZE,
    treats=("accuracy_collapse", "exploding_gradient", "class_takeover", "chance_plateau"),
    invasiveness=1,
    source="AutoTrainer (ICSE'21); catalogue R05",
    factor=Int(2, 32, log=True),
    python=Python(data="batch_size = $size  # a schedule of yours that goes by steps has to follow"),
)
def larger_batch(batch_size: int | None, *, factor: int = 8, facts: Facts) -> Change:
    """Takes more samples a batch, whose gradient is less noisy; a budget in epochs has fewer steps then."""
    samples = facts.batch_size * facts.steps_per_epoch
    new = min(_known(batch_size) * factor, max(_known(batch_size), samples))
    if new == batch_size:
        raise Inapplicable(f"a batch of {batch_size} holds the whole train set already")
    return Change(new, f"{batch_size} -> {new} samples a batch", {"size": new})


@remedy(
    Slot.BATCH_SIZE,
    treats=("chance_plateau", "vanishing_gradient"),
    invasiveness=1,
    source="AutoTrainer (ICSE'21); Keskar et al. 2017; catalogue R05",
    factor=Int(2, 32, log=True),
    python=Python(data="batch_size = $size  # a schedule of yours that goes by steps has to follow"),
)
def smaller_batch(batch_size: int | None, *, factor: int = 4) -> Change:
    """Takes fewer samples a batch; a budget in epochs has more steps then."""
    new = max(_NORMED, _known(batch_size) // factor)
    if new >= _known(batch_size):
        raise Inapplicable(f"a batch of {batch_size} is as small as it gets")
    return Change(new, f"{batch_size} -> {new} samples a batch", {"size": new})


def _known(batch_size: int | None) -> int:
    if batch_size is None:
        raise Inapplicable("data() gives a DataLoader with a batch sampler, which forms its own batches")
    return batch_size


@remedy(
    Slot.BUDGET,
    treats=("chance_plateau", "vanishing_gradient"),
    invasiveness=1,
    source="fifty trainings from forums: far too few epochs; catalogue P18",
    factor=Int(2, 4),
    python=Python(
        define=(Stretched,),
        data="epochs = epochs * $factor",
        stretch="""
if scheduler is not None and not isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
    scheduler = Stretched(scheduler, 1 / $factor)
""",
    ),
)
def train_longer(steps: int, *, factor: int = 3) -> Change:
    """Trains for several times the budget; every schedule is stretched along, and the run is priced so."""
    return Change(steps * factor, f"{steps} -> {steps * factor} optimizer steps, schedules stretched along")


REMEDIES: tuple[Remedy, ...] = (shuffle, larger_batch, smaller_batch, train_longer)
