"""A study's metrics for Prometheus, served over HTTP while its controller runs."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from remedy.search.ledger import Item
from remedy.search.spec import Spec
from remedy.spaces.error import InfrastructureError, InputError
from remedy.spaces.outcome import Outcome
from remedy.workers.order import WorkOrder
from remedy.workers.result import RunResult

if TYPE_CHECKING:
    from threading import Thread
    from wsgiref.simple_server import WSGIServer

    from remedy.search.controller import Controller

VARIABLE = "REMEDY_METRICS"
_SECONDS = (1, 5, 15, 60, 300, 900, 3600, 10_800, 43_200, 86_400)
_LAST_PORT = 65_535


class Metrics:
    """Hears how a study goes, and serves it at `http://HOST:PORT/metrics` until it is closed.

    The counters are those of this process: they begin at 0 when a study is resumed, as Prometheus expects of a process
    that was started again. A controller serves one study, so every series carries its name.
    """

    def __init__(self, host: str, ports: range, spec: Spec, waiting: Callable[[], int] = lambda: 0) -> None:
        """Serve on the first port that is free; `waiting` tells how many rows the record has not written.

        Raises:
            InfrastructureError: no port is free, or the host is none of this machine's.
        """
        # Studies that export nothing do not wait for this import.
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info  # noqa: PLC0415

        self.registry = registry = CollectorRegistry()
        study = spec.study
        self._runs = Counter(
            "remedy_runs", "Runs that ended, lost ones included.", ("study", "outcome", "phase"), registry=registry
        )
        self._seconds = Histogram(
            "remedy_run_seconds", "Wall time of a run.", ("study",), buckets=_SECONDS, registry=registry
        ).labels(study)
        self._trained = Counter(
            "remedy_steps_trained", "Optimizer steps that were trained.", ("study",), registry=registry
        ).labels(study)
        self._saved = Counter(
            "remedy_steps_saved", "Optimizer steps that early stopping spared.", ("study", "cause"), registry=registry
        )
        self._running = Gauge("remedy_runs_running", "Runs under way.", ("study",), registry=registry).labels(study)
        self._lost = Gauge(
            "remedy_runs_lost_in_a_row", "Runs lost to infrastructure since one ended.", ("study",), registry=registry
        ).labels(study)
        self._fixes = Gauge(
            "remedy_fixes_confirmed", "Fixes confirmed on fresh seeds.", ("study",), registry=registry
        ).labels(study)
        Gauge(
            "remedy_record_waiting_rows", "Rows that the MLflow record has not written.", ("study",), registry=registry
        ).labels(study).set_function(waiting)
        self._tick = Gauge(
            "remedy_controller_last_tick_timestamp_seconds",
            "When the controller last looked after its runs (Unix time).",
            ("study",),
            registry=registry,
        ).labels(study)
        self._tick.set(time.time())
        info = Info("remedy_study", "The study that this controller conducts.", ("study",), registry=registry)
        info.labels(study).info({"training": spec.source.name, "metric": spec.metric, "goal": f"{spec.goal:g}"})
        self._study = study
        self._server: WSGIServer | None
        self._server, self._thread = self._serve(host, ports)
        name = f"[{host}]" if ":" in host else host
        self.address = f"{name}:{self._server.server_port}"
        """HOST:PORT that is served."""

    @classmethod
    def of(cls, environ: Mapping[str, str], spec: Spec, waiting: Callable[[], int] = lambda: 0) -> Metrics | None:
        """Serve where `REMEDY_METRICS` says, or return None where it says nothing.

        Raises:
            InputError: it says no address.
            InfrastructureError: nothing can be served there.
        """
        asked = environ.get(VARIABLE, "").strip()
        if not asked:
            return None
        host, _, ports = asked.rpartition(":")
        first, dash, last = ports.partition("-")
        low, high = _port(first), _port(last) if dash else _port(first)
        if not host or low is None or high is None or high < low:
            msg = (
                f"{VARIABLE} is {asked!r}; it may be HOST:PORT, such as 127.0.0.1:9101, or HOST:FIRST-LAST where "
                f"several studies run on one machine (ports 1 to {_LAST_PORT})"
            )
            raise InputError(msg)
        return cls(host.strip("[]"), range(low, high + 1), spec, waiting)

    def ended(self, order: WorkOrder, item: Item, result: RunResult) -> None:  # noqa: ARG002
        self._runs.labels(self._study, str(result.outcome), str(item.phase)).inc()
        self._seconds.observe(result.seconds)
        self._trained.inc(result.steps)
        if result.saved_by:
            self._saved.labels(self._study, result.saved_by).inc(max(0, result.steps_full - result.steps))
        # A run that is given up after its last loss ends as `failed`, and its reason begins with that.
        if result.outcome is Outcome.LOST or result.reason.startswith("lost "):
            self._lost.inc()
        else:
            self._lost.set(0)

    def tick(self, controller: Controller) -> None:
        self._tick.set(time.time())
        self._running.set(len(controller.running))
        self._fixes.set(len(controller.agenda.fixes))

    def close(self) -> None:
        """Free the port. Twice is once."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            self._thread.join()
            server.server_close()

    def _serve(self, host: str, ports: range) -> tuple[WSGIServer, Thread]:
        from prometheus_client import start_http_server  # noqa: PLC0415

        for port in ports:
            try:
                return start_http_server(port, host, self.registry)
            except OSError as error:
                if error.errno == errno.EADDRINUSE and port != ports[-1]:
                    continue
                tried = str(port) if len(ports) == 1 else f"{ports[0]}-{ports[-1]}"
                why = "no port is free" if len(ports) > 1 and error.errno == errno.EADDRINUSE else error.strerror
                msg = f"metrics cannot be served at {host}:{tried} ({VARIABLE}): {why or error}"
                raise InfrastructureError(msg) from None
        raise AssertionError(ports)


def _port(text: str) -> int | None:
    return int(text) if text.isdecimal() and 0 < int(text) <= _LAST_PORT else None
