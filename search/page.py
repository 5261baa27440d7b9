"""The findings of a study as one self-contained page: inline SVG and CSS, no script, nothing loaded from anywhere."""

from __future__ import annotations

import shlex

from remedy.search.drawing import drawings
from remedy.search.findings import Findings, label, share
from remedy.search.links import redact
from remedy.search.markup import STYLE, Html, duration, number, percent, safe, tag
from remedy.search.paste import apply_line, run_line
from remedy.search.sections.cost import cost
from remedy.search.sections.curves import curves
from remedy.search.sections.diagnosis import diagnosis
from remedy.search.sections.fixes import fixes
from remedy.search.sections.models import models
from remedy.search.sections.recipes import recipes
from remedy.search.sections.remedies import remedies
from remedy.search.sections.runs import runs
from remedy.search.tables import tables

_ENDED = {
    "exhausted": "everything there is to try was tried",
    "budget": "the budget ended first",
    "timeout": "the time ended first",
    "stopped": "the study was stopped",
}


def report_html(found: Findings) -> str:
    """Write the findings of a study as one page."""
    data, drawn = tables(found), drawings(found)
    parts = (
        _heading(found), diagnosis(found), fixes(found, data), recipes(found, drawn, data), _apply(found),
        curves(found, drawn, data), remedies(found, drawn, data), models(found, data), runs(found, drawn, data),
        cost(found.report), _foot(found),
    )  # fmt: skip
    page = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{safe(found.study)}: findings</title>\n<style>{STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n{chr(10).join(part for part in parts if part)}\n</main>\n</body>\n</html>\n"
    )
    # ASCII only: the page reads the same under whatever encoding it is written and served.
    return page.encode("ascii", "xmlcharrefreplace").decode()


def _heading(found: Findings) -> Html:
    report, base = found.report, found.baseline
    spent, counts, best = report.get("cost") or {}, report.get("runs") or {}, found.best
    title, told = _verdict(found)
    tiles = [("Untouched runs converged", share(base))] if base.get("runs") else []
    if best:
        confirmed = sum(bool(fix.get("confirmed")) for fix in found.fixes)
        tiles += [("With the best fix", share(best)), ("Fixes confirmed", number(confirmed))]
    tiles.append(("Runs", number(counts.get("total", 0))))
    if spent.get("steps_full"):
        tiles.append(("Saved by early stopping", percent(spent.get("saved_by_early_stop"))))
    tiles.append(("Time", duration(spent.get("seconds") or 0.0)))
    return tag(
        "header",
        tag("p", f"Study {report.get('study', '')}, training ", tag("code", report.get("training", "")), look="soft"),
        tag("h1", title),
        tag("p", told),
        tag("dl", *(tag("div", tag("dt", name), tag("dd", value)) for name, value in tiles)),
    )


def _verdict(found: Findings) -> tuple[str, str]:
    base, fix, wanted = found.baseline, found.best, f"The goal is {found.aim}."
    untouched = f"{share(base)} runs of the untouched training converged"
    if fix:
        runs = "identical runs" if found.identical else "runs on fresh seeds"
        told = f"With it, {share(fix)} {runs} converged"
        converged, made = found.control(fix)
        if not made:
            return f"{label(fix)} is confirmed", f"{told}. {wanted}"
        told += f"; of the untouched training on the same seeds, {converged} of {made}"
        return f"{label(fix)} restores convergence", f"{told}. {wanted}"
    if not base.get("runs"):
        known = "No fix was confirmed" if found.report.get("runs", {}).get("total") else "Nothing is known yet"
        return known, f"No run of the baseline ended. {wanted}"
    if base.get("state") == "healthy":
        return "Nothing to repair", f"{untouched}. {wanted}"
    if found.report.get("exit_code") == 2:
        return "The training could not be run", "Every run of the untouched training failed by its own code."
    ended = _ENDED.get(str(found.report.get("reason")), found.report.get("reason") or "the search ended")
    return "No fix was confirmed", f"{untouched}; {ended}. {wanted}"


def _apply(found: Findings) -> Html:
    if not found.best:
        return Html()
    study = shlex.quote(" ".join(str(found.report.get("study", "")).split()))
    run = tag("pre", f"remedy export {study} --out fix.yaml", Html("\n"), run_line(found.report, "fix.yaml", 7))
    line = apply_line(found.report, "fix.yaml")
    if found.report.get("script"):
        said = [tag("p", "Without us around it:"), tag("pre", line)]
    else:
        said = [tag("p", "In your own code:"), tag("pre", f"fixed = {line}")]
        said.append(tag("p", "For a training loop of your own, the model, loss and optimizer with the fix in them:"))
        said.append(tag("pre", "parts = remedy.assemble(fixed, seed=7)"))
    return tag("section", tag("h2", "How to apply it"), run, *said)


def _foot(found: Findings) -> Html:
    record = found.report.get("mlflow") or {}
    told = f"Seed of the study: {found.report.get('seed')}; report schema {found.report.get('schema')}."
    if record.get("parent_run_id"):
        store = redact(str(record.get("tracking_uri", "")))
        told += f" MLflow: experiment {record.get('experiment')}, run {record['parent_run_id']}, store {store}."
        told += " Within its page links save nothing: numbers and figures are in the folder plots beside this report."
    return tag("footer", tag("p", told, look="soft"))
