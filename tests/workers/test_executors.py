"""Every executor does the same with the same order, whatever the user's code does."""

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from remedy.spaces.error import InfrastructureError, InputError
from remedy.spaces.outcome import Outcome
from remedy.spaces.target import find
from remedy.workers.executor import Executor, Finished, InProcess, Progressed
from remedy.workers.order import Phase, WorkOrder
from remedy.workers.result import RunResult

PATIENCE = 60.0
TRAINING = """
import json, os, time
from pathlib import Path

import torch
from torch import nn

import remedy

HERE = Path(__file__).parent
calls = 0


def data():
    x = torch.randn(160, 4)
    y = (x[:, 0] > 0).long()
    sets = torch.utils.data.TensorDataset(x[:128], y[:128]), torch.utils.data.TensorDataset(x[128:], y[128:])
    return sets


def loss(outputs, targets):
    global calls
    calls += torch.is_grad_enabled()
    {act}
    return nn.functional.cross_entropy(outputs, targets)


def training():
    return remedy.Training(
        model=lambda: nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 2)),
        data=data,
        loss=loss,
        optimizer=lambda params: torch.optim.Adam(params, lr=0.02),
        batch_size=16,
        steps={steps},
        goal=0.9,
    )
"""
ENDLESS = 10_000_000
Make = Callable[..., WorkOrder]


@pytest.fixture
def order(tmp_path: Path) -> Make:
    """Write a training whose loss does what is asked at every call, and order a run of it."""
    made = 0

    def make(act: str = "pass", steps: int = 60, timeout: float | None = None, number: int = 0) -> WorkOrder:
        nonlocal made
        made += 1
        folder = tmp_path / f'it\'s "{made}" & more'
        folder.mkdir()
        file = folder / "my train'ing.py"
        file.write_text(TRAINING.format(act=act, steps=steps))
        log = str(folder / "logs" / "run 0.log")
        return WorkOrder(number, find(str(file)), {}, 1, 2, Phase.BASELINE, timeout=timeout, log=log)

    return make


def run(executor: Executor, order: WorkOrder) -> RunResult:
    executor.submit(order)
    return finished(executor, order.number)


def finished(executor: Executor, number: int) -> RunResult:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        for event in executor.wait(1.0):
            if isinstance(event, Finished) and event.result.number == number:
                return event.result
    pytest.fail("no result came")


def progressed(executor: Executor) -> Progressed:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        for event in executor.wait(1.0):
            if isinstance(event, Progressed):
                return event
    pytest.fail("no progress came")


def works(executor: Executor, order: Make) -> bool:
    return run(executor, order()).outcome is Outcome.CONVERGED


def seen(order: WorkOrder) -> dict[str, object]:
    return json.loads((Path(order.source.path).parent / "seen.json").read_text())


def test_a_run_is_the_same_wherever_it_is_trained(order, ray_executor):
    asked = order(number=7)
    here, there = run(InProcess(), asked), run(ray_executor, asked)
    assert here.outcome is Outcome.CONVERGED
    assert here.number == 7
    assert dataclasses.replace(here, seconds=0) == dataclasses.replace(there, seconds=0)


def test_what_the_users_code_raises_ends_its_run_only(executor, order):
    result = run(executor, order('if calls == 5: raise ZeroDivisionError("mine\\u00e9")'))
    assert result.outcome is Outcome.FAILED
    assert "ZeroDivisionError: mineé" in result.reason
    assert "my train'ing.py" in result.trace
    assert works(executor, order)


def test_a_run_that_hangs_is_ended_by_its_time_limit(executor, order):
    began = time.monotonic()
    result = run(executor, order("calls > 3 and time.sleep(3600)", timeout=2))
    assert result.outcome is Outcome.FAILED
    assert result.reason == "took longer than 2 s (--run-timeout)"
    assert 1.9 < result.seconds < 4
    assert time.monotonic() - began < 10
    assert works(executor, order)


def test_the_steps_of_a_run_that_took_too_long_are_counted(ray_executor, order):
    result = run(ray_executor, order("time.sleep(0.001)", steps=ENDLESS, timeout=2.5))
    assert result.outcome is Outcome.FAILED
    assert result.steps > 0


@pytest.mark.parametrize(
    "end", ["os._exit(7)", "os.kill(os.getpid(), 11)", "os.kill(os.getpid(), 9)"], ids=["exit", "segfault", "kill"]
)
def test_a_worker_that_dies_loses_one_run(ray_executor, order, end, capfd):
    result = run(ray_executor, order(f"calls == 5 and {end}"))
    assert result.outcome is Outcome.LOST
    assert result.reason == "its worker died"
    assert works(ray_executor, order)
    assert capfd.readouterr() == ("", "")


def test_a_cancelled_run_comes_back_stopped_with_all_it_knows(ray_executor, order):
    asked = order("time.sleep(0.0001)", steps=ENDLESS, number=3)
    ray_executor.submit(asked)
    progress = progressed(ray_executor)
    assert progress.number == 3
    began = time.monotonic()
    ray_executor.cancel(3)
    ray_executor.cancel(3)
    result = finished(ray_executor, 3)
    assert time.monotonic() - began < 5
    assert result.outcome is Outcome.STOPPED
    assert result.steps >= progress.steps > 0
    assert result.saved_by == "controller"
    assert result.curves
    assert works(ray_executor, order)


def test_a_run_that_is_cancelled_at_once_comes_back_stopped(ray_executor, order):
    ray_executor.submit(order(steps=ENDLESS, number=4))
    ray_executor.cancel(4)
    assert finished(ray_executor, 4).outcome is Outcome.STOPPED
    assert works(ray_executor, order)


def test_a_cancelled_run_that_does_not_listen_is_killed(ray_executor, order, monkeypatch):
    monkeypatch.setattr("remedy.workers.under_way.GRACE_SECONDS", 1.0)
    ray_executor.submit(order("calls > 3 and time.sleep(3600)"))
    assert ray_executor.wait(1.0) == []
    ray_executor.cancel(0)
    result = finished(ray_executor, 0)
    assert result.outcome is Outcome.STOPPED
    assert result.reason
    assert works(ray_executor, order)


def test_what_the_users_code_prints_is_in_the_log_and_nowhere_else(executor, order, capfd):
    asked = order('print("héllo", calls)')
    assert run(executor, asked).outcome is Outcome.CONVERGED
    assert "héllo 5\n" in Path(asked.log).read_text(encoding="utf-8")
    assert capfd.readouterr() == ("", "")


def test_a_run_that_wants_more_memory_than_there_is_is_lost_and_the_next_one_works(executor, order):
    result = run(executor, order("calls == 5 and torch.empty(2**50)"))
    assert result.outcome is Outcome.LOST
    assert result.starved
    assert "torch.empty" in result.trace
    assert works(executor, order)


LEAKS = {
    "torch.set_default_dtype(torch.float64)": "str(torch.get_default_dtype())",
    "torch.set_num_threads(3)": "torch.get_num_threads()",
    "torch.use_deterministic_algorithms(True)": "torch.are_deterministic_algorithms_enabled()",
    "torch.set_flush_denormal(False)": "float(torch.tensor([1e-40]) * 1)",
    "torch.manual_seed(5)": "torch.initial_seed()",
    "torch.set_default_device('meta')": "str(torch.get_default_device())",
    "torch.autograd.set_detect_anomaly(True)": "torch.is_anomaly_enabled()",
    "torch.set_float32_matmul_precision('medium')": "torch.get_float32_matmul_precision()",
    "os.chdir('/')": "os.getcwd()",
}


@pytest.mark.parametrize("leak", LEAKS, ids=lambda leak: leak.split("(")[0])
def test_what_the_users_code_sets_does_not_reach_the_next_run(executor, order, leak):
    look = f'calls == 1 and (HERE / "seen.json").write_text(json.dumps({LEAKS[leak]}))'
    before, after = order(look), order(look)
    first = run(executor, before)
    run(executor, order(f"calls == 2 and {leak}"))
    second = run(executor, after)
    assert seen(after) == seen(before)
    assert dataclasses.replace(second, seconds=0) == dataclasses.replace(first, seconds=0)


LIFE = """
import os, signal, sys

handler = lambda *_: None
signal.signal(signal.SIGTERM, handler)
signal.signal(signal.SIGINT, handler)

from remedy.spaces.target import find
from remedy.workers.order import Phase, WorkOrder
from remedy.workers.ray_executor import RayExecutor

target, temp_dir, log = sys.argv[1:]
executor = RayExecutor(1, temp_dir=temp_dir, environment={"REMEDY_TEST": "arrived"})
assert signal.getsignal(signal.SIGTERM) is handler
assert signal.getsignal(signal.SIGINT) is handler
executor.submit(WorkOrder(0, find(target), {}, 1, 2, Phase.BASELINE, log=log))
while not (ended := [event for event in executor.wait(1.0) if hasattr(event, "result")]):
    os.killpg(0, signal.SIGINT)  # what Ctrl-C does: everyone at this terminal gets it, and our runs go on
assert ended[0].result.outcome == "converged", ended
executor.submit(WorkOrder(1, find(target), {}, 1, 2, Phase.BASELINE, log=log))
executor.close()
executor.close()
"""


def test_ray_comes_and_goes_without_a_trace(order, tmp_path):
    asked = order('calls == 1 and print(os.environ["REMEDY_TEST"], repr(os.environ["CUDA_VISIBLE_DEVICES"]))')
    home = tmp_path / "home"
    home.mkdir()
    with tempfile.TemporaryDirectory(prefix="r") as temp_dir:  # a short one
        command = [sys.executable, "-c", LIFE, asked.source.path, temp_dir, asked.log]
        done = subprocess.run(
            command,
            check=False,
            env={**os.environ, "HOME": str(home)},
            capture_output=True,
            start_new_session=True,
            timeout=PATIENCE,
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
        assert not list(Path(temp_dir).iterdir())
    assert not list(home.iterdir())
    said = Path(asked.log).read_text()  # the second run may have been ended before it came to print
    assert said.removesuffix("arrived ''\n") in ("", "arrived ''\n"), "no traceback of a worker that was ended"


def test_a_process_has_one_ray(ray_executor):
    from remedy.workers.ray_executor import RayExecutor

    with pytest.raises(InfrastructureError, match="already in use"):
        RayExecutor(1)


def test_an_address_that_cannot_work_is_refused_in_one_sentence():
    from remedy.workers.ray_cluster import join

    with pytest.raises(InputError, match="HOST:PORT"):
        join("ray://10.0.0.1:10001")
