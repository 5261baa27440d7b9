"""The untouched training of a study, as its report tells of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from remedy.search.agenda import Agenda, BaselineState
from remedy.search.ledger import Entry
from remedy.spaces.outcome import Outcome
from remedy.spaces.verdict import Verdict


def baseline(agenda: Agenda) -> dict[str, Any]:
    """Return what the untouched training does over its seeds, and how it goes wrong."""
    entries = agenda.baseline
    converged = sum(entry.result.outcome is Outcome.CONVERGED for entry in entries)
    told = {
        "state": str(BaselineState.of(entries)),
        "runs": len(entries),
        "converged": converged,
        "metric": [_finite(entry.result.metric) for entry in entries],
        "seeds": [entry.item.seed for entry in entries],
        "symptoms": _symptoms(entries),
        "chance": _finite(agenda.chance),
        "outcomes": [str(entry.result.outcome) for entry in entries],
        "reasons": [entry.result.reason for entry in entries],
    }
    traces = [entry.result.trace for entry in entries if entry.result.trace]
    if traces:
        told["trace"] = traces[0]
    if deterministic(entries):
        told["deterministic"] = True
    return told


def deterministic(entries: Sequence[Entry]) -> bool:
    """Whether runs on different seeds were the same run: the training has no randomness, or seeds itself."""
    traces = {(entry.result.first_losses, entry.result.metric) for entry in entries if entry.result.first_losses}
    return len(entries) > 1 and len(traces) == 1 and all(entry.result.first_losses for entry in entries)


def _symptoms(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    found: dict[str, list[Verdict]] = {}
    for entry in entries:
        per_run = {str(note.symptom): note for note in entry.result.notes}
        if entry.result.spared is not None:  # it was audited, and may have converged all the same
            per_run[str(entry.result.spared.symptom)] = replace(entry.result.spared, stops=False)
        if entry.result.verdict is not None:
            per_run[str(entry.result.verdict.symptom)] = entry.result.verdict
        for name, verdict in per_run.items():
            found.setdefault(name, []).append(verdict)
    rows = [
        {
            "symptom": name,
            "runs": len(verdicts),
            "onset_step": [verdict.onset_step for verdict in verdicts],
            "stopped": any(verdict.stops for verdict in verdicts),
            "evidence": next((v for v in verdicts if v.stops), verdicts[0]).evidence,
        }
        for name, verdicts in found.items()
    ]
    return sorted(rows, key=lambda row: (not row["stopped"], -int(row["runs"]), min(row["onset_step"])))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
