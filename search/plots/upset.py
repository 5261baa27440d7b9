"""The UpSet plot: which combinations were tried, and what share of the runs of each converged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from remedy.search.markup import safe
from remedy.search.plots.scale import Scale
from remedy.search.plots.svg import WIDTH, across, cut, dot, figure, text, upward

NONE = "untouched training"
_LEFT, _ROW, _TOP, _FOOT, _WIDEST = 250, 19, 40, 150, 46


@dataclass(frozen=True)
class Column:
    """A combination that was tried; `mark` names it where it is a fix."""

    label: str
    names: tuple[str, ...]
    converged: int
    runs: int
    mark: str = ""


def upset(title: str, about: str, columns: Sequence[Column]) -> str:
    """Draw a bar for the share of each combination that converged, above its remedies."""
    rows = _rows(columns)
    pitch = min(_WIDEST, (WIDTH - _LEFT - 10) / len(columns))
    share, right = Scale(0, 1, _FOOT - 14, _TOP), _LEFT + pitch * len(columns)
    parts = []
    for tick in (0.0, 0.5, 1.0):
        parts.append(across("grid", _LEFT, right, share.at(tick)))
        parts.append(text(_LEFT - 8, share.at(tick) + 4, f"{tick:g}", "end"))
    parts.append(text(0, share.at(0.5) + 4, "share of runs converged", look="head"))
    for place, name in enumerate(rows):
        y = _FOOT + 14 + _ROW * place
        parts.append(text(0, y + 4, cut(name, _LEFT - 16)))
        parts.append(across("grid", _LEFT, right, y))
    for place, column in enumerate(columns):
        parts += _column(column, _LEFT + pitch * (place + 0.5), min(pitch - 6, 22), share, rows)
    return figure("combinations", title, about, _FOOT + 14 + _ROW * len(rows) + 6, parts)


def _rows(columns: Sequence[Column]) -> list[str]:
    return list(dict.fromkeys(name for column in columns for name in column.names or (NONE,)))


def _column(column: Column, x: float, wide: float, share: Scale, rows: Sequence[str]) -> Iterator[str]:
    told = f"{column.label}: {column.converged} of {column.runs} runs converged"
    top = share.at(column.converged / column.runs)
    box = f'x="{x - wide / 2:.1f}" y="{top:.1f}" width="{wide:.1f}" height="{share.start - top:.1f}"'
    yield f'<rect class="tile" {box}><title>{safe(told)}</title></rect>'
    yield text(x, top - 5, f"{column.converged}/{column.runs}", "middle", "small over")
    if column.mark:
        yield text(x, top - 19, column.mark, "middle", "small over strong-text")
    places = [_FOOT + 14 + _ROW * rows.index(name) for name in column.names or (NONE,)]
    if len(places) > 1:
        yield upward("reach", x, min(places), max(places))
    for y in places:
        yield dot("dot" if column.names else "hollow", x, y, 5, told)
