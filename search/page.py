"""The findings of a study as one self-contained page: inline SVG and CSS, no script, nothing loaded from anywhere."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from remedy.search import figures
from remedy.search.cost import cost
from remedy.search.figures import Made
from remedy.search.home import StudyFolder
from remedy.search.links import redact
from remedy.search.markup import STYLE, Html, count, duration, join, number, percent, safe, table, tag, wide
from remedy.search.paste import apply_line, run_line
from remedy.search.plot import curves, forest, timeline
from remedy.spaces.outcome import Outcome
from remedy.spaces.symptom import Symptom

_MOST_CSV = 400_000
_ENDED = {
    "exhausted": "everything there is to try was tried",
    "budget": "the budget ended first",
    "timeout": "the time ended first",
    "stopped": "the study was stopped",
}


def report_html(report: Mapping[str, Any], folder: StudyFolder) -> str:
    """Write the findings of a study as one page, from its report and its runs."""
    runs = figures.load(folder)
    data = figures.tables(report, runs)
    parts = (
        _heading(report, runs), _wrong(report), _fixes(report, runs), _apply(report), _curves(report, runs, data),
        _remedies(report, data), _runs(report, runs, data), cost(report), _foot(report),
    )  # fmt: skip
    page = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{safe(report.get('study', 'study'))}: findings</title>\n<style>{STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n{chr(10).join(part for part in parts if part)}\n</main>\n</body>\n</html>\n"
    )
    # ASCII only: the page reads the same under whatever encoding it is written and served.
    return page.encode("ascii", "xmlcharrefreplace").decode()


def plot_data(report: Mapping[str, Any], folder: StudyFolder) -> dict[str, str]:
    """Return plot name -> CSV text, for every plot of the page that has data."""
    return figures.tables(report, figures.load(folder))


def _heading(report: Mapping[str, Any], runs: Sequence[Made]) -> Html:
    base, cost, counts = (report.get(key) or {} for key in ("baseline", "cost", "runs"))
    fix = figures.best(report)
    title, told = _verdict(report, runs)
    tiles = [("Untouched runs converged", figures.share(base))] if base.get("runs") else []
    if fix:
        confirmed = sum(bool(found.get("confirmed")) for found in report["fixes"])
        tiles += [("With the best fix", figures.share(fix)), ("Fixes confirmed", number(confirmed))]
    tiles.append(("Runs", number(counts.get("total", 0))))
    if cost.get("steps_full"):
        tiles.append(("Saved by early stopping", percent(cost.get("saved_by_early_stop"))))
    tiles.append(("Time", duration(cost.get("seconds") or 0.0)))
    return tag(
        "header",
        tag("p", f"Study {report.get('study', '')}, training ", tag("code", report.get("training", "")), look="soft"),
        tag("h1", title),
        tag("p", told),
        tag("dl", *(tag("div", tag("dt", name), tag("dd", value)) for name, value in tiles)),
    )


def _verdict(report: Mapping[str, Any], runs: Sequence[Made]) -> tuple[str, str]:
    base, fix, wanted = report.get("baseline") or {}, figures.best(report), f"The goal is {figures.aim(report)}."
    untouched = f"{figures.share(base)} runs of the untouched training converged"
    if fix:
        told = f"With it, {figures.share(fix)} runs {_over(report)} converged"
        converged, made = figures.control(fix, runs)
        if not made:
            return f"{figures.label(fix)} is confirmed", f"{told}. {wanted}"
        told += f"; of the untouched training on the same seeds, {converged} of {made}"
        return f"{figures.label(fix)} restores convergence", f"{told}. {wanted}"
    if not base.get("runs"):
        return "Nothing is known yet", f"No run of the untouched training ended. {wanted}"
    if base.get("state") == "healthy":
        return "Nothing to repair", f"{untouched}. {wanted}"
    if report.get("exit_code") == 2:
        return "The training could not be run", "Every run of the untouched training failed by its own code."
    ended = _ENDED.get(str(report.get("reason")), report.get("reason") or "the search ended")
    return "No fix was confirmed", f"{untouched}; {ended}. {wanted}"


def _wrong(report: Mapping[str, Any]) -> Html:
    base, findings = report.get("baseline") or {}, report.get("preflight") or ()
    parts: list[Html] = []
    if base.get("runs"):
        reached = ", ".join("none" if value is None else number(value) for value in base.get("metric") or ())
        said = f"Untouched, the training is {base.get('state')}: {figures.share(base)} runs converged."
        known = f"; guessing reaches {number(base['chance'])}" if base.get("chance") is not None else ""
        parts.append(tag("p", f"{said} Final {figures.metric(report)}: {reached}{known}."))
    if base.get("deterministic"):
        said = "The runs were identical although their seeds differ: nothing in the training depends on the seed."
        parts.append(tag("p", f"{said} Counts of runs are not evidence over seeds."))
    rows = [
        (tag("strong", found["symptom"]),
         join((_meaning(found["symptom"]), tag("div", found["evidence"], look="soft"))),
         f"{found['runs']}\N{NO-BREAK SPACE}of\N{NO-BREAK SPACE}{base.get('runs')}",
         ", ".join(number(step) for step in found["onset_step"]),
         "yes" if found["stopped"] else "no, noted")
        for found in base.get("symptoms") or ()
    ]  # fmt: skip
    if rows:
        head = ("symptom", "what is seen, and one run's evidence", "runs", "since step", "ended the run")
        parts.append(table(head, rows))
    elif base.get("converged", 0) < base.get("runs", 0) and "missed" in (base.get("outcomes") or ()):
        parts.append(tag("p", "No detector recognised a symptom in these runs: the goal was missed without one."))
    told = zip(base.get("outcomes") or (), base.get("reasons") or (), strict=False)
    parts += [tag("p", f"Failed: {why}") for why in dict.fromkeys(why for how, why in told if how == "failed")]
    if findings:
        parts += [tag("h3", "Found before the first run"), tag("ul", *(_finding(found) for found in findings))]
    if report.get("decision"):
        parts.append(tag("p", f"By a few hundred steps before: {report['decision']}."))
    title = "The training as it is" if base.get("state") == "healthy" else "What was wrong"
    return tag("section", tag("h2", title), *parts) if parts else Html()


def _meaning(symptom: str) -> str:
    found = next((known for known in Symptom if known.value == symptom), None)
    return f"{found.about}. Usual cause: {found.means}." if found else ""


def _finding(found: Mapping[str, Any]) -> Html:
    suggests = f" (points to {', '.join(found['suggests'])})" if found.get("suggests") else ""
    return tag("li", tag("strong", found.get("level", "")), ": ", found.get("message", ""), suggests)


def _fixes(report: Mapping[str, Any], runs: Sequence[Made]) -> Html:
    fixes = report.get("fixes") or ()
    if not fixes:
        nothing = tag("section", tag("h2", "What fixes it"), tag("p", "Nothing that was tried was confirmed."))
        return nothing if report.get("exit_code") == 3 and runs else Html()
    rows: list[Html] = []
    for place, fix in enumerate(fixes, start=1):
        low, high = (percent(bound) for bound in fix["interval"])
        spread = f" ± {fix['metric_spread']:.2g}" if fix.get("metric_spread") is not None else ""
        doubt = "" if fix.get("confirmed") else " (not confirmed)"
        cells = (
            place, tag("code", figures.label(fix)), f"{figures.share(fix)}{doubt}", f"{low} to {high}",
            f"{number(fix.get('metric_mean'))}{spread}", number(fix.get("steps_to_goal")),
            number(fix.get("invasiveness")), "yes" if fix.get("minimal") else "not shown",
        )  # fmt: skip
        rows.append(tag("tr", *(tag("td", cell) for cell in cells), look="lead"))
        rows.append(tag("tr", tag("td"), tag("td", _details(fix, runs), colspan=len(cells) - 1), look="more"))
    head = (
        "", "fix", f"converged {_over(report)}", "95 % interval", f"mean {figures.metric(report)} ± sd",
        "steps to goal", "invasiveness", "minimal",
    )  # fmt: skip
    legend = (
        "Fresh seeds: used neither by the baseline nor by the search. Minimal: each remedy was left out once, on the "
        "same seeds, and what remained did not hold. Invasiveness: from 1 (a number) to 5 (the architecture changes)."
    )
    return tag("section", tag("h2", "What fixes it"), wide(head, rows), tag("p", legend, look="soft"))


def _details(fix: Mapping[str, Any], runs: Sequence[Made]) -> Html:
    parts = [tag("li", receipt["changed"]) for receipt in fix.get("receipts") or ()]
    parts += [
        tag("li", "Without ", tag("code", part["without"]), f", same seeds: {figures.share(part)} converged")
        for part in fix.get("ablation") or ()
    ]
    converged, made = figures.control(fix, runs)
    if made and len(fix.get("ablation") or ()) != 1:  # of a single remedy the ablation is this control
        parts.append(tag("li", f"Untouched training, same seeds: {converged} of {made} converged"))
    return tag("ul", *parts, tag("li", "Fix file: ", tag("code", fix.get("fix_file") or "remedy export")))


def _apply(report: Mapping[str, Any]) -> Html:
    if not figures.best(report):
        return Html()
    study = shlex.quote(" ".join(str(report.get("study", "")).split()))
    run = tag("pre", f"remedy export {study} --out fix.yaml", Html("\n"), run_line(report, "fix.yaml", 7))
    if report.get("script"):
        said = tag("p", "Without us around it:"), tag("pre", apply_line(report, "fix.yaml"))
        return tag("section", tag("h2", "How to apply it"), run, *said)
    return tag(
        "section",
        tag("h2", "How to apply it"),
        run,
        tag("p", "In your own code:"),
        tag("pre", f"fixed = {apply_line(report, 'fix.yaml')}"),
        tag("p", "For a training loop of your own, the model, loss and optimizer with the fix in them:"),
        tag("pre", "parts = remedy.assemble(fixed, seed=7)"),
    )


def _curves(report: Mapping[str, Any], runs: Sequence[Made], data: Mapping[str, str]) -> Html:
    parts = []
    for name in figures.CURVES:
        loss = name == "loss"
        shown, unit = (
            ("Training loss", name) if loss else (f"Validation {figures.metric(report)}", figures.metric(report))
        )
        groups, line = figures.contrast(report, runs, name), None if loss else figures.goal(report)
        told = figures.about(groups, unit)
        title = f"{shown} over steps: the untouched training{' and the best fix' if figures.best(report) else ''}"
        drawn = curves(name, title, told, groups, line, log=line is None or line.below)
        if drawn:
            parts.append(_plot(name, shown, drawn, told, report, data))
    key = (
        "A thin line is one run. A thick line is the mean over seeds, the band their lowest and highest value, where "
        "every run has one. A cross marks the step of a verdict, a triangle at the top the first value not finite. "
        "What lies beyond the axis is drawn at its edge."
    )
    return tag("section", tag("h2", "Curves"), tag("p", key, look="soft"), *parts) if parts else Html()


def _plot(name: str, title: str, drawn: str, told: str, report: Mapping[str, Any], data: Mapping[str, str]) -> Html:
    link: object = ""
    if name in data and len(data[name]) <= _MOST_CSV:
        address = f"data:text/csv;charset=utf-8,{quote(data[name], safe=',.()=+-', errors='replace')}"
        link = tag("a", "Numbers as CSV", download=f"{report.get('study', 'study')}-{name}.csv", href=address)
    return tag("figure", tag("h3", title), Html(drawn), tag("figcaption", told, " ", link))


def _remedies(report: Mapping[str, Any], data: Mapping[str, str]) -> Html:
    rows, parts = figures.effects(report), []
    if rows:
        once, shared = sum(row.converged > 0 for row in rows), sum(row.effect is not None for row in rows)
        told = (
            f"{count(len(rows), 'remedy', 'remedies')} tried alone; {once} converged at least once. {shared} ran on "
            "seeds (n) of the untouched training too: the difference of the shares, with its 95 % interval."
        )
        title = "Each remedy alone, and against the untouched training on the same seeds"
        parts.append(_plot("effects", title, forest(title, told, rows), told, report, data))
    parts += [
        tag("p", tag("code", row["remedy"]), f" found nothing to change: {row.get('inapplicable') or 'inapplicable'}.")
        for row in report.get("remedies") or ()
        if row.get("alone") is None
    ]
    return tag("section", tag("h2", "What each remedy did"), *parts) if parts else Html()


def _runs(report: Mapping[str, Any], runs: Sequence[Made], data: Mapping[str, str]) -> Html:
    if not runs:
        return Html()
    found = {str(outcome): sum(run.result.outcome is outcome for run in runs) for outcome in Outcome}
    keys = [(tag("span", look=f"key o-{name}"), tag("span", name)) for name, times in found.items() if times]
    told = (
        f"{count(len(runs), 'run', 'runs')}: {', '.join(f'{times} {name}' for name, times in found.items() if times)}."
    )
    told += " A bar is as long as the run trained; the pale one behind it is its full budget."
    title = "The runs, in the order in which they were started"
    drawn = timeline(title, told, figures.bars(runs, figures.metric(report)))
    rows = [
        (run.result.number, run.phase, run.seed, tag("code", run.label) if run.combination else run.label,
         join((tag("span", look=f"key o-{run.result.outcome}"), run.result.outcome)), _why(run),
         number(run.result.metric if math.isfinite(run.result.metric) else None),
         number(run.result.steps) + (f" of {number(run.result.steps_full)}" if run.result.steps_full else ""))
        for run in runs
    ]  # fmt: skip
    head = ("run", "phase", "seed", "remedies", "outcome", "symptom or reason", figures.metric(report), "steps")
    plot = _plot("timeline", title, drawn, told, report, data)
    legend = tag("p", *(part for pair in keys for part in pair), look="soft legend")
    return tag("section", tag("h2", "Runs"), legend, plot, table(head, rows))


def _why(run: Made) -> str:
    told = run.result.outcome in (Outcome.FAILED, Outcome.INAPPLICABLE, Outcome.LOST)
    return run.symptom or (run.result.reason if told else "")


def _foot(report: Mapping[str, Any]) -> Html:
    record = report.get("mlflow") or {}
    told = f"Seed of the study: {report.get('seed')}; report schema {report.get('schema')}."
    if record.get("parent_run_id"):
        store = redact(str(record.get("tracking_uri", "")))
        told += f" MLflow: experiment {record.get('experiment')}, run {record['parent_run_id']}, store {store}."
    return tag("footer", tag("p", told, look="soft"))


def _over(report: Mapping[str, Any]) -> str:
    return "(identical runs)" if (report.get("baseline") or {}).get("deterministic") else "on fresh seeds"
