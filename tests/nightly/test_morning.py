"""The morning report on nights as they are written down: large sweeps, hostile text, nights that are missing."""

import json
import re
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import pytest

from remedy.commands.nightly.text import morning_text
from remedy.search.files import FolderFiles
from remedy.search.nightly.book import NightBook, nights_up_to, today
from remedy.search.nightly.check import Anchor, NightCheck, Status
from remedy.search.nightly.junit import morning_junit
from remedy.search.nightly.markdown import morning_markdown
from remedy.search.nightly.page import morning_html
from remedy.search.nightly.record import judged, not_run
from remedy.search.nightly.report import morning
from remedy.search.spec import Spec
from remedy.spaces.outcome import Outcome
from remedy.spaces.target import Source
from remedy.workers.result import RunResult
from tests.nightly.conftest import Nights

NIGHT = "2026-11-21"
SPEC = Spec("check", Source("/nowhere/t.py", "training", "0" * 64), steps=100)
HOSTILE = "<script>alert('1')</script> | `x` ]]> \x1b[31m\x00\ud800 \u202e"
FACTS = {"commit": "a" * 40, "code": {"t.py": "1"}, "versions": {"torch": "2.13"}, "yardstick": {"goal": 0.9}}


def check(converges, anchor=None):
    made = NightCheck(SPEC, NIGHT, anchor)
    for number in range(100):
        wanted = next(iter(made.wants()), None)
        if wanted is None:
            return made
        outcome = Outcome.CONVERGED if converges else Outcome.MISSED
        made.tell(wanted[1], RunResult(number, outcome, metric=float(converges), steps=100))
    raise AssertionError("a check ends")


@pytest.fixture
def book(tmp_path):
    return NightBook(FolderFiles(tmp_path / "sweeps" / "team"))


def play(book, records, night=NIGHT):
    """Write down a night that ended so; return what was asked."""
    asked = [{"name": name, "target": f"/nowhere/{name}.py:training"} for name in records]
    began = datetime.now(UTC).isoformat()
    told = {"night": night, "began": began, "trainings": list(records), "budget": 60.0, "seconds": 5.0}
    book.begin(night, told)
    for name, record in records.items():
        book.save(night, name, record)
    book.end(night, told)
    return {"sweep": "team", "path": "/nowhere/sweep.yaml", "trainings": asked, "budget": 60.0, "stale_after": 26.0}


def test_many_trainings_fit_on_one_screen_red_ones_first(book):
    healthy = judged(NIGHT, "t.py", check(converges=True), FACTS)
    broken = judged(NIGHT, "t.py", check(converges=False), FACTS)
    newly = judged(NIGHT, "t.py", check(converges=False, anchor=Anchor("2026-11-20", Status.HEALTHY, 3, 3, 3)), FACTS)
    records = {f"fine-{number}": healthy for number in range(55)}
    records |= {"known": broken, "worse": newly, "gone": not_run(NIGHT, "gone.py", "it is gone", None, None)}
    found = morning(book, play(book, records), NIGHT)
    assert found["verdict"] == "58 trainings: 55 healthy, 1 newly broken, 0 fixed, 1 broken; 1 not run"
    text = morning_text(found)
    lines = text.splitlines()
    assert len(lines) < 40
    assert [line.split()[0] for line in lines[4:7]] == ["worse", "gone", "known"]
    assert "55 more are healthy" in text
    assert morning_html(found).count("fine-") >= 55


def test_whatever_stands_in_a_record_is_text(book):
    records = {"bad": not_run(NIGHT, HOSTILE, HOSTILE, None, None, {**FACTS, "code": {HOSTILE: "1"}})}
    asked = play(book, {"bad": json.loads(json.dumps(records["bad"]))})
    asked["trainings"][0]["target"] = HOSTILE
    found = morning(book, asked, NIGHT)

    tags = set()

    class Reader(HTMLParser):
        def handle_starttag(self, tag, attrs):
            tags.add(tag)
            assert not [name for name, _ in attrs if name.startswith("on")]

    page = morning_html(found)
    Reader().feed(page)
    assert "script" not in tags
    assert not re.search(r"https?://|src=|url\(|@import", page), "nothing is loaded from anywhere"
    assert "default-src 'none'" in page
    case = ET.fromstring(morning_junit(found)).find(".//testcase/error")
    assert "<script>" in case.get("message")
    assert "\x1b" not in case.get("message")
    text = [line for line in morning_markdown(found).splitlines() if not line.startswith("    ")]  # code is no markup
    assert "<script>" not in "".join(text)
    assert "\x1b" not in morning_text(found)


def test_nights_that_are_judged_otherwise_are_news_and_no_regression(book):
    healthy = judged("2026-11-20", "t.py", check(converges=True), FACTS)
    other = judged(NIGHT, "t.py", check(converges=False), FACTS, healthy, healthy, unlike="goal 0.9 -> 0.99")
    play(book, {"t": healthy}, "2026-11-20")
    found = morning(book, play(book, {"t": other}), NIGHT)
    assert found["counts"]["newly broken"] == 0
    assert found["new"][0]["what"].startswith("Not compared with the nights before: goal 0.9 -> 0.99")


def test_the_absence_of_a_night_is_the_alarm(nights: Nights, book, capsys):
    sweep = nights.sweep({"target": "t.py"})
    assert nights.call("report", str(sweep)) == 1
    out = capsys.readouterr().out
    assert out.startswith(
        f"The night of {today()} did not run. 1 training: 0 healthy, 0 newly broken, 0 fixed; 1 not run"
    )
    assert f"run the night now:  remedy nightly run {sweep}" in out
    # One that ran, 27 hours ago: another was due.
    held = NightBook(FolderFiles(nights.home / "sweeps" / "team"))
    yesterday = nights_up_to(today(), 2)[0]
    play(held, {"t": judged(yesterday, "t.py", check(converges=True), FACTS)}, yesterday)
    assert nights.call("report", str(sweep)) == 0
    capsys.readouterr()
    began = (datetime.now(UTC) - timedelta(hours=27)).isoformat()
    held.begin(yesterday, {**held.begun(yesterday), "began": began})
    assert nights.call("report", str(sweep)) == 1
    assert capsys.readouterr().out.startswith(f"The night of {today()} did not run.")
    assert nights.call("report", str(sweep), "--night", yesterday) == 0


def test_a_report_is_of_what_the_night_was_asked(nights: Nights, capsys):
    held = NightBook(FolderFiles(nights.home / "sweeps" / "team"))
    play(held, {"old": judged(NIGHT, "old.py", check(converges=True), FACTS)})
    nights.sweep({"target": "new.py"})
    found = nights.report(NIGHT, 0)
    assert [row["name"] for row in found["trainings"]] == ["old"], (
        "what is in the file since then is for the next night"
    )


def test_a_damaged_record_is_said_in_one_sentence(nights: Nights, capsys):
    held = NightBook(FolderFiles(nights.home / "sweeps" / "team"))
    play(held, {"t": judged(NIGHT, "t.py", check(converges=True), FACTS)})
    (nights.home / f"sweeps/team/nights/{NIGHT}/t.json").write_text("{")
    sweep = nights.sweep({"target": "t.py"})
    assert nights.call("report", str(sweep), "--night", NIGHT) == 5
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert f"nights/{NIGHT}/t.json" in err
    assert nights.call("report", str(sweep), "--out", str(nights.place / "no" / "x"), "--night", "2026-11-01") == 2
