"""The forest plot: each contrast that was run, with its counts, its difference, and an interval where one is told."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from remedy.search.plots.scale import Scale
from remedy.search.plots.svg import cut, dot, figure, text, upward

_ROW, _TOP = 22, 46


@dataclass(frozen=True)
class Effect:
    """One contrast on the same seeds. `group` stands above the first of each group; `why` there is no interval."""

    group: str
    name: str
    converged: int
    runs: int
    base_converged: int
    base_runs: int
    interval: tuple[float, float] | None = None
    why: str = "too few seeds"

    @property
    def effect(self) -> float:
        """The difference of the two shares."""
        return self.converged / self.runs - self.base_converged / self.base_runs


def forest(title: str, about: str, rows: Sequence[Effect]) -> str:
    """Draw of each contrast both shares of runs that converged, and their difference."""
    share, effect = Scale(0, 1, 290, 400), Scale(-1, 1, 560, 750)
    lines: list[tuple[str, Effect | None]] = []
    for place, row in enumerate(rows):
        if not place or rows[place - 1].group != row.group:
            lines.append((row.group, None))
        lines.append((row.name, row))
    bottom = _TOP + _ROW * len(lines)
    parts = [text(276, 14, "share converged", look="head"), text(414, 14, "with / without it", look="head")]
    parts.append(text(560, 14, "difference, same seeds [95 %]", look="head"))
    for scale, ticks in ((share, (0.0, 0.5, 1.0)), (effect, (-1.0, -0.5, 0.0, 0.5, 1.0))):
        for tick in ticks:
            x = scale.at(tick)
            parts.append(upward("grid" if tick or scale is share else "axis", x, 24, bottom - 10))
            parts.append(text(x, bottom + 6, f"{tick:+g}" if scale is effect and tick else f"{tick:g}", "middle"))
    for place, (name, contrast) in enumerate(lines):
        y = _TOP - 6 + _ROW * place
        if contrast is None:
            parts.append(text(0, y + 4, cut(name, 960), look="group over"))
        else:
            parts += _row(contrast, y, share, effect)
    return figure("effects", title, about, bottom + 14, parts)


def _row(row: Effect, y: int, share: Scale, effect: Scale) -> Iterator[str]:
    yield text(12, y + 4, cut(row.name, 262))
    told = f"{row.converged} of {row.runs} with it, {row.base_converged} of {row.base_runs} without"
    with_it, without = share.at(row.converged / row.runs), share.at(row.base_converged / row.base_runs)
    yield dot("hollow", without, y, 5.5, told)
    yield dot("dot", with_it, y, 4.5, told)
    yield text(414, y + 4, f"{row.converged} of {row.runs} / {row.base_converged} of {row.base_runs}")
    if row.interval is None:
        yield text(770, y + 4, row.why, look="head")
        return
    low, high = row.interval
    x = effect.at(row.effect)
    yield f'<line class="reach" x1="{effect.at(low):.1f}" x2="{effect.at(high):.1f}" y1="{y}" y2="{y}"/>'
    yield f'<rect class="dot" x="{x - 4.5:.1f}" y="{y - 4.5}" width="9" height="9"/>'
    yield text(770, y + 4, f"{row.effect:+.2f} [{low:+.2f}, {high:+.2f}]")
