"""The morning report of a sweep as one JSON-able dict, from what its nights wrote down."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from remedy.search.evidence import wilson
from remedy.search.links import parent_link
from remedy.search.nightly.book import NightBook, nights_up_to
from remedy.search.nightly.check import Status
from remedy.search.nightly.record import PARTS

SCHEMA = 1
NIGHTS = 14
SIGNS = {
    Status.HEALTHY: "+", Status.FIXED: "F", Status.NEWLY_BROKEN: "B", Status.BROKEN: "b", Status.UNSTABLE: "u",
    Status.NOT_RUN: "x", None: ".",
}  # fmt: skip
"""How a night is shown where there is one letter for it; None: there was no night."""
LEGEND = ", ".join(f"{sign} {status or 'no night'}" for status, sign in SIGNS.items())
_NOTHING = "nothing that is recorded differs: code, data, packages, git commit and device are the same"
Row = dict[str, Any]


def morning(
    book: NightBook, sweep: Mapping[str, Any], night: str, *, running: bool = False, home: str = ""
) -> dict[str, Any]:
    """Return the report on a night. `home` is what commands to paste need to find it."""
    finished, begun = book.ended(night), book.begun(night)
    # A night is reported as it was asked for; what is in the file now counts from the next one on.
    sweep = {**sweep, **_asked(sweep, finished or begun or {})}
    history = {date: book.records(date) for date in nights_up_to(night, NIGHTS)}
    state = "finished" if finished else "running" if running and begun else "interrupted" if begun else "absent"
    rows = [_row(asked, night, history, state) for asked in sweep["trainings"]]
    counts = {str(status): sum(row["status"] == status for row in rows) for status in Status}
    red = any(Status(row["status"]).red for row in rows) or state != "finished"
    return {
        "schema": SCHEMA,
        "sweep": sweep["sweep"],
        "night": night,
        "state": state,
        "verdict": verdict(counts, state, night),
        "exit_code": int(red),
        "counts": counts,
        "trainings": rows,
        "new": [{"training": row["name"], "status": row["status"], "what": _what(row)} for row in rows if _is_new(row)],
        "league": _league(sweep, history),
        "confidence": _confidence(rows),
        "budget": _budget(rows, sweep, finished or begun or {}),
        "actions": [action for row in rows for action in _actions(row, home)]
        + _again(sweep, night, state, home),
    }  # fmt: skip


def _asked(sweep: Mapping[str, Any], told: Mapping[str, Any]) -> Row:
    if not told:
        return {}
    targets = {asked["name"]: asked["target"] for asked in sweep["trainings"]}
    trainings = [{"name": name, "target": targets.get(name)} for name in told["trainings"]]
    return {"trainings": trainings, "budget": told["budget"]}


def verdict(counts: Mapping[str, int], state: str, night: str) -> str:
    """Return the one line that says it all."""
    total = sum(counts.values())
    said = [f"{counts[status]} {status}" for status in (Status.HEALTHY, Status.NEWLY_BROKEN, Status.FIXED)]
    said += [f"{counts[s]} {s}" for s in (Status.BROKEN, Status.UNSTABLE) if counts[s]]
    line = f"{total} training{'s' * (total != 1)}: {', '.join(said)}; {counts[Status.NOT_RUN]} not run"
    return {
        "finished": line,
        "running": f"The night of {night} is still under way. So far: {line}",
        "interrupted": f"The night of {night} did not finish. {line}",
        "absent": f"The night of {night} did not run. {line}",
    }[state]


# ---------------------------------------------------------------- rows


def _row(asked: Mapping[str, Any], night: str, history: Mapping[str, Mapping[str, Row]], state: str) -> Row:
    name = asked["name"]
    record = history[night].get(name) or _absent(night, state)
    before = [date for date in history if date < night and name in history[date]]
    last = {"night": before[-1], "status": history[before[-1]][name]["status"]} if before else None
    statuses = [(date, (record if date == night else history[date].get(name) or {}).get("status")) for date in history]
    fix = record["best_fix"] if record["status"] not in (Status.HEALTHY, Status.FIXED) else None
    explorer = record["explorer"] or {}
    return {
        "name": name,
        "target": asked["target"] or record["target"],  # a job on a cluster has paths of its own
        "status": record["status"],
        "said": record["said"],
        "goal": record["goal"],
        "tonight": record["tonight"],
        "last_night": last,
        "strip": [{"night": date, "status": status} for date, status in statuses],
        "since": record["since"],
        "change": record["change"],
        "best_fix": None if fix is None else {**fix, "tonight": record["contrast"]},
        "explorers": explorer if explorer.get("night") == night else None,
        "study": explorer.get("study"),
        "link": _link(explorer.get("mlflow") or {}),
        "cost": record["cost"],
        "facts": record["facts"],
    }


def _absent(night: str, state: str) -> Row:
    said = {
        "absent": "the night did not run",
        "running": "the night has not come to it yet",
        "interrupted": "the night was cut off before it",
        "finished": "nothing is recorded of it",
    }[state]
    no_cost = {"parts": dict.fromkeys(PARTS, 0.0), "full_runs": 0.0, "steps_trained": 0, "steps_full": 0,
               "early_stops": 0, "audited": 0, "wrongly_stopped": 0}  # fmt: skip
    return {
        "target": "", "status": str(Status.NOT_RUN), "said": said, "goal": None, "tonight": None,
        "since": {"night": night, "before": None, "differed": [], "commits": []},
        "change": {"kind": "not run", "p": None, "against": None, "fresh_runs": 0, "unlike": ""},
        "best_fix": None, "contrast": None, "explorer": None, "cost": no_cost, "facts": {},
    }  # fmt: skip


def _link(mlflow: Mapping[str, Any]) -> str | None:
    """Return the address of the study's page in MLflow, where that is on a server."""
    uri, experiment, run = (mlflow.get(key) for key in ("tracking_uri", "experiment_id", "parent_run_id"))
    if not run or not experiment or not str(uri).startswith(("http://", "https://")):
        return None
    return f"{str(uri).rstrip('/')}{parent_link(str(experiment), str(run))}"


# ---------------------------------------------------------------- what is new, and how sure it is


def _is_new(row: Row) -> bool:
    change = row["change"]
    return (
        row["status"] == Status.FIXED
        or Status(row["status"]).red
        or bool(change["unlike"])
        or change["kind"] in ("better", "unconfirmed")
    )


def _what(row: Row) -> str:
    since, status = row["since"], row["status"]
    parts = [row["said"] or status]
    if status == Status.NOT_RUN and since["night"] != row["strip"][-1]["night"]:
        parts.append(f"not run since {since['night']}")
    if since["before"] and (since["differed"] or status != Status.NOT_RUN):
        parts.append(f"what differs from {since['before']}: {'; '.join(since['differed']) or _NOTHING}")
    return ". ".join(part[0].upper() + part[1:] for part in parts if part) + "."


def _confidence(rows: Sequence[Row]) -> Row:
    return {
        "confirmed": [
            {"training": row["name"], "status": row["status"], "fresh_runs": row["change"]["fresh_runs"],
             "p": row["change"]["p"]}
            for row in rows if row["change"]["kind"] in ("worse", "better")
        ],
        "inside_noise": [
            {"training": row["name"], "fresh_runs": row["change"]["fresh_runs"], "p": row["change"]["p"]}
            for row in rows if row["change"]["kind"] == "inside the noise"
        ],
        "identical": [row["name"] for row in rows if (row["tonight"] or {}).get("identical")],
        "explorers_failed": [
            {"training": row["name"], "said": row["explorers"]["said"]} for row in rows
            if (row["explorers"] or {}).get("said")
        ],
    }  # fmt: skip


def _league(sweep: Mapping[str, Any], history: Mapping[str, Mapping[str, Row]]) -> list[Row]:
    """Return for each remedy in which trainings it was necessary, of use, or harmful; each training's latest study."""
    rows: dict[str, Row] = {}
    for asked in sweep["trainings"]:
        name = asked["name"]
        latest = [found for date in history if (found := (history[date].get(name) or {}).get("league"))]
        for told in latest[-1] if latest else ():
            row = rows.setdefault(told["remedy"], {"remedy": told["remedy"], "necessary": [], "harmful": [],
                                                   "converged": 0, "runs": 0, "trainings": 0})  # fmt: skip
            row["necessary"] += [name] if told["necessary"] else []
            row["harmful"] += [name] if told["harmful"] else []
            if told["alone"]:
                row["converged"] += told["alone"]["converged"]
                row["runs"] += told["alone"]["runs"]
                row["trainings"] += 1
    kept = [row for row in rows.values() if row["necessary"] or row["harmful"] or row["converged"]]
    return sorted(
        kept, key=lambda row: (-len(row["necessary"]), -row["converged"] / max(1, row["runs"]), row["remedy"])
    )


def _budget(rows: Sequence[Row], sweep: Mapping[str, Any], told: Mapping[str, Any]) -> Row:
    costs = [row["cost"] for row in rows]
    trained, full = (sum(cost[key] for cost in costs) for key in ("steps_trained", "steps_full"))
    audited, wrongly = (sum(cost.get(key, 0) for cost in costs) for key in ("audited", "wrongly_stopped"))
    return {
        "full_runs": sum(cost["full_runs"] for cost in costs),
        "of": sweep["budget"] * len(rows),
        "parts": {part: sum(cost["parts"][part] for cost in costs) for part in PARTS},
        "saved_by_early_stop": 1 - trained / full if full else 0.0,
        "early_stops": sum(cost["early_stops"] for cost in costs),
        # Nights before there was an audit have not counted.
        "audited": audited,
        "wrongly_stopped": wrongly if audited else None,
        "wrongly_stopped_interval": list(wilson(wrongly, audited)) if audited else None,
        "seconds": told.get("seconds"),
    }


# ---------------------------------------------------------------- actions


def _actions(row: Row, home: str) -> list[Row]:
    target, status = shlex.quote(row["target"]), row["status"]
    made: list[tuple[str, str]] = []
    if status == Status.NOT_RUN:
        made.append(("see what is wrong", f"remedy check {target}"))
    if status == Status.NEWLY_BROKEN:
        old, new = (*row["since"]["commits"], "none", "none")[:2]
        if "none" not in (old, new):
            folder = shlex.quote(str(Path(row["target"].rpartition(":")[0] or row["target"]).parent))
            ends = [old.rstrip("+"), *([] if new.endswith("+") else [new])]
            made.append(("see what changed", f"git -C {folder} diff {' '.join(ends)} -- ."))
        made.append(("see its symptoms", f"remedy check {target}"))
    if row["best_fix"] is not None and status in (Status.NEWLY_BROKEN, Status.BROKEN, Status.UNSTABLE):
        fix = row["best_fix"]
        place = f" --fix {fix['place']}" if fix["place"] != 1 else ""
        made.append((f"take the fix {fix['label']}", f"remedy export {fix['study']}{place} --out fix.yaml{home}"))
    if row["explorers"]:
        made.append(("see its study", f"remedy report {row['study']}{home}"))
    return [{"training": row["name"], "why": why, "command": command} for why, command in made]


def _again(sweep: Mapping[str, Any], night: str, state: str, home: str) -> list[Row]:
    if state not in ("interrupted", "absent"):
        return []
    why = "go on with the night" if state == "interrupted" else "run the night now"
    command = f"remedy nightly run {shlex.quote(str(sweep['path']))} --night {night}{home}"
    return [{"training": None, "why": why, "command": command}]
