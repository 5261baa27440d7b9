"""The Ray of our own: nobody gets in without its token; that, and the controller's secrets, stay where they are."""

from __future__ import annotations

import contextlib
import json
import math
import os
import pickletools
import signal
import stat
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

from remedy.spaces.outcome import Outcome
from remedy.spaces.symptom import Symptom
from remedy.spaces.target import find
from remedy.spaces.verdict import Verdict
from remedy.workers.order import Phase, WorkOrder
from remedy.workers.result import RunResult, from_line, to_line
from tests.security.looking import Trap, family, listening, said_on_start

SECRET = "hunter2-and-more"
CREDENTIALS = ("REMEDY_STORAGE", "MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD",
               "MLFLOW_TRACKING_TOKEN")  # fmt: skip
CLIENT = """
import sys
from ray._raylet import GcsClient
print(len(GcsClient(address=sys.argv[1]).get_all_node_info(timeout=20)))
"""
TRAINING = """
import json, os
from pathlib import Path

import torch
from torch import nn

import remedy

HERE = Path(__file__).parent


class Number(float):
    def __reduce__(self):
        return os.mkdir, (str(HERE / "trapped-by-number"),)


class Fault(Exception):
    def __reduce__(self):
        return os.mkdir, (str(HERE / "trapped-by-fault"),)

    def __str__(self):
        return "nothing to see"


def data():
    x = torch.randn(64, 2)
    whole = torch.utils.data.TensorDataset(x, (x[:, 0] > 0).long())
    return whole, whole


def metric(outputs, targets):
    (HERE / "environment.json").write_text(json.dumps(dict(os.environ)))
    (HERE / "started").write_bytes(Path("/proc/self/environ").read_bytes())
    return Number(0.5)


def raising(outputs, targets):
    raise Fault(Number(1.0))


class Leaving(BaseException):
    def __reduce__(self):
        return os.mkdir, (str(HERE / "trapped-by-leaving"),)


def leaving(outputs, targets):
    raise Leaving("of a kind of its own")


def training():
    return remedy.Training(
        model=lambda: nn.Linear(2, 2),
        data=data,
        loss=nn.CrossEntropyLoss(),
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1),
        batch_size=32,
        steps=4,
        metric=METRIC,
        mode="max",
        goal=0.1,
    )
"""


CONTROLLER = """
import json, os, sys

from remedy.workers.ray_executor import RayExecutor, ray
from remedy.workers.executor import Finished
from remedy.workers.order import Phase, WorkOrder
from remedy.spaces.target import find

executor = RayExecutor(1)
gcs, token = ray.get_runtime_context().gcs_address, os.environ["RAY_AUTH_TOKEN"]
print(json.dumps({"gcs": gcs, "folder": str(executor._folder), "token": token}), flush=True)
for line in sys.stdin:
    place = line.strip()
    executor.submit(WorkOrder(0, find(f"{place}/train.py:training"), {}, 0, 0, Phase.BASELINE, log=f"{place}/log"))
    (event,) = [event for _ in range(24) for event in executor.wait(5) if isinstance(event, Finished)]
    print(json.dumps([event.result.outcome, event.result.reason]), flush=True)
executor.close()
"""


class Controller:
    """A process that holds credentials, and a Ray of its own with one worker; its home held no token."""

    def __init__(self, home: Path) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "MLFLOW_"))}
        own = {"HOME": str(home), "RAY_memory_monitor_refresh_ms": "0"}
        own |= dict.fromkeys(CREDENTIALS, f"http://me:{SECRET}@127.0.0.1:9")
        self.home = home
        self.process = subprocess.Popen(
            [sys.executable, "-c", CONTROLLER],
            env={**kept, **own},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        told = self._read()
        self.gcs, self.folder, self.token = told["gcs"], Path(told["folder"]), told["token"]

    def _read(self) -> Any:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def train(self, folder: Path, metric: str) -> tuple[str, str]:
        """Run a training in the worker; return its outcome and the reason."""
        (folder / "train.py").write_text(TRAINING.replace("METRIC", metric))
        assert self.process.stdin is not None
        self.process.stdin.write(f"{folder}\n")
        self.process.stdin.flush()
        outcome, reason = self._read()
        return outcome, reason

    def pids(self) -> list[int]:
        """It and all that it started."""
        return family(self.process.pid)

    def close(self) -> None:
        """End it, in peace if it can be."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.communicate(timeout=30)
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture(scope="module")
def ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Controller]:
    controller = None
    try:
        controller = Controller(tmp_path_factory.mktemp("home"))
        yield controller
    finally:
        if controller is not None:
            controller.close()


def asked(gcs: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Ask the head for its nodes, from a process of its own."""
    plain = {"PATH": os.environ["PATH"], "HOME": str(folder)}
    return subprocess.run(
        [sys.executable, "-c", CLIENT, gcs],
        env={**plain, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_who_has_no_token_is_refused_and_who_has_it_is_let_in(ray, tmp_path):
    right = asked(ray.gcs, tmp_path, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=ray.token)
    assert (right.returncode, right.stdout) == (0, "1\n"), right.stderr
    for wrong in ({"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}):
        answer = asked(ray.gcs, tmp_path, **wrong)
        assert answer.returncode != 0
        assert "InvalidAuthToken" in answer.stderr


def test_it_listens_on_this_machine_alone(ray):
    found = listening(ray.pids())
    assert len(found) > 5
    assert {address for address, _ in found} <= {"0100007F", "0000000000000000FFFF00000100007F"}, "127.0.0.1"


def test_no_port_of_it_takes_a_job_from_a_stranger(ray, tmp_path):
    mark = tmp_path / "mark"
    job = json.dumps({"entrypoint": f"mkdir {mark}"}).encode()
    ports = {port for _, port in listening(ray.pids())}
    assert ports
    said = {}
    for port in ports:
        for path in ("/api/jobs/", "/api/job_agent/jobs/"):
            call = urllib.request.Request(f"http://127.0.0.1:{port}{path}", job, {"Content-Type": "application/json"})
            with contextlib.suppress(OSError, ValueError, Exception), urllib.request.urlopen(call, timeout=3) as answer:
                said[port, path] = answer.status
    assert said == {}
    assert not mark.exists()


def test_the_token_is_on_no_command_line_in_no_file_and_in_no_home(ray):
    token = ray.token
    assert len(token) >= 32
    everyone = ray.pids()
    assert len(everyone) > 4
    assert not [pid for pid in everyone if token in said_on_start(pid)]
    holding = [path for path in ray.folder.rglob("*") if path.is_file() and token.encode() in path.read_bytes()]
    assert holding == []
    written = ray.home / ".ray" / "auth_token"
    assert not written.exists() or stat.S_IMODE(written.stat().st_mode) == 0o600


def test_other_users_of_the_machine_see_nothing_of_its_folder(ray):
    # Sockets and logs lie in it, and Ray opens what it is given to everybody.
    assert stat.S_IMODE(ray.folder.stat().st_mode) & 0o077 == 0


def test_a_worker_holds_no_credentials(ray, tmp_path):
    assert ray.train(tmp_path, "metric") == ("converged", "")
    seen = json.loads((tmp_path / "environment.json").read_text())
    assert {name: seen[name] for name in CREDENTIALS if seen.get(name)} == {}
    assert SECRET not in str(seen)
    assert SECRET.encode() not in (tmp_path / "started").read_bytes(), "what it was started with can be read still"


def test_objects_of_the_users_code_do_not_come_back(ray, tmp_path):
    with pytest.raises(OSError, match="No such file"):  # the trap does work: this is what it does where it is loaded
        cloudpickle.loads(cloudpickle.dumps(Trap(tmp_path / "nowhere" / "trapped")))
    assert ray.train(tmp_path, "metric")[0] == "converged"
    outcome, reason = ray.train(tmp_path, "raising")
    assert (outcome, "nothing to see" in reason) == ("failed", True)
    assert ray.train(tmp_path, "leaving") == ("lost", "its worker raised Leaving: of a kind of its own")
    assert not list(tmp_path.glob("trapped-*"))


def test_a_result_comes_back_as_text():
    verdict = Verdict(Symptom.CLASS_TAKEOVER, 3, 2, "0.99 of all")
    whole = RunResult(7, Outcome.COLLAPSED, "why", 0.5, 3, 9, 1.5, verdict, verdict, "too late", 2, (verdict,),
                      curves={"metric": ((1, 0.25),)},
                      goal_step=2, first_losses=(0.5, math.inf), setting={"chance": math.inf, "kind": "x"})  # fmt: skip
    for item in (whole, (5, 0.1), (5, None), None):
        line = to_line(item)
        assert type(line) is str
        found = from_line(line)
        assert (tuple(found) if isinstance(found, list) else found) == item
    assert math.isnan(from_line(to_line(RunResult(1, Outcome.LOST))).metric)


def test_an_order_is_plain_data():
    source = find(f"{__file__}:asked")
    order = WorkOrder(3, source, {"gradient": "clip_norm", "clip_norm.max_norm": 0.5}, 1, 2, Phase.SEARCH, log="log")
    names = [(str(arg), code.name) for code, arg, _ in pickletools.genops(cloudpickle.dumps(order)) if arg is not None]
    modules = {text for text, kind in names if "." in text and "UNICODE" in kind and text.split(".")[0] != "clip_norm"}
    mine = {source.path, source.module} | {text for text in modules if text.startswith("remedy.")}
    assert modules <= mine | {"_pickle", "builtins"}, modules
