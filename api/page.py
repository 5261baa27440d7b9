"""A page of text for a person: lines, tables, figures and curves."""

from __future__ import annotations

import io
import os
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from remedy.spaces.printable import printable

if TYPE_CHECKING:
    from remedy.workers.result import RunResult

_WIDTH, _NARROWEST, _WIDEST = 110, 60, 120
_ROWS = 4
_NAMES = {"gradient_norm": "gradient norm", "metric": "held metric"}
_BARS = "▁▂▃▄▅▆▇█"
_COLOURS = {
    "converged": "green",
    "collapsed": "red",
    "missed": "yellow",
    "failed": "red",
    "stopped": "dim",
    "inapplicable": "dim",
    "lost": "magenta",
}


class Page:
    """Collects lines and tables: as wide as the terminal and in colour on one, plain text elsewhere."""

    def __init__(self, *, terminal: bool | None = None) -> None:
        """Begin an empty page; `terminal` says where it goes to (None: standard output is looked at)."""
        self._out = io.StringIO()
        seen = sys.stdout.isatty() if terminal is None else terminal
        columns = shutil.get_terminal_size((_WIDTH, 24)).columns if seen else _WIDTH
        self._width = min(max(columns, _NARROWEST), _WIDEST)
        colour = seen and "NO_COLOR" not in os.environ
        self._console = Console(
            file=self._out, width=self._width, force_terminal=colour, no_color=not colour, highlight=False
        )

    @property
    def room(self) -> int:
        """How many characters a curve may take beside its name and its figures."""
        return self._width - 45

    def line(self, text: str = "", style: str = "", indent: int = 0) -> None:
        """Add a line; a long one is wrapped, what follows is indented further."""
        blank = " " * indent
        wrapped = textwrap.fill(
            printable(text), self._width, initial_indent=blank, subsequent_indent=f"{blank}    ",
            break_long_words=False, break_on_hyphens=False,
        )  # fmt: skip
        self._console.print(Text(wrapped, style=style), soft_wrap=True)

    def raw(self, text: str, style: str = "") -> None:
        """Add a line that must not be wrapped (paths and commands to copy)."""
        self._console.print(Text(printable(text), style=style), soft_wrap=True)

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[object]], title: str | None = None) -> None:
        """Add a table; the last column takes what width is left."""
        if title:
            self.line(title, "bold")
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for column in columns:
            table.add_column(column, overflow="fold", header_style="dim")
        for row in rows:
            table.add_row(*(Text(printable(cell), style=_COLOURS.get(str(cell), "")) for cell in row))
        self._console.print(table)

    def __str__(self) -> str:
        """Return the page, without trailing blanks."""
        return "\n".join(line.rstrip() for line in self._out.getvalue().rstrip().split("\n"))


def share(converged: int, runs: int, interval: Sequence[float] | None = None) -> str:
    """Return `5 of 5 [0.57, 1.00]`."""
    said = f"{converged} of {runs}"
    return said if interval is None else f"{said} [{interval[0]:.2f}, {interval[1]:.2f}]"


def number(value: float | None, digits: int = 3) -> str:
    """Return a figure for people, `-` for none."""
    return (
        "-"
        if value is None
        else f"{value:.{digits}g}"
        if abs(value) < 10**-digits or abs(value) >= 10**4
        else f"{value:.{digits}f}"
    )


def sparkline(curve: Sequence[tuple[int, float]], width: int = 60) -> str:
    """Return a curve as a line of block characters; `!` where a value is not finite."""
    if not curve:
        return ""
    picked = [curve[min(len(curve) - 1, place * len(curve) // width)][1] for place in range(min(width, len(curve)))]
    finite = [value for value in picked if value == value and abs(value) != float("inf")]  # noqa: PLR0124  (NaN)
    if not finite:
        return "!" * len(picked)
    low, span = min(finite), (max(finite) - min(finite)) or 1.0
    return "".join(
        _BARS[min(7, int((value - low) / span * 8))] if value == value and abs(value) != float("inf") else "!"  # noqa: PLR0124
        for value in picked
    )


def curves(page: Page, result: RunResult) -> None:
    """Add a run's curves: those that a verdict is seen on as charts with it marked, then the others, a line each."""
    from remedy.chart import chart
    from remedy.search.mark import CURVES, mark_of

    mark, last = mark_of(result), max((step for curve in result.curves.values() for step, _ in curve), default=0)
    for name in CURVES:
        if curve := result.curves.get(name, ()):
            page.raw(f"  {_NAMES.get(name, name)}")
            for line in chart(curve, last, page.room + 20, _ROWS, mark):
                page.raw(line, "bold red" if "▲" in line and result.verdict else "yellow" if "▲" in line else "")
    for name, curve in result.curves.items():
        if name not in CURVES and curve:
            values = [value for _, value in curve]
            page.raw(f"  {name:<20} {sparkline(curve, page.room)}  {number(values[0])} -> {number(values[-1])}")


def preflight_lines(page: Page, findings: Sequence[Mapping[str, Any]]) -> None:
    """Add what pre-flight found, a line each."""
    for finding in sorted(findings, key=lambda finding: finding["level"] != "error"):
        suggests = f" -> {', '.join(finding['suggests'])}" if finding["suggests"] else ""
        page.line(f"pre-flight {finding['level']}: {finding['message']}{suggests}", indent=2)
