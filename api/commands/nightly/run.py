"""`nightly run`: one night of a sweep, begun or gone on with."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

from remedy.commands.views import where
from remedy.commands.work import check_workers
from remedy.search.database import PATIENCE
from remedy.search.home import Home
from remedy.search.nightly.book import NightBook, checked, today
from remedy.search.nightly.report import morning
from remedy.search.nightly.sweep import Sweep, read_sweep
from remedy.spaces.error import InputError

_RESUMED_WITHIN = timedelta(hours=20)


def run(asked: argparse.Namespace) -> int:
    """Run one night of a sweep, or go on with it."""
    sweep = read_sweep(Path(asked.sweep))
    for name in ("workers", "gpus", "address", "resource", "isolate"):
        if getattr(asked, name) is None:
            setattr(asked, name, getattr(sweep, name))
    check_workers(asked)
    home = Home.of(asked.home, PATIENCE)
    book = NightBook(home.sweep(sweep.name))
    night = checked(asked.night) if asked.night is not None else _tonight(book, again=asked.again)
    if book.ended(night) is not None and not asked.again:
        sys.stderr.write(
            f"remedy: the night of {night} has ended already; nothing is run (--again runs it once more)\n"
        )
    elif code := _run(asked, home, book, sweep, night):
        return code
    found = morning(book, sweep.to_json(), night, home=where(asked))
    if asked.json:
        sys.stdout.write(json.dumps(found, allow_nan=False) + "\n")
    else:
        again = f"remedy nightly report {shlex.quote(asked.sweep)} --night {night}{where(asked)}"
        sys.stdout.write(f"{found['verdict']}\nnext: {again}\n")
    return 0


def _run(asked: argparse.Namespace, home: Home, book: NightBook, sweep: Sweep, night: str) -> int:
    from remedy.commands.cluster import is_cluster

    if not os.environ.get("REMEDY_JOB"):  # a job sees the sweep in a folder that goes with it
        book.save_sweep(sweep.to_json())
    if is_cluster(asked.address):
        from remedy.commands.nightly.send import send_night

        return send_night(asked, home, sweep, night)
    from remedy.commands.nightly.workplace import work_night

    with _held(book, sweep.name):
        if asked.again and book.ended(night) is not None:
            book.reopen(night)
        return work_night(asked, home, book, sweep, night)


def _tonight(book: NightBook, *, again: bool) -> str:
    """Return the night to run: one cut off less than 20 hours after it began, or today's; `again`: the last one."""
    last = next(iter(reversed(book.nights())), None)
    if last is not None and (again or (book.ended(last) is None and book.age(last) < _RESUMED_WITHIN)):
        return last
    return today()


@contextlib.contextmanager
def _held(book: NightBook, name: str) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(book.files.lease())
        except InputError:
            msg = f"sweep {name!r} is being run by another process; wait for it, or end it"
            raise InputError(msg) from None
        yield
