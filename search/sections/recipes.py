"""The fixes compared as recipes, as a section of a report's page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from remedy.search.drawing import Drawing
from remedy.search.findings import Findings, label
from remedy.search.markup import Html, duration, join, number, table, tag
from remedy.search.sections.plate import plate

_LEGEND = (
    "Mean, and below it lowest to highest over the seeds. The goal counts as reached at the step since which a run "
    "that converged stayed at it. Times are those of the machine and the company a run had. Against fix 1: the "
    "difference on the same seeds, and on how many of them it is the better one."
)


def recipes(found: Findings, drawn: Mapping[str, Drawing], data: Mapping[str, str]) -> Html:
    """Return the section; nothing where no fix has figures."""
    rows = [_row(place, fix) for place, fix in enumerate(found.fixes, start=1) if fix.get("recipe")]
    if not rows:
        return Html()
    head = ["", "fix", f"final {found.metric}", "steps to the goal", "time to the goal"]
    if len(rows) > 1:
        title = "The fixes as recipes"
        head += [f"{found.metric} against fix 1", "steps against fix 1"]
    else:
        title, rows = "The fix as a recipe", [row[:5] for row in rows]
    parts = (table(head, rows), tag("p", _LEGEND, look="soft"), plate(found, drawn.get("recipes"), data))
    return tag("section", tag("h2", title), *parts)


def _row(place: int, fix: Mapping[str, Any]) -> tuple[object, ...]:
    told, runs = fix["recipe"], fix.get("runs", 0)
    against = told.get("against_first") or {}
    return (
        place,
        tag("code", label(fix)),
        _spread(told.get("metric"), runs),
        _spread(told.get("steps_to_goal"), runs),
        _times(told.get("seconds_to_goal")),
        _gap(against.get("metric"), against.get("better"), "better"),
        _gap(against.get("steps_to_goal"), against.get("sooner"), "sooner"),
    )


def _spread(told: Mapping[str, Any] | None, runs: int) -> object:
    if not told:
        return "-"
    few = f"; {told['runs']} of {runs} runs" if told["runs"] < runs else ""
    low, high = _figure(told["lowest"]), _figure(told["highest"])
    return _two(_figure(told["mean"]), f"{low} to {high}{few}")


def _figure(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _times(told: Mapping[str, Any] | None) -> object:
    if not told:
        return "-"
    mean, low, high = (_time(told[name]) for name in ("mean", "lowest", "highest"))
    return _two(mean, f"{low} to {high}")


def _time(seconds: float) -> str:
    return f"{seconds:.2g} s" if seconds < 10 else duration(seconds)


def _two(first: str, second: str) -> Html:
    return join((first, tag("div", second, look="soft")))


def _gap(told: Mapping[str, Any] | None, times: int | None, word: str) -> object:
    if not told:
        return "-"
    mean = told["mean"]
    said = f"{mean:+,.0f}" if abs(mean) >= 100 else f"{mean:+.2g}"
    return _two(said, f"{word} on {times} of {number(told['runs'])}")
