"""Known-good defaults: settings with which most trainings learn, tried all at once before anything else."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from remedy.spaces.combination import Combination
from remedy.spaces.slot import Slot
from remedy.spaces.space import Space

DEFAULTS = (
    "standardise",
    "standardise_targets",
    "batch_norm_on",
    "he",
    "match_objective",
    "adam",
    "range_test",
    "constant",
    "weight_decay_off",
    "clip_norm",
)
"""One for a slot: what textbooks, and Karpathy in "A Recipe for Training Neural Networks" (2019), would begin with."""
LEAST = 3
"""Remedies from which on a combination is many: fewer are tried as what they are."""


def unrehearsed(space: Space) -> Combination:
    """Return the defaults of which a look at the training tells whether they find something to change."""
    rates = {name for name in DEFAULTS if name in space.by_name and space.by_name[name].slot is Slot.LEARNING_RATE}
    made = defaults(space, (), ())
    return made.only(made.names - rates)  # rates may be rehearsed, which takes steps


def defaults(space: Space, suggested: Sequence[str], refused: Collection[str]) -> Combination:
    """Return the defaults as far as a space has them, less those that found nothing to change.

    Where the objective's finds nothing, what pre-flight suggests for it takes its place. Empty where fewer than three
    are left.
    """
    known, made = space.by_name, Combination()
    fitting = [name for name in suggested if name in known and known[name].slot is Slot.OBJECTIVE]
    for name in (*DEFAULTS, *fitting):
        if name in known and name not in refused and str(known[name].slot) not in made.remedies:
            made = made.plus(Combination.of(known[name].first()))
    return made if len(made.names) >= LEAST else Combination()
