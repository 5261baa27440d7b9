"""The numbers of a report as CSV: a table for each figure, and for each table of its page."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence

from remedy.search.drawing import CURVES, effects, groups, recipes, tried
from remedy.search.findings import Findings, label

Row = Sequence[object]


def tables(found: Findings) -> dict[str, str]:
    """Return name -> CSV text, for what has data."""
    made: dict[str, list[Row]] = {curve: [*_curve(found, curve)] for curve in CURVES}
    made |= {
        "recipes": [*_recipes(found)],
        "ablation": [*_ablation(found)],
        "effects": [*_effects(found)],
        "combinations": [*_combinations(found)],
        "interactions": [*_interactions(found)],
        "importance": [*_importance(found)],
        "timeline": [*_timeline(found)],
    }
    return {name: _csv(rows) for name, rows in made.items() if len(rows) > 1}


def _curve(found: Findings, curve: str) -> Iterator[Row]:
    yield "series", "run", "seed", "step", curve, "verdict"
    for group in groups(found, curve):
        for line in group.lines:
            yield from ((group.name, line.run, line.seed, step, value, "") for step, value in line.points)
            if line.crossed is not None:
                yield group.name, line.run, line.seed, line.crossed, "", line.verdict


def _recipes(found: Findings) -> Iterator[Row]:
    yield "recipe", "run", "seed", "outcome", found.metric, "steps_to_goal", "seconds_to_goal", "seconds", "steps"
    for name, _, runs in recipes(found):
        for run in runs:
            result, there = run.result, run.result.goal_step
            seconds = "" if there is None or not result.steps else result.seconds * there / result.steps
            steps = "" if there is None else there
            yield (name, result.number, run.seed, result.outcome, result.metric, steps, seconds, result.seconds,
                   result.steps)  # fmt: skip


def _ablation(found: Findings) -> Iterator[Row]:
    yield "fix", "label", "left_out", "run", "seed", "outcome", "symptom", found.metric, "steps"
    for place, fix in enumerate(found.fixes, start=1):
        for name, runs in found.ablation(fix):
            for run in runs:
                yield (place, label(fix), name, run.result.number, run.seed, run.result.outcome, run.symptom,
                       run.result.metric, run.result.steps)  # fmt: skip


def _effects(found: Findings) -> Iterator[Row]:
    yield ("contrast", "remedy", "converged_with", "runs_with", "converged_without", "runs_without", "effect", "low",
           "high")  # fmt: skip
    for e in effects(found):
        low, high = e.interval or ("", "")
        yield e.group, e.name, e.converged, e.runs, e.base_converged, e.base_runs, e.effect, low, high


def _combinations(found: Findings) -> Iterator[Row]:
    yield "combination", "remedies", "converged", "runs", "fix"
    columns = tried(found)
    for column in columns if any(column.names for column in columns) else ():
        yield column.label, " + ".join(column.names), column.converged, column.runs, column.mark


def _interactions(found: Findings) -> Iterator[Row]:
    sides = ("together", "first", "second", "untouched")
    counted = (f"{side}_{what}" for side in sides for what in ("converged", "runs"))
    yield "first", "second", "fresh_seeds", "seeds", *counted, "interaction", "low", "high"
    for row in found.report.get("interactions") or ():
        counts = (row[side][what] for side in sides for what in ("converged", "runs"))
        low, high = row["interval"] or ("", "")
        yield *row["remedies"], row["fresh"], len(row["seeds"]), *counts, row["effect"], low, high


def _importance(found: Findings) -> Iterator[Row]:
    yield "slot", "fanova", "ped_anova"
    for row in (found.report.get("importance") or {}).get("slots") or ():
        yield row["slot"], row["fanova"], row["ped_anova"]


def _timeline(found: Findings) -> Iterator[Row]:
    yield "run", "phase", "seed", "remedies", "outcome", "symptom", "reason", "metric", "steps", "steps_full", "seconds"
    for run in found.runs:
        result = run.result
        yield (result.number, run.phase, run.seed, run.label, result.outcome, run.symptom, result.reason,
               result.metric, result.steps, result.steps_full, result.seconds)  # fmt: skip


def _csv(rows: Iterable[Row]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue()
