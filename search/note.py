"""The verdict of a study for people, as Markdown: the note of its MLflow run, and `report --format md`."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from remedy.search.audit import lines as audit_lines
from remedy.search.evidence_note import evidence
from remedy.search.markdown import ROWS, code, count, escape, interval, listed, number, percent, share, table
from remedy.search.paste import apply_line, run_line
from remedy.spaces.combination import Combination

NOTE = 6000
"""Longest text of a note in MLflow."""


def note(report: Mapping[str, Any], longest: int | None = None) -> str:
    """Write the verdict of a study for people, from its report; beyond `longest` characters its end is left out."""
    parts = [_heading(report), _wrong(report), _fixes(report), *evidence(report), _no_help(report), _saved(report)]
    text = "\n\n".join(part for part in parts if part)
    if longest is not None and len(text) > longest:
        text = text[:longest].rsplit("\n", 1)[0] + "\n\nThe rest is in the study's report."
    apply = _apply(report)
    return f"{text}\n\n{apply}\n" if apply else f"{text}\n"


def _heading(report: Mapping[str, Any]) -> str:
    confirmed = [fix for fix in report.get("fixes") or () if fix.get("confirmed")]
    state = (report.get("baseline") or {}).get("state")
    if confirmed:
        found = f"{count(len(confirmed), 'fix', 'fixes')} confirmed on fresh seeds"
    elif state == "healthy":
        found = "nothing to repair"
    elif report.get("exit_code") == 2:
        found = "the training could not be run"
    else:
        found = "no fix confirmed"
    reason = f" (ended: {escape(report['reason'])})" if report.get("reason") else ""
    training = f"Training {code(report.get('training', ''))}, goal {_goal(report)}."
    best = f"**{code(_label(confirmed[0]))}**: {_proof(report, confirmed[0])} " if confirmed else ""
    return f"## {found[0].upper()}{found[1:]}{reason}\n\n{best}{training}"


def _proof(report: Mapping[str, Any], fix: Mapping[str, Any]) -> str:
    over = "identical runs" if (report.get("baseline") or {}).get("deterministic") else "runs on fresh seeds"
    without = "".join(f", without {code(part.get('without', ''))} {share(part)}" for part in fix.get("ablation") or ())
    return f"{share(fix)} {over} converged{without and f'; on the same seeds{without}'}."


def _label(fix: Mapping[str, Any]) -> str:
    return str(fix.get("label") or Combination.of(fix.get("remedies") or {}).label)


def _wrong(report: Mapping[str, Any]) -> str:
    baseline = report.get("baseline") or {}
    findings = report.get("preflight") or ()
    lines = ["### What was wrong", ""]
    if baseline:
        reached = ", ".join(number(value) for value in baseline.get("metric") or ())
        identical = (
            ". The runs were identical: nothing in the training depends on the seed"
            if baseline.get("deterministic")
            else ""
        )
        lines[0] = "### The training as it is" if baseline.get("state") == "healthy" else lines[0]
        lines.append(
            f"Untouched, it is **{escape(baseline.get('state', 'unknown'))}**: {share(baseline)} runs converged"
            f"{f' (final {escape(_metric(report))}: {reached})' if reached else ''}{identical}."
        )
    symptoms = [
        (
            escape(found.get("symptom", "")),
            str(found.get("runs", "")),
            ", ".join(str(step) for step in found.get("onset_step") or ()),
            "yes" if found.get("stopped") else "no",
            escape(found.get("evidence", "")),
        )
        for found in baseline.get("symptoms") or ()
    ]
    if symptoms:
        lines += ["", *table(("symptom", "runs", "since step", "ended the run", "evidence"), symptoms)]
    if findings:
        lines += ["", "Found before the first run:", ""]
        lines += [
            f"- {escape(found.get('level', ''))}: {escape(found.get('message', ''))}" for found in findings[:ROWS]
        ]
    if report.get("decision"):
        lines += ["", f"By a few hundred steps before: {escape(report['decision'])}."]
    return "\n".join(lines) if baseline or findings else ""


def _fixes(report: Mapping[str, Any]) -> str:
    fixes, base = report.get("fixes") or (), report.get("baseline") or {}
    if not fixes:
        searched = base.get("state") != "healthy" and report.get("exit_code") != 2
        once = [
            f"- converged on the search's seed, and not proved: {code(made)}" for made in report.get("unproved") or ()
        ]
        said = "\n".join(["Nothing was confirmed.", "", *once]) if once else "Nothing that was tried."
        return f"### What fixes it\n\n{said}" if searched else ""
    identical = bool(base.get("deterministic"))
    rows = [
        (
            str(place),
            code(_label(fix)),
            f"{share(fix)}{'' if fix.get('confirmed') else ' (not confirmed)'}",
            "-" if identical else interval(fix.get("interval")),
            number(fix.get("metric_mean")),
            "yes" if fix.get("minimal") else "not shown",
            number(fix.get("invasiveness")),
            "; ".join(f"without {code(part.get('without', ''))}: {share(part)}" for part in fix.get("ablation") or ())
            or "not run",
        )
        for place, fix in enumerate(fixes, start=1)
    ]
    head = (
        "",
        "fix",
        f"converged {'(identical runs)' if identical else 'on fresh seeds'}",
        "95 % interval",
        f"mean {escape(_metric(report))}",
        "minimal",
        "invasiveness",
        "left out",
    )
    legend = (
        "Minimal: each of its remedies was left out once, on the same seeds, and what remained did not hold. "
        "Invasiveness: 1 (a number changes) to 5 (the architecture changes)."
    )
    return "\n".join(["### What fixes it", "", *table(head, rows), "", legend])


def _no_help(report: Mapping[str, Any]) -> str:
    base = report.get("baseline") or {}
    useless, inapplicable = [], []
    for row in report.get("remedies") or ():
        alone, effect = row.get("alone"), row.get("effect")
        if not alone and not row.get("contrasts"):
            inapplicable.append(f"{code(row.get('remedy', ''))}")
        elif alone and (not alone.get("converged") or (effect is not None and effect <= 0)):
            useless.append(f"{code(row.get('remedy', ''))} ({share(alone)})")
    lines = []
    if useless:
        unstable = ", or no more than the untouched training" if base.get("converged") else ""
        lines.append(f"Tried alone, these restored nothing{unstable} (runs converged): {listed(useless)}.")
    if inapplicable:
        lines.append(f"Nothing to change in this training: {listed(inapplicable)}.")
    return "\n\n".join(["### What did not help alone", *lines]) if lines else ""


def _saved(report: Mapping[str, Any]) -> str:
    runs, cost = report.get("runs") or {}, report.get("cost") or {}
    if not runs.get("total"):
        return ""
    ended = ", ".join(f"{times} {escape(name)}" for name, times in runs.items() if name != "total" and times)
    text = f"{count(runs['total'], 'run', 'runs')}: {ended}."
    if cost.get("steps_full") and cost.get("saved_by_early_stop") is not None:
        causes = [(name, part) for name, part in (cost.get("saved") or {}).items() if part]
        by = " (" + ", ".join(f"{escape(name)} {percent(part)}" for name, part in causes) + ")" if causes else ""
        text += (
            f" {cost.get('steps_trained', 0):,} of {cost['steps_full']:,} steps were trained: early stopping saved "
            f"**{percent(cost['saved_by_early_stop'])}**{by}."
        )
    audited = "".join(f"\n\n{escape(said)}" for said in audit_lines(report["audit"])) if report.get("audit") else ""
    return f"### What it cost, and what early stopping saved\n\n{text}{audited}"


def _apply(report: Mapping[str, Any]) -> str:
    if not any(fix.get("confirmed") for fix in report.get("fixes") or ()):
        return ""
    study = shlex.quote(" ".join(str(report.get("study", "")).split()))
    script, applied = report.get("script"), apply_line(report, "fix.yaml")
    # Indented, not fenced: nothing in a name can end the block.
    return "\n".join(
        [
            "### How to apply it",
            "",
            f"    remedy export {study} --out fix.yaml",
            f"    {run_line(report, 'fix.yaml', 7)}",
            "",
            "Without us around it:" if script else "In your own code:",
            "",
            f"    {applied}" if script else f"    fixed = {applied}",
        ]
    )


def _metric(report: Mapping[str, Any]) -> str:
    return str((report.get("goal") or {}).get("metric", "metric"))


def _goal(report: Mapping[str, Any]) -> str:
    goal = report.get("goal") or {}
    sign, value = ("≤", goal["at_most"]) if "at_most" in goal else ("≥", goal.get("at_least"))
    return f"{escape(_metric(report))} {sign} {number(value)}"
