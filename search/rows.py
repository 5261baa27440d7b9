"""What is written to MLflow, as plain data: a study's parent run, its child runs, its end.

Nothing here knows MLflow: rows are made at once, when a run ends, and can wait in a file until the store is back.
"""

from __future__ import annotations

import dataclasses
import getpass
import json
import math
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from remedy.search.audit import figures, of_run
from remedy.search.knowledge import lesson_text
from remedy.search.links import redact
from remedy.search.mark import Mark, mark_of
from remedy.search.markdown import run_note
from remedy.search.points import POINTS, thin
from remedy.search.run_page import run_html
from remedy.spaces.combination import Combination
from remedy.spaces.outcome import Outcome
from remedy.spaces.remedy import KEEP
from remedy.workers.order import WorkOrder
from remedy.workers.result import RunResult

TOTAL = 600
"""About how many points are kept of a run: a point costs the store 0.07 ms of a core."""
PARAM, TAG, NAME = 6000, 8000, 250
"""Longest value of a param, of a tag, and longest name or key that MLflow takes."""
LESSON = "remedy.lesson"
"""The tag that keeps what a study taught."""
STATUS = {
    Outcome.CONVERGED: "FINISHED",
    Outcome.MISSED: "FINISHED",
    Outcome.INAPPLICABLE: "FINISHED",
    Outcome.COLLAPSED: "KILLED",
    Outcome.STOPPED: "KILLED",
    Outcome.FAILED: "FAILED",
    Outcome.LOST: "FAILED",
}
_CUT_SHORT = ("stopped", "interrupted")
_ENDED = {2: "FAILED", 5: "FAILED", 130: "KILLED"}


@dataclass(frozen=True)
class Parent:
    """The study. `run_id` is the parent run to go on with, empty for a new one."""

    experiment: str
    study: str
    start: int
    params: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    source: str = ""
    ascending: bool = False
    run_id: str = ""


@dataclass(frozen=True)
class Child:
    """One run. `metrics` are (name, value, time, step); times are in milliseconds.

    `mark` is what its curves are marked with, empty for nothing, `aim` what it knew of its goal and of guessing.
    """

    number: int
    name: str
    start: int
    end: int
    status: str
    tags: Mapping[str, str]
    params: Mapping[str, str]
    metrics: Sequence[tuple[str, float, int, int]]
    mark: Mapping[str, Any] = field(default_factory=dict)
    aim: Mapping[str, Any] = field(default_factory=dict)

    def page(self) -> str:
        """Return its curves as a page, with what is marked on them; empty where nothing is."""
        shown: dict[str, list[tuple[int, float]]] = {}
        for name, value, _, step in self.metrics:
            shown.setdefault(name, []).append((step, value))
        return run_html(self.name, self.tags["remedy.outcome"], Mark(**self.mark), shown, self.aim) if self.mark else ""

    @property
    def key(self) -> str:
        """What tells runs of a study apart. A lost run does not hide the one that took its place."""
        return key(self.tags)


@dataclass(frozen=True)
class Finish:
    """The end of the study."""

    end: int
    status: str
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    artifacts: Sequence[str] = ()


Row = Parent | Child | Finish
_KINDS: dict[str, type[Row]] = {"parent": Parent, "child": Child, "finish": Finish}


def key(tags: Mapping[str, str]) -> str:
    """Return what tells a child run from the others, read from its tags."""
    lost = tags.get("remedy.outcome") == Outcome.LOST
    return f"{tags.get('remedy.run', '')}{' lost' if lost else ''}"


def parent(experiment: str, study: str, params: Mapping[str, str], tags: Mapping[str, str], source: str) -> Parent:
    """Make the row of a study that begins now."""
    own = {"remedy.kind": "study", "remedy.study": study, **_who(), **tags}
    ascending = "<=" in params.get("goal", "")
    return Parent(experiment, study, now(), _params(params), _tags(own), source, ascending)


def child(study: str, order: WorkOrder, result: RunResult, slots: Iterable[str], fix: str | None) -> Child:
    """Make the row of a run that ended now."""
    end = now()
    start = end - round(1000 * _finite(result.seconds))
    combination = Combination.of(order.params)
    curves, strange = _curves(result, start)
    tags = {
        "remedy.kind": "run",
        "remedy.study": study,
        "remedy.run": str(order.number),
        "remedy.outcome": str(result.outcome),
        "remedy.phase": str(order.phase),
        "remedy.seed": str(order.seed),
        "remedy.fix": fix or "",
        **_findings(result),
        "remedy.saved_by": result.saved_by,
        "remedy.audit": of_run(result),
        "remedy.receipts": "\n".join(f"{receipt.remedy}: {receipt.text}" for receipt in result.receipts),
        "remedy.nonfinite": "; ".join(strange),
        "mlflow.note.content": run_note(result),
        **_who(),
    }
    kept = {str(slot): KEEP for slot in slots}
    final = {
        "final_metric": result.metric,
        "steps": result.steps,
        "steps_full": result.steps_full,
        "seconds": result.seconds,
        "goal_step": result.goal_step,
    }
    rows = [
        (name, float(value), end, result.steps)
        for name, value in final.items()
        if value is not None and math.isfinite(value)
    ]
    mark = mark_of(result)
    aim = {name: result.setting.get(name) for name in ("goal", "mode", "chance")}
    return Child(
        number=order.number,
        name=f"{order.number:03d} {_cut(combination.label, 180)} seed {order.seed}",
        start=start,
        end=end,
        status=STATUS[result.outcome],
        tags=_tags(tags),
        params=_params({**kept, **combination.params}),
        metrics=[*curves, *rows],
        mark=dataclasses.asdict(mark) if mark else {},
        aim={name: value for name, value in aim.items() if value == value},  # noqa: PLR0124  (NaN: not known)
    )


def finish(report: Mapping[str, Any], note: str, artifacts: Iterable[str]) -> Finish:
    """Make the row of a study that ended now, from its report."""
    runs, cost, baseline = (report.get(part) or {} for part in ("runs", "cost", "baseline"))
    confirmed = [fix for fix in report.get("fixes") or () if fix.get("confirmed")]
    best = confirmed[0] if confirmed else {}
    metrics = {
        "fixes_confirmed": len(confirmed),
        "fixes_minimal": sum(bool(fix.get("minimal")) for fix in confirmed),
        "baseline_runs": baseline.get("runs"),
        "baseline_converged": baseline.get("converged"),
        "best_fix_metric": best.get("metric_mean"),
        "best_fix_converged_share": best["converged"] / best["runs"] if best.get("runs") else None,
        **{f"runs_{name}": value for name, value in runs.items()},
        **{name: value for name, value in cost.items() if not isinstance(value, Mapping)},
        **figures(report.get("audit") or {}),
        **{f"saved_by_{name}": value for name, value in (cost.get("saved") or {}).items()},
    }
    code = report.get("exit_code")
    symptoms = [str(found["symptom"]) for found in baseline.get("symptoms") or ()]
    tags = {
        "mlflow.note.content": _spaced(note),
        "remedy.exit_code": "" if code is None else str(code),
        "remedy.reason": str(report.get("reason") or ""),
        "remedy.baseline": str(baseline.get("state") or ""),
        "remedy.symptom": ", ".join(dict.fromkeys(symptoms)),
        LESSON: lesson_text(report, TAG),
        "remedy.best_fix": Combination.of(best.get("remedies") or {}).label if best else "",
    }
    numbers = {name: float(value) for name, value in metrics.items() if isinstance(value, int | float)}
    return Finish(
        end=now(),
        status="KILLED" if report.get("reason") in _CUT_SHORT else _ENDED.get(-1 if code is None else code, "FINISHED"),
        metrics={_name(name): value for name, value in numbers.items() if math.isfinite(value)},
        tags=_tags(tags),
        artifacts=list(artifacts),
    )


def to_line(row: Row) -> str:
    """Write a row as one line of JSON."""
    kind = next(name for name, made in _KINDS.items() if isinstance(row, made))
    return json.dumps({"kind": kind, **dataclasses.asdict(row)}, allow_nan=False)


def from_line(line: str) -> Row:
    """Read what `to_line` wrote."""
    data = json.loads(line)
    made = _KINDS[data.pop("kind")]
    if made is Child:
        data["metrics"] = [(str(name), value, when, step) for name, value, when, step in data["metrics"]]
    return made(**data)


def now() -> int:
    """Return the time in milliseconds, as MLflow wants it."""
    return time.time_ns() // 1_000_000


def _spaced(note: str) -> str:
    """Part the cells of tables: MLflow's page sets them without any room between."""
    return re.sub(
        r"(?m)^\| .*$", lambda row: row[0] if "---" in row[0] else row[0].replace(" | ", "&nbsp;&nbsp; | "), note
    )


def _findings(result: RunResult) -> dict[str, str]:
    found = result.verdict
    if found is None and result.outcome is not Outcome.CONVERGED and result.notes:
        found = result.notes[0]
    evidence = result.verdict.evidence if result.verdict else result.reason or (found.evidence if found else "")
    return {
        "remedy.symptom": found.symptom.value if found else "",
        "remedy.evidence": evidence,
        "remedy.onset_step": str(found.onset_step) if found else "",
        "remedy.notes": "\n".join(
            f"{note.symptom.value} since step {note.onset_step}: {note.evidence}" for note in result.notes
        ),
    }


def _curves(result: RunResult, start: int) -> tuple[list[tuple[str, float, int, int]], list[str]]:
    rows: list[tuple[str, float, int, int]] = []
    strange: list[str] = []
    most = max(20, min(POINTS, TOTAL // max(len(result.curves), 1)))
    duration = 1000 * _finite(result.seconds) / max(result.steps, 1)
    for name, curve in sorted(result.curves.items()):
        finite = [(step, value) for step, value in curve if math.isfinite(value)]
        left_out = [(step, value) for step, value in curve if not math.isfinite(value)]
        if left_out:
            kinds = "/".join(sorted({str(value) for _, value in left_out}))
            strange.append(f"{name}: {len(left_out)} of {len(curve)} points from step {left_out[0][0]} on ({kinds})")
        rows += [(_name(name), value, start + round(duration * step), step) for step, value in thin(finite, most)]
    if not math.isfinite(result.metric) and result.curves.get("metric"):
        strange.append(f"final_metric: {result.metric}")
    return rows, strange


def _finite(value: float) -> float:
    return value if math.isfinite(value) else 0.0


def _who() -> dict[str, str]:
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container whose user id has no name
        user = ""
    return {"mlflow.user": user, "mlflow.source.name": "remedy", "mlflow.source.type": "LOCAL"}


def _params(params: Mapping[str, Any]) -> dict[str, str]:
    return {_name(name): _cut(redact(str(value)), PARAM) for name, value in params.items()}


def _tags(tags: Mapping[str, str]) -> dict[str, str]:
    return {_name(name): _cut(redact(str(value)), TAG) for name, value in tags.items() if value != ""}


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _name(text: str) -> str:
    """Make a key that MLflow takes: no other characters, and nothing that reads as a path upwards."""
    clean = re.sub(r"[^\w.\- /]", "_", text)[:NAME]
    return "/".join(part for part in clean.split("/") if part.strip(".")) or "_"
