"""Which part of a combination that converges is needed: single remedies first, then delta debugging."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise


def parts(names: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Yield the parts of a combination that are to be tried, in order: the first that converges takes its place.

    `names` come with the likeliest first, and so do the parts. First each remedy alone: one that suffices is the best
    fix, and the proof of two costs more than these tries. Then halves, then quarters and what each leaves, and so on
    down to what is left without one remedy (ddmin: Zeller and Hildebrandt, Simplifying and Isolating Failure-Inducing
    Input, IEEE TSE 2002). Where each part was tried and none converges, no remedy can be left out.
    """
    count, pieces = len(names), 2
    if count < 2:
        return
    seen = {tuple(names)}
    for name in names:
        seen.add((name,))
        yield (name,)
    while pieces <= count:
        edges = [place * count // pieces for place in range(pieces + 1)]
        chunks = [tuple(names[low:high]) for low, high in pairwise(edges)]
        rests = [tuple(name for name in names if name not in chunk) for chunk in reversed(chunks)]
        for part in (*chunks, *rests):
            if part not in seen:
                seen.add(part)
                yield part
        pieces = min(2 * pieces, count) if pieces < count else count + 1
