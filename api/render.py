"""The findings of a study as text for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from remedy.page import Page, number, preflight_lines, share
from remedy.search.audit import lines as audit_lines
from remedy.search.paste import apply_line

_MOST_PAIRS = 5


def _goal(goal: Mapping[str, Any]) -> str:
    return f"{goal['metric']} {'>=' if 'at_least' in goal else '<='} {goal.get('at_least', goal.get('at_most')):g}"


def report_text(
    report: Mapping[str, Any], *, terminal: bool = False, next_home: str = "", running: bool = False
) -> str:
    """Return the findings of a study for people."""
    page = Page(terminal=terminal)
    base, runs, cost = report["baseline"], report["runs"], report["cost"]
    page.line(f"Study {report['study']}   goal: {_goal(report['goal'])}", "bold")
    page.raw(f"training {report['training']}")
    if running:
        page.line("It is still running: this is what is known so far.", "bold")
    page.line()
    _baseline(page, base, report["goal"]["metric"])
    preflight_lines(page, report["preflight"])
    if report.get("decision"):
        page.line(report["decision"], indent=2)
    page.line()
    if report["fixes"]:
        _fixes(page, report["fixes"], base, report["goal"]["metric"])
    else:
        page.line(_no_fix(report), "bold")
        for made in report.get("unproved") or ():
            page.line(f"Converged on the search's seed, and not proved: {made}", indent=2)
    effects = [row for row in report["remedies"] if row.get("alone")]
    if effects:
        page.line()
        _effects(page, effects, "identical runs" if base.get("deterministic") else "too few seeds for an interval")
    _pairs(page, report.get("interactions") or ())
    page.line()
    counts = ", ".join(f"{count} {name}" for name, count in runs.items() if name != "total" and count)
    page.line(f"{runs['total']} runs: {counts or 'none'}")
    if cost["steps_full"]:
        causes = ", ".join(f"{part:.0%} by {cause}" for cause, part in cost["saved"].items() if part >= 0.005)
        page.line(
            f"Early stopping saved {cost['saved_by_early_stop']:.0%} of {cost['steps_full']} optimizer steps"
            f"{f' ({causes})' if causes else ''}; {cost['seconds']:.0f} s in all."
        )
    if report.get("audit"):
        for said in audit_lines(report["audit"]):
            page.line(said)
    page.line()
    _next(page, report, next_home)
    return str(page)


def _baseline(page: Page, base: Mapping[str, Any], metric: str) -> None:
    metrics = ", ".join(number(value) for value in base["metric"])
    said = {
        "broken": f"What was wrong: none of {base['runs']} untouched runs reaches the goal",
        "unstable": f"What was wrong: only {base['converged']} of {base['runs']} untouched runs reach the goal",
        "healthy": f"Nothing is wrong: each of {base['runs']} untouched runs reaches the goal",
    }[base["state"]]
    reached = f"{said} ({metric} at the end: {metrics or '-'})"
    page.line(reached if base["runs"] else "What was wrong: not known, no run of the baseline ended", "bold")
    if base.get("deterministic"):
        page.line(
            "The runs are identical although their seeds differ: the training has no randomness, or sets its own "
            "seed. Counts below are identical runs, not evidence over seeds.",
            indent=2,
        )
    for symptom in base["symptoms"]:
        steps = symptom["onset_step"]
        span = f"step {steps[0]}" if len(set(steps)) == 1 else f"step {min(steps)} to {max(steps)}"
        kind = "" if symptom["stopped"] else "noted: "
        where = f"{symptom['runs']} of {base['runs']} runs, since {span}"
        page.line(f"{kind}{symptom['symptom']} in {where}: {symptom['evidence']}", indent=2)
    for reason in sorted(
        {r for r, o in zip(base.get("reasons", ()), base.get("outcomes", ()), strict=False) if o == "failed"}
    ):
        page.line(f"failed: {reason}", indent=2)


def _fixes(page: Page, fixes: Sequence[Mapping[str, Any]], base: Mapping[str, Any], metric: str) -> None:
    identical = bool(base.get("deterministic"))
    rows = []
    for place, fix in enumerate(fixes, start=1):
        # A remedy left out of a fix of one leaves the untouched training.
        alone = len(fix["ablation"]) == 1 and sum("." not in key for key in fix["remedies"]) == 1
        left = [(f"{a['without']}: " * (not alone)) + f"{a['converged']} of {a['runs']}" for a in fix["ablation"]]
        spread = f" ± {fix['metric_spread']:.2g}" if fix.get("metric_spread") else ""
        rows.append(
            (
                place,
                fix["label"],
                share(fix["converged"], fix["runs"], None if identical else fix["interval"]),
                f"{number(fix['metric_mean'])}{spread}",
                fix["steps_to_goal"] or "-",
                fix["invasiveness"],
                "yes" if fix["minimal"] else "not shown",
                "; ".join(left),
            )
        )
    over = "identical runs" if identical else "fresh seeds"
    title = f"What restores convergence (confirmed on {over}, best first)"
    converged = "converged" if identical else "converged [95 %]"
    page.table(("", "fix", converged, f"{metric} ± sd", "steps", "invasive", "minimal", "left out"), rows, title)
    page.line(
        "steps: to the goal, on average. invasive: 1 (a number changes) to 5 (the architecture changes). Left out: "
        "what converged, on the same seeds, without the remedy.",
        "dim",
        indent=3,
    )
    for receipt in fixes[0].get("receipts", ()):
        page.line(f"fix 1, {receipt['remedy']}: {receipt['changed']}", "dim", indent=3)
    _against_first(page, fixes, metric)


def _against_first(page: Page, fixes: Sequence[Mapping[str, Any]], metric: str) -> None:
    """Say of each further fix how it does beside the first on the same seeds."""
    for place, fix in enumerate(fixes[1:], start=2):
        against = (fix.get("recipe") or {}).get("against_first") or {}
        told = []
        if against.get("metric"):
            gap = against["metric"]
            told.append(f"{metric} {gap['mean']:+.2g} (better on {against['better']} of {gap['runs']} seeds)")
        if against.get("steps_to_goal"):
            gap = against["steps_to_goal"]
            told.append(f"{gap['mean']:+.0f} steps to the goal (sooner on {against['sooner']} of {gap['runs']})")
        if told:
            page.line(f"fix {place} against fix 1: {', '.join(told)}", "dim", indent=3)


def _effects(page: Page, rows: Sequence[Mapping[str, Any]], why: str) -> None:
    shown, never = [], []
    for row in rows:
        told = next((told for told in row.get("contrasts") or () if told["kind"] == "alone"), None)
        if told is None:
            shown.append((row["remedy"], share(**row["alone"]), "-", "ran on no seed of the untouched training"))
        elif told["with"]["converged"] or told["with"]["runs"] > 1:
            shown.append((row["remedy"], share(**told["with"]), share(**told["without"]), _difference(told, why)))
        else:
            never.append(row["remedy"])
    if shown:
        head = ("remedy alone", "converged", "untouched", "difference on the same seeds [95 %]")
        page.table(head, shown, "Each remedy against the untouched training")
    if never:
        page.line(f"Tried alone on one seed, and did not converge: {', '.join(never)}", "dim")


def _difference(told: Mapping[str, Any], why: str) -> str:
    """Return a difference with its interval, or why there is none."""
    fresh = "" if told["fresh"] else " (the search's seed, on which the untouched training does not converge)"
    if told["interval"] is None:
        return why if told["fresh"] else fresh.strip(" ()")
    low, high = told["interval"]
    return f"{told['effect']:+.2f} [{low:+.2f}, {high:+.2f}]{fresh}"


def _pairs(page: Page, rows: Sequence[Mapping[str, Any]]) -> None:
    shown = [
        (
            " + ".join(row["remedies"]),
            *(share(**row[side]) for side in ("together", "first", "second", "untouched")),
            f"{row['effect']:+.2f}"
            + ("" if row["interval"] is None else f" [{row['interval'][0]:+.2f}, {row['interval'][1]:+.2f}]"),
        )
        for row in rows
        if row["effect"]
    ]
    if shown:
        page.line()
        head = ("pair", "together", "first", "second", "untouched", "beyond the sum")
        title = "Pairs that do more, or less, together than apart (runs converged, same seeds)"
        page.table(head, shown[:_MOST_PAIRS], title)


def _no_fix(report: Mapping[str, Any]) -> str:
    if report["exit_code"] == 4:
        return "Nothing to repair."
    reasons = {
        "failed": "No search: every run of the untouched training failed by its own code.",
        "exhausted": "No fix was found: everything there is to try was tried.",
        "budget": "No fix was confirmed before the budget ended.",
        "timeout": "No fix was confirmed before the time ended.",
        "stopped": "No fix was confirmed so far.",
    }
    return reasons.get(str(report["reason"]), "No fix was confirmed.")


def _next(page: Page, report: Mapping[str, Any], home: str) -> None:
    study = report["study"]
    if report["fixes"]:
        if report["fixes"][0]["fix_file"]:
            page.raw(f"fix file: {report['fixes'][0]['fix_file']}")
        page.raw(f"next:     remedy export {study}{home}      write it as ./fix.yaml")
        where = "apply it" if report.get("script") else "in your own code"
        page.raw(f"          {apply_line(report, 'fix.yaml')}      {where}")
    elif report["exit_code"] == 3:
        page.raw(f"next:     remedy resume {study}{home} --runs N --budget N      go on with larger totals")
    else:
        page.raw(f"next:     remedy show {study}{home}      the runs, one by one")
    page.raw(f"          remedy ui --study {study}{home}      look at every run in MLflow")
