"""`--isolate`: the same study, each run in a process of its own, and nothing is left of any of them."""

import contextlib
import json
import os
import signal
import time
from pathlib import Path

import pytest

TELLS = """
    import os

    def model():
        print("pid", os.getpid())
        return nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 3))
"""
SLOW = """
    import time

    def slow(outputs, targets):
        time.sleep(0.01)
        return nn.functional.cross_entropy(outputs, targets)
"""
FEW = ("--only", "tanh", "--only", "clip_norm", "--runs", 6, "--no-knowledge", "--json")


def records(remedy, name):
    return [{k: v for k, v in json.loads(path.read_text()).items() if k != "seconds"} for path in remedy.runs(name)]


def pids(remedy, name):
    """The processes that built the model, by run."""
    logs = sorted((remedy.home / "studies" / name / "logs").glob("run-*.log"))
    return [{line for line in path.read_text().splitlines() if line.startswith("pid")} for path in logs]


def left(mark):
    """Processes that are alive and have the mark in their environment."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            state = (place / "stat").read_text().rpartition(")")[2].split()[0]
            if mark.encode() in (place / "environ").read_bytes() and state not in "ZX":
                found.append((place / "cmdline").read_bytes())
    return found


def test_a_study_file_isolates_runs_and_the_records_are_the_same(remedy):
    target = remedy.write("tells", "model=model", TELLS)
    study = remedy.place / "study.yaml"
    study.write_text(f"target: {target.name}\nisolate: true\nworkers: 0\nname: apart\n")
    remedy("submit", target, "--name", "together", "--workers", 0, *FEW, code=None)
    remedy("submit", study, *FEW, code=None)
    remedy("submit", target, "--name", "on-ray", "--workers", 1, "--isolate", *FEW, code=None)
    together, apart, on_ray = (pids(remedy, name) for name in ("together", "apart", "on-ray"))
    assert len(set.union(*together)) == 1
    assert len(together) == len(apart) == len(on_ray) == 6
    for isolated in (apart, on_ray):
        assert all(len(mine) == 1 for mine in isolated)
        assert len(set.union(*isolated)) == 6
    assert records(remedy, "together") == records(remedy, "apart") == records(remedy, "on-ray")


def test_a_study_file_that_says_maybe_is_refused(remedy):
    study = remedy.place / "study.yaml"
    study.write_text("target: train.py\nisolate: maybe\n")
    assert "isolate is 'maybe'; it may be true or false" in remedy("submit", study, code=2).err


@pytest.mark.parametrize("workers", [0, 1])
def test_an_interrupted_study_leaves_no_process(workers, remedy, started):
    mark = f"REMEDY_TEST_MARK_{os.getpid()}_{workers}"
    target = remedy.write("slow", "loss=slow", SLOW)
    options = ("--name", "cut", "--workers", workers, "--isolate", "--only", "tanh")
    process = started(remedy.start("submit", target, *options, **{mark: "1"}))
    until = time.monotonic() + 240
    while not remedy.runs("cut"):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert "remedy resume cut" in err
    until = time.monotonic() + 120
    while found := left(mark):
        assert time.monotonic() < until, found
        time.sleep(0.1)
