"""Parts of every figure: text, lines, and the frame that names the figure for those who do not see it."""

from __future__ import annotations

from collections.abc import Iterable

from remedy.search.markup import PLAIN, safe

WIDTH = 960
LETTER = 6.9
"""Widest mean width of a letter at the size of the labels."""


def figure(name: str, title: str, about: str, height: float, inside: Iterable[str]) -> str:
    """Return a figure as an element of a page."""
    told = f'<title id="{name}-title">{safe(title)}</title><desc id="{name}-desc">{safe(about)}</desc>'
    named = f'role="img" aria-labelledby="{name}-title" aria-describedby="{name}-desc"'
    return f'<svg {named} viewBox="0 0 {WIDTH} {height:g}">{told}{"".join(inside)}</svg>'


def alone(drawn: str) -> str:
    """Return a figure as a file of its own, with its looks in it and a ground under it."""
    head, inside = drawn.split(">", 1)
    ground = '<rect class="ground" x="-16" y="-16" width="100%" height="100%"/>'
    *_, wide, high = head.rsplit('viewBox="', 1)[1].rstrip('"').split()
    box = f'viewBox="-16 -16 {float(wide) + 32:g} {float(high) + 32:g}" width="{float(wide) + 32:g}"'
    head = head.rsplit("viewBox=", 1)[0] + box
    page = f"{head.replace('<svg', '<svg xmlns=' + chr(34) + 'http://www.w3.org/2000/svg' + chr(34))}>"
    return (f"{page}<style>{PLAIN}</style>{ground}{inside}\n").encode("ascii", "xmlcharrefreplace").decode()


def text(x: float, y: float, said: str, anchor: str = "start", look: str = "") -> str:
    """Return a line of text."""
    named = f' class="{look}"' if look else ""
    return f'<text{named} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{safe(said)}</text>'


def cut(said: str, room: float) -> str:
    """Shorten a text to the room there is."""
    most = int(room / LETTER)
    return said if len(said) <= most else said[: most - 1] + "…"


def upward(look: str, x: float, top: float, bottom: float) -> str:
    """Return an upright line."""
    return f'<line class="{look}" x1="{x:.1f}" x2="{x:.1f}" y1="{top:g}" y2="{bottom:g}"/>'


def across(look: str, left: float, right: float, y: float) -> str:
    """Return a level line."""
    return f'<line class="{look}" x1="{left:.1f}" x2="{right:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>'


def dot(look: str, x: float, y: float, size: float, told: str = "") -> str:
    """Return a disc, with what is shown where the pointer rests on it."""
    inside = f"<title>{safe(told)}</title>" if told else ""
    return f'<circle class="{look}" cx="{x:.1f}" cy="{y:.1f}" r="{size:.1f}">{inside}</circle>'
