"""A controller that is killed, doubled, stopped, or whose clock is set back: nothing is lost, nothing is made twice."""

import os
import signal
from datetime import UTC, datetime, timedelta

from tests.service.kept import PHASES, accounted, kill, reported, under_way, until


def test_killed_in_every_phase_it_goes_on_to_the_same_end(place, name, started, undisturbed):
    process = place.held(name, started)
    until(lambda: place.in_mlflow(name), process)  # there it begins some time after its first run
    kill(process)
    place.release()
    for seen in (*map(under_way, PHASES[1:]), reported):
        process = started(place.start("resume", name, "--workers", 0))
        place.kill_when(name, seen, process)
        with place.study(name) as folder:
            assert not folder.held()
            assert folder.state()["state"] == "running", "nobody was there to say that it ended"
    place("resume", name, "--workers", 0)
    account = accounted(place, name)
    assert account.cut_off >= len(PHASES)
    assert account.records == undisturbed.records
    assert account.findings == undisturbed.findings


def test_a_second_one_is_refused_and_whoever_only_looks_changes_nothing(place, name, started, undisturbed, stored):
    process = place.held(name, started, phase="baseline")
    with place.study(name) as folder:
        ended = len(folder.numbers())
    assert ended
    # A thread of its own writes the record.
    until(lambda: sum(run.info.status != "RUNNING" for run in place.children(name)) == ended, process)
    watching = started(place.start("watch", name))
    before = stored(place)
    _look(place, name)
    place("wait", name, "--timeout", 1, code=5)
    watching.send_signal(signal.SIGINT)
    assert watching.wait(60) == 130
    assert stored(place) == before, "a study under way"
    for command in (("resume", name, "--workers", 0), ("delete", name)):
        answer = place(*command, code=2)
        assert answer.err == f"remedy: study {name!r} is being worked on by another process; wait for it, or stop it\n"
    place.release()
    assert process.wait(120) == 0, process.communicate()
    before = stored(place)
    _look(place, name)
    place("watch", name)
    place("wait", name)
    assert stored(place) == before, "a study that has ended"
    account = accounted(place, name)
    assert (account.cut_off, account.lost) == (0, 0)
    assert (account.records, account.findings) == (undisturbed.records, undisturbed.findings)


def _look(place, name):
    assert name in place("list").out
    for command in ("show", "logs"):
        place(command, name)
    for form in ("text", "json", "md", "html"):
        place("report", name, "--format", form)


CLOCK = """
import builtins
import datetime
import time
from pathlib import Path
from types import SimpleNamespace

CLOCK = Path({clock!r})
bring, seconds, nanoseconds = builtins.__import__, time.time, time.time_ns


def back():
    return int(CLOCK.read_text() or 0)


class OfAnyKind(type):
    def __instancecheck__(cls, thing):
        return isinstance(thing, datetime.datetime)


class SetBack(datetime.datetime, metaclass=OfAnyKind):
    @classmethod
    def now(cls, tz=None):
        return datetime.datetime.now(tz) - datetime.timedelta(seconds=back())


def brought(name, globals=None, *more, **others):
    found = bring(name, globals, *more, **others)
    ours = (globals or {{}}).get("__name__", "").split(".")[0] in ("remedy", "optuna")
    # Not for all: pandas builds on the real one.
    return SimpleNamespace(**{{**vars(found), "datetime": SetBack}}) if name == "datetime" and ours else found


builtins.__import__ = brought
time.time = lambda: seconds() - back()
time.time_ns = lambda: nanoseconds() - back() * 10**9
"""


def test_with_its_clock_set_back_it_goes_on_to_the_same_end(embedded, name, started, undisturbed, tmp_path):
    clock, day = tmp_path / "clock", 86400
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(CLOCK.format(clock=str(clock)))
    clock.write_text("0")
    shifted = {"PYTHONPATH": f"{tmp_path / 'site'}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    process = embedded.held(name, started, **shifted)
    clock.write_text(str(day))  # in the midst of a session
    embedded.release()
    embedded.kill_when(name, under_way("confirm"), process)
    clock.write_text(str(400 * day))  # between two
    embedded("resume", name, "--workers", 0, **shifted)
    with embedded.study(name) as folder:
        assert datetime.now(UTC) - datetime.fromisoformat(folder.state()["ended"]) > timedelta(days=399)
    account = accounted(embedded, name)
    assert (account.records, account.findings) == (undisturbed.records, undisturbed.findings)
    assert 0 < account.report["cost"]["seconds"] < 600


def test_stopped_it_goes_on_toward_larger_totals_and_not_unasked_with_another_training(
    in_postgres, name, started, undisturbed
):
    place = in_postgres
    process = place.held(name, started, "--runs", 8, "--workers", 0)
    place("stop", name)
    place.release()
    assert process.wait(120) == 3, "the run under way is let end"
    with place.study(name) as folder:
        assert (folder.numbers(), folder.report()["reason"]) == ([0], "stopped")
    place("resume", name, "--workers", 0, code=3)
    with place.study(name) as folder:
        assert (len(folder.numbers()), folder.report()["reason"]) == (8, "budget")
    assert "--runs is 7, less than the study's 8" in place("resume", name, "--runs", 7, code=2).err
    process = started(place.start("resume", name, "--runs", 60, "--workers", 0))
    place.wait_for(name, under_way("confirm"), process)
    place.hold()
    place.wait_for(name, lambda _: place.standing(), process)
    assert "was ended" in place("stop", name, "--now").out
    assert process.wait(60) in (130, -signal.SIGTERM, -signal.SIGKILL)
    place.release()
    before = _figures(place, name)
    with (target := place.line.place / "exploding.py").open("a") as code:
        code.write("\n# another word\n")
    refused = place("resume", name, "--workers", 0, code=2)
    assert f"since study {name!r} began, exploding.py has changed" in refused.err
    assert len(refused.err.splitlines()) == 1
    place("resume", name, "--workers", 0, "--accept-changes")
    account = accounted(place, name)
    after = _figures(place, name)
    assert {number: after[number] for number in before} == before, "what was there is there"
    assert account.report["preflight"][-1]["check"] == "changed_since_submit"
    assert target.name in account.report["preflight"][-1]["message"]
    assert (account.records, account.findings) == (undisturbed.records, undisturbed.findings)


def _figures(place, name):
    with place.study(name) as folder:
        return {number: result.to_json() for number, result in folder.runs().items()}
