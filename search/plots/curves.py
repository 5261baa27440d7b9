"""Curves over steps: every run thin, each group with its mean and band over seeds, the goal, and verdicts marked."""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from remedy.search.markup import safe
from remedy.search.plots.scale import Scale
from remedy.search.plots.svg import LETTER, WIDTH, across, cut, dot, figure, text, upward
from remedy.search.points import thin

_HUGE = 1e300
_LOG_FROM, _LOG_MOST = 100, 1e12
_BEYOND = 5
_LEFT, _TOP, _TALL = 62, 16, 256
_FEW = 2


@dataclass(frozen=True)
class Line:
    """One run's curve. `crossed` is the step of its verdict, None without one; `verdict` the symptom."""

    run: int
    seed: int
    points: tuple[tuple[int, float], ...]
    crossed: int | None = None
    verdict: str = ""

    @property
    def label(self) -> str:
        """What is shown where the pointer rests on it."""
        return f"run {self.run}, seed {self.seed}"


@dataclass(frozen=True)
class Group:
    """Curves that belong together. `look` is their CSS class: `base`, `fix`, `fix2`, `fix3`."""

    name: str
    look: str
    lines: tuple[Line, ...]

    def mean(self) -> list[tuple[int, float, float, float]]:
        """Return (step, mean, lowest, highest) at the steps where every run has a finite value; none for one run."""
        runs = [{step: value for step, value in line.points if abs(value) < _HUGE} for line in self.lines]
        if len(runs) < 2:
            return []
        columns = [(step, [run[step] for run in runs]) for step in sorted(set(runs[0]).intersection(*runs[1:]))]
        return [(step, sum(values) / len(values), min(values), max(values)) for step, values in columns]


@dataclass(frozen=True)
class Goal:
    """A line and its text. `below` says that values below it meet the goal.

    `far` is the way from guessing to the goal, 0 where it is unknown: values more than five times as far off are drawn
    at the edge.
    """

    value: float
    text: str
    far: float = 0.0
    below: bool = False


@dataclass(frozen=True)
class Span:
    """A stretch of steps that is marked, and what is said of it."""

    begin: int
    end: int
    said: str


def curves(
    name: str,
    title: str,
    about: str,
    groups: Sequence[Group],
    goal: Goal | None = None,
    *,
    log: bool,
    span: Span | None = None,
) -> str:
    """Draw groups of curves over steps; empty where there is no finite value.

    `log` permits a logarithmic axis, taken where the values span more than two powers of ten.
    """
    every = [point for group in groups for line in group.lines for point in line.points]
    values = [value for _, value in every if abs(value) < _HUGE]
    if not values:
        return ""
    key, top = _key(groups, span)
    down = _upright(values, goal, top, log=log)
    steps = [*(step for step, _ in every), *(line.crossed or 0 for group in groups for line in group.lines)]
    steps += [span.end] if span else []
    level = Scale(0, max(1, *steps), _LEFT, WIDTH - 14)
    parts = [*_span(span, level, down), *_axes(level, down), *key]
    if goal:
        parts.append(across("goal", level.start, level.end, down.at(goal.value)))
    for group in groups:
        parts += _band(group, level, down)
    edge = down.start if goal and not goal.below else down.end
    for group in groups:
        # Of many groups the means and bands are read; single runs would hide them.
        shown = len(groups) <= _FEW or group.look == "base" or not group.mean()
        for line in group.lines:
            parts += _line(line, group.look, level, down, edge, whole=shown)
    if goal:  # on the side of the line where what converged is not
        y = down.at(goal.value) + (-6 if goal.below else 16)
        parts.append(text(WIDTH - 18, y, goal.text, "end", "over"))
    return figure(name, title, about, down.start + 40, parts)


def _key(groups: Sequence[Group], span: Span | None) -> tuple[list[str], float]:
    """Return what the lines are, in as many rows as it takes, and where the plot begins below it."""
    parts, x, y = [], float(_LEFT), float(_TOP)
    for group in groups:
        said = cut(f"{group.name} ({len(group.lines)} run{'s' * (len(group.lines) != 1)})", 430)
        wide = 32 + len(said) * LETTER
        if x > _LEFT and x + wide > WIDTH:
            x, y = float(_LEFT), y + 20
        parts += [across(f"{group.look} mean", x, x + 26, y - 4), text(x + 32, y, said)]
        x += wide + 24
    if span:
        y += 20 * (x + len(span.said) * LETTER > WIDTH)
        parts.append(text(WIDTH - 14, y, span.said, "end"))
    return parts, y + 16


def _span(span: Span | None, level: Scale, down: Scale) -> Iterator[str]:
    if span is None:
        return
    left, right = level.at(span.begin), level.at(span.end)
    height = down.start - down.end
    yield f'<rect class="span" x="{left:.1f}" y="{down.end}" width="{max(1.5, right - left):.1f}" height="{height:g}"/>'
    for x in (left, right):
        yield upward("edge", x, down.end, down.start)


def _upright(values: Sequence[float], goal: Goal | None, top: float, *, log: bool) -> Scale:
    shown = [*values, goal.value] if goal else list(values)
    low, high = min(shown), max(shown)
    positive = [value for value in shown if value > 0]
    if log and low >= 0 and positive and high / min(positive) > _LOG_FROM:
        return Scale(max(min(positive), high / _LOG_MOST) / 1.3, high * 1.3, top + _TALL, top, log=True)
    if goal and goal.far > 0:
        low, high = max(low, goal.value - _BEYOND * goal.far), min(high, goal.value + _BEYOND * goal.far)
    room = (high - low) * 0.04 or abs(high) * 0.1 or 1.0
    return Scale(low - room, high + room, top + _TALL, top)


def _axes(level: Scale, down: Scale) -> Iterator[str]:
    for tick in down.ticks():
        yield across("grid", level.start, level.end, down.at(tick))
        yield text(level.start - 6, down.at(tick) + 4, f"{tick:.4g}", "end")
    for tick in level.counts(8):
        yield upward("axis", level.at(tick), down.start, down.start + 5)
        yield text(level.at(tick), down.start + 19, f"{tick:,.0f}", "middle")
    yield across("axis", level.start, level.end, down.start)
    yield text((level.start + level.end) / 2, down.start + 36, "optimizer steps", "middle")


def _band(group: Group, level: Scale, down: Scale) -> list[str]:
    mean = group.mean()
    if len(mean) < 2:
        return []
    keep = {step for column in (1, 2, 3) for step, _ in thin([(row[0], row[column]) for row in mean])}
    mean = [row for row in mean if row[0] in keep]
    upper = [(row[0], row[3]) for row in mean]
    lower = [(row[0], row[2]) for row in reversed(mean)]
    outline = " ".join(f"{level.at(step):.1f},{down.at(value):.1f}" for step, value in upper + lower)
    path = "M" + "L".join(f"{level.at(row[0]):.1f} {down.at(row[1]):.1f}" for row in mean)
    return [f'<polygon class="{group.look} band" points="{outline}"/>', f'<path class="{group.look} mean" d="{path}"/>']


def _line(line: Line, look: str, level: Scale, down: Scale, edge: float, *, whole: bool) -> Iterator[str]:
    finite = thin([(step, value) for step, value in line.points if abs(value) < _HUGE])
    strange = sorted(step for step, value in line.points if not abs(value) < _HUGE)
    path, gaps = "", 0
    for step, value in finite:
        passed = bisect.bisect(strange, step)
        path += f"{'L' if path and passed == gaps else 'M'}{level.at(step):.1f} {down.at(value):.1f}"
        gaps = passed
    if len(finite) == 1:
        step, value = finite[0]
        yield dot(f"{look} mark", level.at(step), down.at(value), 2)
    if path and whole:
        yield f'<path class="{look} thin" d="{path}"><title>{safe(line.label)}</title></path>'
    if strange:
        yield _mark(
            f"{look} mark", level.at(strange[0]) - 6, down.end + 11, "l6 -10l6 10z", f"{line.label}: not finite"
        )
    if line.crossed is not None:
        seen = [value for step, value in line.points if step <= line.crossed]
        y = down.at(seen[-1]) if seen and math.isfinite(seen[-1]) else edge
        told = f"{line.label}: {line.verdict}"
        yield _mark(f"{look} cross", level.at(line.crossed) - 5, y - 5, "l10 10m0-10l-10 10", told)


def _mark(look: str, x: float, y: float, path: str, told: str) -> str:
    return f'<path class="{look}" d="M{x:.1f} {y:.1f}{path}"><title>{safe(told)}</title></path>'
