"""A study that is cut off, however it is cut off, loses nothing and goes on to the same end."""

import contextlib
import fcntl
import json
import os
import signal
import struct
import termios
import threading
import time

import pytest

from remedy.cli import main

SLOW = """
    import time

    def slow(outputs, targets):
        time.sleep(0.002)
        return nn.functional.cross_entropy(outputs, targets)
"""
OPTIONS = ("--name", "cut", "--only", "sgd_momentum", "--only", "clip_norm", "--only", "tanh", "--fixes", 1, "--json")


def wait_for(remedy, process, runs, patience=90.0):
    """Wait until a study has so many results, as one sees them appear in its folder."""
    until = time.monotonic() + patience
    while len(remedy.runs("cut")) < runs:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.05)


def figures(remedy):
    """What every run of the study came to, without how long it took."""
    return {run["run"]: run for run in remedy("show", "cut", "--json").json["runs"]}


def findings(report):
    fixes = [{key: value for key, value in fix.items() if key not in ("fix_file", "recipe")} for fix in report["fixes"]]
    fixes += [{**fix["recipe"], "seconds_to_goal": None} for fix in report["fixes"]]
    return report["baseline"], fixes, report["remedies"], report["exit_code"]


@pytest.fixture(scope="module")
def unbroken(shared_remedy):
    """The same study, never interrupted, in this process's time only."""
    target = shared_remedy.write("slow", "loss=slow", SLOW)
    return shared_remedy("submit", target, *OPTIONS, "--workers", 0).json


def test_the_unbroken_study_finds_the_fix(unbroken, contract):
    contract(unbroken, 0)
    assert unbroken["fixes"][0]["remedies"]["optimizer"] == "sgd_momentum"


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_study_cut_off_in_the_middle_goes_on_and_ends(how, remedy, started, unbroken, contract, monkeypatch, capfd):
    process = started(remedy.start("submit", remedy.write("slow", "loss=slow", SLOW), *OPTIONS, "--workers", 0))
    wait_for(remedy, process, 6)
    monkeypatch.setenv("REMEDY_HOME", str(remedy.home))
    for command in (["resume"], ["delete"]):
        assert main([*command, "cut"]) == 2, "it is held by the process that works on it"
    assert "another process" in capfd.readouterr().err
    os.killpg(process.pid, how)
    out, err = process.communicate(timeout=60)
    assert "Traceback" not in err
    assert not out
    if how is not signal.SIGKILL:
        assert process.returncode == 130
        assert "remedy resume cut" in err
    before = figures(remedy)
    report = remedy("resume", "cut", "--workers", 0, "--json").json
    contract(report, 0)
    after = figures(remedy)
    assert len(before) >= 6
    assert {number: after[number] for number in before} == before, "what was there is there, and was not trained again"
    assert findings(report)[1:] == findings(unbroken)[1:], "an interrupted study finds what the unbroken one finds"
    assert report["baseline"]["metric"] == unbroken["baseline"]["metric"]


@pytest.fixture
def terminal():
    """A terminal of 100 columns: (the end that a process gets, what it shows)."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
    shown = []

    def read():
        with contextlib.suppress(OSError):  # the other end is closed
            while text := os.read(ours, 65536):
                shown.append(text.decode(errors="replace"))

    reader = threading.Thread(target=read)
    reader.start()
    yield theirs, shown
    os.close(theirs)
    reader.join()
    os.close(ours)


def test_a_study_on_ray_is_interrupted_on_its_terminal(remedy, started, contract, terminal):
    end, shown = terminal
    target = remedy.write("slow", "loss=slow", SLOW)
    process = started(remedy.start("submit", target, *OPTIONS, "--workers", 2, stderr=end, TERM="xterm"))
    wait_for(remedy, process, 4)
    for _ in range(2):  # as somebody impatient does; everybody in the foreground gets it
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.2)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert not out
    said = "".join(shown)
    assert "Traceback" not in said
    assert "loading and checking" in said
    assert "cut: baseline" in said
    assert "Ctrl-C" in said
    assert said.rstrip().endswith("remedy resume cut")
    before = figures(remedy)
    report = remedy("resume", "cut", "--workers", 0, "--json").json
    contract(report, 0)
    after = figures(remedy)
    assert {number: after[number] for number in before} == before


def test_a_study_that_is_asked_to_stop_ends_and_goes_on_when_asked(remedy, started, monkeypatch, contract):
    process = started(remedy.start("submit", remedy.write("slow", "loss=slow", SLOW), *OPTIONS, "--workers", 0))
    wait_for(remedy, process, 3)
    monkeypatch.setenv("REMEDY_HOME", str(remedy.home))
    assert main(["stop", "cut"]) == 0
    out, err = process.communicate(timeout=60)
    assert process.returncode in (0, 3), err
    assert '"reason": "stopped"' in out
    contract(remedy("resume", "cut", "--workers", 0, "--json").json, 0)


def test_what_cannot_be_gone_on_with_is_refused_and_changes_nothing(remedy, monkeypatch, capfd):
    target = remedy.write("slow", "loss=slow", SLOW)
    remedy("submit", target, *OPTIONS, "--workers", 0, "--runs", 3, code=3)
    monkeypatch.setenv("REMEDY_HOME", str(remedy.home))
    assert main(["resume", "cut", "--workers=0", "--runs=2"]) == 2
    assert "--runs" in capfd.readouterr().err, "totals may only grow"
    target.write_text(target.read_text() + "\n# another word\n")
    assert main(["resume", "cut", "--workers=0", "--runs=5"]) == 2
    assert "changed" in capfd.readouterr().err
    assert main(["show", "cut", "--json"]) == 0
    shown = json.loads(capfd.readouterr().out)
    assert shown["spec"]["runs"] == len(shown["runs"]) == 3
