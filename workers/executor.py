"""Where runs are executed: one interface, and its in-process twin."""

from __future__ import annotations

import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import FrameType
from typing import Protocol

from remedy.spaces.error import TimeLimit
from remedy.spaces.outcome import Outcome
from remedy.workers.isolated import Isolated
from remedy.workers.order import WorkOrder
from remedy.workers.result import RunResult
from remedy.workers.run import Step, stream

_AGAIN = 5.0


@dataclass(frozen=True)
class Finished:
    """A run ended and this is its result."""

    result: RunResult


@dataclass(frozen=True)
class Progressed:
    """A run goes on."""

    number: int
    steps: int
    metric: float | None


Event = Finished | Progressed


class Executor(Protocol):
    """Takes work orders, gives events. One controller, one thread, no callbacks."""

    capacity: int
    """Runs at a time."""

    def submit(self, order: WorkOrder) -> None:
        """Start a run. At most `capacity` are under way; more is an error of the caller."""

    def wait(self, timeout: float) -> list[Event]:
        """Return what happened, waiting up to `timeout` seconds for something to happen."""

    def cancel(self, number: int) -> None:
        """Ask a run to end; its result comes as `stopped`."""

    def close(self) -> None:
        """End everything that runs and give back what was taken."""


class InProcess:
    """Runs one after the other in this process (`--workers 0`): a failing run is then an ordinary traceback.

    With `isolate` each is trained in a fresh process of its own, which this one waits for.
    """

    capacity = 1

    def __init__(self, *, isolate: bool = False) -> None:
        """Begin with nothing to do."""
        self._isolated = Isolated() if isolate else None
        self._waiting: deque[WorkOrder] = deque()
        self._cancelled: set[int] = set()
        self._order: WorkOrder | None = None
        self._stream: Iterator[Step | RunResult] = iter(())
        self._spent = 0.0
        self._steps = 0

    def submit(self, order: WorkOrder) -> None:
        """Take the order; it is trained by `wait`."""
        self._waiting.append(order)

    def wait(self, timeout: float) -> list[Event]:  # noqa: ARG002  (a run says twice a second how far it is)
        """Train on, until the run has something to say."""
        if self._order is None:
            if not self._waiting:
                return []
            self._begin(self._waiting.popleft())
        order, began = self._order, time.monotonic()
        assert order is not None  # noqa: S101  (begun above)
        left = None if order.timeout is None else max(0.001, order.timeout - self._spent)
        try:
            with time_limit(left, order.timeout):
                item = next(self._stream)
        except TimeLimit as error:
            item = RunResult(order.number, Outcome.FAILED, str(error), steps=self._steps)
        self._spent += time.monotonic() - began
        if not isinstance(item, RunResult):
            self._steps, metric = item
            return [Progressed(order.number, self._steps, metric)]
        self._end()
        return [Finished(item if item.seconds else replace(item, seconds=self._spent))]

    def _begin(self, order: WorkOrder) -> None:
        self._order, self._spent, self._steps = order, 0.0, 0
        train = self._isolated or stream
        self._stream = train(order, cancelled=lambda: order.number in self._cancelled)

    def _end(self) -> None:
        if isinstance(self._stream, Generator):
            self._stream.close()
        self._order, self._stream = None, iter(())

    def cancel(self, number: int) -> None:
        """Have the run end at its next observation."""
        self._cancelled.add(number)

    def close(self) -> None:
        """Drop what has not ended."""
        self._waiting.clear()
        self._end()
        if self._isolated is not None:
            self._isolated.close()


@contextmanager
def time_limit(seconds: float | None, whole: float | None = None) -> Iterator[None]:
    """Raise `TimeLimit` in the block after so many seconds; `whole` is the limit to name, where this is the rest of it.

    Works in the main thread of a process, between two Python instructions: code that hangs inside one C call is beyond
    it (the Ray executor kills such a worker). Elsewhere it does nothing.
    """
    if seconds is None or threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(_signal: int, _frame: FrameType | None) -> None:
        msg = f"took longer than {whole or seconds:g} s (--run-timeout)"
        raise TimeLimit(msg)

    before: Callable[[int, FrameType | None], object] | int | None = signal.signal(signal.SIGALRM, ring)
    # Again every few seconds, for code that swallows even this.
    others = signal.setitimer(signal.ITIMER_REAL, seconds, _AGAIN)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, *others)
