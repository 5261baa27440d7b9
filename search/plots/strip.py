"""The strip plot: one mark for each seed, so that recipes are compared by all of their runs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from remedy.search.plots.curves import Goal
from remedy.search.plots.scale import Scale
from remedy.search.plots.svg import WIDTH, across, cut, dot, figure, text, upward

_LEFT, _ROW, _TOP = 290, 34, 34


@dataclass(frozen=True)
class Dot:
    """A value of one run; `told` is shown where the pointer rests on it."""

    value: float
    told: str


@dataclass(frozen=True)
class Strip:
    """The runs of one recipe; `look` is its CSS class. Its `late` are the steps to the goal."""

    name: str
    look: str
    final: tuple[Dot, ...]
    late: tuple[Dot, ...]


def strips(title: str, about: str, metric: str, rows: Sequence[Strip], goal: Goal | None = None) -> str:
    """Draw of each recipe the final metric of every run, and the steps to the goal of those that got there."""
    split = 640
    final = [point.value for row in rows for point in row.final if math.isfinite(point.value)]
    late = [point.value for row in rows for point in row.late]
    if not final:
        return ""
    bottom = _TOP + _ROW * len(rows)
    low, high = _span([*final, goal.value] if goal else final, goal)
    panels = [(f"final {metric}, each seed", Scale(low, high, _LEFT, split - 30))]
    if late:
        panels.append(("steps to the goal, each seed", Scale(0, max(late) * 1.05, split + 30, WIDTH - 20)))
    parts = []
    for name, scale in panels:
        parts.append(text(scale.start, 14, name, look="head"))
        for tick in scale.ticks(5):
            parts.append(upward("grid", scale.at(tick), 24, bottom))
            parts.append(text(scale.at(tick), bottom + 17, f"{tick:,.4g}", "middle"))
    if goal:
        parts.append(upward("goal", panels[0][1].at(goal.value), 24, bottom))
    for place, row in enumerate(rows):
        y = _TOP + _ROW * (place + 0.5)
        parts.append(text(0, y + 4, cut(row.name, _LEFT - 20)))
        for (_, scale), points in zip(panels, (row.final, row.late), strict=False):
            parts += _points(row.look, points, scale, y)
    return figure("recipes", title, about, bottom + 24, parts)


def _span(values: Sequence[float], goal: Goal | None) -> tuple[float, float]:
    low, high = min(values), max(values)
    if goal and goal.far > 0:
        low, high = max(low, goal.value - 5 * goal.far), min(high, goal.value + 5 * goal.far)
    room = (high - low) * 0.05 or abs(high) * 0.1 or 1.0
    return low - room, high + room


def _points(look: str, points: Sequence[Dot], scale: Scale, y: float) -> Iterator[str]:
    finite = [point for point in points if math.isfinite(point.value)]
    if not finite:
        return
    ends = min(finite, key=lambda point: point.value), max(finite, key=lambda point: point.value)
    yield across(f"{look} thin", scale.at(ends[0].value), scale.at(ends[1].value), y)
    for point in finite:
        yield dot(f"{look} mark", scale.at(point.value), y, 4.5, point.told)
    mean = scale.at(sum(point.value for point in finite) / len(finite))
    yield upward(f"{look} stroke", mean, y - 10, y + 10)
