"""A night that is cut off goes on where it was: nothing is lost, no run is made twice; in folders and in PostgreSQL."""

import collections
import os
import re
import signal
import threading
import time
from pathlib import Path

import pytest

from remedy.search.home import Home
from remedy.search.nightly.book import NightBook
from tests.conftest import CommandLine, end
from tests.nightly.conftest import BROKEN, Nights, row
from tests.postgres import running_postgres

NIGHT = "2026-11-21"
SLOW = """
    import time

    class Slow(nn.CrossEntropyLoss):
        def forward(self, *parts):
            time.sleep(0.003)
            return super().forward(*parts)
"""
PATIENCE = 120.0
RUN = re.compile(r"\[\d/\d\] (\w+): (.*): \w+ \(seed (\d+)\)")


class Session:
    """`remedy nightly run` in a process of its own; what it says is read as it comes."""

    def __init__(self, command_line, sweep, **environment):
        self.process = command_line.start("nightly", "run", sweep, "--night", NIGHT, **environment)
        self.said = []
        self._reader = threading.Thread(target=lambda: self.said.extend(self.process.stderr), daemon=True)
        self._reader.start()

    def until(self, met):
        """Wait until something is true of it."""
        deadline = time.monotonic() + PATIENCE
        while not met():
            assert self.process.poll() is None, f"it ended with {self.process.returncode}: {''.join(self.said)}"
            assert time.monotonic() < deadline, "".join(self.said)
            time.sleep(0.02)

    def ended(self):
        """Wait for its end; return its exit code."""
        code = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        self.process.stdout.close()
        self.process.stderr.close()
        return code

    @property
    def runs(self):
        """The runs of checks that ended in it, by training and seed."""
        return [(match[1], match[2].split(",")[-1], match[3]) for line in self.said if (match := RUN.match(line))]


@pytest.fixture
def command_line(nights):
    return CommandLine(nights.place, nights.home)


@pytest.fixture(params=["folder", "PostgreSQL"])
def server(request, monkeypatch):
    """What holds the nights: a server, or None where a folder does."""
    if request.param == "folder":
        yield None
        return
    with running_postgres() as running:
        monkeypatch.setenv("REMEDY_STORAGE", running.url())
        yield running


def made(home, night=NIGHT):
    """All runs that a home holds of a night: of checks and of the explorers' studies."""
    files = home.sweep("team")
    checks = [key for name in ("drifting", "steady") for key in files.keys(f"runs/{night}/{name}/")]
    studies = [(name, number) for name in home.names() for number in home.study(name).numbers()]
    return checks, studies


def test_killed_among_the_explorers_it_goes_on_and_makes_no_run_twice(nights: Nights, command_line, server):
    nights.write("drifting", BROKEN, "loss=Slow()", SLOW)
    nights.write("steady")
    sweep = nights.sweep({"target": "drifting.py", "only": ["scale_up"]}, {"target": "steady.py"})
    home = Home.of(str(nights.home))
    storage = {"REMEDY_STORAGE": server.url()} if server else {}

    def report(code):
        asked = ("nightly", "report", sweep, "--night", NIGHT, "--format", "json")
        return command_line(*asked, code=code, **storage).json

    first = Session(command_line, sweep, **storage)
    try:
        # Its study begins with the three runs of the baseline.
        first.until(lambda: "team-drifting-1" in home.names() and len(home.study("team-drifting-1").numbers()) >= 5)
        os.killpg(first.process.pid, signal.SIGSTOP)  # it holds its night, for as long as is wanted
        refused = command_line("nightly", "run", sweep, "--night", NIGHT, code=2, **storage).err
        assert refused.startswith("remedy: sweep 'team' is being run by another process")
        assert report(1)["state"] == "running"
    finally:
        os.killpg(first.process.pid, signal.SIGKILL)
        first.ended()
    cut = report(1)
    assert cut["state"] == "interrupted"
    assert cut["verdict"].startswith(f"The night of {NIGHT} did not finish.")
    assert cut["actions"][-1]["command"].startswith("remedy nightly run ")
    checks, studies = made(home)
    before = {number: home.study(name).load_run(number) for name, number in studies}

    second = Session(command_line, sweep, **storage)
    assert second.ended() == 0, "".join(second.said)
    assert second.runs == [], "what a check has run is not run again"
    assert made(home)[0] == checks
    after = home.study("team-drifting-1")
    assert home.names() == ["team-drifting-1"]
    assert {number: after.load_run(number) for number in before} == before
    ended = [after.noted()[number] for number in after.numbers()]
    same = collections.Counter((str(item["params"]), item["seed"]) for item in ended if item["phase"] != "search")
    assert max(same.values()) == 1
    found = report(0)
    assert found["verdict"] == "2 trainings: 1 healthy, 0 newly broken, 0 fixed, 1 broken; 0 not run"
    drifting = row(found, "drifting")
    assert drifting["best_fix"]["label"].startswith("scale_up")
    assert drifting["explorers"]["runs"] == len(after.numbers()) - 3
    assert NightBook(home.sweep("team")).begun(NIGHT)["sessions"] == 2
    if server is not None:
        home.database.close()
        from_elsewhere(CommandLine(nights.place, nights.place / "elsewhere"), server, found)


def from_elsewhere(command_line, server, found):
    """What a machine sees that has nothing but the database's address."""
    asked = ("nightly", "report", "team", "--night", NIGHT, "--format", "json")
    seen = command_line(*asked, REMEDY_STORAGE=server.url()).json
    assert seen["trainings"] == found["trainings"]
    assert all(Path(one["target"]).is_file() for one in seen["trainings"]), "as the sweep file said, from where it lies"
    server.stop()
    away = command_line(*asked, code=5, REMEDY_STORAGE=server.url())
    assert away.err.count("\n") == 1
    assert server.password not in away.err


def test_interrupted_among_the_baselines_it_says_how_to_go_on(nights: Nights, command_line):
    nights.write("drifting", change="loss=Slow()", before=SLOW)
    nights.write("steady")
    sweep = nights.sweep({"target": "drifting.py"}, {"target": "steady.py"})
    first = Session(command_line, sweep)
    try:
        first.until(lambda: len(first.runs) >= 2)
        first.process.send_signal(signal.SIGINT)
        assert first.ended() == 130
    finally:
        end(first.process)
    assert first.said[-1].startswith(f"remedy: interrupted; go on with: remedy nightly run {sweep} --night {NIGHT}")
    second = Session(command_line, sweep)
    assert second.ended() == 0, "".join(second.said)
    whole = collections.Counter(run[::2] for run in first.runs + second.runs)
    assert set(whole) == {(name, seed) for name in ("drifting", "steady") for seed in "012"}
    assert max(whole.values()) == 1
    assert nights.report(NIGHT, 0)["counts"]["healthy"] == 2
