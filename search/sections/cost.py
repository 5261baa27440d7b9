"""What a study cost, and what early stopping saved of it, as a section of its page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from remedy.search.audit import lines
from remedy.search.markup import Html, duration, number, percent, table, tag


def cost(report: Mapping[str, Any]) -> Html:
    """Return the section; nothing where no step was trained."""
    found = report.get("cost") or {}
    if not found.get("steps_full"):
        return Html()
    causes = ", ".join(f"{percent(part)} by {why}" for why, part in (found.get("saved") or {}).items() if part >= 0.005)
    told = (
        f"{number(found['steps_trained'])} optimizer steps were trained, of {number(found['steps_full'])} in full: "
        f"early stopping saved {percent(found.get('saved_by_early_stop'))}{f' ({causes})' if causes else ''}."
    )
    rows = [(f"steps, phase {phase}", number(steps)) for phase, steps in (found.get("by_phase") or {}).items()]
    named = {
        "full_run_equivalents": "as full runs of the untouched training",
        "steps_to_first_fix": "steps until the first fix was confirmed",
        "preflight_steps": "steps of pre-flight checks",
    }
    rows += [(name, number(found[key])) for key, name in named.items() if found.get(key)]
    rows.append(("wall time", duration(found.get("seconds") or 0.0)))
    audit = [tag("p", said) for said in lines(report["audit"])] if report.get("audit") else []
    return tag("section", tag("h2", "What it cost"), tag("p", told), *audit, table(("", ""), rows))
