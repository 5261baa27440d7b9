"""Ctrl-C and SIGTERM: they end a study between two of its steps, never inside a write."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from remedy.workers.executor import Event, Executor, InProcess
from remedy.workers.order import WorkOrder

EXIT_INTERRUPTED = 130
_PATIENCE = 2


class Interrupt:
    """Turns the first signal into a KeyboardInterrupt where that does no harm; the third ends the process.

    Python raises it between any two instructions, also inside the lock of a storage, whose own cleaning up then fails
    in its own ways. So it is kept until somebody may be interrupted.
    """

    def __init__(self) -> None:
        """Nothing has been asked yet."""
        self._asked = 0
        self._told = False
        self._open = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> Self:
        """Take the signals, where this is the thread that gets them."""
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._heard) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what `signal.signal` returned

    def _heard(self, _signal: int, _frame: object) -> None:
        self._asked += 1
        if self._asked > _PATIENCE:
            os._exit(EXIT_INTERRUPTED)
        if self._open:
            self.check()

    def check(self) -> None:
        """Raise what was kept, once.

        Raises:
            KeyboardInterrupt: a signal came since the beginning, and nobody was told yet.
        """
        if self._asked and not self._told:
            self._told = True
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def allowed(self) -> Iterator[None]:
        """Let a signal interrupt the block wherever it is."""
        self._open = True
        try:
            self.check()
            yield
        finally:
            self._open = False


class Interruptible:
    """An executor whose `wait` is where a study is interrupted.

    Training in this process may take long, and is interrupted at once. Elsewhere `wait` returns soon, and what it
    returned is taken in first.
    """

    def __init__(self, inner: Executor, interrupt: Interrupt) -> None:
        """Stand for `inner`."""
        self.inner = inner
        self.interrupt = interrupt
        self.capacity = inner.capacity

    def submit(self, order: WorkOrder) -> None:
        self.inner.submit(order)

    def wait(self, timeout: float) -> list[Event]:
        self.interrupt.check()
        if isinstance(self.inner, InProcess):
            with self.interrupt.allowed():
                return self.inner.wait(timeout)
        return self.inner.wait(timeout)

    def cancel(self, number: int) -> None:
        self.inner.cancel(number)

    def close(self) -> None:
        self.inner.close()
