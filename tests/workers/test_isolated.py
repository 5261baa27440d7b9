"""With `--isolate` each run has a fresh process: what it leaves behind is gone, and what is killed is replaced."""

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from remedy.spaces.outcome import Outcome
from remedy.workers.executor import InProcess
from tests.workers.test_executors import ENDLESS, finished, order, progressed, run, seen, works  # noqa: F401  (a fixture)

PATIENCE = 120.0
NOTE = '(HERE / "seen.json").write_text(json.dumps({what}))'


@pytest.fixture
def own() -> Iterator[InProcess]:
    """One whose spare a test may kill."""
    executor = InProcess(isolate=True)
    yield executor
    executor.close()


def eventually(holds: Callable[[], bool]) -> bool:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        if holds():
            return True
        time.sleep(0.05)
    return False


def alive(pid: int) -> bool:
    """Whether a process runs; one that is dead and whom nobody has buried does not."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def marked(mark: str) -> list[int]:
    """The processes whose environment holds a mark."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark.encode() in (place / "environ").read_bytes() and alive(int(place.name)):
                found.append(int(place.name))
    return found


def without_time(result):
    return dataclasses.replace(result, seconds=0)


def test_results_are_the_same_and_each_run_has_a_process_of_its_own(isolated, order):  # noqa: F811
    orders = [order(f"calls == 1 and {NOTE.format(what='os.getpid()')}", number=number) for number in range(3)]
    here = [without_time(run(InProcess(), asked)) for asked in orders]
    assert {seen(asked) for asked in orders} == {os.getpid()}
    assert [without_time(run(isolated, asked)) for asked in orders] == here
    pids = {seen(asked) for asked in orders}
    assert len(pids) == 3
    assert not any(map(alive, pids))


def test_a_run_meets_nothing_of_the_one_before(isolated, order):  # noqa: F811
    what = '[hasattr(torch, "leaked"), nn.Linear.__name__, int(open("/proc/self/statm").read().split()[1]) * 4096]'
    before, after = (order(f"calls == 1 and {NOTE.format(what=what)}") for _ in range(2))
    first = run(isolated, before)
    leak = "torch.leaked = torch.ones(200 * 2**18); nn.Linear = nn.Bilinear; torch.set_default_dtype(torch.float64)"
    run(isolated, order(f"exec({leak!r})"))
    second = run(isolated, after)
    assert without_time(second) == without_time(first)
    assert seen(after)[:2] == seen(before)[:2] == [False, "Linear"]
    assert abs(seen(after)[2] - seen(before)[2]) < 50 * 2**20


@pytest.mark.parametrize("end", ["os._exit(7)", "os.kill(os.getpid(), 11)", "os.kill(os.getpid(), 9)"])
def test_a_run_that_dies_is_lost_and_the_next_one_works(isolated, order, end):  # noqa: F811
    result = run(isolated, order(f"calls == 5 and {end}"))
    assert (result.outcome, result.reason) == (Outcome.LOST, "its worker died")
    assert works(isolated, order)


def test_a_killed_spare_is_replaced(own, order):  # noqa: F811
    assert works(own, order)
    first = own._isolated._spare.pid
    os.kill(first, signal.SIGKILL)
    assert works(own, order)
    own.submit(order("time.sleep(0.0001)", steps=ENDLESS, number=1))
    progressed(own)
    training, second = own._isolated._run, own._isolated._spare.pid
    os.kill(second, signal.SIGKILL)
    assert finished(own, 1).outcome is Outcome.LOST
    assert works(own, order)
    assert len({first, second, own._isolated._spare.pid}) == 3
    assert eventually(lambda: not any(map(alive, (first, second, training))))


def test_what_a_run_has_started_ends_with_it(isolated, order):  # noqa: F811
    start = '__import__("subprocess").Popen(["sleep", "3600"]).pid'
    asked = order(f"calls == 1 and {NOTE.format(what=start)}")
    assert run(isolated, asked).outcome is Outcome.CONVERGED
    assert eventually(lambda: not alive(seen(asked)))


def test_a_cancelled_run_comes_back_stopped(isolated, order):  # noqa: F811
    isolated.submit(order("time.sleep(0.0001)", steps=ENDLESS, number=3))
    progress = progressed(isolated)
    isolated.cancel(3)
    result = finished(isolated, 3)
    assert (result.outcome, result.saved_by) == (Outcome.STOPPED, "controller")
    assert result.steps >= progress.steps > 0
    assert works(isolated, order)


def test_closing_ends_the_run_under_way_and_the_spare(order):  # noqa: F811
    executor = InProcess(isolate=True)
    executor.submit(order("time.sleep(0.0001)", steps=ENDLESS))
    progressed(executor)
    pids = executor._isolated._run, executor._isolated._spare.pid
    assert all(map(alive, pids))
    executor.close()
    executor.close()
    assert not any(map(alive, pids))


HOLDER = """
import sys
from remedy.spaces.target import find
from remedy.workers.executor import InProcess
from remedy.workers.order import Phase, WorkOrder

executor = InProcess(isolate=True)
executor.submit(WorkOrder(0, find(sys.argv[1]), {}, 1, 2, Phase.BASELINE))
while True:
    for event in executor.wait(1.0):
        print(executor._isolated._spare.pid, executor._isolated._run, flush=True)
"""


def test_who_is_killed_leaves_nothing_behind(order):  # noqa: F811
    command = [sys.executable, "-c", HOLDER, order("time.sleep(0.0001)", steps=ENDLESS).source.path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        pids = [int(pid) for pid in holder.stdout.readline().split()]
        assert all(map(alive, pids))
        holder.kill()
    assert eventually(lambda: not any(map(alive, pids)))


ON_RAY = """
import json, sys, tempfile
from remedy.spaces.target import find
from remedy.workers.executor import Finished, Progressed
from remedy.workers.order import Phase, WorkOrder
from remedy.workers.ray_executor import RayExecutor

executor = RayExecutor(1, isolate=True)


def until(number, kind):
    while True:
        for event in executor.wait(1.0):
            if isinstance(event, kind):
                return event


for number, target in enumerate(sys.argv[1:]):
    executor.submit(WorkOrder(number, find(target), {}, 1, 2, Phase.BASELINE))
    if number == 2:
        until(number, Progressed)
        executor.cancel(number)
    print(json.dumps(until(number, Finished).result.to_json()), flush=True)
executor.close()
"""


def test_ray_isolates_runs_too(order):  # noqa: F811
    note = f"calls == 1 and {NOTE.format(what='os.getpid()')}"
    orders = [order(note), order(note), order("time.sleep(0.0001)", steps=ENDLESS), order("calls == 5 and os._exit(1)")]
    orders = [*orders, order(note)]
    mark = f"REMEDY_TEST_MARK_{os.getpid()}"
    done = subprocess.run(
        [sys.executable, "-c", ON_RAY, *(asked.source.path for asked in orders)],
        check=True, capture_output=True, text=True, timeout=600, env={**os.environ, mark: "1"},
    )  # fmt: skip
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert [result["outcome"] for result in told] == ["converged", "converged", "stopped", "lost", "converged"]
    assert told[3]["reason"] == "its worker died"
    noted = [seen(orders[place]) for place in (0, 1, 4)]
    assert len(set(noted)) == 3
    here = run(InProcess(), orders[0])
    assert {result["metric"] for result in (told[0], told[1], told[4])} == {here.metric}
    assert eventually(lambda: not marked(mark)), "nothing is left, neither Ray's nor ours"
