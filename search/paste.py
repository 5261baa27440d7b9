"""Lines to paste: how a fix of a report is run once more, and how it is applied."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any


def run_line(report: Mapping[str, Any], fix_file: str, seed: int, home: str = "") -> str:
    """Return the command of one watched run with a fix; `home` is the option that says where studies lie."""
    script, goal = report.get("script"), report.get("goal", {})
    words, args = ["remedy", "run", " ".join(str(report.get("training", "")).split())], ""
    if script:
        sign, value = (">=", goal["at_least"]) if "at_least" in goal else ("<=", goal["at_most"])
        words = ["remedy", "run", script["path"], "--goal", f"{goal['metric']}{sign}{value:g}"]
        args = f" -- {shlex.join(script['args'])}" if script["args"] else ""
    return _line(f"{shlex.join([*words, '--fix', fix_file, '--seed', str(seed)])}{home}{args}")


def apply_line(report: Mapping[str, Any], fix_file: str) -> str:
    """Return what applies a fix without us around it."""
    script = report.get("script")
    if not script:
        return f'remedy.load_fix("{fix_file}").apply(training())'
    return _line(f"REMEDY_FIX={shlex.quote(fix_file)} {shlex.join(['python', script['path'], *script['args']])}")


def _line(text: str) -> str:
    """Return one line, whatever a file or an argument is called."""
    return " ".join(text.splitlines())
