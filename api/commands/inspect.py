"""`check`, `plan`, `run`: what looks at one training without a study."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import shlex
import sys
import time
from pathlib import Path
from typing import Any

from remedy.commands.loading import Checked, apart, checked, quiet
from remedy.commands.submit import metric_name, specify, totals
from remedy.search.conduct import space_of
from remedy.search.defaults import defaults
from remedy.search.home import Home
from remedy.search.prior import ranked
from remedy.single import check_text, plan_text, run_text
from remedy.spaces.assembly import assemble
from remedy.spaces.combination import Combination
from remedy.spaces.error import InputError, TimeLimit, raised
from remedy.spaces.fix import load_fix
from remedy.spaces.outcome import Outcome
from remedy.spaces.script import Script
from remedy.workers.decision import decision
from remedy.workers.executor import time_limit
from remedy.workers.loop import train
from remedy.workers.order import Phase, WorkOrder
from remedy.workers.probation import Probation
from remedy.workers.result import RunResult
from remedy.workers.run import catalogue_of, perform

_TIMED_STEPS = 20
_PLAIN_EVERY = 10.0


def check(asked: argparse.Namespace) -> int:
    """Pre-flight checks and one watched baseline run."""
    log = Home.of(asked.home).path / "logs" / "check.log"
    found = checked(
        asked.target, asked.args, asked.goal, asked.seed, asked.run_timeout, log, thorough=True, remedies=asked.remedies
    )
    result = _watched(asked, found, Combination(), log, data_seed=asked.seed)
    converged, shown = result.outcome is Outcome.CONVERGED, found.found.probation or Probation()
    findings = found.found.findings if converged else (*found.found.findings, *shown.doubts)
    told = {
        **_told(result, found, asked, log),
        "preflight": [{**dataclasses.asdict(f), "suggests": list(f.suggests)} for f in findings],
        "decision": decision(shown, findings, converged=converged, script=isinstance(found.training, Script)) or None,
        "left_out": [*found.found.left_out, *shown.left_out],
        "preflight_steps": shown.steps,
        "target_kind": str(found.found.setting.kind),
        "classes": found.found.classes,
        "chance": _finite(found.found.setting.chance),
        "parameters": found.found.parameters,
        "device": found.found.device,
    }
    sys.stdout.write((json.dumps(told) if asked.json else check_text(told, result, next_command(asked, found))) + "\n")
    return 0


def plan(asked: argparse.Namespace) -> int:
    """What submit would do and cost."""
    found = checked(asked.target, asked.args, asked.goal, asked.seed, asked.run_timeout, None, remedies=asked.remedies)
    spec = specify(asked, found, "plan", totals(asked))
    space = space_of(found.remedies, spec, spec.closed)
    full = _seconds_per_step(found, asked) * found.found.setting.steps
    order = ranked(space.remedies, [], spec.suggested)
    told: dict[str, Any] = {
        "training": spec.source.name,
        "goal": {"metric": spec.metric, "value": spec.goal, "mode": spec.mode},
        "steps": spec.steps,
        "seconds_per_full_run": round(full, 2),
        "slots": {str(slot): [remedy.name for remedy in mine] for slot, mine in space.slots.items()},
        "closed": list(found.found.closed),
        "closed_because": dict(found.training.closed) if isinstance(found.training, Script) else {},
        "defaults": list(defaults(space, spec.suggested, ()).remedies.values()),
        "order": [remedy.name for remedy in order],
        "preflight": [{**dataclasses.asdict(f), "suggests": list(f.suggests)} for f in found.found.findings],
        "baseline_runs": spec.seeds,
        "confirming_runs_per_fix": 2 * spec.confirm_seeds,
        "most_runs": spec.runs,
        "budget": spec.budget,
        "most_seconds": round(full * min(spec.budget or math.inf, spec.runs or math.inf), 1),
    }
    sys.stdout.write((json.dumps(told) if asked.json else plan_text(told, next_command(asked, found))) + "\n")
    return 0


def next_command(asked: argparse.Namespace, found: Checked) -> str:
    """Return the command that searches for what restores this training."""
    training, words = found.training, ["remedy", "submit", str(asked.target)]
    if isinstance(training, Script):
        sign = ">=" if training.mode == "max" else "<="
        words += ["--goal", f"{training.metric}{sign}{training.goal:g}"]
        words += ["--", *training.args] if training.args else []
    return shlex.join(words)


def _seconds_per_step(found: Checked, asked: argparse.Namespace) -> float:
    """Train the first steps against the clock."""
    if isinstance(found.training, Script):
        return found.survey_seconds / found.training.steps
    name = found.loaded.source.name
    with quiet(None):
        try:
            with time_limit(asked.run_timeout):
                catalogue = catalogue_of(found.loaded)
                parts = assemble(found.training, Combination(), catalogue, seed=asked.seed, data_seed=asked.seed)
                began, seen = time.monotonic(), 0
                for observation in train(found.training, parts):
                    seen = observation.step
                    if seen >= _TIMED_STEPS:
                        break
                return (time.monotonic() - began) / seen
        except InputError:
            raise
        except Exception as error:  # noqa: BLE001  (the user's code may raise anything)
            raise raised(name, error) from None
        except TimeLimit as error:
            msg = f"the first {_TIMED_STEPS} steps of {name} {error}"
            raise TimeLimit(msg) from None


def run(asked: argparse.Namespace) -> int:
    """One watched run, of the baseline or with a fix."""
    log = Home.of(asked.home).path / "logs" / "run.log"
    found = checked(asked.target, asked.args, asked.goal, asked.seed, asked.run_timeout, log, remedies=asked.remedies)
    fix = load_fix(asked.fix, found.loaded.remedies) if asked.fix else None
    combination = fix.combination if fix is not None else Combination()
    # The data as the study split them, so that what was held for validation there is not trained on here.
    kept = fix.evidence.get("data_seed", 0) if fix is not None else 0
    result = _watched(asked, found, combination, log, data_seed=kept if isinstance(kept, int) else 0)
    told = {**_told(result, found, asked, log), "remedies": combination.params}
    sys.stdout.write((json.dumps(told) if asked.json else run_text(told, result)) + "\n")
    return 2 if result.outcome is Outcome.FAILED else 0


def _watched(
    asked: argparse.Namespace, found: Checked, combination: Combination, log: Path, *, data_seed: int
) -> RunResult:
    order = WorkOrder(
        number=0,
        source=found.loaded.source,
        params=combination.params,
        seed=asked.seed,
        data_seed=data_seed,
        phase=Phase.BASELINE,
        goal=found.training.goal,
        timeout=asked.run_timeout,
        log=str(log),
        detectors=asked.detectors,
    )
    total, name, last = found.found.setting.steps, metric_name(found.training.metric), time.monotonic()
    with apart(log) as err:
        tty = err.isatty()

        def progress(step: int, metric: float | None) -> None:
            nonlocal last
            said = f"step {step} of {total}" + ("" if metric is None else f", {name} {metric:.3f}")
            if tty:
                err.write(f"\r\x1b[K{said}")
            elif time.monotonic() - last > _PLAIN_EVERY:
                last = time.monotonic()
                err.write(f"{said}\n")
            err.flush()

        try:
            return perform(order, limit=time_limit, progress=progress)
        finally:
            err.write("\r\x1b[K" if tty else "")


def _told(result: RunResult, found: Checked, asked: argparse.Namespace, log: Path) -> dict[str, Any]:
    return {
        "training": found.loaded.source.name,
        "outcome": str(result.outcome),
        "reason": result.reason or None,
        "metric": metric_name(found.training.metric),
        "value": _finite(result.metric),
        "goal": found.training.goal,
        "mode": found.training.mode,
        "seed": asked.seed,
        "steps": result.steps,
        "steps_full": result.steps_full,
        "goal_step": result.goal_step,
        "verdict": _verdict(result.verdict),
        "notes": [_verdict(note) for note in result.notes],
        "receipts": [{"remedy": r.remedy, "slot": str(r.slot), "changed": r.text} for r in result.receipts],
        "log": str(log),
    }


def _verdict(verdict: Any) -> dict[str, Any] | None:
    if verdict is None:
        return None
    return {
        "symptom": str(verdict.symptom),
        "step": verdict.step,
        "onset_step": verdict.onset_step,
        "evidence": verdict.evidence,
        "stops": verdict.stops,
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
