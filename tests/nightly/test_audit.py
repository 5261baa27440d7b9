"""Nights audit early stops: some go on to the end, and the morning report says how many were wrong."""

import pytest

from remedy.search.nightly.sweep import read_sweep
from remedy.spaces.error import InputError
from tests.nightly.conftest import row

# It ends whatever does not learn within a few steps: a wrong stop, on purpose.
HASTY = {"exploding_gradient": {"factor": 0.5, "chance": 1, "grace": 0,
                                "patience": {"share": 0, "steps": 4, "samples": 1}}}  # fmt: skip
SLOWER = 0.1


def test_a_night_says_how_many_of_its_stops_were_wrong(nights):
    nights.write("sound", SLOWER)
    nights.write("lost", 1e20)
    nights.sweep(
        {"target": "sound.py"}, {"target": "lost.py", "detectors": {"exploding_gradient": False}},
        detectors=HASTY, audit=1.0, budget=1,
    )  # fmt: skip
    nights.run("2026-11-17")
    found = nights.report("2026-11-17", 0)
    assert [row(found, name)["status"] for name in ("sound", "lost")] == ["healthy", "broken"]
    budget = found["budget"]
    sound, lost = (row(found, name)["cost"] for name in ("sound", "lost"))
    assert (sound["audited"], sound["wrongly_stopped"], sound["early_stops"]) == (3, 3, 0)
    assert lost["audited"] >= 3
    assert (lost["wrongly_stopped"], lost["early_stops"]) == (0, 0)
    assert (budget["audited"], budget["wrongly_stopped"]) == (3 + lost["audited"], 3)
    low, high = budget["wrongly_stopped_interval"]
    assert 0 < low < 3 / budget["audited"] < high < 1
    assert sound["parts"]["baseline"] == pytest.approx(3), "they are paid for in full"
    said = f"and 3 of {budget['audited']} would have been stopped wrongly"
    for style in ("md", "html", "text"):
        assert said in " ".join(nights.text("2026-11-17", style).split()), style

    # Nights are compared only where runs are stopped by the same rules.
    nights.sweep({"target": "sound.py"}, {"target": "lost.py"}, audit=1.0, budget=1)
    nights.run("2026-11-18")
    later = row(nights.report("2026-11-18", 0), "sound")
    assert later["said"] == "not compared with the nights before: the detectors' thresholds are others"


def test_without_a_draw_it_is_said_that_nothing_is_known(nights):
    nights.write("sound", SLOWER)
    nights.sweep({"target": "sound.py"}, detectors=HASTY, audit=0, budget=1)
    nights.run("2026-11-17")
    budget = nights.report("2026-11-17", 0)["budget"]
    assert budget["early_stops"] >= 3
    assert (budget["audited"], budget["wrongly_stopped"]) == (0, None)
    assert "none was drawn for the audit, so how many of them wrongly is not known" in nights.text("2026-11-17", "md")


def test_a_sweep_audits_one_stop_in_twenty_unless_it_says_otherwise(nights):
    path = nights.sweep({"target": "a.py"}, {"target": "b.py", "detectors": {"dead_units": {"dead": 1}}},
                        detectors={"chance_plateau": False})  # fmt: skip
    sweep = read_sweep(path)
    assert sweep.audit == 0.05
    assert [entry.detectors for entry in sweep.trainings] == [
        {"chance_plateau": False},
        {"chance_plateau": False, "dead_units": True, "dead_units.dead": 1},
    ]
    nights.sweep({"target": "a.py", "detectors": {"dead_units": {"dead": 2}}})
    with pytest.raises(InputError, match="training 1: detectors: dead_units: dead is 2; it may be a number from 0 to"):
        read_sweep(path)
    nights.sweep(
        {"target": "a.py"},
        {"target": "b.py", "forecast": {"late": 0.8}},
        {"target": "c.py", "forecast": True},
        forecast=False,
    )
    assert [entry.detectors for entry in read_sweep(path).trainings] == [
        {"forecast": False},
        {"forecast": True, "forecast.late": 0.8},
        {"forecast": True},
    ]
    nights.sweep({"target": "a.py"}, forecast={"late": 2})
    with pytest.raises(InputError, match="forecast: late is 2; it may be a number from 0 to 1"):
        read_sweep(path)
    nights.sweep({"target": "a.py"}, audit=2)
    with pytest.raises(InputError, match="audit is 2; it may be a share of the early stops, 0 to 1"):
        read_sweep(path)
