"""The figures of a report: what each is drawn from, and what it says to those who do not see it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from remedy.search.findings import Findings, Made, label
from remedy.search.markup import count, number
from remedy.search.plots.curves import Group, Line, curves
from remedy.search.plots.forest import Effect, forest
from remedy.search.plots.strip import Dot, Strip, strips
from remedy.search.plots.timeline import Bar, timeline
from remedy.search.plots.upset import Column, upset
from remedy.spaces.combination import Combination
from remedy.spaces.outcome import Outcome

LOOKS = ("fix", "fix2", "fix3")
CURVES = ("metric", "loss")
_COLUMNS = 28


@dataclass(frozen=True)
class Drawing:
    """One figure: its name is that of its files, too."""

    name: str
    title: str
    about: str
    svg: str


def drawings(found: Findings) -> dict[str, Drawing]:
    """Return every figure of a study that has something to show, by name."""
    made = (*(_curve(found, name) for name in CURVES), _recipes(found), _effects(found), _combinations(found),
            _timeline(found))  # fmt: skip
    return {drawing.name: drawing for drawing in made if drawing.svg}


# ---------------------------------------------------------------- curves


def groups(found: Findings, curve: str) -> tuple[Group, ...]:
    """Return one curve of the untouched training's runs, and of the confirming runs of up to three fixes."""
    every = [Group("untouched training", "base", _lines(found.whole(Combination()), curve))]
    confirmed = [fix for fix in found.fixes if fix.get("confirmed")]
    for look, fix in zip(LOOKS, confirmed, strict=False):
        every.append(Group(f"with {label(fix)}", look, _lines(found.of_fix(fix), curve)))
    return tuple(group for group in every if group.lines)


def _lines(runs: Iterable[Made], curve: str) -> tuple[Line, ...]:
    return tuple(_line(run, curve) for run in runs)


def _line(run: Made, curve: str) -> Line:
    verdict = run.result.verdict
    crossed = verdict.step if verdict is not None and verdict.stops else None
    points = tuple(run.result.curves.get(curve, ()))
    return Line(run.result.number, run.seed, points, crossed, run.symptom if crossed is not None else "")


def _curve(found: Findings, name: str) -> Drawing:
    loss = name == "loss"
    unit = name if loss else found.metric
    title = "Training loss" if loss else f"Validation {unit}"
    shown, line = groups(found, name), None if loss else found.goal
    told = _about(shown, unit)
    whole = f"{title} over steps: the untouched training{' and the fixes' if found.best else ''}"
    drawn = curves(name, whole, told, shown, line, log=line is None or line.below)
    return Drawing(name, title, told, drawn)


def _about(shown: Iterable[Group], name: str) -> str:
    told = []
    for group in shown:
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


# ---------------------------------------------------------------- fixes as recipes


def recipes(found: Findings) -> list[tuple[str, str, list[Made]]]:
    """Return (name, look, runs) of the untouched training and of each fix, on the seeds of the fixes."""
    seeds = sorted({seed for fix in found.fixes for seed in fix.get("seeds") or ()})
    rows = [(label(fix), LOOKS[min(place, 2)], found.of_fix(fix)) for place, fix in enumerate(found.fixes)]
    return [("untouched training", "base", found.whole(Combination(), seeds)), *rows] if seeds else []


def _recipes(found: Findings) -> Drawing:
    rows = []
    for name, look, runs in recipes(found):
        final = tuple(Dot(run.result.metric, _seed(run, run.result.metric)) for run in runs)
        there = [(run, run.result.goal_step) for run in runs if run.converged]
        late = tuple(Dot(float(step), _seed(run, step)) for run, step in there if step is not None)
        rows.append(Strip(name, look, final, late))
    title = "The fixes side by side, seed by seed"
    told = f"The final {found.metric} of every run, and the step since which those that converged stayed at the goal."
    drawn = strips(title, told, found.metric, rows, found.goal) if rows else ""
    return Drawing("recipes", title, told, drawn)


def _seed(run: Made, value: float) -> str:
    return f"seed {run.seed}: {number(value)}"


# ---------------------------------------------------------------- what each remedy did


_ALONE, _LEFT_OUT, _SEARCH = _GROUPS = (
    "Added alone to the untouched training, fresh seeds",
    "Left out of a fix of several remedies, fresh seeds",
    "Added alone, on the search's own seed: one on which the untouched training does not converge",
)


def effects(found: Findings) -> list[Effect]:
    """Return the contrasts of all remedies, those on fresh seeds first.

    What a fix of one remedy loses without it is what the remedy adds alone, and is there once.
    """
    by_group: dict[str, list[Effect]] = {name: [] for name in _GROUPS}
    for row in found.report.get("remedies") or ():
        for told in row.get("contrasts") or ():
            group, name = (_ALONE if told["fresh"] else _SEARCH), row["remedy"]
            if told["kind"] == "left_out":
                fix = found.fixes[told["fix"] - 1]
                if len(Combination.of(fix["remedies"]).names) == 1:
                    continue
                group, name = _LEFT_OUT, f"{name}, out of fix {told['fix']}"
            on, off, interval = told["with"], told["without"], told["interval"]
            counts = on["converged"], on["runs"], off["converged"], off["runs"]
            why = "identical runs" if found.identical else "too few seeds"
            by_group[group].append(Effect(group, name, *counts, tuple(interval) if interval else None, why))
    return [effect for those in by_group.values() for effect in those]


def worth_drawing(found: Findings) -> list[Effect]:
    """Return the contrasts that show more than one run that did not converge."""
    return [row for row in effects(found) if row.runs > 1 or row.converged]


def _effects(found: Findings) -> Drawing:
    rows = worth_drawing(found)
    title = "Each remedy against the same seeds without it"
    alike = sum(row.converged * row.base_runs > row.base_converged * row.runs for row in rows)
    told = (
        f"In {alike} of {count(len(rows), 'contrast', 'contrasts')} on the same seeds more runs converged with the "
        "remedy than without. A full mark is the share with it, a ring the share without."
    )
    return Drawing("effects", title, told, forest(title, told, rows) if rows else "")


# ---------------------------------------------------------------- combinations


def tried(found: Findings) -> list[Column]:
    """Return every combination that was run, the untouched training first, then by the share that converged."""
    counted: dict[Combination, list[bool]] = {}
    if all(run.result.outcome is Outcome.FAILED for run in found.runs):
        return []  # the training cannot be run, whatever is changed
    for run in found.runs:
        if run.counts and run.phase:
            counted.setdefault(run.combination, []).append(run.converged)
    marks = {Combination.of(fix["remedies"]): f"fix {place}" for place, fix in enumerate(found.fixes, start=1)}
    columns = [
        Column(combination.label if combination else "untouched", tuple(combination.remedies.values()),
               sum(converged), len(converged), marks.get(combination, ""))
        for combination, converged in counted.items()
    ]  # fmt: skip
    return sorted(columns, key=_place)


def _place(column: Column) -> tuple[object, ...]:
    share = -column.converged / column.runs
    return bool(column.names), not column.mark, (len(column.mark), column.mark), share, -column.runs, len(column.names)


def _combinations(found: Findings) -> Drawing:
    every = tried(found)
    # One remedy's one run that did not converge is a name in a list; a hundred of them would be a diagonal.
    telling = [c for c in every if c.converged or c.runs > 1 or len(c.names) > 1][:_COLUMNS]
    title = "Combinations tried, and the share of their runs that converged"
    several = sum(len(column.names) > 1 for column in every)
    good = sum(column.converged > 0 for column in every)
    told = f"{count(len(every), 'combination', 'combinations')}, {several} of them of several remedies; "
    told += f"at least one run converged with {good}." if good else "no run of any of them converged."
    told += " The counts are of runs on all seeds."
    left = len(every) - len(telling)
    told += f" The {left} that are not drawn, without a run that converged, are in the numbers." if left else ""
    return Drawing("combinations", title, told, upset(title, told, telling) if len(telling) > 1 else "")


# ---------------------------------------------------------------- runs


def bars(found: Findings) -> Iterator[Bar]:
    """Yield the timeline: a bar for each run."""
    for run in found.runs:
        result = run.result
        said = str(result.outcome)
        if result.verdict is not None:
            said += f": {run.symptom}"
        elif result.saved_by == "success":
            said += " (ended early)"
        elif run.given_up:
            said += " (forecast)"
        what = f"{result.number} {run.phase}: {run.label}"
        steps = f"{result.steps:,} of {result.steps_full:,} steps" if result.steps_full else f"{result.steps:,} steps"
        told = f"run {what}, seed {run.seed}: {said}; {found.metric} {number(result.metric)}; {steps}"
        told += f"; {result.reason}" if result.reason else f"; {run.symptom}" if run.symptom else ""
        yield Bar(what, result.steps, result.steps_full, str(result.outcome), said, told)


def outcomes(runs: Iterable[Made]) -> dict[str, int]:
    """Return how many runs ended how, the most frequent first."""
    counted: dict[str, int] = {}
    for run in runs:
        counted[str(run.result.outcome)] = counted.get(str(run.result.outcome), 0) + 1
    return dict(sorted(counted.items(), key=lambda pair: -pair[1]))


def _timeline(found: Findings) -> Drawing:
    title = "The runs, in the order in which they were started"
    ended = ", ".join(f"{times} {name}" for name, times in outcomes(found.runs).items())
    told = f"{count(len(found.runs), 'run', 'runs')}: {ended}. A bar is as long as the run trained; the pale one behind"
    told += " it is its full budget."
    return Drawing("timeline", title, told, timeline(title, told, list(bars(found))) if found.runs else "")
