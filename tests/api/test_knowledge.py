"""`remedy knowledge`, and a second study that begins with what the first one taught."""

import json
import socket

import pytest

from remedy.cli import main

ONLY = ("--only", "clip_norm", "--only", "sgd_momentum", "--only", "warmup")
OPTIONS = ("--workers", 0, *ONLY, "--fixes", 1, "--runs", 30, "--json")


@pytest.fixture(scope="module")
def taught(shared_remedy):
    """A home in which one study has ended; momentum restores its training."""
    target = shared_remedy.write("train")
    shared_remedy("submit", target, "--name", "first", *OPTIONS)
    return shared_remedy


def test_it_says_what_restored_what(taught):
    found = taught("knowledge", "--json").json
    best = max(found, key=lambda row: row["converged"])
    assert best["remedy"] == "sgd_momentum"
    assert best["converged"] >= 5
    assert best["trainings"] == 1
    assert 0.5 < best["expected"] < 1
    said = taught("knowledge").out
    assert f"{best['converged']} of {best['runs']}" in said
    own = taught("knowledge", "--symptom", best["symptom"], "--json").json
    assert own == [row for row in found if row["symptom"] == best["symptom"]]


def test_the_next_study_keeps_what_it_took_and_can_do_without(taught):
    taught("submit", taught.place / "train.py", "--name", "second", *OPTIONS)
    taught("submit", taught.place / "train.py", "--name", "alone", "--no-knowledge", *OPTIONS)
    spec = {
        name: json.loads((taught.home / "studies" / name / "study.json").read_text())
        for name in ("first", "second", "alone")
    }
    assert spec["first"]["knowledge"] == spec["alone"]["knowledge"] == {}
    kept = spec["second"]["knowledge"]
    assert any("sgd_momentum" in own for own in kept.values())


def test_a_record_that_is_away_is_said_and_stops_nothing(remedy):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        away = f"http://127.0.0.1:{probe.getsockname()[1]}"
        asked = remedy("knowledge", code=5, MLFLOW_TRACKING_URI=away)
        assert f"MLflow at {away} cannot be read" in asked.err
        assert "Traceback" not in asked.err
        target = remedy.write("train")
        options = ("--workers", 0, "--only", "warmup", "--runs", 4, "--name", "s")
        begun = remedy("submit", target, *options, code=3, MLFLOW_TRACKING_URI=away)
    assert "the study begins without what past ones taught" in begun.err


def test_nothing_known_and_no_such_symptom_are_said(remedy, capsys, monkeypatch):
    monkeypatch.setenv("REMEDY_HOME", str(remedy.home))
    assert main(["knowledge"]) == 0
    assert "`remedy submit TARGET` makes one" in capsys.readouterr().out
    assert main(["knowledge", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []
    assert main(["knowledge", "--symptom", "bogus"]) == 2
    assert "'bogus': no such symptom; it may be one of" in capsys.readouterr().err
    assert not remedy.home.exists()


def test_a_study_file_may_leave_it_out(remedy):
    remedy.write("train")
    study = remedy.place / "study.yaml"
    study.write_text("target: train.py\nknowledge: maybe\n")
    assert "knowledge is 'maybe'; it may be true or false" in remedy("plan", study, code=2).err
    study.write_text("target: train.py\nknowledge: false\n")
    remedy("plan", study)
