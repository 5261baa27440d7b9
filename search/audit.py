"""The audit of early stops: some runs that a detector or the forecast would stop go on, to see what they come to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from remedy.search.evidence import wilson
from remedy.search.ledger import Item
from remedy.search.spec import Spec
from remedy.spaces.outcome import Outcome
from remedy.spaces.seeding import derive
from remedy.workers.result import RunResult

_PARTS = 1 << 31


def drawn(spec: Spec, item: Item) -> bool:
    """Return whether a run would be let run to its end, were it stopped.

    A function of the study's seed, the training and what is run: resumed, or run again another night, the same runs are
    audited, so that nights stay comparable; and trainings with the same seed do not all audit the same seeds.
    """
    source = spec.source
    place = derive(spec.seed, "audit", source.sha256, source.function, item.combination.key, item.seed)
    return place < spec.audit * _PARTS


def told(share: float, results: Iterable[RunResult]) -> dict[str, Any] | None:
    """Return what the audit of so many runs shows; None where none was asked for."""
    if not share:
        return None
    every = [result for result in results if result.outcome is not Outcome.LOST]
    spared = [(result, result.spared) for result in every if result.spared is not None]
    decided = [(result, verdict) for result, verdict in spared if result.audit_decided]
    wrong = [(result, verdict) for result, verdict in decided if result.outcome is Outcome.CONVERGED]
    symptoms, wrongly = Counter(v.symptom.value for _, v in decided), Counter(v.symptom.value for _, v in wrong)
    return {
        "share": share,
        "stops": len(spared) + sum(result.saved_by == "collapse" for result in every if result.spared is None),
        "audited": len(decided),
        "converged": len(wrong),
        "interval": list(wilson(len(wrong), len(decided))),
        "undecided": len(spared) - len(decided),
        "steps": sum(max(0, result.steps - verdict.step) for result, verdict in spared),
        "symptoms": [
            {"symptom": name, "audited": count, "converged": wrongly[name]} for name, count in symptoms.most_common()
        ],
        "runs": [result.number for result, _ in wrong],
        "forecast": _forecast(every),
    }


def _forecast(every: Sequence[RunResult]) -> dict[str, Any]:
    """Return the same of the runs that the forecast gives up."""
    spared = [result for result in every if result.foretold]
    decided = [result for result in spared if result.forecast_decided]
    wrong = [result for result in decided if result.outcome is Outcome.CONVERGED]
    ended = [result for result in every if not result.foretold and result.outcome is Outcome.MISSED]
    return {
        "stops": len(spared) + sum(result.saved_by == "controller" for result in ended),
        "audited": len(decided),
        "converged": len(wrong),
        "interval": list(wilson(len(wrong), len(decided))),
        "undecided": len(spared) - len(decided),
        "steps": sum(max(0, result.steps - result.foretold_step) for result in spared),
        "runs": [result.number for result in wrong],
    }


def line(found: dict[str, Any]) -> str:
    """Say in one sentence or two what an audit shows."""
    stops, audited, converged = found["stops"], found["audited"], found["converged"]
    of = f"of {stops} run{'s' * (stops != 1)} that a detector stops"
    if not stops:
        return "Audit of early stops: no detector stopped a run."
    if not audited:
        cut = f", {found['undecided']} of them cut off before the end" * bool(found["undecided"])
        return f"Audit of early stops: {of}, none ran on to the end ({found['share']:.0%} are drawn{cut})."
    low, high = found["interval"]
    by = [f"{row['symptom']} {row['converged']} of {row['audited']}" for row in found["symptoms"] if row["converged"]]
    said_by = ", ".join(by)
    said = (
        f"Audit of early stops: {converged} of {audited} that ran on to the end would have converged "
        f"[{low:.2f}, {high:.2f}] ({of}, {found['share']:.0%} are drawn)"
    )
    cut = f"; {found['undecided']} more were cut off" if found["undecided"] else ""
    return f"{said}{f': {said_by}' if said_by else ''}{cut}. It took {found['steps']} steps."


def forecast_line(found: dict[str, Any]) -> str:
    """Say what it shows of the forecast; empty for a study from before it was audited, or that has not used it."""
    told = found.get("forecast") or {}
    if not told.get("stops"):
        return ""
    stops, audited = told["stops"], told["audited"]
    of = f"of {stops} run{'s' * (stops != 1)} that it gives up"
    cut = f", {told['undecided']} of them cut off before the end" * bool(told["undecided"])
    if not audited:
        return f"Audit of the forecast: {of}, none ran on to the end ({found['share']:.0%} are drawn{cut})."
    low, high = told["interval"]
    return (
        f"Audit of the forecast: {told['converged']} of {audited} that ran on to the end would have converged "
        f"[{low:.2f}, {high:.2f}] ({of}, {found['share']:.0%} are drawn{cut}). It took {told['steps']} steps."
    )


def lines(found: dict[str, Any]) -> list[str]:
    """Return what an audit shows, a line for the detectors and one for the forecast."""
    return [said for said in (line(found), forecast_line(found)) if said]


def of_run(result: RunResult) -> str:
    """Say what the audit of one run shows; empty where it had none."""
    if result.foretold:
        what = str(result.outcome) if result.forecast_decided else "cut off"
        return f"given up by the forecast at step {result.foretold_step}, let run on: {what}"
    if result.spared is None:
        return ""
    what = str(result.outcome) if result.audit_decided else "cut off"
    return f"{result.spared.symptom.value} at step {result.spared.step}, let run on: {what}"


def figures(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return an audit's counts as they are recorded."""
    both = {"audit": found, "audit_forecast": found.get("forecast") or {}}
    return {f"{of}_{name}": part.get(name) for of, part in both.items() for name in ("stops", "audited", "converged")}
