"""Runs a script in a process of its own, and follows it from outside."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from remedy.spaces.outcome import Outcome
from remedy.workers.door import FIX
from remedy.workers.mailbox import Mailbox
from remedy.workers.order import WorkOrder
from remedy.workers.result import RunResult

_LOOK_SECONDS = 0.05
_TELL_SECONDS = 0.5
_GRACE_SECONDS = 5.0
_PATIENCE_SECONDS = 30.0

Step = tuple[int, float | None]


@dataclass(frozen=True)
class Learned:
    """How a script's process ended, and what it told of the script."""

    result: RunResult
    told: dict[str, Any] = field(default_factory=dict)


def run_apart(order: WorkOrder, log: io.TextIOBase, cancelled: Callable[[], bool] | None) -> Iterator[Step | RunResult]:
    """Run the script of an order; yield (steps, metric) about twice a second, and last the result."""
    for item in _follow(order, log, cancelled, learn=False):
        yield item.result if isinstance(item, Learned) else item


def learn(order: WorkOrder, log: io.TextIOBase) -> Iterator[Step | Learned]:
    """Run the untouched script once without ever stopping it, to learn what nobody can read off it."""
    yield from _follow(order, log, None, learn=True)


def _follow(
    order: WorkOrder, log: io.TextIOBase, cancelled: Callable[[], bool] | None, *, learn: bool
) -> Iterator[Step | Learned]:
    began = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="remedy-") as place,
        _printed(log) as out,
        _process(place, out, order, learn=learn) as process,
    ):
        box = Mailbox(Path(place))
        told, last, asked = began, None, 0.0
        while process.poll() is None and not (ended := box.result()):
            now = time.monotonic()
            if not asked and cancelled is not None and cancelled():
                asked = now
                box.ask_stop()
            if asked and now - asked > _GRACE_SECONDS:
                yield Learned(_stopped(order, last, now - began))
                return
            if now - told > _TELL_SECONDS:
                told, last = now, box.progress() or last
                # Said even where nothing is new: whoever waits for this run looks at its wish to stop in between.
                yield last or (0, None)
            time.sleep(_LOOK_SECONDS)
        ended = box.result()
        _wait(process, _PATIENCE_SECONDS)  # whatever the script does at its exit
    if ended is None:
        steps = last[0] if last else 0
        yield Learned(_gone(order, process.returncode, steps, time.monotonic() - began))
    else:
        yield Learned(*ended)


@contextlib.contextmanager
def _process(place: str, out: IO[str], order: WorkOrder, *, learn: bool) -> Iterator[subprocess.Popen[str]]:
    """Start the script, and end it with everything that it started."""
    theirs, ours = os.pipe()
    try:
        box = Mailbox(Path(place))
        box.put_order(order, learn=learn, lifeline=theirs)
        environment = {name: value for name, value in os.environ.items() if name != FIX}
        process = subprocess.Popen(
            # -P: a file beside the script may be called as a package that we import.
            [sys.executable, "-P", "-m", "remedy.workers.script", str(box.order_file)],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            pass_fds=[theirs],
            start_new_session=True,
            env=environment,
            text=True,
        )
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    finally:
        os.close(theirs)
        os.close(ours)  # only now: where it closes without a word, the worker has died


@contextlib.contextmanager
def _printed(log: io.TextIOBase) -> Iterator[IO[str]]:
    """Yield a file for what the script prints: the log, or one whose end is copied there."""
    try:
        log.fileno()
    except (OSError, ValueError):
        with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as kept:
            try:
                yield kept
            finally:
                kept.seek(0)
                log.write(kept.read())
        return
    log.flush()
    yield log  # type: ignore[misc]  # a text file, as its number shows


def _wait(process: subprocess.Popen[str], seconds: float) -> None:
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(seconds)


def _stopped(order: WorkOrder, last: Step | None, seconds: float) -> RunResult:
    reason = "the search had no more use for this run"
    steps = last[0] if last else 0
    return RunResult(order.number, Outcome.STOPPED, reason, steps=steps, seconds=seconds, saved_by="controller")


def _gone(order: WorkOrder, code: int, steps: int, seconds: float) -> RunResult:
    """Return the result of a script whose process ended without one."""
    if code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
        return RunResult(
            order.number, Outcome.LOST, f"the script's process was ended by {name}", steps=steps, seconds=seconds
        )
    reason = f"the script ended its process past Python's own end, with exit code {code} (os._exit)"
    return RunResult(order.number, Outcome.FAILED, reason, steps=steps, seconds=seconds)
