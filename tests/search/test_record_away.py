"""The record, when the store is away, comes back, or refuses."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
import uuid
from urllib.request import urlopen

import pytest

from remedy.search import outbox, rows
from remedy.search.outbox import SPOOL
from remedy.search.record import Record
from remedy.search.store import Store
from tests.search.recording import REPORT, SLOTS, children, open_record, order, result, written


@pytest.fixture(scope="module")
def uri(tmp_path_factory):
    return f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"  # made once: that takes a second


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(outbox, "_FIRST_DELAY", 0.05)
    monkeypatch.setattr(outbox, "_LAST_DELAY", 0.2)


@pytest.fixture
def client(uri):
    from mlflow import MlflowClient

    return MlflowClient(uri)


def test_a_store_that_is_away_stops_nothing_and_gets_all_of_it_later(uri, client, tmp_path, capfd):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    away = Record(f"http://me:hunter2@127.0.0.1:{port}", tmp_path, f"e-{uuid.uuid4().hex}")
    began = time.perf_counter()
    away.begin("s", {}, {}, None, None)
    for number in range(5):
        away.run(order(number), result(number), SLOTS, None)
    away.finish(REPORT, "note", [])
    assert time.perf_counter() - began < 1
    assert not away.close(30)
    assert away.parent_run_id is None
    assert "7 of the study's records" in away.failures
    assert "hunter2" not in away.failures + away.tracking_uri
    spool = tmp_path / "studies" / "s" / SPOOL
    lines = [rows.from_line(line) for line in spool.read_text().splitlines()]
    assert [type(line) for line in lines] == [rows.Parent, *[rows.Child] * 5, rows.Finish]

    assert capfd.readouterr() == ("", "")

    later = Record(uri, tmp_path, "ignored: the spool says which")
    assert later.deliver("s")
    written(later)
    assert [run.info.start_time for run in children(client, later)] == [line.start for line in lines[1:-1]]
    assert client.get_run(later.parent_run_id).info.status == "FINISHED"
    assert not spool.exists()
    assert not Record(uri, tmp_path, "e").deliver("s")


def test_a_row_the_store_refuses_is_put_aside_and_the_others_go_on(uri, client, tmp_path, monkeypatch):
    real = Store.write

    def write(self, row):
        if row.number == 1:
            raise ValueError("this one never")
        real(self, row)

    monkeypatch.setattr(Store, "write", write)
    record = open_record(uri, tmp_path, study="s")
    for number in range(3):
        record.run(order(number), result(number), SLOTS, None)
    assert not record.close(60)
    assert record.recorded == {0, 2}
    assert "this one never" in record.failures
    monkeypatch.undo()
    later = open_record(uri, tmp_path, study="s", experiment=record.experiment)
    written(later)
    assert later.parent_run_id == record.parent_run_id
    assert len(children(client, later)) == 3


def test_a_spool_that_cannot_be_read_is_put_aside(uri, tmp_path, capsys):
    spool = tmp_path / "studies" / "s" / SPOOL
    spool.parent.mkdir(parents=True)
    spool.write_text('{"kind": "chi')
    written(open_record(uri, tmp_path, study="s"))
    assert spool.with_suffix(".unreadable").exists()
    assert "cannot be read" in capsys.readouterr().err


@contextlib.contextmanager
def server(folder, port):
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--port", str(port)]
    command += ["--backend-store-uri", f"sqlite:///{folder}/m.db", "--artifacts-destination", str(folder / "artifacts")]
    settings = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (folder / "server.log").open("ab") as log:
        running = subprocess.Popen(command, env=settings, stdout=log, stderr=log, start_new_session=True, cwd=folder)
        try:
            until = time.monotonic() + 120
            while time.monotonic() < until:
                with contextlib.suppress(OSError), urlopen(f"http://127.0.0.1:{port}/health", timeout=2):
                    break
                time.sleep(0.2)
            yield
        finally:
            os.killpg(running.pid, 9)
            running.wait()


def test_a_server_that_dies_and_comes_back_has_every_run_once(tmp_path):
    from mlflow import MlflowClient

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (tmp_path / "report.json").write_text("{}")
    with server(tmp_path, port):
        record = open_record(f"http://127.0.0.1:{port}", tmp_path / "home", study="s")
        for number in range(4):
            record.run(order(number), result(number), SLOTS, None)
        until = time.monotonic() + 60
        while len(record.recorded) < 2 and time.monotonic() < until:
            time.sleep(0.01)
    for number in range(4, 8):
        record.run(order(number), result(number), SLOTS, None)
    spool = tmp_path / "home" / "studies" / "s" / SPOOL
    until = time.monotonic() + 60
    while not (record.failures and spool.exists()) and time.monotonic() < until:
        time.sleep(0.05)
    assert spool.exists()  # a killed session would leave it
    record.finish(REPORT, "note", [tmp_path / "report.json"])
    with server(tmp_path, port):
        written(record)
        client = MlflowClient(f"http://127.0.0.1:{port}")
        runs = children(client, record)
        assert [run.data.tags["remedy.run"] for run in runs] == [str(number) for number in range(8)]
        assert {run.info.status for run in runs} == {"FINISHED"}
        assert all(run.data.metrics["final_metric"] == 0.97 for run in runs)
        assert [found.path for found in client.list_artifacts(record.parent_run_id)] == ["report.json"]
    assert not list(tmp_path.rglob(SPOOL))
