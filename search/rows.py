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

from remedy.search.audit import figures
from remedy.search.knowledge import lesson_text
from remedy.search.links import redact
from remedy.search.mark import Mark
from remedy.search.run_page import run_html
from remedy.spaces.combination import Combination
from remedy.spaces.outcome import Outcome

PARAM, TAG, NAME = 6000, 8000, 250
"""Longest value of a param, of a tag, and longest name or key that MLflow takes."""
LESSON = "remedy.lesson"
"""The tag that keeps what a study taught."""
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
    own = {"remedy.kind": "study", "remedy.study": study, **who(), **tags}
    ascending = "<=" in params.get("goal", "")
    return Parent(experiment, study, now(), params_of(params), tags_of(own), source, ascending)


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
        metrics={name_of(name): value for name, value in numbers.items() if math.isfinite(value)},
        tags=tags_of(tags),
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


def who() -> dict[str, str]:
    """Return the tags that say who wrote a run."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container whose user id has no name
        user = ""
    return {"mlflow.user": user, "mlflow.source.name": "remedy", "mlflow.source.type": "LOCAL"}


def params_of(params: Mapping[str, Any]) -> dict[str, str]:
    """Return params that MLflow takes, without secrets."""
    return {name_of(name): cut(redact(str(value)), PARAM) for name, value in params.items()}


def tags_of(tags: Mapping[str, str]) -> dict[str, str]:
    """Return tags that MLflow takes, without secrets and without the empty ones."""
    return {name_of(name): cut(redact(str(value)), TAG) for name, value in tags.items() if value != ""}


def cut(text: str, most: int) -> str:
    """Shorten a text."""
    return text if len(text) <= most else text[: most - 1] + "…"


def name_of(text: str) -> str:
    """Make a key that MLflow takes: no other characters, and nothing that reads as a path upwards."""
    clean = re.sub(r"[^\w.\- /]", "_", text)[:NAME]
    return "/".join(part for part in clean.split("/") if part.strip(".")) or "_"
