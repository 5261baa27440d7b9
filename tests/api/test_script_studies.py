"""Door B as a user has it: a script with its own loop, studied by the command line, and repaired by its fix."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.workers import scripts

GOAL = "accuracy>=0.85"
pytestmark = pytest.mark.timeout(1500)


SETTINGS = """
    import argparse
    asked = argparse.ArgumentParser()
    asked.add_argument("--lr", type=float, default=0.01)
    optimizer = torch.optim.SGD(model.parameters(), lr=asked.parse_args().lr)
"""
SAYING = "print('accuracy', right / len(held))"


def script(remedy, after=SAYING):
    return scripts.written(remedy.place, scripts.text(optimizer=SETTINGS, epochs=20, after=after))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_script_is_studied_and_its_fix_applied(remedy, contract, workers):
    target = script(remedy)
    options = ("--workers", workers, "--only", "scale_up", "--fixes", 1, "--runs", 40, "--name", "own", "--json")
    answer = remedy("submit", target, "--goal", GOAL, *options, "--", "--lr", "0.01", timeout=1400)
    report = answer.json
    contract(report, 0)
    assert "to learn its full length" in answer.err
    assert report["training"] == f"{target} -- --lr 0.01"
    assert report["goal"] == {"metric": "accuracy", "at_least": 0.85}
    assert report["baseline"]["state"] == "broken"
    assert 200 < report["cost"]["preflight_steps"] <= 200 + 1600, "the script's own, and some on doubles of its parts"
    assert "of its samples by heart" in report["decision"]
    fix = report["fixes"][0]
    assert fix["confirmed"]
    assert fix["remedies"]["learning_rate"] == "scale_up"

    remedy("export", "own", "--out", "fix.yaml")
    kept = yaml.safe_load((remedy.place / "fix.yaml").read_text())
    assert kept["evidence"]["steps"] == 200
    assert kept["evidence"]["script"]["metric"] == "accuracy"
    if workers:
        return
    plain, repaired = produced(remedy, target), produced(remedy, target, REMEDY_FIX="fix.yaml")
    assert plain < 0.85 <= repaired
    whole = next(run["run"] for run in remedy("show", "own", "--json").json["runs"] if run["phase"] == "baseline")
    assert "accuracy" in remedy("logs", "own", "--run", whole).out
    resumed = remedy("resume", "own", "--workers", 0, "--runs", 41, "--json", timeout=1400).json
    assert resumed["runs"]["total"] == report["runs"]["total"], "there was nothing left to do"
    target.write_text(target.read_text() + "\n# changed\n")
    assert "train.py has changed" in remedy("resume", "own", "--workers", 0, "--runs", 42, code=2).err


def run(command, place, environment):
    return subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=False)


def produced(remedy, target, **environment):
    """Run the script as its owner does, without us around it."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("REMEDY_")}
    command = [sys.executable, str(target), "--lr", "0.01"]
    done = run(command, remedy.place, {**clean, **environment})
    assert done.returncode == 0, done.stderr
    return float(done.stdout.split("accuracy")[1])


def test_run_with_a_fix_and_check_and_plan(remedy):
    target = script(remedy)
    study_file = remedy.place / "study.yaml"
    study_file.write_text("target: train.py\ngoal: accuracy>=0.85\nargs: [--lr, 0.01]\n")
    fix = remedy.place / "found.yaml"
    fix.write_text("schema: 1\nremedies: {schedule: cosine, learning_rate: scale_up, scale_up.factor: 10.0}\n")
    ran = remedy("run", study_file, "--fix", fix, "--seed", 7, "--json").json
    assert ran["outcome"] == "converged"
    assert [receipt["remedy"] for receipt in ran["receipts"]] == ["scale_up", "cosine"]
    assert ran["steps"] == ran["steps_full"] == 200

    said = remedy("check", target, "--goal", GOAL, REMEDY_FIX="nowhere.yaml")
    assert "missed: accuracy" in said.out
    assert f"next: remedy submit {target} --goal 'accuracy>=0.85'" in said.out
    assert "REMEDY_FIX is set and ignored" in said.err

    plan = remedy("plan", target, "--goal", "0.85", "--json").json
    assert plan["steps"] == 200
    assert plan["closed_because"]["budget"] == "the script decides how long it trains"
    assert "budget" not in plan["slots"]
    said = remedy("plan", target, "--goal", "0.85").out
    for slot in ("batch_size", "averaging", "precision", "budget"):
        assert f"closed: {slot}, since {plan['closed_because'][slot]}" in " ".join(said.split())
    assert not (remedy.home / "studies").exists()


BAD = {
    "no goal": ((), "a script needs one"),
    "a goal that is none": (("--goal", "much"), "--goal is 'much'"),
    "a goal without its name": (("--goal", ">=0.9"), "--goal is '>=0.9'"),
    "a wrong sign": (("--goal", "accuracy<=0.9"), "wrong sign"),
    "out of range": (("--goal", "accuracy>=1.5"), "for accuracy it may be"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_goal_that_cannot_be_is_refused_before_anything_is_run(remedy, what):
    options, said = BAD[what]
    answer = remedy("submit", script(remedy), *options, code=2)
    assert said in answer.err
    assert "learn its full length" not in answer.err
    assert answer.err.count("\n") == 1
    assert not answer.out


def test_arguments_are_for_scripts(remedy):
    answer = remedy("check", remedy.write("train"), "--", "--lr", "0.1", code=2)
    assert "arguments after -- are for a script" in answer.err
    assert "after --" in remedy("list", "--", "x", code=2).err


def test_a_script_that_raises_is_said_in_one_sentence(remedy):
    target = script(remedy, after="raise ValueError('at last')")
    answer = remedy("submit", target, "--goal", GOAL, code=2)
    last = answer.err.strip().splitlines()[-1]
    assert "raised ValueError: at last (train.py, line" in last
    log = last.rsplit("traceback in ", 1)[1]
    assert "raise ValueError('at last')" in Path(log).read_text()


PRODUCTION = {
    "no file": ("nowhere.yaml", None, "cannot be read"),
    "no schema": ("fix.yaml", "remedies: {gradient: clip_norm}\n", "schema"),
    "a closed slot": ("fix.yaml", "schema: 1\nremedies: {precision: float32}\n", "precision"),
    "no steps": ("fix.yaml", "schema: 1\nremedies: {schedule: cosine}\n", "how many steps"),
}


@pytest.mark.parametrize("what", PRODUCTION)
def test_a_fix_that_cannot_be_applied_in_production(remedy, what):
    name, content, said = PRODUCTION[what]
    if content:
        (remedy.place / name).write_text(content)
    clean = {key: value for key, value in os.environ.items() if not key.startswith("REMEDY_")}
    command = [sys.executable, str(script(remedy))]
    done = run(command, remedy.place, {**clean, "REMEDY_FIX": name})
    assert done.returncode != 0
    assert said in done.stderr.strip().splitlines()[-1]
