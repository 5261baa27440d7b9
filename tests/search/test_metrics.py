"""What Prometheus is told is asked over HTTP, as Prometheus asks."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from remedy.search.metrics import Metrics
from remedy.spaces.error import InfrastructureError, InputError
from remedy.spaces.outcome import Outcome
from remedy.workers.result import RunResult
from tests.search.scripted import SMALL, STEPS, bench, needs, spec

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@contextlib.contextmanager
def serving(ports: str = "", waiting=lambda: 0) -> Iterator[Metrics]:
    metrics = Metrics.of({"REMEDY_METRICS": f"127.0.0.1:{ports or free_port()}"}, spec(), waiting)
    assert metrics is not None
    try:
        yield metrics
    finally:
        metrics.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def asked(metrics: Metrics) -> Samples:
    with urllib.request.urlopen(f"http://{metrics.address}/metrics", timeout=30) as answer:
        families = text_string_to_metric_families(answer.read().decode())
        return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def total(samples: Samples, name: str, **labels: str) -> float:
    return sum(value for (n, had), value in samples.items() if n == name and set(labels.items()) <= had)


@pytest.mark.usefixtures("in_memory")
def test_a_study_tells_what_it_did(tmp_path: Path) -> None:
    study = bench(tmp_path, needs("smaller"), 4, SMALL, fixes=1)
    controller, _ = study.controller()
    with serving(waiting=lambda: 17) as metrics:
        controller.listeners.append(metrics)
        controller.run()
        samples = asked(metrics)
    entries = controller.agenda.ledger.entries
    results = [entry.result for entry in entries]
    assert total(samples, "remedy_runs_total", study="scripted") == len(entries) > 10
    for outcome in Outcome:
        want = sum(result.outcome is outcome for result in results)
        assert total(samples, "remedy_runs_total", outcome=str(outcome)) == want
    for phase in {entry.item.phase for entry in entries}:
        assert total(samples, "remedy_runs_total", phase=str(phase)) == sum(e.item.phase is phase for e in entries)
    assert total(samples, "remedy_run_seconds_count") == len(entries)
    assert total(samples, "remedy_run_seconds_sum") == pytest.approx(sum(result.seconds for result in results))
    assert total(samples, "remedy_steps_trained_total") == controller.agenda.ledger.steps
    saved = sum(STEPS - result.steps for result in results if result.saved_by == "collapse")
    assert total(samples, "remedy_steps_saved_total", cause="collapse") == saved > 0
    assert total(samples, "remedy_fixes_confirmed") == len(controller.agenda.fixes) == 1
    assert total(samples, "remedy_runs_running") == 0
    assert total(samples, "remedy_record_waiting_rows") == 17
    assert total(samples, "remedy_study_info", training=spec().source.name, metric="accuracy", goal="0.9") == 1
    assert 0 <= time.time() - total(samples, "remedy_controller_last_tick_timestamp_seconds") < 60


@pytest.mark.usefixtures("in_memory")
def test_runs_lost_in_a_row_are_counted_until_one_ends(tmp_path: Path) -> None:
    study = bench(tmp_path, needs("smaller"), 1, SMALL)
    study.loses = lambda order: True
    controller, _ = study.controller()
    with serving() as metrics:
        controller.listeners.append(metrics)
        with pytest.raises(InfrastructureError):
            controller.run()
        samples = asked(metrics)
        lost = total(samples, "remedy_runs_lost_in_a_row")
        # All were lost; a run that is given up counts as failed, and is a loss in the row all the same.
        assert lost == len(controller.agenda.ledger.entries) > total(samples, "remedy_runs_total", outcome="lost") > 0
        item = controller.agenda.ledger.entries[0].item
        metrics.ended(None, item, RunResult(99, Outcome.COLLAPSED))
        assert total(asked(metrics), "remedy_runs_lost_in_a_row") == 0


@pytest.mark.parametrize("environ", [{}, {"REMEDY_METRICS": ""}, {"REMEDY_METRICS": " "}])
def test_nothing_is_served_where_nothing_is_asked(environ: dict[str, str]) -> None:
    assert Metrics.of(environ, spec()) is None


@pytest.mark.parametrize(
    "value", ["9101", ":9101", "localhost", "localhost:", "h:0", "h:65536", "h:x", "h:-1", "h:20-10", "h:1-2-3", "h:²"]
)
def test_an_address_that_is_none_is_refused_in_one_sentence(value: str) -> None:
    with pytest.raises(InputError) as told:
        Metrics.of({"REMEDY_METRICS": value}, spec())
    assert repr(value) in str(told.value)
    assert "HOST:PORT" in str(told.value)
    assert "\n" not in str(told.value)


def test_a_port_in_use_is_an_infrastructure_error_that_names_it() -> None:
    with serving() as metrics, pytest.raises(InfrastructureError) as told:
        Metrics.of({"REMEDY_METRICS": metrics.address}, spec())
    assert metrics.address in str(told.value)
    assert "REMEDY_METRICS" in str(told.value)


def test_several_studies_on_one_machine_share_a_range_of_ports() -> None:
    first = free_port()
    with serving(f"{first}-{first + 1}") as one, serving(f"{first}-{first + 1}") as two:
        assert {one.address, two.address} == {f"127.0.0.1:{first}", f"127.0.0.1:{first + 1}"}
        with pytest.raises(InfrastructureError, match="no port is free"):
            Metrics.of({"REMEDY_METRICS": f"127.0.0.1:{first}-{first + 1}"}, spec())


def test_a_host_that_is_not_ours_is_an_infrastructure_error() -> None:
    with pytest.raises(InfrastructureError, match=r"192\.0\.2\.1:9101"):
        Metrics.of({"REMEDY_METRICS": "192.0.2.1:9101"}, spec())


def test_the_port_is_free_again_after_close() -> None:
    with serving() as metrics:
        asked(metrics)
    metrics.close()
    with serving(metrics.address.rpartition(":")[2]) as again:
        assert asked(again)


def test_a_study_that_exports_nothing_does_not_import_the_library() -> None:
    code = "import sys, remedy.search.metrics; sys.exit('prometheus_client' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
