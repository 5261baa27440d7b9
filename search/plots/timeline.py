"""The timeline: one bar for each run, as long as it trained, with what ended it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from remedy.search.markup import safe
from remedy.search.plots.scale import Scale
from remedy.search.plots.svg import WIDTH, cut, figure, text, upward

_NAMED = 100


@dataclass(frozen=True)
class Bar:
    """A run in the timeline. `said` stands beside its bar, `told` is shown where the pointer rests on it."""

    label: str
    steps: int
    full: int
    outcome: str
    said: str
    told: str


def timeline(title: str, about: str, bars: Sequence[Bar]) -> str:
    """Draw one bar for each run, as long as it trained, before a pale one as long as its full budget."""
    named = len(bars) <= _NAMED
    pitch, thick, left, right = (19, 13, 340, 650) if named else (6, 5, 10, WIDTH - 10)
    height = 14 + pitch * len(bars) + 40
    across = Scale(0, max(1, *(max(bar.steps, bar.full) for bar in bars)), left, right)
    parts = []
    for tick in across.counts(4 if named else 8):
        parts.append(upward("grid", across.at(tick), 4, height - 36))
        parts.append(text(across.at(tick), height - 21, f"{tick:,.0f}", "middle"))
    parts.append(text((left + right) / 2, height - 4, "optimizer steps", "middle", "head"))
    for place, bar in enumerate(bars):
        y = 8 + pitch * place
        parts.append(f"<g><title>{safe(bar.told)}</title>")
        for look, width in (("ghost", across.at(bar.full) - left), (f"o-{bar.outcome}", across.at(bar.steps) - left)):
            parts.append(
                f'<rect class="{safe(look)}" x="{left}" y="{y}" width="{max(1.5, width):.1f}" height="{thick}"/>'
            )
        if named:
            parts.append(text(0, y + 11, cut(bar.label, left - 12)))
            parts.append(text(right + 10, y + 11, cut(bar.said, WIDTH - right - 10)))
        parts.append("</g>")
    return figure("timeline", title, about, height, parts)
