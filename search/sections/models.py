"""What models make of a study's trials, kept apart from what was contrasted, as a section of a report's page."""

from __future__ import annotations

from collections.abc import Mapping

from remedy.search.findings import Findings
from remedy.search.markup import Html, percent, table, tag
from remedy.search.sections.plate import numbers

_LEAST = 0.005
_SAID = (
    "Not a contrast: two of Optuna's evaluators fit a model to the graded values of {trials} runs, and share out what "
    "it explains over the slots. fANOVA asks what it depends on, PED-ANOVA what separates the best tenth. With so "
    "few runs, most of them of one remedy, either may name a slot that did nothing. Where they and the contrasts "
    "above differ, the contrasts were run."
)


def models(found: Findings, data: Mapping[str, str]) -> Html:
    """Return the section; nothing where no model was asked."""
    told = found.report.get("importance") or {}
    rows = [
        (tag("code", row["slot"]), _bar(row["fanova"]), _bar(row["ped_anova"]))
        for row in told.get("slots") or ()
        if max(row["fanova"], row["ped_anova"]) >= _LEAST
    ]
    if not rows:
        return Html()
    head = ("slot", "fANOVA", "PED-ANOVA")
    said = tag("p", _SAID.format(trials=told["trials"]), look="soft")
    caption = tag("p", f"Optuna {told['optuna']}. ", numbers(found, "importance", data), look="soft")
    return tag("section", tag("h2", "Model-based importance"), said, table(head, rows), caption)


def _bar(part: float) -> Html:
    width = f"width:{max(1.0, 100 * part):.0f}%"
    return tag("div", tag("span", look="bar", style=width), tag("span", percent(part)), look="bars")
