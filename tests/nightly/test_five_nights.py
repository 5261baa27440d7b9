"""Five nights: one training breaks on the third and is repaired on the fifth, one has a bug once, one is healthy."""

import re
from xml.etree import ElementTree as ET

import pytest

from tests.nightly.conftest import BROKEN, HEALTHY, Nights, row, strip

NIGHTS = [f"2026-11-{day}" for day in range(17, 22)]


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    """All five nights, and the report of each morning."""
    place = tmp_path_factory.mktemp("nights")
    (place / "work").mkdir()
    nights = Nights(place / "work", place / "home")
    nights.write("steady")
    nights.sweep(
        {"target": "drifting.py", "only": ["scale_up"]},
        {"target": "steady.py:training"},
        {"target": "buggy.py"},
    )
    found = {}
    for place, night in enumerate(NIGHTS, start=1):
        nights.write("drifting", BROKEN if place in (3, 4) else HEALTHY)
        nights.write("buggy", before="raise FileNotFoundError('/mnt/data is away')" if place == 2 else "")
        if place in (1, 3):
            nights.commit(f"night {place}")
        nights.run(night)
        found[night] = nights.report(night, {1: 0, 2: 1, 3: 1, 4: 0, 5: 0}[place])
    return nights, list(found.values())


def test_each_morning_has_its_verdict_line(played):
    assert [found["verdict"] for found in played[1]] == [
        "3 trainings: 3 healthy, 0 newly broken, 0 fixed; 0 not run",
        "3 trainings: 2 healthy, 0 newly broken, 0 fixed; 1 not run",
        "3 trainings: 2 healthy, 1 newly broken, 0 fixed; 0 not run",
        "3 trainings: 2 healthy, 0 newly broken, 0 fixed, 1 broken; 0 not run",
        "3 trainings: 2 healthy, 0 newly broken, 1 fixed; 0 not run",
    ]


def test_the_last_morning_shows_all_five_nights(played):
    last = played[1][-1]
    assert strip(last, "drifting") == ["healthy", "healthy", "newly broken", "broken", "fixed"]
    assert strip(last, "steady") == ["healthy"] * 5
    assert strip(last, "buggy") == ["healthy", "not run", "healthy", "healthy", "healthy"]
    assert all(len(row["strip"]) == 14 for row in last["trainings"])


def test_a_healthy_training_costs_its_baseline_alone(played):
    parts = row(played[1][0], "steady")["cost"]["parts"]
    assert parts == {"baseline": pytest.approx(3), "rerun": 0, "best fix": 0, "explorers": 0}
    assert row(played[1][0], "steady")["tonight"]["converged"] == 3


def test_one_training_with_a_bug_leaves_the_others_and_is_red_in_one_sentence(played):
    found = played[1][1]
    buggy = row(found, "buggy")
    assert "FileNotFoundError: /mnt/data is away" in buggy["said"]
    assert "\n" not in buggy["said"]
    assert "Traceback" not in buggy["said"]
    assert re.search(r"traceback in (\S+)", buggy["said"])
    assert buggy["since"]["differed"] == ["buggy.py has changed", buggy["since"]["differed"][1]]
    assert row(found, "drifting")["status"] == row(found, "steady")["status"] == "healthy"
    assert any(action["command"].startswith("remedy check ") for action in found["actions"])


def test_the_regression_was_confirmed_on_fresh_seeds_before_it_was_called_one(played):
    drifting = row(played[1][2], "drifting")
    assert drifting["change"]["kind"] == "worse"
    assert drifting["change"]["fresh_runs"] >= 5
    assert drifting["change"]["p"] < 0.05
    assert (drifting["tonight"]["converged"], drifting["tonight"]["runs"]) == (0, 8)
    low, high = drifting["tonight"]["interval"]
    assert low == 0 < high < 0.5
    assert played[1][2]["confidence"]["confirmed"][0]["training"] == "drifting"


def test_the_report_names_the_first_bad_night_and_what_differed(played):
    for found in (played[1][2], played[1][3]):
        since = row(found, "drifting")["since"]
        assert since["night"] == NIGHTS[2]
        assert since["before"] == NIGHTS[1]
        assert "drifting.py has changed" in since["differed"]
        assert any(line.startswith("git commit ") for line in since["differed"])
    what = played[1][2]["new"][0]["what"]
    assert f"What differs from {NIGHTS[1]}: drifting.py has changed; git commit" in what


def test_explorers_find_the_fix_and_the_next_night_proves_it_against_the_baseline_on_the_same_seeds(played):
    broken, still = (row(found, "drifting") for found in played[1][2:4])
    assert broken["best_fix"]["label"].startswith("scale_up")
    assert broken["best_fix"]["minimal"]
    assert broken["explorers"]["study"] == "team-drifting-1"
    tonight = still["best_fix"]["tonight"]
    assert tonight["holds"]
    assert (tonight["converged"], tonight["runs"]) == (5, 5)
    assert (tonight["base_converged"], tonight["base_runs"]) == (0, 5)
    assert still["cost"]["parts"]["best fix"] == pytest.approx(10)


def test_the_study_is_carried_on_where_nothing_changed_and_nothing_is_run_twice(played):
    nights = played[0]
    still = row(played[1][3], "drifting")
    assert still["explorers"]["study"] == "team-drifting-1"
    assert still["explorers"]["carried_on"]
    assert still["explorers"]["runs"] == 0, "it was done, and is not begun again"
    items = [
        line.split('"run"')[1]
        for line in (nights.home / "studies/team-drifting-1/items.jsonl").read_text().splitlines()
    ]
    assert len(items) == len(list((nights.home / "studies/team-drifting-1/runs").glob("*.json")))
    assert sorted(path.name for path in (nights.home / "studies").iterdir()) == ["team-drifting-1"]


def test_the_remedy_is_in_the_league_of_those_necessary_by_ablation(played):
    for found in played[1][2:]:
        (first,) = [line for line in found["league"] if line["remedy"] == "scale_up"]
        assert first["necessary"] == ["drifting"]
        assert first["harmful"] == []


def test_the_repair_is_seen_and_needs_no_fix(played):
    drifting = row(played[1][4], "drifting")
    assert drifting["status"] == "fixed"
    assert drifting["change"]["kind"] == "better"
    assert drifting["best_fix"] is None
    assert drifting["since"]["night"] == NIGHTS[4]
    assert drifting["since"]["differed"][0] == "drifting.py has changed"


def test_the_budget_is_kept_and_says_what_was_not_measured(played):
    for found in played[1]:
        budget = found["budget"]
        assert 0 < budget["full_runs"] <= budget["of"] + 2 == 62
        assert sum(budget["parts"].values()) == pytest.approx(budget["full_runs"])
        assert (budget["wrongly_stopped"] is None) == (budget["audited"] == 0)


def test_continuous_integration_can_read_it(played):
    nights, _ = played
    cases = {}
    for night in NIGHTS:
        root = ET.fromstring(nights.text(night, "junit"))
        assert root.tag == "testsuites"
        assert len(root.findall("testsuite/testcase")) == int(root.get("tests")) == 3
        cases[night] = {case.get("name"): [child.tag for child in case] for case in root.iter("testcase")}
    assert cases[NIGHTS[0]] == {name: ["system-out"] for name in ("drifting", "steady", "buggy")}
    assert cases[NIGHTS[1]]["buggy"] == ["error"]
    assert cases[NIGHTS[2]]["drifting"] == ["failure"]
    assert cases[NIGHTS[3]]["drifting"] == ["skipped"], "known broken is no news"
    assert cases[NIGHTS[4]]["drifting"] == ["system-out"]


def test_it_fits_on_one_screen_and_says_what_to_type(played):
    text = played[0].text(NIGHTS[2], "text")
    lines = text.splitlines()
    assert lines[0] == played[1][2]["verdict"]
    assert len(lines) < 40
    assert max(map(len, lines[:20])) <= 110
    assert re.search(r"drifting +NEWLY BROKEN +healthy +\.{11}\+\+B +0 of 8 \[0\.00, 0\.32\]", text)
    assert "remedy export team-drifting-1 --out fix.yaml" in text
    assert lines[-1].startswith("next: remedy nightly report team")


def test_a_night_that_has_ended_is_not_run_again(played, capfd):
    nights, _ = played
    before = sorted((path, path.stat().st_mtime_ns) for path in nights.home.rglob("runs/**/*.json"))
    nights.run(NIGHTS[4])
    assert "has ended already" in capfd.readouterr().err
    assert sorted((path, path.stat().st_mtime_ns) for path in nights.home.rglob("runs/**/*.json")) == before
