"""Markdown for people: text made harmless, tables, figures, and the note of one run."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from remedy.spaces.printable import printable
from remedy.workers.result import RunResult

ROWS = 10
"""Most rows of a table, and items of a list."""
_LONGEST_TRACE, _LONGEST_CELL = 3000, 400
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "|": "&#124;"}


def run_note(result: RunResult) -> str:
    """Write how one run ended, what was changed in it, and what the user's code raised."""
    verdict = result.verdict
    found = f" ({escape(verdict.symptom.value)}, seen since step {verdict.onset_step})" if verdict else ""
    length = f" of {result.steps_full}" if result.steps_full else ""
    why = verdict.evidence if verdict else result.reason
    parts = [f"**{result.outcome}** at step {result.steps}{length}{found}{f': {escape(why)}' if why else ''}"]
    if result.spared is not None and verdict is None:
        spared = f"{escape(result.spared.symptom.value)} since step {result.spared.onset_step}"
        parts.append(f"Audited: {spared} would have ended it at step {result.spared.step}.")
    elif result.spared is not None:
        parts.append(f"Audited: its verdict of step {result.spared.step} did not end it.")
    elif result.foretold:
        parts.append(f"Audited: the forecast would have given it up at step {result.foretold_step}.")
    noted = [note for note in result.notes if note != verdict]
    parts += [f"Noted since step {n.onset_step}, {escape(n.symptom.value)}: {escape(n.evidence)}" for n in noted[:ROWS]]
    if verdict or result.spared or result.notes:
        parts.append("Its curves, with this marked on them, are among its artifacts: `curves.html`.")
    if result.receipts:
        parts.append("\n".join(f"- {code(made.remedy)}: {escape(made.text)}" for made in result.receipts[:ROWS]))
    if result.trace:  # its end says most
        parts.append("\n".join(f"    {line}" for line in result.trace[-_LONGEST_TRACE:].splitlines()))
    return "\n\n".join(parts) + "\n"


def escape(text: object) -> str:
    """Make any text harmless in Markdown, in a table's cell too: no markup, no HTML, one line."""
    line = printable(text).strip()
    line = line if len(line) <= _LONGEST_CELL else line[:_LONGEST_CELL] + "…"
    line = re.sub(r"([\\`*_{}\[\]#~$])", r"\\\1", line)
    line = re.sub(r"[&<>|]", lambda found: _ENTITIES[found[0]], line)
    return re.sub(r"(?i)(https?|ftp|mailto)(:)|\b(www)(\.)", r"\1\3&#8203;\2\4", line)


def code(text: object) -> str:
    """Return a name as code, whatever is in it."""
    line = printable(text)
    return escape(line) if re.search(r"[`|]", line) or not line else f"`{line}`"


def table(head: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table; many rows are cut off, and it is said."""
    lines = [head, ["---"] * len(head), *body[:ROWS]]
    more = [f"\n{len(body) - ROWS} more are in the report."] if len(body) > ROWS else []
    return [*("| " + " | ".join(cell or " " for cell in line) + " |" for line in lines), *more]


def listed(items: Iterable[str]) -> str:
    """Return items in a row, many cut off."""
    every = list(items)
    return ", ".join(every[: 3 * ROWS]) + (f" and {len(every) - 3 * ROWS} more" if len(every) > 3 * ROWS else "")


def share(counts: Mapping[str, Any]) -> str:
    """Return `3 of 5`."""
    return f"{counts.get('converged', 0)} of {counts.get('runs', 0)}"


def interval(bounds: Sequence[float] | None) -> str:
    """Return the bounds of a share."""
    return f"{percent(bounds[0])} to {percent(bounds[1])}" if bounds and len(bounds) == 2 else "unknown"


def percent(part: float) -> str:
    """Return a share for people."""
    return f"{100 * part:.0f} %"


def number(value: object) -> str:
    """Return a figure for people."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{value:.4g}"
    return "none" if value is None else escape(value)


def count(found: int, one: str, many: str) -> str:
    """Return `1 fix`, `3 fixes`."""
    return f"{found} {one if found == 1 else many}"
