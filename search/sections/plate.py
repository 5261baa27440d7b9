"""A figure or a table with its title, what it says, and its numbers to take along."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

from remedy.search.drawing import Drawing
from remedy.search.findings import Findings
from remedy.search.markup import Html, tag

_MOST_CSV = 400_000


def plate(found: Findings, drawing: Drawing | None, data: Mapping[str, str]) -> Html:
    """Return a figure; nothing where there is none."""
    if drawing is None:
        return Html()
    caption = tag("figcaption", drawing.about, " ", numbers(found, drawing.name, data))
    return tag("figure", tag("h3", drawing.title), tag("div", Html(drawing.svg), look="wide"), caption)


def numbers(found: Findings, name: str, data: Mapping[str, str]) -> Html:
    """Return a link that holds the numbers; what is too large for a page lies beside it in MLflow."""
    if len(data.get(name, "")) > _MOST_CSV:
        return Html(f"The numbers are in plots/{name}.csv.")
    if name not in data:
        return Html()
    address = f"data:text/csv;charset=utf-8,{quote(data[name], safe=',.()=+-', errors='replace')}"
    return tag("a", "Numbers as CSV", download=f"{found.study}-{name}.csv", href=address)
