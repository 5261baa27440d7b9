"""What fixes the training, with the ablation of every fix, as a section of a report's page."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from remedy.search.findings import Findings, Made, label, share
from remedy.search.markup import Html, join, number, percent, table, tag, wide
from remedy.search.sections.plate import numbers
from remedy.spaces.combination import Combination

_NEAREST = 5
_LOOKS = ("close", "", "close", "close", "", "")
_LEGEND = (
    "Fresh seeds: used neither by the baseline nor by the search. Minimal: each remedy was left out once, on the "
    "same seeds, and what remained did not hold. Invasiveness: from 1 (a number) to 5 (the architecture changes)."
)
_ABLATION = (
    "Each row is one fix with one remedy left out, on the seeds of the fix, which stand above the marks: "
    "\N{BLACK CIRCLE} converged, \N{MULTIPLICATION SIGN} did not, \N{MIDDLE DOT} not run, because the row was decided "
    "before. Of a fix of one remedy the untouched training is what is left."
)


def fixes(found: Findings, data: Mapping[str, str]) -> Html:
    """Return the section; nothing where there was nothing to fix, or nothing was run."""
    if not found.fixes:
        if found.report.get("exit_code") != 3 or not found.runs:
            return Html()
        said = tag("p", "Nothing that was tried was confirmed.")
        return tag("section", tag("h2", "What fixes it"), said, _nearest(found))
    rows: list[Html] = []
    for place, fix in enumerate(found.fixes, start=1):
        spread = (
            f"\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}{fix['metric_spread']:.2g}"
            if fix.get("metric_spread") is not None
            else ""
        )
        doubt = "" if fix.get("confirmed") else " (not confirmed)"
        cells = (
            place, tag("code", label(fix)), f"{share(fix)}{doubt}", _interval(found, fix),
            f"{number(fix.get('metric_mean'))}{spread}", number(fix.get("steps_to_goal")),
            number(fix.get("invasiveness")), "yes" if fix.get("minimal") else "not shown",
        )  # fmt: skip
        rows.append(tag("tr", *(tag("td", cell) for cell in cells), look="lead"))
        rows.append(tag("tr", tag("td"), tag("td", _details(fix), colspan=len(cells) - 1), look="more"))
    head = (
        "", "fix", f"converged {found.over}", "95 % interval", f"mean {found.metric} ± sd",
        "steps to goal", "invasiveness", "minimal",
    )  # fmt: skip
    parts = (wide(head, rows), tag("p", _LEGEND, look="soft"), _ablation(found, data))
    return tag("section", tag("h2", "What fixes it"), *parts)


def _nearest(found: Findings) -> Html:
    """Name the tries that ended nearest to the goal: where nothing holds, they say where one might go on."""
    down = "at_most" in (found.report.get("goal") or {})
    tries = [run for run in found.runs if run.combination and run.counts and math.isfinite(run.result.metric)]
    tries.sort(key=lambda run: run.result.metric if down else -run.result.metric)
    rows = [
        (tag("code", run.label), number(run.result.metric), str(run.result.outcome), run.seed, run.result.number)
        for run in tries[:_NEAREST]
    ]
    if not rows:
        return Html()
    head = ("combination", f"final {found.metric}", "outcome", "seed", "run")
    said = "The best of many tries on one seed each: luck has its part in who stands here."
    return join((tag("h3", "Nearest to the goal"), table(head, rows), tag("p", said, look="soft")))


def _interval(found: Findings, fix: Mapping[str, Any]) -> str:
    if found.identical:
        return "-"
    low, high = (percent(bound) for bound in fix["interval"])
    return f"{low} to {high}".replace(" ", "\N{NO-BREAK SPACE}")


def _details(fix: Mapping[str, Any]) -> Html:
    parts = [tag("li", receipt["changed"]) for receipt in fix.get("receipts") or ()]
    return tag("ul", *parts, tag("li", "Fix file: ", tag("code", fix.get("fix_file") or "remedy export")))


def _ablation(found: Findings, data: Mapping[str, str]) -> Html:
    seeds = max((fix.get("seeds") or () for fix in found.fixes), key=len)
    rows = [row for place, fix in enumerate(found.fixes, 1) for row in _rows(found, {**fix, "place": place}, seeds)]
    control = found.whole(Combination(), seeds)
    if control:
        rows.append(_row("", "untouched training", control, seeds, look="first"))
    head = ("", "left out", "converged", join(tag("span", seed, look="seed") for seed in seeds),
            f"mean {found.metric}", "how the others ended")  # fmt: skip
    caption = tag("figcaption", _ABLATION, " ", numbers(found, "ablation", data))
    return tag("figure", tag("h3", "Left out, one by one"), wide(head, rows), caption)


def _rows(found: Findings, fix: Mapping[str, Any], seeds: Sequence[int]) -> Iterator[Html]:
    for name, runs in found.ablation(fix):
        if name == "nothing":
            yield _row(f"fix {fix['place']}", tag("code", label(fix)), runs, seeds, look="first")
        elif name != "all of it" and len(found.ablation(fix)) > 2:
            yield _row("", join(("without ", tag("code", name))), runs, seeds)


def _row(place: str, what: object, runs: Sequence[Made], seeds: Sequence[int], look: str = "") -> Html:
    by_seed = {run.seed: run for run in runs}
    finite = [run.result.metric for run in runs if math.isfinite(run.result.metric)]
    cells = (
        place, what, f"{sum(run.converged for run in runs)} of {len(runs)}",
        join(_mark(seed, by_seed.get(seed)) for seed in seeds),
        number(sum(finite) / len(finite) if finite else None), _ended(runs),
    )  # fmt: skip
    return tag("tr", *(tag("td", cell, look=look) for cell, look in zip(cells, _LOOKS, strict=True)), look=look)


def _mark(seed: int, run: Made | None) -> Html:
    if run is None:
        return tag("span", "\N{MIDDLE DOT}", look="seed soft", title=f"seed {seed}: not run")
    said = f"seed {seed}: {run.result.outcome}, run {run.result.number}"
    sign = "\N{BLACK CIRCLE}" if run.converged else "\N{MULTIPLICATION SIGN}"
    return tag("span", sign, look=f"seed t-{'converged' if run.converged else 'collapsed'}", title=said)


def _ended(runs: Sequence[Made]) -> str:
    how = [
        run.symptom if run.result.verdict is not None else str(run.result.outcome) for run in runs if not run.converged
    ]
    return ", ".join(f"{how.count(name)} {name}" for name in dict.fromkeys(how))
