"""What is written to MLflow of one run: its row, with its curves thinned and its findings as tags."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable

from remedy.search.audit import of_run
from remedy.search.mark import mark_of
from remedy.search.markdown import run_note
from remedy.search.points import POINTS, thin
from remedy.search.rows import Child, cut, name_of, now, params_of, tags_of, who
from remedy.spaces.combination import Combination
from remedy.spaces.outcome import Outcome
from remedy.spaces.remedy import KEEP
from remedy.workers.order import WorkOrder
from remedy.workers.result import RunResult

TOTAL = 600
"""About how many points are kept of a run: a point costs the store 0.07 ms of a core."""
STATUS = {
    Outcome.CONVERGED: "FINISHED",
    Outcome.MISSED: "FINISHED",
    Outcome.INAPPLICABLE: "FINISHED",
    Outcome.COLLAPSED: "KILLED",
    Outcome.STOPPED: "KILLED",
    Outcome.FAILED: "FAILED",
    Outcome.LOST: "FAILED",
}


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
        **who(),
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
        name=f"{order.number:03d} {cut(combination.label, 180)} seed {order.seed}",
        start=start,
        end=end,
        status=STATUS[result.outcome],
        tags=tags_of(tags),
        params=params_of({**kept, **combination.params}),
        metrics=[*curves, *rows],
        mark=dataclasses.asdict(mark) if mark else {},
        aim={name: value for name, value in aim.items() if value == value},  # noqa: PLR0124  (NaN: not known)
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
        rows += [(name_of(name), value, start + round(duration * step), step) for step, value in thin(finite, most)]
    if not math.isfinite(result.metric) and result.curves.get("metric"):
        strange.append(f"final_metric: {result.metric}")
    return rows, strange


def _finite(value: float) -> float:
    return value if math.isfinite(value) else 0.0
