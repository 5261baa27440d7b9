"""The points of a curve over steps."""

from __future__ import annotations

import bisect
from collections.abc import Sequence

Points = Sequence[tuple[int, float]]
POINTS = 200
"""Most points kept of one curve."""


def at(curve: Points, step: int) -> float | None:
    """Return what a curve showed at a step: its value there, or the last before; None where there was none yet."""
    place = bisect.bisect_right(curve, step, key=lambda point: point[0])
    return curve[place - 1][1] if place else None


def thin(points: Points, most: int = POINTS) -> list[tuple[int, float]]:
    """Keep at most `most` points: the first, the last, and of each stretch between them its lowest and highest.

    So a spike of one step, which may be the very evidence, stays in the curve.
    """
    if len(points) <= most:
        return list(points)
    inner, stretches = points[1:-1], (most - 2) // 2
    kept = [points[0]]
    for place in range(stretches):
        part = inner[place * len(inner) // stretches : (place + 1) * len(inner) // stretches]
        kept += sorted({min(part, key=lambda point: point[1]), max(part, key=lambda point: point[1])})
    return [*kept, points[-1]]
