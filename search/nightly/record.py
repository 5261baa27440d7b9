"""What a night writes down of one training, as one JSON-able dict."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from remedy.search.evidence import SHARE, wilson
from remedy.search.ledger import Entry
from remedy.search.nightly.check import Anchor, Change, NightCheck, Status
from remedy.search.nightly.facts import differences
from remedy.spaces.outcome import Outcome
from remedy.workers.order import Phase
from remedy.workers.result import RunResult

SCHEMA = 1
_FULL = (Outcome.CONVERGED, Outcome.COLLAPSED, Outcome.MISSED, Outcome.STOPPED)
PARTS = ("baseline", "rerun", "best fix", "explorers")

Found = Mapping[str, Any] | None
"""A record, a report, or a part of one; None where there is none."""


def judged(
    night: str,
    target: str,
    check: NightCheck,
    facts: Mapping[str, Any],
    earlier: Found = None,
    latest: Found = None,
    unlike: str = "",
) -> dict[str, Any]:
    """Write down what a training's check showed; what explorers found is added to it (`explored`).

    `earlier` is its last record of a night that could be judged, `latest` its last record of all; `unlike` says why
    nights are not compared.
    """
    change = check.change()
    anchor = check.next_anchor()
    return {
        "schema": SCHEMA,
        "night": night,
        "target": target,
        "status": str(change.status),
        "said": _said(check, change, unlike),
        "judged": check.whole and not check.failed,
        "goal": {"metric": check.spec.metric, "at_least" if check.spec.mode == "max" else "at_most": check.spec.goal},
        "tonight": _tonight(check),
        "change": {
            "kind": change.kind,
            "p": change.p,
            "against": None if check.anchor is None else check.anchor.to_json(),
            "fresh_runs": len(check.fresh),
            "unlike": unlike,
        },
        "since": _since(night, change, facts, earlier, latest),
        "anchor": None if anchor is None else anchor.to_json(),
        "contrast": check.contrast(),
        "best_fix": _kept_fix(earlier, check),
        "explorer": dict((earlier or {}).get("explorer") or {}) or None,
        "league": None,
        "cost": cost(check),
        "facts": dict(facts),
        "final": False,
    }


def not_run(
    night: str, target: str, said: str, earlier: Found, latest: Found, facts: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Write down why a training was not run. `latest` is its record of the night before, judged or not."""
    facts = facts or {}
    kept = earlier or {}
    since = dict((latest or {})["since"]) if _same(latest, Status.NOT_RUN) else _new_since(night, facts, earlier)
    return {
        "schema": SCHEMA,
        "night": night,
        "target": target,
        "status": str(Status.NOT_RUN),
        "said": said,
        "judged": False,
        "goal": kept.get("goal"),
        "tonight": None,
        "change": {"kind": "not run", "p": None, "against": kept.get("anchor"), "fresh_runs": 0, "unlike": ""},
        "since": since,
        "anchor": kept.get("anchor"),
        "contrast": None,
        "best_fix": kept.get("best_fix"),
        "explorer": kept.get("explorer"),
        "league": None,
        "cost": _no_cost(),
        "facts": dict(facts),
        "final": True,
    }


def explored(
    record: dict[str, Any], state: Mapping[str, Any], report: Found, made: Iterable[RunResult], steps: int
) -> None:
    """Add what explorers found to a training's record."""
    runs = list(made)
    record["explorer"] = {
        **{key: state[key] for key in ("study", "place", "kin", "carried_on", "reason", "said")},
        "night": record["night"],
        "runs": len(runs),
        "total": (report or {}).get("runs", {}).get("total", 0),
        "fixes": len((report or {}).get("fixes") or ()),
        "mlflow": state.get("mlflow"),
    }
    trained = sum(result.steps for result in runs)
    own = record["cost"]
    own["parts"]["explorers"] = trained / steps
    own["full_runs"] = sum(own["parts"].values())
    own["steps_trained"] += trained
    own["steps_full"] += sum(_full(result) for result in runs)
    own["early_stops"] += sum(_stopped_early(result) for result in runs)
    for key, count in _audit(runs).items():
        own[key] = own.get(key, 0) + count
    if report is None:
        return
    record["league"] = _league(report)
    best = next(iter(report["fixes"]), None)
    if best is not None:
        record["best_fix"] = _best(best, state["study"], record)


def _best(fix: Mapping[str, Any], study: str, record: Mapping[str, Any]) -> dict[str, Any]:
    kept = record["best_fix"]
    contrast = record["contrast"] or {}
    if kept is not None and contrast.get("holds") and kept["remedies"] != dict(fix["remedies"]):
        return dict(kept)  # it held again tonight, and is not given up for one that did not have to
    keys = ("remedies", "label", "converged", "runs", "interval", "minimal", "invasiveness", "metric_mean", "ablation")
    return {"study": study, "place": 1, **{key: fix[key] for key in keys}}


def _kept_fix(earlier: Found, check: NightCheck) -> dict[str, Any] | None:
    """Return last night's best fix, unless it was shown tonight that it does not hold any more."""
    kept = (earlier or {}).get("best_fix")
    contrast = check.contrast()
    return None if kept is None or (contrast and contrast["whole"] and not contrast["holds"]) else dict(kept)


def _said(check: NightCheck, change: Change, unlike: str) -> str:
    """Say in one sentence what there is to say beside the figures."""
    if not check.whole:
        return "the night's time ended before its baseline was whole"
    if check.failed:
        return f"every run failed: {check.baseline[0].result.reason}"
    if unlike:
        return f"not compared with the nights before: {unlike}"
    return "" if check.anchor is None else _compared(check, check.anchor, change)


def _compared(check: NightCheck, anchor: Anchor, change: Change) -> str:
    against = f"against {anchor.converged} of {anchor.runs} on {anchor.night}"
    if change.kind == "unconfirmed":
        base = sum(entry.result.outcome is Outcome.CONVERGED for entry in check.baseline)
        return f"{base} of {len(check.baseline)} converged, {against}; the night ended before a rerun could confirm it"
    if change.p is None:
        return ""
    converged, runs = check.rerun
    told = f"{converged} of {runs} converged in the rerun on fresh seeds, {against} (Fisher's exact test, "
    told += f"p = {change.p:.2g})"
    return f"unchanged inside the noise: {told}" if change.kind == "inside the noise" else told


def _tonight(check: NightCheck) -> dict[str, Any]:
    converged, runs = check.counts
    low, high = wilson(converged, runs)
    made = check.untouched
    symptoms = [str(e.result.verdict.symptom) for e in made if e.result.verdict is not None]
    return {
        "converged": converged,
        "runs": runs,
        "interval": [low, high],
        "seeds": [entry.item.seed for entry in made],
        "metric": [_finite(entry.result.metric) for entry in made],
        "outcomes": [str(entry.result.outcome) for entry in made],
        "symptoms": sorted({*symptoms}, key=lambda name: -symptoms.count(name)),
        "evidence": next((e.result.verdict.evidence for e in made if e.result.verdict is not None), ""),
        "identical": check.identical,
    }


def _since(night: str, change: Change, facts: Mapping[str, Any], earlier: Found, latest: Found) -> dict[str, Any]:
    """Say since when it stands as it does: since another night where nothing was shown to differ from that."""
    if change.status is Status.NOT_RUN:
        return dict((latest or {})["since"]) if _same(latest, change.status) else _new_since(night, facts, earlier)
    open_ = change.kind in ("inside the noise", "unconfirmed")
    alike = change.kind == "unchanged" or (open_ and _same(earlier, change.status))
    return dict((earlier or {})["since"]) if alike and earlier is not None else _new_since(night, facts, earlier)


def _same(record: Found, status: Status) -> bool:
    settled = {Status.NEWLY_BROKEN: Status.BROKEN, Status.FIXED: Status.HEALTHY}
    return record is not None and settled.get(Status(record["status"]), record["status"]) == status


def _new_since(night: str, facts: Mapping[str, Any], earlier: Found) -> dict[str, Any]:
    """Say since when it stands as it does, and what differs from the last night before that."""
    if earlier is None:
        return {"night": night, "before": None, "differed": [], "commits": []}
    return {
        "night": night,
        "before": earlier["night"],
        "differed": differences(earlier["facts"], facts) if facts else [],
        "commits": [earlier["facts"].get("commit", "none"), facts.get("commit", "none")],
    }


def _league(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return for each remedy of a study where it was shown to be necessary, of use, or harmful."""
    rows: dict[str, dict[str, Any]] = {}
    for row in report["remedies"]:
        if row["alone"] is None:
            continue
        harmful = row["interval"] is not None and row["interval"][1] < 0
        rows[row["remedy"]] = {"remedy": row["remedy"], "necessary": False, "harmful": harmful,
                               "alone": dict(row["alone"])}  # fmt: skip
    for fix in report["fixes"]:
        for part in fix["ablation"]:
            name = part["without"]
            row = rows.setdefault(name, {"remedy": name, "necessary": False, "harmful": False, "alone": None})
            row["necessary"] = row["necessary"] or (fix["minimal"] and part["converged"] < SHARE * part["runs"])
    return list(rows.values())


# ---------------------------------------------------------------- cost


def cost(check: NightCheck) -> dict[str, Any]:
    """Return what a check cost, in full-run equivalents by part, and in steps."""
    entries = check.ledger.entries
    parts = dict.fromkeys(PARTS, 0.0)
    for entry in entries:
        parts[_part(entry)] += entry.result.steps / check.spec.steps
    return {
        "parts": parts,
        "full_runs": sum(parts.values()),
        "steps_trained": sum(entry.result.steps for entry in entries),
        "steps_full": sum(_full(entry.result) for entry in entries),
        "early_stops": sum(_stopped_early(entry.result) for entry in entries),
        **_audit(entry.result for entry in entries),
    }


def _no_cost() -> dict[str, Any]:
    return {"parts": dict.fromkeys(PARTS, 0.0), "full_runs": 0.0, "steps_trained": 0, "steps_full": 0, "early_stops": 0,
            **_audit(())}  # fmt: skip


def _part(entry: Entry) -> str:
    if entry.item.phase is Phase.BASELINE:
        return "baseline"
    return "best fix" if entry.item.fix else "rerun"


def _full(result: RunResult) -> int:
    return result.steps_full if result.outcome in _FULL and result.steps_full else result.steps


def _stopped_early(result: RunResult) -> bool:
    return result.saved_by == "collapse"


def _audit(results: Iterable[RunResult]) -> dict[str, int]:
    """Count what detectors would have stopped and was let run to its end, and what of it converged."""
    decided = [result for result in results if result.audit_decided]
    return {"audited": len(decided), "wrongly_stopped": sum(r.outcome is Outcome.CONVERGED for r in decided)}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
