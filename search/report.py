"""The findings of a study as one JSON-able dict: the shape is the public contract."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from remedy.search.agenda import Agenda, BaselineState, Reason
from remedy.search.audit import told as told_audit
from remedy.search.candidate import Candidate, State
from remedy.search.evidence import difference, wilson
from remedy.search.home import StudyFolder
from remedy.search.ledger import Entry, Ledger
from remedy.search.spec import Spec
from remedy.spaces.combination import Combination
from remedy.spaces.outcome import Outcome
from remedy.spaces.remedy import Remedy
from remedy.spaces.verdict import Verdict
from remedy.workers.decision import decision
from remedy.workers.finding import Finding
from remedy.workers.order import Phase
from remedy.workers.probation import Probation

SCHEMA = 1
_FULL = (Outcome.CONVERGED, Outcome.COLLAPSED, Outcome.MISSED, Outcome.STOPPED)


def exit_code(agenda: Agenda, reason: Reason) -> int:
    """Return the exit code that the study's end means."""
    if reason is Reason.FAILED:
        return 2
    if reason is Reason.HEALTHY:
        return 4
    return 0 if any(candidate.confirmed for candidate in agenda.candidates) else 3


def report(
    agenda: Agenda, reason: Reason, seconds: float, folder: StudyFolder, mlflow: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the report. Numbers that are not finite are None.

    `reason` says why the study ended; it is None in the report where the study did what was asked of it.
    """
    spec, ledger = agenda.spec, agenda.ledger
    outcomes = Counter(entry.result.outcome for entry in ledger.entries)
    fixes = ordered_fixes(agenda)
    code = exit_code(agenda, reason)
    baseline = _baseline(agenda)
    findings, decided = _preflight(spec, converged=baseline["state"] == "healthy")
    told = None if reason in (Reason.DONE, Reason.HEALTHY) else str(reason)
    return {
        "schema": SCHEMA,
        "study": spec.study,
        "training": spec.source.name,
        "script": spec.source.script and {"path": spec.source.path, "args": list(spec.source.script.args)},
        "goal": {"metric": spec.metric, "at_least" if spec.mode == "max" else "at_most": spec.goal},
        "exit_code": code,
        "reason": told,
        "seed": spec.seed,
        "preflight": findings,
        "decision": decided,
        "baseline": baseline,
        "fixes": [_fix(agenda, candidate, folder, place) for place, candidate in enumerate(fixes, start=1)],
        "remedies": _remedies(agenda),
        "runs": {
            "total": len(ledger.entries),
            **{str(o): outcomes[o] for o in Outcome},
        },
        "cost": _cost(agenda, seconds),
        "audit": told_audit(spec.audit, (entry.result for entry in ledger.entries)),
        "mlflow": dict(mlflow),
    }


def _preflight(spec: Spec, *, converged: bool) -> tuple[list[dict[str, Any]], str | None]:
    """Return what pre-flight found, and whether the code, the recipe or the data is to blame."""
    findings = [dict(finding) for finding in spec.preflight]
    if spec.probation is None:
        return findings, None
    shown = Probation.from_json(spec.probation)
    if not converged:
        findings += [{**asdict(doubt), "suggests": list(doubt.suggests)} for doubt in shown.doubts]
    known = [Finding(**{**found, "suggests": tuple(found["suggests"])}) for found in findings]
    script = spec.source.script is not None
    return findings, decision(shown, known, converged=converged, script=script) or None


def ordered_fixes(agenda: Agenda) -> list[Candidate]:
    """Return confirmed fixes: minimal first, fewest remedies, least invasive, best metric."""

    def place(candidate: Candidate) -> tuple[object, ...]:
        invasive = [agenda.space.by_name[name].invasiveness for name in candidate.combination.names]
        metric = _mean(confirming(agenda, candidate))
        better = metric if agenda.spec.mode == "min" else -metric
        worst = math.inf if math.isnan(better) else better
        return candidate.state is not State.MINIMAL, len(invasive), max(invasive), sum(invasive), worst

    return sorted(agenda.fixes, key=place)


def confirming(agenda: Agenda, candidate: Candidate) -> list[Entry]:
    """Return the runs that confirm a fix."""
    seeds = agenda.spec.confirm_list(candidate.count)
    return [entry for seed in seeds if (entry := agenda.ledger.at(candidate.combination, seed)) is not None]


def _mean(entries: list[Entry]) -> float:
    values = [entry.result.metric for entry in entries if math.isfinite(entry.result.metric)]
    return sum(values) / len(values) if values else math.nan


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _interval(converged: int, runs: int) -> list[float]:
    low, high = wilson(converged, runs)
    return [low, high]


def _baseline(agenda: Agenda) -> dict[str, Any]:
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


def deterministic(entries: list[Entry]) -> bool:
    """Whether runs on different seeds were the same run: the training has no randomness, or seeds itself."""
    traces = {(entry.result.first_losses, entry.result.metric) for entry in entries if entry.result.first_losses}
    return len(entries) > 1 and len(traces) == 1 and all(entry.result.first_losses for entry in entries)


def _symptoms(entries: list[Entry]) -> list[dict[str, Any]]:
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


def _fix(agenda: Agenda, candidate: Candidate, folder: StudyFolder, place: int) -> dict[str, Any]:
    entries = confirming(agenda, candidate)
    seeds = agenda.spec.confirm_list(candidate.count)
    converged, runs = agenda.ledger.count(candidate.combination, seeds)
    reached = [e.result.goal_step for e in entries if e.result.goal_step is not None]
    metrics = [e.result.metric for e in entries if math.isfinite(e.result.metric)]
    mean = _mean(entries)
    spread = math.sqrt(sum((m - mean) ** 2 for m in metrics) / (len(metrics) - 1)) if len(metrics) > 1 else math.nan
    first = entries[0].result if entries else None
    return {
        "remedies": candidate.combination.params,
        "label": candidate.combination.label,
        "minimal": candidate.state is State.MINIMAL,
        "confirmed": True,
        "converged": converged,
        "runs": runs,
        "seeds": [entry.item.seed for entry in entries],
        "interval": _interval(converged, runs),
        "metric_mean": _finite(mean),
        "metric_spread": _finite(spread),
        "invasiveness": max(agenda.space.by_name[name].invasiveness for name in candidate.combination.names),
        "steps_to_goal": round(sum(reached) / len(reached)) if reached else None,
        "ablation": [row for name, rest in candidate.parts() if (row := _ablation(agenda.ledger, name, rest, seeds))],
        "receipts": [{"remedy": r.remedy, "changed": r.text} for r in (first.receipts if first else ())],
        "fix_file": folder.fix_file(place),
    }


def _ablation(ledger: Ledger, name: str, rest: Combination, seeds: tuple[int, ...]) -> dict[str, Any] | None:
    converged, runs = ledger.count(rest, seeds)
    if runs == 0:
        return None
    return {
        "without": name,
        "converged": converged,
        "runs": runs,
        "seeds": [seed for seed in seeds if ledger.at(rest, seed) is not None],
    }


def _remedies(agenda: Agenda) -> list[dict[str, Any]]:
    """Return for each remedy tried alone what it did, and its effect against the baseline on the same seeds.

    Of several values of its hyperparameters the confirmed ones are shown, else those tried first: the best of many
    on one seed would be a lucky draw.
    """
    shown: dict[str, tuple[Combination, int, int]] = {}
    proved = {candidate.combination for candidate in agenda.candidates if candidate.confirmed}
    inapplicable: dict[str, str] = {}
    counted: dict[Combination, tuple[int, int]] = {}
    for entry in agenda.ledger.entries:
        combination = entry.item.combination
        if len(combination.names) != 1:
            continue
        (name,) = combination.names
        if entry.result.outcome is Outcome.INAPPLICABLE:
            inapplicable[name] = entry.result.reason
            continue
        if combination not in counted:
            counted[combination] = agenda.ledger.count(combination, agenda.ledger.seeds_of(combination))
        converged, runs = counted[combination]
        if runs and (name not in shown or combination in proved):
            shown[name] = (combination, converged, runs)
    rows = [_row(agenda, agenda.space.by_name[name], *found) for name, found in shown.items()]
    rows.sort(key=lambda row: (row["effect"] is None, -(row["effect"] or 0), -row["alone"]["runs"], row["remedy"]))
    return rows + [
        {
            "remedy": name,
            "slot": str(agenda.space.by_name[name].slot),
            "alone": None,
            "effect": None,
            "interval": None,
            "inapplicable": why,
        }
        for name, why in inapplicable.items()
        if name not in shown
    ]


def _row(agenda: Agenda, remedy: Remedy, combination: Combination, converged: int, runs: int) -> dict[str, Any]:
    ledger = agenda.ledger
    shared = [seed for seed in ledger.seeds_of(combination) if ledger.at(Combination(), seed) is not None]
    told: dict[str, Any] = {
        "remedy": remedy.name,
        "slot": str(remedy.slot),
        "params": combination.params,
        "alone": {"converged": converged, "runs": runs},
        "effect": None,
        "interval": None,
    }
    if shared:
        mine, base = ledger.count(combination, shared), ledger.count(Combination(), shared)
        told["effect"] = mine[0] / mine[1] - base[0] / base[1]
        told["interval"] = list(difference(*mine, *base))
        told["shared_seeds"] = len(shared)
    return told


def _cost(agenda: Agenda, seconds: float) -> dict[str, Any]:
    ledger = agenda.ledger
    full = sum(
        e.result.steps_full if e.result.outcome in _FULL and e.result.steps_full else e.result.steps
        for e in ledger.entries
    )
    saved = {"collapse": 0, "success": 0, "controller": 0}
    for entry in ledger.entries:
        if entry.result.outcome in _FULL and entry.result.saved_by:
            saved[entry.result.saved_by] += max(0, entry.result.steps_full - entry.result.steps)
    when = [c.steps_when_confirmed for c in agenda.candidates if c.confirmed and c.steps_when_confirmed is not None]
    return {
        "steps_trained": ledger.steps,
        "steps_full": full,
        "saved_by_early_stop": 1 - ledger.steps / full if full else 0.0,
        "saved": {cause: steps / full if full else 0.0 for cause, steps in saved.items()},
        "preflight_steps": agenda.spec.preflight_steps,
        "seconds": round(seconds, 1),
        "steps_to_first_fix": min(when) if when else None,
        "full_run_equivalents": ledger.steps / agenda.spec.steps,
        "by_phase": {str(p): sum(e.result.steps for e in ledger.entries if e.item.phase is p) for p in Phase},
    }
