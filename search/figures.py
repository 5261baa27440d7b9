"""What the figures of a report are drawn from: a study's runs, and which of them are compared with which."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from remedy.search.home import StudyFolder
from remedy.search.markup import count, number
from remedy.search.plot import Bar, Effect, Goal, Group, Line
from remedy.spaces.combination import Combination
from remedy.spaces.outcome import Outcome
from remedy.workers.order import Phase
from remedy.workers.result import RunResult

CURVES = ("metric", "loss")
_NOTHING = (Outcome.LOST, Outcome.STOPPED)


@dataclass(frozen=True)
class Made:
    """One run, with what it was to be; `seed` is -1 and `phase` empty where that was not written down."""

    phase: str
    seed: int
    combination: Combination
    result: RunResult

    @property
    def label(self) -> str:
        """What was changed, for people."""
        return self.combination.label if self.combination else "untouched"

    @property
    def symptom(self) -> str:
        """The symptom of its verdict, else what was noted without ending it."""
        if self.result.verdict is not None:
            return self.result.verdict.symptom.value
        noted = dict.fromkeys(note.symptom.value for note in self.result.notes)
        return f"{', '.join(noted)} (noted)" if noted else ""


def load(folder: StudyFolder) -> list[Made]:
    """Return all runs of a study that ended, in order."""
    items = folder.noted()
    made = []
    for run, result in folder.runs().items():
        item = items.get(run, {})
        combination = Combination.of(item.get("params") or {})
        made.append(Made(item.get("phase", ""), item.get("seed", -1), combination, result))
    return made


def best(report: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the first confirmed fix; empty where there is none."""
    return next((fix for fix in report.get("fixes") or () if fix.get("confirmed")), {})


def control(fix: Mapping[str, Any], runs: Sequence[Made]) -> tuple[int, int]:
    """Return (converged, runs) of the untouched training on the seeds of a fix."""
    base = _whole(runs, Combination())
    found = {run.seed: run.result.outcome is Outcome.CONVERGED for run in base if run.seed in fix["seeds"]}
    return sum(found.values()), len(found)


def label(fix: Mapping[str, Any]) -> str:
    """Return the name of a fix for people."""
    return str(fix.get("label") or Combination.of(fix.get("remedies") or {}).label)


def metric(report: Mapping[str, Any]) -> str:
    """Return the name of the validation metric."""
    return str((report.get("goal") or {}).get("metric", "metric"))


def aim(report: Mapping[str, Any]) -> str:
    """Return the goal for people: `accuracy ≥ 0.9`."""
    said = report.get("goal") or {}
    sign, value = ("≤", said["at_most"]) if "at_most" in said else ("≥", said.get("at_least"))
    return f"{metric(report)}\N{NO-BREAK SPACE}{sign}\N{NO-BREAK SPACE}{number(value)}"


def goal(report: Mapping[str, Any]) -> Goal | None:
    """Return the goal as a line in the plot of the metric."""
    said, chance = report.get("goal") or {}, (report.get("baseline") or {}).get("chance")
    value = said.get("at_least", said.get("at_most"))
    if value is None:
        return None
    return Goal(value, f"goal: {aim(report)}", abs(value - chance) if chance is not None else 0.0, "at_most" in said)


def share(counts: Mapping[str, Any]) -> str:
    """Return `3 of 5`."""
    return f"{counts.get('converged', 0)} of {counts.get('runs', 0)}"


def _whole(runs: Iterable[Made], combination: Combination) -> list[Made]:
    """Return a combination's runs that were trained to their own end: no success ends them early."""
    full = (Phase.BASELINE, Phase.CONFIRM, Phase.MINIMISE)
    made = [run for run in runs if run.phase in full and run.combination.key == combination.key]
    return [run for run in made if run.result.outcome not in _NOTHING]


def contrast(report: Mapping[str, Any], runs: Sequence[Made], curve: str) -> tuple[Group, ...]:
    """Return one curve of the untouched training's runs and of the best fix's confirming runs."""
    fix, base = best(report), _whole(runs, Combination())
    groups = [Group("untouched training", "base", tuple(_line(run, curve) for run in base))]
    if fix:
        confirming = [run for run in _whole(runs, Combination.of(fix["remedies"])) if run.seed in fix["seeds"]]
        groups.append(Group(f"with {label(fix)}", "fix", tuple(_line(run, curve) for run in confirming)))
    return tuple(group for group in groups if group.lines)


def _line(run: Made, curve: str) -> Line:
    verdict = run.result.verdict
    crossed = verdict.step if verdict is not None and verdict.stops else None
    points = tuple(run.result.curves.get(curve, ()))
    return Line(run.result.number, run.seed, points, crossed, run.symptom if crossed is not None else "")


def effects(report: Mapping[str, Any]) -> tuple[Effect, ...]:
    """Return what each remedy did alone, in the order of the report."""
    rows = []
    for row in report.get("remedies") or ():
        alone = row.get("alone")
        if alone is None:
            continue
        low, high = row.get("interval") or (-1.0, 1.0)
        seeds = row.get("shared_seeds", 0)
        rows.append(Effect(row["remedy"], alone["converged"], alone["runs"], row.get("effect"), (low, high), seeds))
    return tuple(rows)


def bars(runs: Iterable[Made], unit: str) -> tuple[Bar, ...]:
    """Return the timeline: a bar for each run."""
    made = []
    for run in runs:
        result = run.result
        said = str(result.outcome)
        if result.verdict is not None:
            said += f": {run.symptom}"
        elif result.saved_by == "success":
            said += " (ended early)"
        what = f"{result.number} {run.phase}: {run.label}"
        steps = f"{result.steps:,} of {result.steps_full:,} steps" if result.steps_full else f"{result.steps:,} steps"
        told = f"run {what}, seed {run.seed}: {said}; {unit} {number(result.metric)}; {steps}"
        told += f"; {result.reason}" if result.reason else f"; {run.symptom}" if run.symptom else ""
        made.append(Bar(what, result.steps, result.steps_full, str(result.outcome), said, told))
    return tuple(made)


def about(groups: Iterable[Group], name: str) -> str:
    """Say what a plot of curves shows."""
    told = []
    for group in groups:
        last = [line.points[-1][1] for line in group.lines if line.points]
        finite = [value for value in last if math.isfinite(value)]
        span = f"{number(min(finite))} to {number(max(finite))}" if finite else ""
        said = f"last {name} {span}" if finite else f"no finite {name} at the end"
        said += f", in {len(last) - len(finite)} not finite" if 0 < len(finite) < len(last) else ""
        crossed = sum(line.crossed is not None for line in group.lines)
        said += f", {crossed} ended by a verdict" if crossed else ""
        of = " of the" if group.look == "base" else ""
        told.append(f"{count(len(group.lines), 'run', 'runs')}{of} {group.name}: {said}")
    return ". ".join(told) + "."


def tables(report: Mapping[str, Any], runs: Sequence[Made]) -> dict[str, str]:
    """Return plot name -> CSV text, for the plots that have data."""
    made = {curve: _curve_rows(contrast(report, runs, curve), curve) for curve in CURVES}
    made["effects"] = [
        ("remedy", "converged", "runs", "effect", "low", "high", "shared_seeds"),
        *((e.name, e.converged, e.runs, *(("", "", "") if e.effect is None else (e.effect, *e.interval)), e.seeds)
          for e in effects(report)),
    ]  # fmt: skip
    made["timeline"] = [
        ("run", "phase", "seed", "remedies", "outcome", "symptom", "metric", "steps", "steps_full"),
        *((run.result.number, run.phase, run.seed, run.label, str(run.result.outcome), run.symptom,
           run.result.metric, run.result.steps, run.result.steps_full) for run in runs),
    ]  # fmt: skip
    return {name: _csv(rows) for name, rows in made.items() if len(rows) > 1}


def _curve_rows(groups: Iterable[Group], curve: str) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = [("series", "run", "seed", "step", curve, "verdict")]
    for group in groups:
        for line in group.lines:
            rows += [(group.name, line.run, line.seed, step, value, "") for step, value in line.points]
            if line.crossed is not None:
                rows.append((group.name, line.run, line.seed, line.crossed, "", line.verdict))
    return rows


def _csv(rows: Iterable[Sequence[object]]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue()
