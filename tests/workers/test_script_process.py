"""The process of a script: it ends with its run, with its limit, and with whoever started it."""

import dataclasses
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from remedy.spaces.outcome import Outcome
from remedy.spaces.script import Script
from remedy.workers.executor import Finished, InProcess, Progressed, time_limit
from remedy.workers.run import perform
from tests.workers import scripts

KNOWN = Script(metric="accuracy", goal=0.9, steps=100_000)
SLOW = "import os, time\nopen('pid', 'w').write(str(os.getpid()))\n"
WAITING = scripts.STEP + "    time.sleep(0.01)\n"


def slow(place: Path, name: str = "slow.py", step: str = WAITING):
    path = scripts.written(place, SLOW + scripts.text(step=step, epochs=100_000), name)
    return dataclasses.replace(scripts.order_of(path, KNOWN), log=str(place / "run.log"))


def alive(place: Path) -> bool:
    """Whether the script's process is there, and no corpse that nobody has looked at."""
    try:
        state = Path(f"/proc/{(place / 'pid').read_text()}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def until(condition, seconds=120):
    give_up = time.monotonic() + seconds
    while time.monotonic() < give_up:
        if condition():
            return
        time.sleep(0.05)
    pytest.fail("it did not happen")


def began(place):
    return (place / "pid").exists() and (place / "pid").read_text() and alive(place)


def test_a_script_is_cancelled_at_its_next_observation(tmp_path):
    executor = InProcess()
    executor.submit(slow(tmp_path))
    steps, ended = 0, None
    give_up = time.monotonic() + 200
    while ended is None and time.monotonic() < give_up:
        for event in executor.wait(0.1):
            if isinstance(event, Progressed):
                steps = max(steps, event.steps)
                if steps > 10:
                    executor.cancel(0)
            elif isinstance(event, Finished):
                ended = event.result
    assert ended is not None
    assert ended.outcome is Outcome.STOPPED
    assert ended.saved_by == "controller"
    assert 10 < steps <= ended.steps < 100_000
    assert ended.steps_full == 100_000
    assert ended.curves["loss"]
    assert not alive(tmp_path)


def test_a_script_that_hears_nothing_is_killed_after_a_grace(tmp_path):
    executor = InProcess()
    executor.submit(slow(tmp_path, step="time.sleep(3600)"))
    ended, give_up = None, time.monotonic() + 200
    while ended is None and time.monotonic() < give_up:
        for event in executor.wait(0.1):
            ended = event.result if isinstance(event, Finished) else None
        if began(tmp_path):
            executor.cancel(0)
    assert ended is not None
    assert ended.outcome is Outcome.STOPPED
    assert not alive(tmp_path)


def test_the_limit_of_a_run_ends_the_process(tmp_path):
    order = dataclasses.replace(slow(tmp_path, step="time.sleep(3600)"), timeout=12.0)
    result = perform(order, limit=time_limit)
    assert result.outcome is Outcome.FAILED
    assert "--run-timeout" in result.reason
    assert not alive(tmp_path)


def test_the_process_dies_with_its_worker(tmp_path):
    slow(tmp_path, step="time.sleep(3600)")
    code = f"""
        import dataclasses
        from pathlib import Path
        from tests.workers import scripts
        from tests.workers.test_script_process import KNOWN
        from remedy.workers.run import perform
        perform(scripts.order_of(Path({str(tmp_path / "slow.py")!r}), KNOWN))
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    worker = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], env=environment)
    try:
        until(lambda: began(tmp_path))
        worker.send_signal(signal.SIGKILL)
        worker.wait()
        until(lambda: not alive(tmp_path), 30)
    finally:
        worker.kill()
        worker.wait()


ENDINGS = {
    "a signal": ("import signal; os.kill(os.getpid(), signal.SIGSEGV)", Outcome.LOST, "SIGSEGV"),
    "os._exit": ("os._exit(3)", Outcome.FAILED, "exit code 3"),
    "no memory": ("raise MemoryError('all gone')", Outcome.LOST, "ran out of memory"),
}


@pytest.mark.parametrize("how", ENDINGS)
def test_a_process_that_ends_on_its_own_is_told_apart(tmp_path, how):
    line, outcome, said = ENDINGS[how]
    result = perform(slow(tmp_path, step=f"{line}"))
    assert result.outcome is outcome
    assert said in result.reason


def test_what_a_script_prints_goes_to_the_log_and_its_workers_end_with_it(tmp_path):
    loaders = "loader = DataLoader(train, 32, shuffle=True, num_workers=1, persistent_workers=True)\n" + scripts.PREPARE
    after = "print('said'); os.system('echo by a child'); print('complained', file=sys.stderr)"
    path = scripts.written(tmp_path, SLOW + scripts.text(prepare=loaders, epochs=2, after=after))
    order = dataclasses.replace(scripts.order_of(path, KNOWN), log=str(tmp_path / "logs" / "run.log"))
    result = perform(order)
    assert result.outcome is Outcome.MISSED, result.reason
    assert result.steps == 20
    log = (tmp_path / "logs" / "run.log").read_text()
    assert all(text in log for text in ("said", "by a child", "complained"))
    returned = perform(dataclasses.replace(order, log="", returns_log=True))
    assert "by a child" in returned.log
    until(lambda: not alive(tmp_path), 30)
