"""Each run in a fresh process (`--isolate`), made within milliseconds: the copy of a spare that has torch imported.

The spare is started before it is needed (`python -m remedy.workers.isolated FD`) and waits. It trains nothing, so that
no run leaves anything in it: for each order it forks, and what it forks ends with the run. What is left of a run's own
processes is ended then, too. Spare and run end with whoever started them, however that ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch

from remedy.spaces.error import InfrastructureError
from remedy.spaces.outcome import Outcome
from remedy.workers.order import WorkOrder
from remedy.workers.result import RunResult, plain
from remedy.workers.run import Step, stream
from remedy.workers.under_way import START_SECONDS

_LOOK_SECONDS = 0.05
_END_SECONDS = 5.0
_PR_SET_PDEATHSIG = 1
_STARTS = 2

Cancelled = Callable[[], bool]


class Isolated:
    """Trains one run after the other, each in a process of its own; called as `stream` is."""

    def __init__(self) -> None:
        """Start the spare; it is ready some seconds later."""
        self._spare: subprocess.Popen[bytes] | None = None
        self._is_ready = False
        self._run = 0
        """The process of the run under way, 0 for none."""
        self._start()

    def __call__(self, order: WorkOrder, *, cancelled: Cancelled | None = None) -> Iterator[Step | RunResult]:
        """Begin a run, and yield what it yields. A script is run in a process of its own in any case.

        Raises:
            InfrastructureError: no spare starts.
        """
        if order.source.script is not None:
            return stream(order, cancelled=cancelled)
        text = json.dumps(plain(dataclasses.asdict(order))).encode() + b"\n"
        for _ in range(_STARTS):
            self.ready()
            with contextlib.suppress(OSError):  # it has died since
                self._link.sendall(text)
                heard = self._hear(START_SECONDS)
                if heard and "begun" in heard:
                    self._run = heard["begun"]
                    return self._follow(order, cancelled)
            self._start()
        raise InfrastructureError("the spare process for isolated runs does not begin a run")

    def ready(self) -> None:
        """Wait until the spare has torch imported.

        Raises:
            InfrastructureError: it does not start.
        """
        for _ in range(_STARTS):
            if self._is_ready or "ready" in (self._hear(START_SECONDS) or {}):
                self._is_ready = True
                return
            self._start()
        raise InfrastructureError("the spare process for isolated runs does not start")

    def close(self) -> None:
        """End the spare, and the run that it has made."""
        if self._spare is not None:
            self._end_run()
            self._link.close()
            try:
                self._spare.wait(_END_SECONDS)  # it sees that nobody is there any more
            except subprocess.TimeoutExpired:
                self._spare.kill()
                self._spare.wait()
            self._spare = None

    def _start(self) -> None:
        if self._spare is not None:  # what is left of one that died, or does not answer
            self._spare.kill()
            self.close()
        self._link, theirs = socket.socketpair()
        self._heard, self._is_ready, self._run = b"", False, 0
        with theirs:
            # -P: a file in the working directory may be called as a package that we import.
            command = [sys.executable, "-P", "-m", __name__, str(theirs.fileno())]
            self._spare = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()], process_group=0
            )

    def _follow(self, order: WorkOrder, cancelled: Cancelled | None) -> Iterator[Step | RunResult]:
        began, steps, asked, said = time.monotonic(), 0, False, "its worker died"
        result: RunResult | None = None
        try:
            while (heard := self._hear(_LOOK_SECONDS)) is not None and "gone" not in heard:
                said = f"its worker raised {heard['raised']}" if "raised" in heard else said
                if "result" in heard:
                    result = RunResult.from_json(heard["result"])
                if "step" in heard:
                    steps, metric = heard["step"]
                    yield steps, metric
                if not asked and cancelled is not None and cancelled():
                    asked = True
                    with contextlib.suppress(OSError):
                        self._link.sendall(b"stop\n")
            if heard is None:
                self._start()
            self._run = 0
        finally:
            self._end_run()
        # Only now: nothing of the run is left, neither memory nor processes.
        yield result or RunResult(order.number, Outcome.LOST, said, steps=steps, seconds=time.monotonic() - began)

    def _end_run(self) -> None:
        """End a run that nobody wants to follow any more."""
        if self._run:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._run, signal.SIGKILL)
            until = time.monotonic() + _END_SECONDS
            heard: dict[str, Any] | None = {}
            while heard is not None and "gone" not in heard and time.monotonic() < until:
                heard = self._hear(_LOOK_SECONDS)
            self._run = 0

    def _hear(self, seconds: float) -> dict[str, Any] | None:
        """Return what is said next: nothing within so many seconds is {}, None that nobody is there to say anything."""
        until = time.monotonic() + seconds
        while b"\n" not in self._heard:
            left = until - time.monotonic()
            if left <= 0 or not select.select([self._link], [], [], left)[0]:
                return {}
            try:
                more = self._link.recv(1 << 20)
            except OSError:
                return None
            if not more:
                return None
            self._heard += more
        line, _, self._heard = self._heard.partition(b"\n")
        return dict(json.loads(line))


# ---------------------------------------------------------------- the spare's side


def main(descriptor: int) -> None:
    """Be the spare: make a run of each order, until nobody is there to give one."""
    _end_with(os.getppid())
    torch.set_num_threads(1)  # a pool of threads does not survive a fork
    _warm()
    link = socket.socket(fileno=descriptor)
    orders = link.makefile("rb", buffering=0)  # what comes after an order is for the run
    _say(link, ready=True)
    gc.freeze()
    while line := orders.readline():
        if line == b"stop\n":
            continue  # it came too late
        mine = os.getpid()
        run = os.fork()
        if not run:
            _be_run(link, WorkOrder.from_json(json.loads(line)), mine)
        _, status = os.waitpid(run, 0)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(run, signal.SIGKILL)  # processes that the run has left behind
        with contextlib.suppress(OSError):
            _say(link, gone=os.waitstatus_to_exitcode(status))


def _be_run(link: socket.socket, order: WorkOrder, spare: int) -> None:
    os.setpgid(0, 0)  # a group, to be ended as one; no session, which the kernel would weigh like another user's
    _end_with(spare)
    code = 1
    try:
        _say(link, begun=os.getpid())
        for item in stream(order, cancelled=lambda: bool(select.select([link], [], [], 0)[0])):
            _say(link, **({"result": item.to_json()} if isinstance(item, RunResult) else {"step": item}))
        code = 0
    except BaseException as error:  # noqa: BLE001  (it has nowhere else to go)
        with contextlib.suppress(OSError):
            _say(link, raised=f"{type(error).__name__}: {error}"[:300])
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)  # past what the user's code wants to be done at the end, which may hang


def _say(link: socket.socket, **said: Any) -> None:
    link.sendall(json.dumps(said).encode() + b"\n")


def _warm() -> None:
    """Have done what the first run of a process waits for; nothing that looks for a GPU, which forbids to fork."""
    weights = torch.nn.Parameter(torch.zeros(1))
    torch.optim.Adam([weights]).zero_grad()


def _end_with(parent: int) -> None:
    """Have the kernel end this process with the one that started it, whatever either of them does."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it has gone already
        os._exit(1)


if __name__ == "__main__":
    main(int(sys.argv[1]))
