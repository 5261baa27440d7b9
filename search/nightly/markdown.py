"""The morning report as Markdown, for a chat, a ticket or a wiki."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from remedy.search.markdown import escape
from remedy.search.nightly.check import Status
from remedy.search.nightly.report import LEGEND, SIGNS
from remedy.spaces.printable import printable


def morning_markdown(found: Mapping[str, Any]) -> str:
    """Write the report for people."""
    mark = "✅" if not found["exit_code"] else "❌"
    parts = [
        f"## {mark} {escape(found['verdict'])}",
        f"Sweep {escape(found['sweep'])}, night of {escape(found['night'])}.",
        _rows(found),
        f"Nights: {escape(LEGEND)}. Runs in full-run equivalents.",
        _new(found),
        _league(found),
        _sure(found["confidence"]),
        escape(budget_line(found["budget"])),
        _actions(found),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def budget_line(budget: Mapping[str, Any]) -> str:
    """Return what the night cost, and what its audit showed."""
    parts = ", ".join(f"{name} {spent:.1f}" for name, spent in budget["parts"].items() if spent >= 0.05)
    took = f" in {budget['seconds']:.0f} s" if budget["seconds"] is not None else ""
    said = f"Budget: {budget['full_runs']:.1f} of {budget['of']:g} full runs{took}" + (f" ({parts})" if parts else "")
    return f"{said}; early stopping saved {budget['saved_by_early_stop']:.0%}. {stops_line(budget)}".strip()


def stops_line(budget: Mapping[str, Any]) -> str:
    """Return how many runs were given up, and how many would have been wrongly; empty where there were none."""
    stops, audited, wrongly = budget["early_stops"], budget["audited"], budget["wrongly_stopped"]
    if not stops and not audited:
        return ""
    ended = f"{stops} run{' was' if stops == 1 else 's were'} ended as collapsed"
    if not audited:
        return f"{ended}; none was drawn for the audit, so how many of them wrongly is not known."
    low, high = budget["wrongly_stopped_interval"]
    more = f"{audited} more {'was' if audited == 1 else 'were'} let run on to the end as an audit"
    return f"{ended}; {more}, and {wrongly} of {audited} would have been stopped wrongly [{low:.2f}, {high:.2f}]."


def _rows(found: Mapping[str, Any]) -> str:
    rows = []
    for row in found["trainings"]:
        tonight, fix, last = row["tonight"], row["best_fix"], row["last_night"]
        status = escape(row["status"])
        link = f" ([MLflow]({row['link']}))" if row["link"] else ""
        rows.append(
            (
                f"{escape(row['name'])}{link}",
                f"**{status}**" if Status(row["status"]).red else status,
                "-" if last is None else escape(last["status"]),
                f"`{''.join(SIGNS[night['status']] for night in row['strip'])}`",
                "-" if tonight is None else f"{share(tonight)} {interval(tonight)}",
                f"{row['cost']['full_runs']:.1f}",
                "-" if fix is None else escape(fix_line(fix)),
            )
        )
    head = ("training", "tonight", "the night before", f"{len(found['trainings'][0]['strip'])} nights",
            "converged [95 %]", "runs", "best fix")  # fmt: skip
    return _table(head, rows)


def share(counts: Mapping[str, Any]) -> str:
    """Return `3 of 3`, and whether the runs were identical."""
    return f"{counts['converged']} of {counts['runs']}" + (" identical" * bool(counts.get("identical")))


def interval(counts: Mapping[str, Any]) -> str:
    """Return the interval of a share."""
    low, high = counts["interval"]
    return f"[{low:.2f}, {high:.2f}]"


def fix_line(fix: Mapping[str, Any]) -> str:
    """Return a fix with what it did tonight, or when it was confirmed."""
    tonight = fix["tonight"]
    if tonight is None:
        return f"{fix['label']}: {share(fix)}"
    return f"{fix['label']}: {share(tonight)} tonight, without {tonight['base_converged']} of {tonight['base_runs']}"


def confidence_lines(sure: Mapping[str, Any]) -> list[str]:
    """Return how sure the changes are, a sentence each."""
    said = [
        f"Confirmed: {row['training']} is {row['status']}, {row['fresh_runs']} runs on fresh seeds, Fisher's exact "
        f"test p = {row['p']:.2g}."
        for row in sure["confirmed"]
    ]
    said += [
        f"Inside the noise, so unchanged: {row['training']} (p = {row['p']:.2g} after {row['fresh_runs']} runs on "
        "fresh seeds)."
        for row in sure["inside_noise"]
    ]
    said += [f"The explorers of {row['training']} failed: {row['said']}." for row in sure["explorers_failed"]]
    if sure["identical"]:
        names = ", ".join(sure["identical"])
        said.append(f"Identical runs on all seeds, so that counts are no evidence over seeds: {names}.")
    return said


def _new(found: Mapping[str, Any]) -> str:
    lines = [f"- **{escape(new['training'])}**, {escape(new['status'])}: {escape(new['what'])}" for new in found["new"]]
    return "\n".join(["### What is new", "", *lines]) if lines else ""


def _league(found: Mapping[str, Any]) -> str:
    rows = [
        (escape(row["remedy"]), escape(", ".join(row["necessary"]) or "-"), f"{row['converged']} of {row['runs']}",
         escape(", ".join(row["harmful"]) or "-"))
        for row in found["league"]
    ]  # fmt: skip
    head = ("remedy", "necessary in (by ablation)", "alone converged", "harmful in")
    return f"### Remedies\n\n{_table(head, rows)}" if rows else ""


def _sure(sure: Mapping[str, Any]) -> str:
    return "\n".join(f"- {escape(line)}" for line in confidence_lines(sure))


def _actions(found: Mapping[str, Any]) -> str:
    if not found["actions"]:
        return ""
    # Indented, not fenced: nothing in a name can end the block.
    lines = [f"    {printable(action['command'])}" for action in found["actions"]]
    return "\n".join(["### Next", "", *lines])


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, ["---"] * len(head), *rows))
