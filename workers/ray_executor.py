"""Runs on Ray: a pool of long-lived workers, one run at a time in each. The only file that knows Ray."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from remedy.workers import ray_cluster  # before Ray: it decides what Ray reads while it is imported

# isort: split
import ray
from ray import exceptions

from remedy.spaces.error import InfrastructureError
from remedy.spaces.outcome import Outcome
from remedy.spaces.process import reset_process
from remedy.workers.executor import Event, Finished, Progressed
from remedy.workers.isolated import Isolated
from remedy.workers.order import WorkOrder
from remedy.workers.result import RunResult, from_line, to_line
from remedy.workers.run import stream
from remedy.workers.under_way import START_SECONDS, UnderWay

_STARTS = 3
_LOST_ON_A_NODE = 2
"""As often as a lost run is tried again: so its last attempt is made on another node."""
_TAINTED = ("CUDA error", "out of memory", "CUDNN_STATUS", "can't allocate memory")


class _Worker:
    """Lives in a process of its own, and trains one run after the other: there, or each in a fresh process."""

    def __init__(self, *, gpu: bool, isolate: bool = False) -> None:
        if not gpu:  # Ray leaves the variable alone for whoever asks for no GPU, and torch has not looked yet
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        # Ray's handler raises SystemExit in the midst of the user's code, which may catch it and go on.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        for name in ray_cluster.SECRETS:
            os.environ.pop(name, None)
        self._train = Isolated() if isolate else stream
        reset_process()

    def ready(self) -> str:
        """Answer, once torch is imported, on which node."""
        if isinstance(self._train, Isolated):
            self._train.ready()
        return ray.get_runtime_context().get_node_id()

    def run(self, order: WorkOrder) -> Iterator[str]:
        """Yield null when the run begins, its progress, and last its result: JSON, no object of the user's code."""
        cancelled = ray.get_runtime_context().is_canceled
        self._result: RunResult | None = None
        self._ending = False
        self._items = self._train(order, cancelled=lambda: self._ending or cancelled())
        yield to_line(None)
        with ray_cluster.in_words():
            for item in self._items:
                if isinstance(item, RunResult):
                    self._result = item
                else:
                    yield to_line(item)
        yield to_line(self._result)  # only now: the log is closed

    def end(self) -> str:
        """Return the result of the cancelled run: Ray drops what it yields, and may leave it midway."""
        self._ending = True
        with ray_cluster.in_words():
            return to_line(next((item for item in self._items if isinstance(item, RunResult)), self._result))


class RayExecutor:
    """Runs on a Ray of its own on this machine, or on the cluster at `address`.

    `workers` None means as many as the cluster has room for now. A run takes one CPU, a share of a GPU, and what
    `resources` names; Ray packs shares onto GPUs. A node on which runs are lost one after the other gets no more.
    With `isolate` each run has a fresh process.

    Made and closed by one thread that lives as long, since Ray's processes end with the thread that started them.
    `environment` is for the workers, beside this process's own; `temp_dir` is short, or sockets in it find no name.

    Raises:
        InfrastructureError: Ray does not start, cannot be reached, or has not the GPUs; from `wait`: no worker starts.
        InputError: `address` is of a kind that cannot work.
    """

    def __init__(
        self,
        workers: int | None,
        gpus_per_run: float = 0.0,
        address: str | None = None,
        temp_dir: str = "/tmp",  # noqa: S108  (a folder with a name of its own is made in it)
        environment: Mapping[str, str] | None = None,
        resources: Mapping[str, float] | None = None,
        *,
        isolate: bool = False,
    ) -> None:
        """Start or join a Ray and ask for the workers; the first that is ready takes the first run."""
        if ray.is_initialized():
            raise InfrastructureError("Ray is already in use in this process; end that first (ray.shutdown())")
        self._waiting: deque[WorkOrder] = deque()
        self._starting: dict[Any, tuple[Any, float]] = {}  # by its promise to be ready: a worker, and since when
        self._idle: list[Any] = []
        self._running: dict[Any, UnderWay] = {}  # by what its worker owes next: a stream of items, or its last result
        self._events: list[Event] = []
        self._nodes: dict[Any, str] = {}  # of each worker that is ready
        self._lost: Counter[str] = Counter()  # runs lost one after the other, by node
        self._shunned: list[str] = []
        self._failed_starts = 0
        self._asked = {"gpu": gpus_per_run > 0, "isolate": isolate}
        self._closed = False
        self._folder = None if address else ray_cluster.start(workers or os.cpu_count() or 1, temp_dir)
        if address:
            ray_cluster.join(address)
        atexit.register(self.close)
        self._share = {"CPU": 1.0, **({"GPU": gpus_per_run} if gpus_per_run else {}), **(resources or {})}
        self.capacity = self._room(workers, self._share, elastic=bool(address))
        self._worker: Any = ray.remote(_Worker)
        self._options: dict[str, Any] = {
            "num_cpus": 1,
            "num_gpus": gpus_per_run,
            "resources": dict(resources or {}),
            "max_restarts": 0,  # with a restart, the cause of a death is lost
            "max_task_retries": 0,
            "runtime_env": {"env_vars": dict(environment)} if environment else None,
        }
        for _ in range(self.capacity):
            self._spawn()

    def _room(self, workers: int | None, share: Mapping[str, float], *, elastic: bool) -> int:
        for name, part in share.items():
            most = ray_cluster.most(name)
            if name != "CPU" and most < part:
                self.close()
                raise InfrastructureError(f"a run asks for {part:g} of {name}, and Ray sees {most:g}")
        if workers is not None and (elastic or "GPU" not in share):
            return workers  # a cluster may grow
        fits = ray_cluster.room(share)
        if not fits:
            self.close()
            wanted = ", ".join(f"{part:g} {name}" for name, part in share.items())
            raise InfrastructureError(f"no node of the Ray cluster has room for a run ({wanted})")
        return fits if workers is None else min(workers, fits)

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
        for kept in (self._waiting, self._starting, self._idle, self._running, self._nodes):
            kept.clear()
        ray.shutdown()  # takes the workers along
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _spawn(self) -> None:
        elsewhere = {"ray.io/node-id": f"!in({','.join(self._shunned)})"} if self._shunned else None
        actor = self._worker.options(**self._options, label_selector=elsewhere).remote(**self._asked)
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
            item = from_line(ray.get(next(thing) if streaming else thing))
        except (exceptions.RayError, StopIteration) as error:
            result = (
                run.stopped() if run.cancelled else run.result(Outcome.LOST, ray_cluster.why(error, "its worker died"))
            )
            return self._end(thing, result, tainted=True)
        if isinstance(item, RunResult):
            return self._end(thing, item, tainted=any(sign in item.trace for sign in _TAINTED))
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
            node = ray.get(promise)
        except exceptions.RayError as error:
            self._failed_starts += 1
            if self._failed_starts >= _STARTS:
                why = ray_cluster.why(error, ray_cluster.said(error, -1))
                raise InfrastructureError(f"{_STARTS} workers in a row did not start: {why}") from None
            self._spawn()
        else:
            self._failed_starts = 0
            self._nodes[actor] = node
            if node in self._shunned:
                self._dismiss(actor)
            else:
                self._idle.append(actor)

    def _dismiss(self, actor: Any) -> None:
        ray.kill(actor, no_restart=True)  # no matter if it is dead already
        self._nodes.pop(actor, None)
        self._spawn()

    def _judge(self, actor: Any, result: RunResult) -> None:
        """Keep runs off a node on which they are lost one after the other, as long as one fits on another."""
        node = self._nodes.get(actor, "")
        if result.outcome is not Outcome.LOST or result.starved:
            self._lost[node] = 0
            return
        self._lost[node] += 1
        others = ray_cluster.room(self._share, without=(node, *self._shunned))
        if node and self._lost[node] >= _LOST_ON_A_NODE and others and node not in self._shunned:
            self._shunned.append(node)
            for idle in [idle for idle in self._idle if self._nodes.get(idle) == node]:
                self._idle.remove(idle)
                self._dismiss(idle)

    def _end(self, thing: Any, result: RunResult, *, tainted: bool = False) -> Finished:
        actor = self._running.pop(thing).actor
        if self._folder is None:  # one of many machines
            result = replace(result, node=self._nodes.get(actor, ""))
        self._judge(actor, result)
        if tainted or self._nodes.get(actor) in self._shunned:
            self._dismiss(actor)
        else:
            self._idle.append(actor)
        return Finished(result)

    def _overdue(self) -> list[Event]:
        now = time.monotonic()
        if any(limit <= now for limit in self._start_limits()):
            raise InfrastructureError(f"no worker was ready within {START_SECONDS:g} s; has Ray a CPU or GPU free?")
        late = [(thing, run) for thing, run in self._running.items() if run.deadline <= now]
        return [self._end(thing, run.killed(), tainted=True) for thing, run in late]

    def _start_limits(self) -> list[float]:
        # Workers that a cluster has no room for yet are no trouble while there are others.
        if self._running or self._idle:
            return []
        return [since + START_SECONDS for _, since in self._starting.values()]
