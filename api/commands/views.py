"""`list`, `show`, `logs`, `report`, `export`: read-only views."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from remedy.page import Page, curves, number
from remedy.render import report_text
from remedy.search.home import Home, StudyFolder
from remedy.search.note import note
from remedy.search.paste import apply_line, run_line
from remedy.spaces.combination import Combination
from remedy.spaces.error import InputError
from remedy.spaces.printable import in_colour, printable
from remedy.spaces.python import MISSING
from remedy.workers.result import RunResult


def list(asked: argparse.Namespace) -> int:  # noqa: A001  (named for the command)
    """List the studies."""
    home = Home.of(asked.home)
    rows = [_row(home.study(name)) for name in home.names()]
    if asked.json:
        sys.stdout.write(json.dumps(rows) + "\n")
        return 0
    if not rows:
        sys.stdout.write(f"no study in {home.where}\nnext: remedy submit TARGET\n")
        return 0
    page = Page()
    shown = [(r["study"], r["state"], r["runs"], r["best_fix"] or "-", r["training"]) for r in rows]
    page.table(("study", "state", "runs", "best fix", "training"), shown)
    page.raw(f"next: remedy report {rows[-1]['study']}{where(asked)}")
    sys.stdout.write(f"{page}\n")
    return 0


def _row(folder: StudyFolder) -> dict[str, Any]:
    spec, found = folder.spec(), folder.report()
    best = found["fixes"][0]["label"] if found and found["fixes"] else None
    return {
        "study": folder.name,
        "training": f"{spec['source']['path']}:{spec['source']['function']}",
        "state": state_of(folder, found),
        "exit_code": found["exit_code"] if found else None,
        "runs": len(folder.numbers()),
        "best_fix": best,
    }


def state_of(folder: StudyFolder, found: Mapping[str, Any] | None) -> str:
    """Return how a study stands: submitted, running, interrupted, failed, done, or the reason for which it ended."""
    if folder.held():
        return "running"
    state = folder.state().get("state")
    if state is None:
        return "submitted"
    if state == "running":
        return "interrupted"  # whoever worked on it is gone without a word
    if state in ("interrupted", "failed") or found is None:
        return str(state)
    return "done" if found["reason"] is None else str(found["reason"])


def where(asked: argparse.Namespace) -> str:
    """Return what commands to type next need to find the same home."""
    return "" if asked.home is None else f" --home {asked.home}"


def _findings(folder: StudyFolder) -> dict[str, Any]:
    found = folder.report()
    if found is None:
        msg = f"study {folder.name!r} has no report yet: not one of its runs has ended"
        raise InputError(msg)
    return found


def report(asked: argparse.Namespace) -> int:
    """Print the findings of a study."""
    folder = Home.of(asked.home).existing(asked.study)
    found = _findings(folder)
    home = where(asked)
    if asked.format == "json":
        text = json.dumps(found, allow_nan=False)
    elif asked.format == "md":
        text = note(found)
    elif asked.format == "html":
        from remedy.search.findings import Findings
        from remedy.search.page import report_html

        text = report_html(Findings.of(found, folder))
    else:
        terminal = asked.out is None and sys.stdout.isatty()
        text = report_text(found, terminal=terminal, next_home=home, running=folder.held())
    if asked.out is None:
        sys.stdout.write(text + "\n")
    else:
        _write(Path(asked.out), text + "\n")
        sys.stdout.write(f"wrote {asked.out}\n")
    return 0


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        msg = f"--out {str(path)!r} cannot be written: {error.strerror}"
        raise InputError(msg) from None


def show(asked: argparse.Namespace) -> int:
    """Show a study and its runs, or one run."""
    folder = Home.of(asked.home).existing(asked.study)
    items = _items(folder)
    if asked.run is not None:
        _check_run(asked, folder)
        return _show_run(asked, folder)
    runs = [{**items.get(n, {}), **_brief(result)} for n, result in folder.runs().items()]
    if asked.json:
        sys.stdout.write(json.dumps({"spec": folder.spec(), "runs": runs}) + "\n")
        return 0
    page = Page()
    rows = [
        (
            r["run"],
            r.get("phase", "-"),
            r.get("seed", "-"),
            r["outcome"],
            number(r["metric"]),
            f"{r['steps']}/{r['steps_full']}",
            r["symptom"] or "",
            r.get("label", "-"),
        )
        for r in runs
    ]
    page.table(("run", "phase", "seed", "outcome", "metric", "steps", "symptom", "remedies"), rows)
    page.raw(f"next: remedy show {asked.study}{where(asked)} --run N      one run, with its curves")
    sys.stdout.write(f"{page}\n")
    return 0


def _check_run(asked: argparse.Namespace, folder: StudyFolder) -> None:
    if not folder.has_run(asked.run):
        known = folder.numbers()
        span = f"it has {known[0]} to {known[-1]}" if known else "none has ended yet"
        msg = f"study {asked.study!r} has no finished run {asked.run}; {span}"
        raise InputError(msg)


def _items(folder: StudyFolder) -> dict[int, dict[str, Any]]:
    return {run: {**item, "label": Combination.of(item["params"]).label} for run, item in folder.noted().items()}


def _brief(result: RunResult) -> dict[str, Any]:
    return {
        "run": result.number,
        "outcome": str(result.outcome),
        "metric": result.metric if math.isfinite(result.metric) else None,
        "steps": result.steps,
        "steps_full": result.steps_full,
        "symptom": str(result.verdict.symptom) if result.verdict else None,
        "reason": result.reason or None,
    }


def _show_run(asked: argparse.Namespace, folder: StudyFolder) -> int:
    result = folder.load_run(asked.run)
    if asked.json:
        sys.stdout.write(json.dumps(_nulls(result.to_json()), allow_nan=False) + "\n")
        return 0
    item = _items(folder).get(asked.run, {})
    page = Page()
    brief = _brief(result)
    page.line(
        f"run {asked.run}: {brief['outcome']}, metric {number(brief['metric'])}, "
        f"{result.steps} of {result.steps_full} steps, "
        f"{item.get('phase', '?')}, seed {item.get('seed', '?')}",
        "bold",
    )
    page.line(f"remedies: {item.get('label', '?')}")
    for receipt in result.receipts:
        page.line(f"{receipt.remedy}: {receipt.text}", indent=2)
    if result.verdict:
        page.line(f"{result.verdict.symptom} since step {result.verdict.onset_step}: {result.verdict.evidence}")
        page.line(f"it usually means: {result.verdict.symptom.means}", indent=2)
    elif result.reason:
        page.line(result.reason)
    if result.spared:
        spared = result.spared
        told = f"audited: {spared.symptom} since step {spared.onset_step} would have ended it at step {spared.step}"
        page.line(told if result.verdict else f"{told}: {spared.evidence}")
    if result.foretold:
        told = f"audited: the forecast would have given it up at step {result.foretold_step}"
        page.line(told if result.reason else f"{told}: {result.foretold}")
    for noted in result.notes:
        page.line(f"noted: {noted.symptom} since step {noted.onset_step}: {noted.evidence}")
    curves(page, result)
    for line in result.trace.splitlines():
        page.raw(line)
    page.raw(f"log: remedy logs {asked.study}{where(asked)} --run {asked.run}")
    sys.stdout.write(f"{page}\n")
    return 0


def _nulls(value: Any) -> Any:
    """Return None for the texts that stand for numbers which are not finite."""
    if isinstance(value, dict):
        return {key: _nulls(inner) for key, inner in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_nulls(inner) for inner in value]
    return None if value in ("nan", "inf", "-inf") else value


def logs(asked: argparse.Namespace) -> int:
    """Print what the training's code printed."""
    folder = Home.of(asked.home).existing(asked.study)
    if asked.run is not None:
        _check_run(asked, folder)
    wanted = {"load": "loading, and outside of runs", **{f"{run:05d}": f"run {run}" for run in folder.numbers()}}
    if asked.run is not None:
        wanted = {f"{asked.run:05d}": f"run {asked.run}"}
    kept = folder.logs()
    printed = {what: kept[key] for key, what in wanted.items() if key in kept}
    for what, text in printed.items():
        # What a file or a pipe gets is what was printed; a terminal would obey it.
        sys.stdout.write(f"--- {what}\n{in_colour(text) if sys.stdout.isatty() else text}")
    if not printed:
        sys.stderr.write("the training's code printed nothing\n")
    return 0


def export(asked: argparse.Namespace) -> int:
    """Write a found fix to a file."""
    folder = Home.of(asked.home).existing(asked.study)
    fixes = _findings(folder)["fixes"]
    if not fixes:
        msg = f"study {asked.study!r} has no confirmed fix to export"
        raise InputError(msg)
    if not 1 <= asked.fix <= len(fixes):
        msg = f"--fix is {asked.fix}; study {asked.study!r} has fixes 1 to {len(fixes)}"
        raise InputError(msg)
    out = asked.out or ("fix.py" if asked.form == "python" else "fix.yaml")
    text = folder.python(asked.fix) if asked.form == "python" else folder.fix(asked.fix)
    if text is None:
        msg = f"study {asked.study!r} keeps no such file of fix {asked.fix}; `remedy resume {asked.study}` writes it"
        raise InputError(msg)
    _write(Path(out), text)
    label = printable(fixes[asked.fix - 1]["label"])
    sys.stdout.write(f"wrote {out}: {label}\n")
    if asked.form == "python":
        _say_what_is_missing(text)
        return 0
    found = _findings(folder)
    sys.stdout.write(
        f"apply it: {printable(apply_line(found, out))}\n"
        f"next: {printable(run_line(found, out, 987654, where(asked)))}\n"
    )
    return 0


def _say_what_is_missing(text: str) -> None:
    missing = [line.removeprefix(f"# {MISSING}") for line in text.splitlines() if line.startswith(f"# {MISSING}")]
    for line in missing:
        sys.stdout.write(f"not the whole fix: {printable(line)}\n")
    if not missing:
        sys.stdout.write("next: put its lines where they stand there into your own script; they need no remedy\n")
