"""`nightly report`: the morning report, in all its formats; its exit code says whether somebody has to look at it."""

from __future__ import annotations

import argparse
import json
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

from remedy.commands.views import where
from remedy.search.home import Home
from remedy.search.nightly.book import NightBook, checked, today
from remedy.search.nightly.report import morning
from remedy.search.nightly.sweep import read_sweep
from remedy.spaces.error import InputError


def report(asked: argparse.Namespace) -> int:
    """Print the morning report; the exit code says whether somebody has to look at it."""
    home = Home.of(asked.home)
    path = Path(asked.sweep)
    if path.suffix in (".yaml", ".yml") or path.is_file():
        sweep = read_sweep(path)
        name, told = sweep.name, sweep.to_json()
        book = NightBook(home.sweep(name))
    else:
        name = asked.sweep
        book = NightBook(home.sweep(name))
        known = book.sweep()
        if known is None:
            raise InputError(
                f"no sweep {name!r} was ever run in {home.where}; it may be a sweep file, or a sweep's name"
            )
        told = known
    night = checked(asked.night) if asked.night is not None else _latest(book, float(told["stale_after"]))
    found = morning(book, told, night, running=book.files.held(), home=where(asked))
    text = _formatted(found, asked)
    if asked.out is None:
        sys.stdout.write(text)
    else:
        try:
            Path(asked.out).write_text(text, encoding="utf-8")
        except OSError as error:
            raise InputError(f"--out {asked.out!r} cannot be written: {error.strerror}") from None
        sys.stdout.write(f"{found['verdict']}\nwrote {asked.out}\n")
    return int(found["exit_code"])


def _formatted(found: dict[str, Any], asked: argparse.Namespace) -> str:
    if asked.format == "json":
        return json.dumps(found, allow_nan=False) + "\n"
    if asked.format == "md":
        from remedy.search.nightly.markdown import morning_markdown

        return morning_markdown(found)
    if asked.format == "html":
        from remedy.search.nightly.page import morning_html

        return morning_html(found)
    if asked.format == "junit":
        from remedy.search.nightly.junit import morning_junit

        return morning_junit(found)
    from remedy.commands.nightly.text import morning_text

    terminal = asked.out is None and sys.stdout.isatty()
    return morning_text(found, terminal=terminal, home=where(asked)) + "\n"


def _latest(book: NightBook, stale_after: float) -> str:
    """Return the night to report: the latest, or today's where the latest is so old that another was due."""
    last = next((night for night in reversed(book.nights()) if night <= today()), None)
    return today() if last is None or book.age(last) > timedelta(hours=stale_after) else last
