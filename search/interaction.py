"""Interactions: what two remedies do together beyond each alone, where all four were run on the same seeds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from remedy.search.contrast import Contrast, contrast
from remedy.search.ledger import Ledger
from remedy.search.spec import Spec
from remedy.spaces.combination import Combination

_NAMES = ("together", "first", "second", "untouched")


def interactions(ledger: Ledger, spec: Spec) -> list[dict[str, Any]]:
    """Return a row for each pair that was run, with both of its remedies alone and the untouched training.

    The effect is how much more of the runs converge together than the two effects alone would add up to: 0 where they
    do not touch each other, above it where they need each other, below it where one does what the other does. Those
    that differ from 0 come first.
    """
    rows = [_row(pair, found) for pair, found in _pairs(ledger, spec)]
    return sorted(rows, key=lambda row: (row["effect"] == 0, -len(row["seeds"]), -row["together"]["converged"]))


def _pairs(ledger: Ledger, spec: Spec) -> Iterator[tuple[Combination, Contrast]]:
    for pair in dict.fromkeys(entry.item.combination for entry in ledger.entries):
        if len(pair.names) != 2:
            continue
        first, second = pair.remedies.values()
        alone = pair.without(second), pair.without(first)
        found = contrast(ledger, spec, ((1, pair), (-1, alone[0]), (-1, alone[1]), (1, Combination())))
        if found is not None:
            yield pair, found


def _row(pair: Combination, found: Contrast) -> dict[str, Any]:
    return {"remedies": list(pair.remedies.values()), "params": pair.params, "label": pair.label, **found.told(_NAMES)}
