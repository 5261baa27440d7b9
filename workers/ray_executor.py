"""Runs on Ray: a pool of long-lived workers, one run at a time in each. The only file that knows Ray."""

from __future__ import annotations

import atexit
import logging
import os
import re
import secrets
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

# Ray reads these while it is imported; where the user's code has imported it before, it finds its own way to the token.
if "ray" not in sys.modules:
    os.environ.setdefault("RAY_AUTH_MODE", "token")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")  # or the death of a worker is told on the terminal, at length

import ray
from ray import exceptions

from remedy.spaces.error import InfrastructureError, InputError, TimeLimit
from remedy.spaces.outcome import Outcome
from remedy.spaces.process import reset_process
from remedy.workers.executor import Event, Finished, Progressed, time_limit
from remedy.workers.order import WorkOrder
from remedy.workers.result import OUT_OF_MEMORY, RunResult
from remedy.workers.run import Step, stream
from remedy.workers.under_way import START_SECONDS, UnderWay

INIT_SECONDS = 90.0
_STARTS = 3
_TAINTED = ("CUDA error", "out of memory", "CUDNN_STATUS", "can't allocate memory")
_TOKEN = secrets.token_hex(32)  # Ray keeps the first token it sees for as long as the process lives


class _Worker:
    """Lives in a process of its own, and trains one run after the other."""

    def __init__(self, *, gpu: bool) -> None:
        if not gpu:  # Ray leaves the variable alone for whoever asks for no GPU, and torch has not looked yet
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        # Ray's handler raises SystemExit in the midst of the user's code, which may catch it and go on.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        reset_process()

    def ready(self) -> None:
        """Answer, once torch is imported."""

    def run(self, order: WorkOrder) -> Iterator[Step | RunResult | None]:
        """Yield None when the run begins, its progress, and last its result."""
        cancelled = ray.get_runtime_context().is_canceled
        self._result: RunResult | None = None
        self._ending = False
        self._items = stream(order, cancelled=lambda: self._ending or cancelled())
        yield None
        for item in self._items:
            if isinstance(item, RunResult):
                self._result = item
            else:
                yield item
        yield self._result  # only now: the log is closed

    def end(self) -> RunResult | None:
        """Return the result of the cancelled run: Ray drops what it yields, and may leave it midway."""
        self._ending = True
        return next((item for item in self._items if isinstance(item, RunResult)), self._result)


class RayExecutor:
    """Runs on a Ray of its own on this machine, or on the cluster at `address`.

    Made and closed by one thread that lives as long, since Ray's processes end with the thread that started them.
    `environment` is for the workers, beside this process's own; `temp_dir` is short, or sockets in it find no name.

    Raises:
        InfrastructureError: Ray does not start, cannot be reached, or has not the GPUs; from `wait`: no worker starts.
        InputError: `address` is of a kind that cannot work.
    """

    def __init__(
        self,
        workers: int,
        gpus_per_run: float = 0.0,
        address: str | None = None,
        temp_dir: str = "/tmp",  # noqa: S108  (a folder with a name of its own is made in it)
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start or join a Ray and ask for the workers; the first that is ready takes the first run."""
        if ray.is_initialized():
            raise InfrastructureError("Ray is already in use in this process; end that first (ray.shutdown())")
        self._waiting: deque[WorkOrder] = deque()
        self._starting: dict[Any, tuple[Any, float]] = {}  # by its promise to be ready: a worker, and since when
        self._idle: list[Any] = []
        self._running: dict[Any, UnderWay] = {}  # by what its worker owes next: a stream of items, or its last result
        self._events: list[Event] = []
        self._failed_starts = 0
        self._gpu = gpus_per_run > 0
        self._closed = False
        self._folder = None if address else _start(workers, temp_dir)
        if address:
            _join(address)
        atexit.register(self.close)
        self.capacity = workers if address else _room(workers, gpus_per_run)
        self._worker: Any = ray.remote(_Worker).options(
            num_cpus=1,
            num_gpus=gpus_per_run,
            max_restarts=0,  # with a restart, the cause of a death is lost
            max_task_retries=0,
            runtime_env={"env_vars": dict(environment)} if environment else None,
        )
        for _ in range(self.capacity):
            self._spawn()

    def submit(self, order: WorkOrder) -> None:
        """Take the order; the next worker that is idle begins it."""
        self._waiting.append(order)
        self._assign()

    def wait(self, timeout: float) -> list[Event]:
        until = time.monotonic() + timeout
        events, self._events = self._events, []
        while self._running or self._waiting:
            self._assign()
            soonest = min([until, *(run.deadline for run in self._running.values()), *self._start_limits()])
            pause = 0.0 if events else max(0.0, soonest - time.monotonic())
            ready, _ = ray.wait([*self._starting, *self._running], num_returns=1, timeout=pause)
            for thing in ready:
                if thing in self._starting:
                    self._started(thing)
                elif event := self._take(thing):
                    events.append(event)
            if not ready:  # only now: who seems late may have been done before anybody looked
                events += self._overdue()
                if events or time.monotonic() >= until:
                    break
        return events

    def cancel(self, number: int) -> None:
        """End the order that has not begun, else ask its worker to end it; after a grace the worker is killed."""
        for thing, run in list(self._running.items()):
            if run.order.number == number and run.cancelled is None:
                run.cancelled = time.monotonic()
                if run.began is not None:
                    self._stop(thing)
        for order in [order for order in self._waiting if order.number == number]:
            self._waiting.remove(order)
            self._events.append(Finished(UnderWay(order, None, time.monotonic()).stopped()))

    def close(self) -> None:
        """End the workers and a Ray of our own, or leave the cluster, and remove what is left."""
        if self._closed:
            return
        self._closed = True
        atexit.unregister(self.close)
        for kept in (self._waiting, self._starting, self._idle, self._running):
            kept.clear()
        ray.shutdown()  # takes the workers along
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _spawn(self) -> None:
        actor = self._worker.remote(gpu=self._gpu)
        self._starting[actor.ready.remote()] = actor, time.monotonic()

    def _assign(self) -> None:
        while self._waiting and self._idle:
            actor, order = self._idle.pop(), self._waiting.popleft()
            items = actor.run.options(num_returns="streaming").remote(order)
            self._running[items] = UnderWay(order, actor, time.monotonic())

    def _take(self, thing: Any) -> Event | None:
        run = self._running[thing]
        streaming = isinstance(thing, ray.ObjectRefGenerator)
        try:
            item = ray.get(next(thing) if streaming else thing)
        except (exceptions.RayError, StopIteration) as error:
            result = run.stopped() if run.cancelled else run.result(Outcome.LOST, _why(error, "its worker died"))
            return self._end(thing, result, replace=True)
        if isinstance(item, RunResult):
            return self._end(thing, item, replace=any(sign in item.trace for sign in _TAINTED))
        if not streaming:
            return self._end(thing, run.stopped())
        if item is None:
            run.began = time.monotonic()
            if run.cancelled is not None:
                self._stop(thing)
            return None
        run.steps, metric = item
        return Progressed(run.order.number, run.steps, metric)

    def _stop(self, items: Any) -> None:
        # A cancelled stream gives nothing any more, and `next` on it blocks until the worker has listened.
        ray.cancel(items)
        run = self._running.pop(items)
        self._running[run.actor.end.remote()] = run

    def _started(self, promise: Any) -> None:
        actor, _ = self._starting.pop(promise)
        try:
            ray.get(promise)
        except exceptions.RayError as error:
            self._failed_starts += 1
            if self._failed_starts >= _STARTS:
                why = _why(error, _said(error, -1))
                raise InfrastructureError(f"{_STARTS} workers in a row did not start: {why}") from None
            self._spawn()
        else:
            self._failed_starts = 0
            self._idle.append(actor)

    def _end(self, thing: Any, result: RunResult, *, replace: bool = False) -> Finished:
        actor = self._running.pop(thing).actor
        if replace:
            ray.kill(actor, no_restart=True)  # no matter if it is dead already
            self._spawn()
        else:
            self._idle.append(actor)
        return Finished(result)

    def _overdue(self) -> list[Event]:
        now = time.monotonic()
        if any(limit <= now for limit in self._start_limits()):
            raise InfrastructureError(f"no worker was ready within {START_SECONDS:g} s; has Ray a CPU or GPU free?")
        late = [(thing, run) for thing, run in self._running.items() if run.deadline <= now]
        return [self._end(thing, run.killed(), replace=True) for thing, run in late]

    def _start_limits(self) -> list[float]:
        # Workers that a cluster has no room for yet are no trouble while there are others.
        if self._running or self._idle:
            return []
        return [since + START_SECONDS for _, since in self._starting.values()]


def _start(workers: int, temp_dir: str) -> str:
    """Start a Ray on this machine, for this process alone, and return its folder."""
    os.environ.setdefault("RAY_AUTH_TOKEN", _TOKEN)  # Ray's ports are open to the network
    folder = tempfile.mkdtemp(prefix="remedy-", dir=temp_dir)
    small = {"include_dashboard": False, "object_store_memory": 100 * 1024**2}
    said = ""
    for _ in range(2):
        try:
            _init(address="local", num_cpus=workers, _temp_dir=folder, **small)
        except Exception as error:  # noqa: BLE001  (a machine under load lets Ray fail in many ways)
            said = _said(error, 0)
            ray.shutdown()
        else:
            return folder
    raise InfrastructureError(f"Ray does not start on this machine: {said}; its logs are in {folder}")


def _join(address: str) -> None:
    if address.startswith("ray://"):
        raise InputError(f"address is {address!r}; it may be HOST:PORT of a Ray cluster's head, such as 10.0.0.1:6379")
    try:
        _init(address=address)
    except Exception as error:  # noqa: BLE001  (no route, no token, another version: Ray raises what it likes)
        hint = "does RAY_AUTH_TOKEN (or RAY_AUTH_TOKEN_PATH) hold the cluster's token?"
        raise InfrastructureError(f"cannot join the Ray cluster at {address}: {_said(error, 0)}; {hint}") from None


def _init(**settings: Any) -> None:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        with time_limit(INIT_SECONDS):
            ray.init(log_to_driver=False, logging_level=logging.ERROR, **settings)
    except TimeLimit:
        raise TimeoutError(f"not ready within {INIT_SECONDS:g} s") from None
    finally:
        for number, handler in handlers.items():  # Ray puts its own in their place
            if handler is not None and threading.current_thread() is threading.main_thread():
                signal.signal(number, handler)


def _room(workers: int, gpus_per_run: float) -> int:
    if not gpus_per_run:
        return workers
    gpus = float(ray.cluster_resources().get("GPU", 0.0))  # type: ignore[no-untyped-call]
    if gpus < gpus_per_run:
        raise InfrastructureError(f"a run asks for {gpus_per_run:g} GPUs, and Ray sees {gpus:g} on this machine")
    return min(workers, int(gpus / gpus_per_run + 1e-6))


def _why(error: Exception, otherwise: str) -> str:
    if isinstance(error, exceptions.OutOfMemoryError):
        return f"its worker was killed because the machine {OUT_OF_MEMORY}"
    if isinstance(error, exceptions.RayTaskError):
        return f"its worker raised {type(error.cause).__name__}: {_said(error.cause, 0)}"
    return "the machine of its worker is gone" if isinstance(error, exceptions.NodeDiedError) else otherwise


def _said(error: BaseException, line: int) -> str:
    lines = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip().splitlines() or [type(error).__name__]
    return lines[line].strip()[:300]
