"""A curve over steps as a chart of characters, with a finding marked on it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from remedy.search.mark import Mark
from remedy.search.points import Points, at

_LEVELS = " ▁▂▃▄▅▆▇█"
_LOG_FROM, _LOG_MOST = 100, 1e12
_LABEL = 9


def chart(curve: Points, last: int, width: int, rows: int, mark: Mark | None = None) -> list[str]:
    """Return the lines of a chart: `rows` high, `width` characters wide, from step 0 to `last`.

    A column is as high as the highest value in its stretch of steps; `!` stands at the top where one of them is
    not finite. Values that span more than two powers of ten are drawn on a logarithmic scale, and zeros as nothing.
    """
    columns = _columns(curve, last, width)
    finite = [value for value in columns if value is not None and math.isfinite(value)]
    if not finite:
        return [f"{'':>{_LABEL}} │{''.join(' ' if value is None else '!' for value in columns)}"]
    low, high, log = _span(finite)
    heights = [_height(value, low, high, rows * 8, log=log) for value in columns]
    lines, digits = [], next((d for d in (3, 4, 5) if f"{low:.{d}g}" != f"{high:.{d}g}"), 6)
    labels = {rows - 1: f"{high:.{digits}g}"} | ({0: f"{low:.{digits}g}"} if high > low else {})
    for row in reversed(range(rows)):
        cells = [_cell(value, height, row, rows) for value, height in zip(columns, heights, strict=True)]
        label = labels.get(row, "log" if log and row == rows // 2 else "")
        lines.append(f"{label:>{_LABEL}} │{''.join(cells).rstrip()}")
    return [*lines, *_below(curve, last, width, mark)]


def _columns(curve: Points, last: int, width: int) -> list[float | None]:
    """Return the highest of each column's values; one without any repeats the one before, up to the curve's end."""
    held: list[list[float]] = [[] for _ in range(width)]
    for step, value in curve:
        held[_place(step, last, width)].append(value)
    end = _place(curve[-1][0], last, width) if curve else -1
    found: list[float | None] = []
    for place, values in enumerate(held):
        odd = next((value for value in values if not math.isfinite(value)), None)
        if odd is not None:
            found.append(odd)
        elif values:
            found.append(max(values))
        else:
            found.append(found[-1] if found and place <= end else None)
    return found


def _place(step: int, last: int, width: int) -> int:
    return min(width - 1, max(0, step) * width // max(1, last))


def _span(finite: Sequence[float]) -> tuple[float, float, bool]:
    low, high = min(finite), max(finite)
    positive = [value for value in finite if value > 0]
    if low >= 0 and positive and high / min(positive) > _LOG_FROM:
        return max(min(positive), high / _LOG_MOST), high, True
    return low, high, False


def _height(value: float | None, low: float, high: float, most: int, *, log: bool) -> int:
    if value is None or not math.isfinite(value) or (log and value <= 0):
        return 0
    if high <= low:
        return most // 2
    value = min(high, max(low, value))
    share = math.log(value / low) / math.log(high / low) if log else (value - low) / (high - low)
    return max(1, round(share * most))


def _cell(value: float | None, height: int, row: int, rows: int) -> str:
    if value is not None and not math.isfinite(value):
        return "!" if row == rows - 1 else " "
    return _LEVELS[min(8, max(0, height - 8 * row))]


def _below(curve: Points, last: int, width: int, mark: Mark | None) -> list[str]:
    """Return the axis and, beneath it, what is marked."""
    rule, blank = ["─"] * width, " " * _LABEL
    if mark is None:
        return [f"{blank} └{''.join(rule)} step {last}"]
    begin, end = _place(mark.onset, last, width), _place(mark.step, last, width)
    rule[begin : end + 1] = "━" * (end + 1 - begin)
    rule[begin], rule[end] = "▲", "✗"
    seen, found = _said(at(curve, mark.onset)), _said(at(curve, mark.step))
    under = f"▲ holds since step {mark.onset}: {seen}   ✗ {mark.kind}, step {mark.step}: {found}"
    return [f"{blank} └{''.join(rule)} step {last}", f"{blank}  {under}"]


def _said(value: float | None) -> str:
    return "no value yet" if value is None else f"{value:.3g}"
