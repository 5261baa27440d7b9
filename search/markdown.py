"""The note of a study's MLflow run, as Markdown: the verdict for people."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from remedy.search.audit import lines as audit_lines
from remedy.search.paste import apply_line, run_line
from remedy.spaces.combination import Combination
from remedy.spaces.printable import printable
from remedy.workers.result import RunResult

_ROWS = 10
_LONGEST, _LONGEST_CELL = 6000, 400
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "|": "&#124;"}


def note(report: Mapping[str, Any]) -> str:
    """Write the verdict of a study for people, from its report."""
    parts = [_heading(report), _wrong(report), _fixes(report), _no_help(report), _saved(report)]
    text = "\n\n".join(part for part in parts if part)
    if len(text) > _LONGEST:
        text = text[:_LONGEST].rsplit("\n", 1)[0] + "\n\nThe rest is in the study's report."
    apply = _apply(report)
    return f"{text}\n\n{apply}\n" if apply else f"{text}\n"


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
    parts += [
        f"Noted since step {n.onset_step}, {escape(n.symptom.value)}: {escape(n.evidence)}" for n in noted[:_ROWS]
    ]
    if verdict or result.spared or result.notes:
        parts.append("Its curves, with this marked on them, are among its artifacts: `curves.html`.")
    if result.receipts:
        parts.append("\n".join(f"- {_code(made.remedy)}: {escape(made.text)}" for made in result.receipts[:_ROWS]))
    if result.trace:  # its end says most
        parts.append("\n".join(f"    {line}" for line in result.trace[-_LONGEST // 2 :].splitlines()))
    return "\n\n".join(parts) + "\n"


def escape(text: object) -> str:
    """Make any text harmless in Markdown, in a table's cell too: no markup, no HTML, one line."""
    line = printable(text).strip()
    line = line if len(line) <= _LONGEST_CELL else line[:_LONGEST_CELL] + "…"
    line = re.sub(r"([\\`*_{}\[\]#~$])", r"\\\1", line)
    line = re.sub(r"[&<>|]", lambda found: _ENTITIES[found[0]], line)
    return re.sub(r"(?i)(https?|ftp|mailto)(:)|\b(www)(\.)", r"\1\3&#8203;\2\4", line)


def _code(text: object) -> str:
    line = printable(text)
    return escape(line) if re.search(r"[`|]", line) or not line else f"`{line}`"


def _heading(report: Mapping[str, Any]) -> str:
    confirmed = [fix for fix in report.get("fixes") or () if fix.get("confirmed")]
    state = (report.get("baseline") or {}).get("state")
    if confirmed:
        found = f"{_count(len(confirmed), 'fix', 'fixes')} confirmed on fresh seeds"
    elif state == "healthy":
        found = "nothing to repair"
    elif report.get("exit_code") == 2:
        found = "the training could not be run"
    else:
        found = "no fix confirmed"
    reason = f" (ended: {escape(report['reason'])})" if report.get("reason") else ""
    training = f"Training {_code(report.get('training', ''))}, goal {_goal(report)}."
    best = f"**{_code(_label(confirmed[0]))}**: {_proof(report, confirmed[0])} " if confirmed else ""
    return f"## {found[0].upper()}{found[1:]}{reason}\n\n{best}{training}"


def _proof(report: Mapping[str, Any], fix: Mapping[str, Any]) -> str:
    without = "".join(
        f", without {_code(part.get('without', ''))} {_share(part)}" for part in fix.get("ablation") or ()
    )
    return f"{_share(fix)} fresh seeds converged, untouched {_share(report.get('baseline') or {})}{without}."


def _label(fix: Mapping[str, Any]) -> str:
    return str(fix.get("label") or Combination.of(fix.get("remedies") or {}).label)


def _wrong(report: Mapping[str, Any]) -> str:
    baseline = report.get("baseline") or {}
    findings = report.get("preflight") or ()
    lines = ["### What was wrong", ""]
    if baseline:
        reached = ", ".join(_number(value) for value in baseline.get("metric") or ())
        identical = (
            ". The runs were identical: nothing in the training depends on the seed"
            if baseline.get("deterministic")
            else ""
        )
        lines[0] = "### The training as it is" if baseline.get("state") == "healthy" else lines[0]
        lines.append(
            f"Untouched, it is **{escape(baseline.get('state', 'unknown'))}**: {_share(baseline)} runs converged"
            f"{f' (final {escape(_metric(report))}: {reached})' if reached else ''}{identical}."
        )
    symptoms = [
        (
            escape(found.get("symptom", "")),
            str(found.get("runs", "")),
            ", ".join(str(step) for step in found.get("onset_step") or ()),
            "yes" if found.get("stopped") else "no",
            escape(found.get("evidence", "")),
        )
        for found in baseline.get("symptoms") or ()
    ]
    if symptoms:
        lines += ["", *_table(("symptom", "runs", "since step", "ended the run", "evidence"), symptoms)]
    if findings:
        lines += ["", "Found before the first run:", ""]
        lines += [
            f"- {escape(found.get('level', ''))}: {escape(found.get('message', ''))}" for found in findings[:_ROWS]
        ]
    if report.get("decision"):
        lines += ["", f"By a few hundred steps before: {escape(report['decision'])}."]
    return "\n".join(lines) if baseline or findings else ""


def _fixes(report: Mapping[str, Any]) -> str:
    fixes = report.get("fixes") or ()
    if not fixes:
        return (
            ""
            if (report.get("baseline") or {}).get("state") == "healthy"
            else "### What fixes it\n\nNothing that was tried."
        )
    table = [
        (
            str(place),
            _code(_label(fix)),
            f"{_share(fix)}{'' if fix.get('confirmed') else ' (not confirmed)'}",
            _interval(fix.get("interval")),
            _number(fix.get("metric_mean")),
            "yes" if fix.get("minimal") else "not shown",
            _number(fix.get("invasiveness")),
            "; ".join(f"without {_code(part.get('without', ''))}: {_share(part)}" for part in fix.get("ablation") or ())
            or "not run",
        )
        for place, fix in enumerate(fixes, start=1)
    ]
    head = (
        "",
        "fix",
        "converged on fresh seeds",
        "95 % interval",
        f"mean {escape(_metric(report))}",
        "minimal",
        "invasiveness",
        "left out",
    )
    legend = (
        "Minimal: each of its remedies was left out once, on the same seeds, and what remained did not hold. "
        "Invasiveness: 1 (a number changes) to 5 (the architecture changes)."
    )
    return "\n".join(["### What fixes it", "", *_table(head, table), "", legend])


def _no_help(report: Mapping[str, Any]) -> str:
    base = report.get("baseline") or {}
    useless, inapplicable = [], []
    for row in report.get("remedies") or ():
        alone, effect = row.get("alone"), row.get("effect")
        if not alone:
            inapplicable.append(f"{_code(row.get('remedy', ''))}")
        elif not alone.get("converged") or (effect is not None and effect <= 0):
            useless.append(f"{_code(row.get('remedy', ''))} ({_share(alone)})")
    lines = []
    if useless:
        unstable = ", or no more than the untouched training" if base.get("converged") else ""
        lines.append(f"Tried alone, these restored nothing{unstable} (runs converged): {_list(useless)}.")
    if inapplicable:
        lines.append(f"Nothing to change in this training: {_list(inapplicable)}.")
    return "\n\n".join(["### What did not help", *lines]) if lines else ""


def _saved(report: Mapping[str, Any]) -> str:
    runs, cost = report.get("runs") or {}, report.get("cost") or {}
    if not runs.get("total"):
        return ""
    ended = ", ".join(f"{count} {escape(name)}" for name, count in runs.items() if name != "total" and count)
    text = f"{_count(runs['total'], 'run', 'runs')}: {ended}."
    if cost.get("steps_full") and cost.get("saved_by_early_stop") is not None:
        causes = [(name, share) for name, share in (cost.get("saved") or {}).items() if share]
        by = " (" + ", ".join(f"{escape(name)} {_percent(share)}" for name, share in causes) + ")" if causes else ""
        text += (
            f" {cost.get('steps_trained', 0):,} of {cost['steps_full']:,} steps were trained: early stopping saved "
            f"**{_percent(cost['saved_by_early_stop'])}**{by}."
        )
    audited = "".join(f"\n\n{escape(said)}" for said in audit_lines(report["audit"])) if report.get("audit") else ""
    return f"### What it cost, and what early stopping saved\n\n{text}{audited}"


def _apply(report: Mapping[str, Any]) -> str:
    if not any(fix.get("confirmed") for fix in report.get("fixes") or ()):
        return ""
    study = shlex.quote(" ".join(str(report.get("study", "")).split()))
    script, applied = report.get("script"), apply_line(report, "fix.yaml")
    # Indented, not fenced: nothing in a name can end the block.
    return "\n".join(
        [
            "### How to apply it",
            "",
            f"    remedy export {study} --out fix.yaml",
            f"    {run_line(report, 'fix.yaml', 7)}",
            "",
            "Without us around it:" if script else "In your own code:",
            "",
            f"    {applied}" if script else f"    fixed = {applied}",
        ]
    )


def _table(head: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *body[:_ROWS]]
    more = [f"\n{len(body) - _ROWS} more are in the report."] if len(body) > _ROWS else []
    return [*("| " + " | ".join(cell or " " for cell in line) + " |" for line in lines), *more]


def _list(items: Iterable[str]) -> str:
    every = list(items)
    return ", ".join(every[: 3 * _ROWS]) + (f" and {len(every) - 3 * _ROWS} more" if len(every) > 3 * _ROWS else "")


def _metric(report: Mapping[str, Any]) -> str:
    return str((report.get("goal") or {}).get("metric", "metric"))


def _goal(report: Mapping[str, Any]) -> str:
    goal = report.get("goal") or {}
    sign, value = ("≤", goal["at_most"]) if "at_most" in goal else ("≥", goal.get("at_least"))
    return f"{escape(_metric(report))} {sign} {_number(value)}"


def _share(counts: Mapping[str, Any]) -> str:
    return f"{counts.get('converged', 0)} of {counts.get('runs', 0)}"


def _interval(bounds: Sequence[float] | None) -> str:
    return f"{_percent(bounds[0])} to {_percent(bounds[1])}" if bounds and len(bounds) == 2 else "unknown"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _number(value: object) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{value:.4g}"
    return "none" if value is None else escape(value)


def _count(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"
