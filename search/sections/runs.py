"""The runs of a study, as a section of a report's page."""

from __future__ import annotations

import math
from collections.abc import Mapping

from remedy.search.drawing import Drawing, outcomes
from remedy.search.findings import Findings, Made
from remedy.search.markup import Html, join, number, table, tag
from remedy.search.sections.plate import plate
from remedy.spaces.outcome import Outcome


def runs(found: Findings, drawn: Mapping[str, Drawing], data: Mapping[str, str]) -> Html:
    """Return the section; nothing where none has ended."""
    if not found.runs:
        return Html()
    keys = [(tag("span", look=f"key o-{name}"), tag("span", name)) for name in outcomes(found.runs)]
    legend = tag("p", *(part for pair in keys for part in pair), look="soft legend")
    rows = [
        (run.result.number, run.phase, run.seed, tag("code", run.label) if run.combination else run.label,
         join((tag("span", look=f"key o-{run.result.outcome}"), run.result.outcome)), _why(run),
         number(run.result.metric if math.isfinite(run.result.metric) else None),
         number(run.result.steps) + (f" of {number(run.result.steps_full)}" if run.result.steps_full else ""))
        for run in found.runs
    ]  # fmt: skip
    head = ("run", "phase", "seed", "remedies", "outcome", "symptom or reason", found.metric, "steps")
    every = tag("details", tag("summary", "Every run as a row"), table(head, rows))
    return tag("section", tag("h2", "Runs"), legend, plate(found, drawn.get("timeline"), data), every)


def _why(run: Made) -> str:
    told = run.result.outcome in (Outcome.FAILED, Outcome.INAPPLICABLE, Outcome.LOST) or run.given_up
    return run.symptom if run.symptom and not run.given_up else run.result.reason if told else ""
