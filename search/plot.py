"""The figures of a report as inline SVG: drawn from plain numbers, readable without colour and without sight."""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from remedy.search.markup import safe
from remedy.search.points import thin
from remedy.search.scale import Scale

_WIDTH = 960
_LETTER = 6.9  # widest mean width of a letter at the size of the labels
_HUGE = 1e300
_LOG_FROM, _LOG_MOST = 100, 1e12
_BEYOND = 5
_NAMED = 100


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
    """Curves that belong together. `look` is their CSS class, `base` or `fix`."""

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
class Effect:
    """A remedy alone: converged runs, and its difference to the untouched training where both ran on the same seeds."""

    name: str
    converged: int
    runs: int
    effect: float | None = None
    interval: tuple[float, float] = (-1.0, 1.0)
    seeds: int = 0


@dataclass(frozen=True)
class Bar:
    """A run in the timeline. `said` stands beside its bar, `told` is shown where the pointer rests on it."""

    label: str
    steps: int
    full: int
    outcome: str
    said: str
    told: str


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
    down = _upright(values, goal, log=log)
    steps = [*(step for step, _ in every), *(line.crossed or 0 for group in groups for line in group.lines)]
    steps += [span.end] if span else []
    across = Scale(0, max(1, *steps), 62, _WIDTH - 14)
    parts = [*_span(span, across, down), *_axes(across, down)]
    if goal:
        y = down.at(goal.value)
        parts.append(f'<line class="goal" x1="62" x2="{_WIDTH - 14}" y1="{y:.1f}" y2="{y:.1f}"/>')
    x = 62.0
    for group in groups:
        said = _cut(f"{group.name} ({len(group.lines)} run{'s' * (len(group.lines) != 1)})", 430)
        parts += [f'<line class="{group.look} mean" x1="{x}" x2="{x + 26}" y1="14" y2="14"/>', _text(x + 32, 18, said)]
        x += 32 + len(said) * _LETTER + 24
        parts += _band(group, across, down)
    edge = down.start if goal and not goal.below else down.end
    for group in groups:
        for line in group.lines:
            parts += _line(line, group.look, across, down, edge)
    if goal:  # on the side of the line where what converged is not
        y = down.at(goal.value) + (-6 if goal.below else 16)
        parts.append(_text(_WIDTH - 18, y, goal.text, "end", "over"))
    if span:
        parts.append(_text(_WIDTH - 14, 18, span.said, "end"))
    return _figure(name, title, about, 330, parts)


def _span(span: Span | None, across: Scale, down: Scale) -> Iterator[str]:
    if span is None:
        return
    left, right = across.at(span.begin), across.at(span.end)
    height = down.start - down.end
    yield f'<rect class="span" x="{left:.1f}" y="{down.end}" width="{max(1.5, right - left):.1f}" height="{height:g}"/>'
    for x in (left, right):
        yield _upward("edge", x, down.end, down.start)


def _upright(values: Sequence[float], goal: Goal | None, *, log: bool) -> Scale:
    shown = [*values, goal.value] if goal else list(values)
    low, high = min(shown), max(shown)
    positive = [value for value in shown if value > 0]
    if log and low >= 0 and positive and high / min(positive) > _LOG_FROM:
        return Scale(max(min(positive), high / _LOG_MOST) / 1.3, high * 1.3, 290, 34, log=True)
    if goal and goal.far > 0:
        low, high = max(low, goal.value - _BEYOND * goal.far), min(high, goal.value + _BEYOND * goal.far)
    room = (high - low) * 0.04 or abs(high) * 0.1 or 1.0
    return Scale(low - room, high + room, 290, 34)


def _axes(across: Scale, down: Scale) -> Iterator[str]:
    for tick in down.ticks():
        y = down.at(tick)
        yield f'<line class="grid" x1="{across.start}" x2="{across.end}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield _text(across.start - 6, y + 4, f"{tick:.4g}", "end")
    for tick in across.counts(8):
        x = across.at(tick)
        yield f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{down.start}" y2="{down.start + 5:g}"/>'
        yield _text(x, down.start + 19, f"{tick:,.0f}", "middle")
    yield f'<line class="axis" x1="{across.start}" x2="{across.end}" y1="{down.start}" y2="{down.start}"/>'
    yield _text((across.start + across.end) / 2, down.start + 36, "optimizer steps", "middle")


def _band(group: Group, across: Scale, down: Scale) -> list[str]:
    mean = group.mean()
    if len(mean) < 2:
        return []
    keep = {step for column in (1, 2, 3) for step, _ in thin([(row[0], row[column]) for row in mean])}
    mean = [row for row in mean if row[0] in keep]
    upper = [(row[0], row[3]) for row in mean]
    lower = [(row[0], row[2]) for row in reversed(mean)]
    outline = " ".join(f"{across.at(step):.1f},{down.at(value):.1f}" for step, value in upper + lower)
    path = "M" + "L".join(f"{across.at(row[0]):.1f} {down.at(row[1]):.1f}" for row in mean)
    return [f'<polygon class="{group.look} band" points="{outline}"/>', f'<path class="{group.look} mean" d="{path}"/>']


def _line(line: Line, look: str, across: Scale, down: Scale, edge: float) -> Iterator[str]:
    finite = thin([(step, value) for step, value in line.points if abs(value) < _HUGE])
    strange = sorted(step for step, value in line.points if not abs(value) < _HUGE)
    path, gaps = "", 0
    for step, value in finite:
        passed = bisect.bisect(strange, step)
        path += f"{'L' if path and passed == gaps else 'M'}{across.at(step):.1f} {down.at(value):.1f}"
        gaps = passed
    if len(finite) == 1:
        step, value = finite[0]
        yield f'<circle class="{look} mark" cx="{across.at(step):.1f}" cy="{down.at(value):.1f}" r="2"/>'
    if path:
        yield f'<path class="{look} thin" d="{path}"><title>{safe(line.label)}</title></path>'
    if strange:
        yield _mark(f"{look} mark", across.at(strange[0]) - 6, 45, "l6 -10l6 10z", f"{line.label}: not finite")
    if line.crossed is not None:
        seen = [value for step, value in line.points if step <= line.crossed]
        y = down.at(seen[-1]) if seen and math.isfinite(seen[-1]) else edge
        told = f"{line.label}: {line.verdict}"
        yield _mark(f"{look} cross", across.at(line.crossed) - 5, y - 5, "l10 10m0-10l-10 10", told)


def _mark(look: str, x: float, y: float, path: str, told: str) -> str:
    return f'<path class="{look}" d="M{x:.1f} {y:.1f}{path}"><title>{safe(told)}</title></path>'


def forest(title: str, about: str, rows: Sequence[Effect]) -> str:
    """Draw of each remedy alone the share of runs that converged and, where seeds were shared, its effect."""
    height = 56 + 21 * len(rows)
    share, effect = Scale(0, 1, 285, 455), Scale(-1, 1, 560, 760)
    parts = [_text(285, 14, "share of runs converged", look="head")]
    parts.append(_text(560, 14, "difference to the untouched training, same seeds", look="head"))
    for scale, ticks in ((share, (0.0, 0.5, 1.0)), (effect, (-1.0, -0.5, 0.0, 0.5, 1.0))):
        for tick in ticks:
            look = "grid" if tick else "axis"
            parts.append(_upward(look, scale.at(tick), 24, height - 24))
            parts.append(
                _text(scale.at(tick), height - 8, f"{tick:+g}" if scale is effect and tick else f"{tick:g}", "middle")
            )
    for place, row in enumerate(rows):
        parts += _effect(row, 40 + 21 * place, share, effect)
    return _figure("effects", title, about, height, parts)


def _effect(row: Effect, y: int, share: Scale, effect: Scale) -> Iterator[str]:
    yield _text(0, y + 4, _cut(row.name, 270))
    if row.runs:
        size = min(7.0, 3 + row.runs**0.5)
        yield f'<circle class="dot" cx="{share.at(row.converged / row.runs):.1f}" cy="{y}" r="{size:.1f}"/>'
    yield _text(472, y + 4, f"{row.converged} of {row.runs}")
    if row.effect is not None:
        low, high = row.interval
        said = f"{row.effect:+.2f} [{low:+.2f}, {high:+.2f}]"
        yield f'<line class="reach" x1="{effect.at(low):.1f}" x2="{effect.at(high):.1f}" y1="{y}" y2="{y}"/>'
        yield f'<rect class="dot" x="{effect.at(row.effect) - 4.5:.1f}" y="{y - 4.5}" width="9" height="9"/>'
        yield _text(774, y + 4, f"{said} n={row.seeds}" if row.seeds else said)


def timeline(title: str, about: str, bars: Sequence[Bar]) -> str:
    """Draw one bar for each run, as long as it trained, before a pale one as long as its full budget."""
    named = len(bars) <= _NAMED
    pitch, thick, left, right = (19, 13, 340, 690) if named else (6, 5, 10, _WIDTH - 10)
    height = 14 + pitch * len(bars) + 24
    across = Scale(0, max(1, *(max(bar.steps, bar.full) for bar in bars)), left, right)
    parts = []
    for tick in across.counts(5):
        parts.append(_upward("grid", across.at(tick), 4, height - 20))
        parts.append(_text(across.at(tick), height - 5, f"{tick:,.0f}", "middle"))
    for place, bar in enumerate(bars):
        y = 8 + pitch * place
        parts.append(f"<g><title>{safe(bar.told)}</title>")
        for look, width in (("ghost", across.at(bar.full) - left), (f"o-{bar.outcome}", across.at(bar.steps) - left)):
            parts.append(
                f'<rect class="{safe(look)}" x="{left}" y="{y}" width="{max(1.5, width):.1f}" height="{thick}"/>'
            )
        if named:
            parts.append(_text(0, y + 11, _cut(bar.label, left - 12)))
            parts.append(_text(right + 10, y + 11, _cut(bar.said, _WIDTH - right - 10)))
        parts.append("</g>")
    return _figure("timeline", title, about, height, parts)


def _upward(look: str, x: float, top: float, bottom: float) -> str:
    return f'<line class="{look}" x1="{x:.1f}" x2="{x:.1f}" y1="{top:g}" y2="{bottom:g}"/>'


def _figure(name: str, title: str, about: str, height: float, inside: Iterable[str]) -> str:
    told = f'<title id="{name}-title">{safe(title)}</title><desc id="{name}-desc">{safe(about)}</desc>'
    named = f'role="img" aria-labelledby="{name}-title" aria-describedby="{name}-desc"'
    return f'<svg {named} viewBox="0 0 {_WIDTH} {height:g}">{told}{"".join(inside)}</svg>'


def _text(x: float, y: float, text: str, anchor: str = "start", look: str = "") -> str:
    said = f' class="{look}"' if look else ""
    return f'<text{said} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{safe(text)}</text>'


def _cut(text: str, room: float) -> str:
    most = int(room / _LETTER)
    return text if len(text) <= most else text[: most - 1] + "…"
