"""What was wrong with the training, as a section of a report's page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from remedy.search.findings import Findings, share
from remedy.search.markup import Html, join, number, table, tag
from remedy.spaces.symptom import Symptom


def diagnosis(found: Findings) -> Html:
    """Return the section; nothing where nothing is known."""
    base, findings = found.baseline, found.report.get("preflight") or ()
    parts: list[Html] = []
    if base.get("runs"):
        reached = ", ".join("none" if value is None else number(value) for value in base.get("metric") or ())
        said = f"Untouched, the training is {base.get('state')}: {share(base)} runs converged."
        known = f"; guessing reaches {number(base['chance'])}" if base.get("chance") is not None else ""
        parts.append(tag("p", f"{said} Final {found.metric}: {reached}{known}."))
    if found.identical:
        said = "The runs were identical although their seeds differ: nothing in the training depends on the seed."
        parts.append(tag("p", f"{said} Counts of runs are not evidence over seeds."))
    rows = [
        (tag("strong", symptom["symptom"]),
         join((_meaning(symptom["symptom"]), tag("div", symptom["evidence"], look="soft"))),
         f"{symptom['runs']}\N{NO-BREAK SPACE}of\N{NO-BREAK SPACE}{base.get('runs')}",
         ", ".join(number(step) for step in symptom["onset_step"]),
         "yes" if symptom["stopped"] else "no, noted")
        for symptom in base.get("symptoms") or ()
    ]  # fmt: skip
    if rows:
        head = ("symptom", "what is seen, and one run's evidence", "runs", "since step", "ended the run")
        parts.append(table(head, rows))
    elif base.get("converged", 0) < base.get("runs", 0) and "missed" in (base.get("outcomes") or ()):
        parts.append(tag("p", "No detector recognised a symptom in these runs: the goal was missed without one."))
    told = zip(base.get("outcomes") or (), base.get("reasons") or (), strict=False)
    parts += [tag("p", f"Failed: {why}") for why in dict.fromkeys(why for how, why in told if how == "failed")]
    if findings:
        parts += [tag("h3", "Found before the first run"), tag("ul", *(_finding(finding) for finding in findings))]
    if found.report.get("decision"):
        parts.append(tag("p", f"By a few hundred steps before: {found.report['decision']}."))
    title = "The training as it is" if base.get("state") == "healthy" else "What was wrong"
    return tag("section", tag("h2", title), *parts) if parts else Html()


def _meaning(symptom: str) -> str:
    found = next((known for known in Symptom if known.value == symptom), None)
    return f"{found.about}. Usual cause: {found.means}." if found else ""


def _finding(finding: Mapping[str, Any]) -> Html:
    suggests = f" (points to {', '.join(finding['suggests'])})" if finding.get("suggests") else ""
    return tag("li", tag("strong", finding.get("level", "")), ": ", finding.get("message", ""), suggests)
