"""A training that cannot be run is red, says why in one sentence, and leaves the others."""

from pathlib import Path

import pytest

from remedy.search.home import Home
from remedy.search.nightly.book import NightBook
from tests.nightly.conftest import Nights, row

NIGHT = "2026-11-21"
RAISES = """
    class Raises(nn.CrossEntropyLoss):
        calls = 0

        def forward(self, outputs, targets):
            self.calls += 1
            if self.calls > 50:
                raise ValueError("a <late> step\\nof the training")
            return super().forward(outputs, targets)
"""
SAID = {
    "gone": "target file '{place}/gone.py' does not exist",
    "torn": "{place}/torn.py does not parse: invalid syntax (line 1)",
    "importing": "raised ModuleNotFoundError: No module named 'nowhere_to_be_found'",
    "building": "raised ZeroDivisionError: division by zero",
    "leaving": "called sys.exit(3) while it was loaded",
    "dying": "loading it ended its process (exit code 7); see {home}/logs/nightly-team-dying.log",
    "hanging": "loading and checking it ",
    "training": "every run failed: ",
    "nameless": "defines no function 'other' at its top level",
}


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    """One night with all that can be wrong, and two healthy trainings, the first and the last."""
    place = tmp_path_factory.mktemp("nights")
    (place / "work").mkdir()
    nights = Nights(place / "work", place / "home")
    for name in ("first", "last", "nameless"):
        nights.write(name)
    nights.write("torn").write_text("def training(:\n")
    nights.write("importing", before="import nowhere_to_be_found")
    nights.write("building", change="model=lambda: 1 / 0")
    nights.write("leaving", before="raise SystemExit(3)")
    nights.write("dying", before="import os; os._exit(7)")
    nights.write("hanging", before="import time\nwhile True:\n    time.sleep(0.1)")
    nights.write("training", change="loss=Raises()", before=RAISES)
    trainings = [{"target": f"{name}.py"} for name in SAID if name not in ("hanging", "nameless")]
    trainings += [{"target": "hanging.py", "run_timeout": 2}, {"target": "nameless.py:other", "name": "nameless"}]
    nights.sweep({"target": "first.py"}, *trainings, {"target": "last.py"}, budget=4)
    nights.run(NIGHT)
    return nights, nights.report(NIGHT, 1)


@pytest.mark.parametrize("name", SAID)
def test_it_did_not_run_and_says_why_in_one_sentence(played, name):
    nights, found = played
    one = row(found, name)
    assert one["status"] == "not run"
    assert SAID[name].format(place=nights.place, home=nights.home) in one["said"]
    assert "\n" not in one["said"]
    assert "Traceback" not in one["said"]
    assert name in [new["training"] for new in found["new"]]
    assert one["best_fix"] is None
    assert f"remedy check {nights.place}/{name}.py" in " ".join(action["command"] for action in found["actions"])


def test_it_leaves_the_others(played):
    assert [row(played[1], name)["status"] for name in ("first", "last")] == ["healthy", "healthy"]
    assert played[1]["verdict"] == "11 trainings: 2 healthy, 0 newly broken, 0 fixed; 9 not run"


def test_the_traceback_is_where_the_sentence_says(played):
    log = row(played[1], "building")["said"].rpartition("traceback in ")[2]
    assert "ZeroDivisionError" in Path(log).read_text()


def test_what_the_users_code_says_is_escaped(played):
    nights, found = played
    assert "<late>" in row(found, "training")["said"]
    for style in ("html", "md", "junit"):
        assert "<late>" not in nights.text(NIGHT, style)


def test_repaired_by_day_the_night_is_run_again_and_only_what_changed_is_made(played, capfd):
    nights, _ = played
    book = NightBook(Home.of(str(nights.home)).sweep("team"))
    before = book.files.keys(f"runs/{NIGHT}/first/")
    nights.write("building")
    nights.write("gone")
    nights.run(NIGHT)
    assert "has ended already; nothing is run (--again runs it once more)" in capfd.readouterr().err
    nights.run(NIGHT, 0, "--again")
    err = capfd.readouterr().err
    assert "first: baseline" not in err
    assert "gone: baseline 3 of 3: converged" in err
    found = nights.report(NIGHT, 1)
    assert found["verdict"] == "11 trainings: 4 healthy, 0 newly broken, 0 fixed; 7 not run"
    assert book.files.keys(f"runs/{NIGHT}/first/") == before
    assert row(found, "first")["cost"]["parts"]["baseline"] == pytest.approx(3)
