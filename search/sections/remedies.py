"""What each remedy did, from contrasts that were run, as a section of a report's page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from remedy.search.drawing import Drawing, effects, worth_drawing
from remedy.search.findings import Findings, share
from remedy.search.markup import Html, join, table, tag
from remedy.search.sections.plate import numbers, plate

_PAIRS = 12
_INTERACTION = (
    "Pairs of which both remedies alone, the pair and the untouched training ran on the same seeds; the counts are of "
    "runs that converged. Beyond the sum: how much larger the share of the pair is than both effects alone add up to; "
    "above 0 the two do more together, below 0 one does what the other does already."
)


def remedies(found: Findings, drawn: Mapping[str, Drawing], data: Mapping[str, str]) -> Html:
    """Return the section; nothing where no remedy was tried."""
    parts = [plate(found, drawn.get("effects"), data), _never(found, data), _inapplicable(found),
             plate(found, drawn.get("combinations"), data), _interactions(found, data)]  # fmt: skip
    return tag("section", tag("h2", "What each remedy did"), *parts) if any(parts) else Html()


def _never(found: Findings, data: Mapping[str, str]) -> Html:
    """Name what is no figure: one run that did not converge."""
    every, drawn = effects(found), worth_drawing(found)
    names = [row.name for row in every if row not in drawn]
    known = {told["remedy"] for told in found.report.get("remedies") or () if told.get("contrasts")}
    away = [row["remedy"] for row in found.report.get("remedies") or ()
            if row.get("alone") and row["remedy"] not in known]  # fmt: skip
    parts = [tag("p", "Added alone on one seed, and did not converge: ", _codes(names), ".")] if names else []
    if names and not drawn:
        parts.append(tag("p", numbers(found, "effects", data)))
    if away:
        parts.append(tag("p", "Ran on no seed of the untouched training, so that there is no contrast: ", _codes(away)))
    return join(parts)


def _inapplicable(found: Findings) -> Html:
    rows = [(tag("code", row["remedy"]), row["inapplicable"]) for row in found.report.get("remedies") or ()
            if row.get("inapplicable")]  # fmt: skip
    if not rows:
        return Html()
    said = f"{len(rows)} found nothing to change in this training"
    return tag("details", tag("summary", said), table(("remedy", "why"), rows))


def _codes(names: Sequence[str]) -> Html:
    return join(part for place, name in enumerate(names) for part in (", " if place else "", tag("code", name)))


def _interactions(found: Findings, data: Mapping[str, str]) -> Html:
    rows: list[Mapping[str, Any]] = list(found.report.get("interactions") or ())
    telling = [row for row in rows if row["effect"]]
    if not rows:
        return Html()
    parts = [tag("h3", "Pairs, against both of their remedies alone")]
    if telling:
        head = ("pair", "seeds", "together", "first alone", "second alone", "untouched", "beyond the sum [95 %]")
        parts.append(table(head, map(_pair, telling[:_PAIRS])))
    if telling:
        more = len(rows) - len(telling)
        said = f"Of {len(rows)} pairs, {more} did what their remedies do alone, added up. " if more else ""
        said += f"The first {_PAIRS} are shown. " if len(telling) > _PAIRS else ""
    else:
        said = f"No pair of the {len(rows)} that ran did more, or less, together than apart. "
    return tag("figure", *parts, tag("figcaption", said, _INTERACTION, " ", numbers(found, "interactions", data)))


def _pair(row: Mapping[str, Any]) -> tuple[object, ...]:
    counts = (share(row[side]) for side in ("together", "first", "second", "untouched"))
    seeds = f"{len(row['seeds'])} {'fresh' if row['fresh'] else 'of the search'}"
    beyond = f"{row['effect']:+.2f}"
    if row["interval"]:
        beyond += f" [{row['interval'][0]:+.2f}, {row['interval'][1]:+.2f}]"
    return join((tag("code", row["remedies"][0]), " + ", tag("code", row["remedies"][1]))), seeds, *counts, beyond
