"""The files of a study's fixes: one that remedy applies, and one that needs no remedy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from remedy.search.agenda import Agenda
from remedy.search.home import StudyFolder
from remedy.search.report import confirming, ordered_fixes
from remedy.search.spec import Spec
from remedy.spaces.fix import fix_text, python_text

_EVIDENCE = ("minimal", "converged", "runs", "seeds", "interval", "metric_mean", "ablation")


def write(found: Mapping[str, Any], agenda: Agenda, folder: StudyFolder) -> None:
    """Write the files of every fix of a report."""
    spec = agenda.spec
    evidence = {
        "study": spec.study,
        "training": spec.source.name,
        "goal": found["goal"],
        "data_seed": spec.data_seed,
        "steps": spec.steps,
    }
    if spec.source.script is not None:
        evidence["script"] = spec.source.script.kept()
    for place, (fix, candidate) in enumerate(zip(found["fixes"], ordered_fixes(agenda), strict=True), 1):
        own = {key: fix[key] for key in _EVIDENCE}
        folder.save_fix(place, fix_text(candidate.combination.params, {**evidence, **own}))
        runs = confirming(agenda, candidate)
        receipts = runs[0].result.receipts if runs else ()
        about = _about(spec, found["goal"], fix)
        folder.save_python(place, python_text(candidate.combination, agenda.space.by_name, receipts, about))


def _about(spec: Spec, goal: Mapping[str, Any], fix: Mapping[str, Any]) -> list[str]:
    """Return what stands above a fix as Python code."""
    sign, value = (">=", goal["at_least"]) if "at_least" in goal else ("<=", goal["at_most"])
    minimal = "; no part of it can be left out" if fix["minimal"] else ""
    return [
        f"Found by remedy in study {spec.study} for {spec.source.name}: {fix['label']}.",
        f"{fix['converged']} of {fix['runs']} runs on fresh seeds reached {goal['metric']} {sign} {value:g}{minimal}.",
        *(f"{receipt['remedy']}: {receipt['changed']}" for receipt in fix["receipts"]),
        "",
        "Plain PyTorch: a training script with the fix in it. Lines that end in `# yours` stand for your own lines;",
        "what stands below the name of a remedy goes where it stands here.",
    ]
