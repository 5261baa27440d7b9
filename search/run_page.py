"""One run's curves as a self-contained page, with its verdict marked: what MLflow shows among a run's artifacts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from remedy.search.mark import CURVES, Mark
from remedy.search.markup import STYLE, Html, number, safe, tag
from remedy.search.plots.curves import Goal, Group, Line, Span, curves
from remedy.search.points import Points, at

_TITLES = {"loss": "Training loss", "gradient_norm": "Gradient norm", "metric": "Held metric"}


def run_html(
    title: str, outcome: str, mark: Mark | None, shown: Mapping[str, Points], setting: Mapping[str, Any]
) -> str:
    """Write the page of a run; `shown` are its curves, `setting` what it knew of its goal and of guessing."""
    parts = [tag("h1", title), tag("p", "It ended as ", tag("strong", outcome), ".")]
    if mark is not None:
        parts += [tag("p", tag("strong", mark.said), "."), tag("p", mark.evidence, ".")]
    parts += [_figure(name, tuple(shown[name]), mark, setting) for name in CURVES if shown.get(name)]
    if mark is not None:
        parts.append(tag("p", "The tinted stretch is where it holds, up to the step of the finding.", look="soft"))
    page = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f"<title>{safe(title)}</title>\n<style>{STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n{chr(10).join(parts)}\n</main>\n</body>\n</html>\n"
    )
    return page.encode("ascii", "xmlcharrefreplace").decode()


def _figure(name: str, points: tuple[tuple[int, float], ...], mark: Mark | None, setting: Mapping[str, Any]) -> Html:
    line = Line(0, 0, points)
    span, told = None, ""
    if mark is not None:
        seen, found = at(points, mark.onset), at(points, mark.step)
        told = f"holds since step {mark.onset}: {_said(seen)}; {mark.kind}, step {mark.step}: {_said(found)}"
        span = Span(mark.onset, mark.step, told)
    goal = _goal(setting) if name == "metric" else None
    title = _TITLES[name]
    drawn = curves(
        name, title, told or title, [Group(title, "base strong", (line,))], goal, log=name != "metric", span=span
    )
    return tag("figure", Html(drawn)) if drawn else Html()


def _said(value: float | None) -> str:
    if value is None:
        return "no value yet"
    return number(value) if math.isfinite(value) else str(value)


def _goal(setting: Mapping[str, Any]) -> Goal | None:
    goal, chance = setting.get("goal"), setting.get("chance")
    if not isinstance(goal, int | float):
        return None
    below = setting.get("mode") == "min"
    far = abs(goal - chance) if isinstance(chance, int | float) and math.isfinite(chance) else 0.0
    return Goal(float(goal), f"goal {'<=' if below else '>='} {goal:g}", far, below)
