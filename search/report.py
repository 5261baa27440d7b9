"""The findings of a study as one JSON-able dict: the shape is the public contract."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from remedy.search.agenda import Agenda, Reason
from remedy.search.audit import told as told_audit
from remedy.search.baseline import baseline
from remedy.search.candidate import Candidate, State
from remedy.search.contrast import left_out
from remedy.search.effect import part, remedies
from remedy.search.evidence import wilson
from remedy.search.home import StudyFolder
from remedy.search.interaction import interactions
from remedy.search.ledger import Entry
from remedy.search.recipe import recipe
from remedy.search.spec import Spec
from remedy.spaces.combination import Combination
from remedy.spaces.outcome import Outcome
from remedy.workers.decision import decision
from remedy.workers.finding import Finding
from remedy.workers.order import Phase
from remedy.workers.probation import Probation

SCHEMA = 1
_NAMED = 3
_FULL = (Outcome.CONVERGED, Outcome.COLLAPSED, Outcome.MISSED, Outcome.STOPPED)


def exit_code(agenda: Agenda, reason: Reason) -> int:
    """Return the exit code that the study's end means."""
    if reason is Reason.FAILED:
        return 2
    if reason is Reason.HEALTHY:
        return 4
    return 0 if any(candidate.confirmed for candidate in agenda.candidates) else 3


def report(
    agenda: Agenda,
    reason: Reason,
    seconds: float,
    folder: StudyFolder,
    mlflow: Mapping[str, Any],
    importance: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the report. Numbers that are not finite are None.

    `reason` says why the study ended; it is None in the report where the study did what was asked of it. `importance`
    is what models make of its trials, where they were asked.
    """
    spec, ledger = agenda.spec, agenda.ledger
    outcomes = Counter(entry.result.outcome for entry in ledger.entries)
    fixes = ordered_fixes(agenda)
    code = exit_code(agenda, reason)
    base = baseline(agenda)
    findings, decided = _preflight(spec, converged=base["state"] == "healthy")
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
        "baseline": base,
        "fixes": [_fix(agenda, fixes, folder, place) for place in range(1, len(fixes) + 1)],
        "unproved": [] if fixes or code != 3 else _unproved(agenda),
        "remedies": remedies(agenda, fixes),
        "interactions": interactions(ledger, spec),
        "importance": importance,
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


def _unproved(agenda: Agenda) -> list[str]:
    """Name what converged on the search's seed and was not refuted, the fewest remedies first."""
    refuted = {candidate.combination for candidate in agenda.candidates if candidate.state is State.REFUTED}
    found = [
        entry.item.combination
        for entry in agenda.ledger.of_phase(Phase.SEARCH)
        if entry.item.seed == agenda.search_seed and entry.result.outcome is Outcome.CONVERGED
    ]
    fresh = [made for made in found if made and made not in refuted]
    return [made.label for made in sorted(fresh, key=lambda made: len(made.names))[:_NAMED]]


def _mean(entries: list[Entry]) -> float:
    values = [entry.result.metric for entry in entries if math.isfinite(entry.result.metric)]
    return sum(values) / len(values) if values else math.nan


def _fix(agenda: Agenda, fixes: Sequence[Candidate], folder: StudyFolder, place: int) -> dict[str, Any]:
    candidate = fixes[place - 1]
    entries, seeds = confirming(agenda, candidate), agenda.spec.confirm_list(candidate.count)
    converged, runs = agenda.ledger.count(candidate.combination, seeds)
    first = confirming(agenda, fixes[0]) if place > 1 else []
    told = recipe(entries, first, agenda.spec.mode)
    metric, reached = told["metric"] or {}, told["steps_to_goal"]
    receipts = entries[0].result.receipts if entries else ()
    return {
        "remedies": candidate.combination.params,
        "label": candidate.combination.label,
        "minimal": candidate.state is State.MINIMAL,
        "confirmed": True,
        "converged": converged,
        "runs": runs,
        "seeds": [entry.item.seed for entry in entries],
        "interval": list(wilson(converged, runs)),
        "metric_mean": metric.get("mean"),
        "metric_spread": metric.get("sd"),
        "invasiveness": max(agenda.space.by_name[name].invasiveness for name in candidate.combination.names),
        "steps_to_goal": round(reached["mean"]) if reached else None,
        "recipe": told,
        "ablation": [row for name, rest in candidate.parts() if (row := _ablation(agenda, candidate, name, rest))],
        "receipts": [{"remedy": r.remedy, "changed": r.text} for r in receipts],
        "fix_file": folder.fix_file(place),
    }


def _ablation(agenda: Agenda, candidate: Candidate, name: str, rest: Combination) -> dict[str, Any] | None:
    seeds = agenda.spec.confirm_list(candidate.count)
    converged, runs = agenda.ledger.count(rest, seeds)
    if runs == 0:
        return None
    found = left_out(agenda.ledger, agenda.spec, candidate, rest)
    told = part(None, found) if found else {}
    return {
        "without": name,
        "converged": converged,
        "runs": runs,
        "seeds": [seed for seed in seeds if agenda.ledger.at(rest, seed) is not None],
        "with": told.get("with"),
        "effect": told.get("effect"),
        "effect_interval": told.get("interval"),
    }


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
