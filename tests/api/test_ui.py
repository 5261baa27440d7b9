"""`remedy ui`."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.request import urlopen

import pytest

from remedy.commands.ui import serve
from remedy.search.links import view_link
from remedy.search.record import Record
from remedy.spaces.error import InfrastructureError, InputError


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in ("URI", "TOKEN", "USERNAME", "PASSWORD"):
        monkeypatch.delenv(f"MLFLOW_TRACKING_{name}", raising=False)


@pytest.fixture
def port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def make_study(home, name, parent):
    folder = home / "studies" / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "study.json").write_text("{}")
    (folder / "report.json").write_text(json.dumps({"mlflow": {"parent_run_id": parent}}))
    return folder


@pytest.fixture
def fake(monkeypatch):
    """A server that knows one run, without our views, and wants a password."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            allowed = self.headers.get("Authorization") == "Basic bWU6aHVudGVyMg=="
            known = "run_id=abc" in self.path or "experiment_id=7" in self.path
            self.send_response(200 if allowed and known else 404 if allowed else 401)
            self.end_headers()
            self.wfile.write(b'{"run": {"info": {"experiment_id": "7"}}, "experiment": {"tags": []}}')

        def log_message(self, *args):
            pass

    server = HTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


def test_with_a_server_elsewhere_it_only_prints_where_the_studies_are(fake, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:hunter2@127.0.0.1:{fake}")
    make_study(tmp_path, "known", "abc")
    make_study(tmp_path, "unknown", "nope")
    (make_study(tmp_path, "unwritten", None) / "unrecorded.jsonl").write_text("")
    assert serve(tmp_path, 5000, None) == 0
    said = capsys.readouterr().out
    assert "hunter2" not in said
    assert f"http://***@127.0.0.1:{fake}/#/experiments/7/runs/abc?" in said
    assert "searchFilter=tags.mlflow.parentRunId" in said
    assert said.count("not in this MLflow") == 2
    assert "`remedy resume unwritten`" in said


def test_a_server_that_refuses_or_is_away_is_said_in_a_sentence(fake, tmp_path, monkeypatch, port):
    make_study(tmp_path, "known", "abc")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{fake}")
    with pytest.raises(InfrastructureError, match="answers 401"):
        serve(tmp_path, 5000, "known")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    with pytest.raises(InfrastructureError, match="cannot be reached"):
        serve(tmp_path, 5000, "known")


def test_bad_input_is_one_sentence(tmp_path):
    with pytest.raises(InputError, match="nothing is recorded"):
        serve(tmp_path, 5000, None)
    with pytest.raises(InputError, match="no study 'x'"):
        serve(tmp_path, 5000, "x")
    (tmp_path / "mlflow.db").touch()
    with pytest.raises(InputError, match="1 to 65535"):
        serve(tmp_path, 70000, None)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(InputError, match="cannot be used: Address already in use"):
            serve(tmp_path, taken.getsockname()[1], None)


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_the_home_until_it_is_interrupted(kind, tmp_path, port):
    record = Record(None, tmp_path, "e")
    record.begin("s", {}, {}, None, None)
    assert record.close(60)
    make_study(tmp_path, "s", record.parent_run_id)
    # A shell without job control has its background processes, and all they start, ignore SIGINT.
    code = """
import pathlib, signal, sys
from remedy.commands.ui import serve
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.exit(serve(pathlib.Path(sys.argv[1]), int(sys.argv[2]), None))
"""
    running = subprocess.Popen(
        [sys.executable, "-u", "-c", code, str(tmp_path), str(port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    said = []
    for line in running.stdout:
        said.append(line)
        if "those that converged" in line:
            break
    with urlopen(f"http://127.0.0.1:{port}/", timeout=10) as page:
        assert page.status == 200
    running.send_signal(kind)
    rest, errors = running.communicate(timeout=60)
    assert (running.returncode, errors) == (0, "")
    assert "is stopped" in rest
    link = view_link(record.experiment_id, record.parent_run_id)
    assert f"http://127.0.0.1:{port}{link}\n" in "".join(said)
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port), timeout=2)
