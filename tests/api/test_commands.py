"""Commands one by one, as a user first meets them: help, speed, what is written, what is said next."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from remedy.cli import main, parser

COMMANDS = ["check", "conduct", "delete", "doctor", "export", "knowledge", "list", "logs", "nightly", "plan",
            "remedies", "report", "resume", "run", "show", "stop", "submit", "symptoms", "ui", "wait",
            "watch"]  # fmt: skip
EXAMPLES = Path(__file__).parents[2] / "examples"
HEAVY = {"torch", "optuna", "ray", "mlflow", "numpy", "sklearn", "pandas", "rich", "yaml", "sqlalchemy"}


def test_these_are_the_commands():
    (choices,) = [action.choices for action in parser()._actions if action.choices]
    assert sorted(choices) == sorted(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert said.startswith(f"usage: remedy {command}")
    assert len(said.splitlines()) > 5
    unexplained = re.findall(r"^  (-{1,2}\S+)(?: [A-Z]+)?$(?!\n {10,}\S)", said, re.MULTILINE)
    assert not unexplained


def test_help_lists_every_command(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    for command in COMMANDS:
        assert re.search(rf"^ +{command}\b\s+\S", said, re.MULTILINE)
    for code in (0, 2, 3, 4, 5, 130):
        assert re.search(rf"^ +{code}\b +\S", said, re.MULTILINE)


def quickest(*args):
    """Seconds of the quickest of some starts: what the machine does beside it is not what is measured."""
    took = []
    for _ in range(7):
        began = time.monotonic()
        subprocess.run([sys.executable, *args], check=True, capture_output=True)
        took.append(time.monotonic() - began)
    return min(took)


def test_help_answers_at_once():
    assert quickest("-m", "remedy", "--help") < quickest("-c", "pass") + 0.3


@pytest.mark.parametrize(
    "args", [("-m", "remedy", "--help"), ("-m", "remedy", "submit", "--help"), ("-c", "import remedy")]
)
def test_nothing_heavy_is_imported_for_it(args):
    done = subprocess.run([sys.executable, "-X", "importtime", *args], check=True, capture_output=True, text=True)
    imported = {line.rpartition("|")[2].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert "argparse" in imported or args[0] == "-c"
    assert not imported & HEAVY


def test_the_face_offers_what_the_contract_says():
    import remedy

    for name in ("Training", "load_fix", "remedy", "Float", "Int", "Choice"):
        assert getattr(remedy, name) is not None
    assert set(remedy.__all__) <= set(dir(remedy))
    with pytest.raises(AttributeError, match="nothing_at_all"):
        remedy.nothing_at_all  # noqa: B018


def test_version(remedy):
    assert re.fullmatch(r"remedy \d+\.\d+\S*\n", remedy("--version").out)


def test_plan_writes_nothing(remedy):
    target = remedy.write("train")
    before = sorted(path.name for path in remedy.place.iterdir())
    told = remedy("plan", target, "--budget", 20, "--json").json
    assert not remedy.home.exists()
    assert [name for name in sorted(path.name for path in remedy.place.iterdir()) if name != "__pycache__"] == before
    assert told["steps"] == 100
    assert "adam" in told["slots"]["optimizer"]
    assert told["baseline_runs"] == 3


def test_plan_reads_a_study_file(remedy):
    remedy.write("train")
    (remedy.place / "deep").mkdir()
    (remedy.place / "deep" / "study.yaml").write_text(
        "target: ../train.py:training\ngoal: 0.8\nonly: [adam, tanh]\nconfirm-seeds: 6\nruns: 40\n"
    )
    told = remedy("plan", "deep/study.yaml", "--runs", 30, "--json").json
    assert told["goal"]["value"] == 0.8
    assert told["slots"] == {"activation": ["tanh"], "optimizer": ["adam"]}
    assert told["confirming_runs_per_fix"] == 12
    assert told["most_runs"] == 30, "the command line goes before the file"


def test_a_goal_on_the_command_line_goes_before_the_trainings_own(remedy):
    target = remedy.write("train")
    assert remedy("check", target, "--goal", "accuracy>=0.5", "--json").json["goal"] == 0.5
    told = remedy("run", target, "--goal", "0.99", "--seed", 5, "--json").json
    assert (told["goal"], told["seed"], told["outcome"]) == (0.99, 5, "missed")


def test_a_healthy_training_is_left_alone(remedy, contract):
    target = EXAMPLES / "healthy.py"
    report = remedy("submit", target, "--workers", 0, "--json", "--name", "healthy", code=4).json
    contract(report, 4)
    assert report["fixes"] == []
    assert report["reason"] is None
    told = {name: number for name, number in report["runs"].items() if number}
    assert told == {"total": 5, "converged": 5}, "the defaults, the control, the baseline"
    assert "Nothing" in remedy("report", "healthy").out
    answer = remedy("export", "healthy", code=2)
    assert "no confirmed fix" in answer.err


def test_a_training_without_randomness_is_said_to_be_one(remedy, contract):
    before = """
        def model():
            torch.manual_seed(5)
            return nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))

        def same_order(train):
            return torch.utils.data.SequentialSampler(train)
    """
    target = remedy.write("fixed", "model=model, sampler=same_order", before)
    report = remedy("submit", target, "--workers", 0, "--json", "--name", "fixed", "--runs", 3, code=3).json
    contract(report, 3)
    assert report["baseline"]["deterministic"] is True
    assert "identical" in remedy("report", "fixed").out


def test_own_remedies_are_searched_with_ours(remedy, contract):
    before = """
        @remedy.remedy("learning_rate", treats=["chance_plateau"], invasiveness=1, source="our team")
        def by_hundred(rates) -> remedy.Change:
            \"\"\"Multiply every learning rate by a hundred.\"\"\"
            return remedy.Change([rate * 100 for rate in rates], "learning rates times 100")
    """
    target = remedy.write("own", before=before)
    told = remedy("plan", target, "--json").json
    assert "by_hundred" in told["slots"]["learning_rate"]


def test_the_catalogue_is_listed(here_json):
    remedies, symptoms = here_json("remedies", "--json"), here_json("symptoms", "--json")
    assert len({row["remedy"] for row in remedies}) == len(remedies) >= 25
    known = {row["symptom"] for row in symptoms}
    for row in remedies:
        assert row["source"]
        assert row["summary"].endswith(".")
        assert 1 <= row["invasiveness"] <= 5
        assert set(row["treats"]) <= known
        assert set(row["first"]) == set(row["parameters"])
    for row in symptoms:
        assert row["source"]
        assert row["about"]
        assert row["means"]
        assert set(row["remedies"]) == {other["remedy"] for other in remedies if row["symptom"] in other["treats"]}
    (only,) = {row["slot"] for row in here_json("remedies", "--slot", "optimizer", "--json")}
    assert only == "optimizer"
    assert all("dead_units" in row["treats"] for row in here_json("remedies", "--symptom", "dead_units", "--json"))


@pytest.fixture
def here_json(capsys):
    """Run a command in this process and read the JSON it prints."""

    def run(*args):
        assert main(list(args)) == 0
        return json.loads(capsys.readouterr().out)

    return run


def test_doctor_says_what_there_is(remedy):
    told = remedy("doctor", "--json").json
    assert {"python", "packages", "home", "storage", "mlflow", "ray"} <= {part["part"] for part in told}
    assert {part["state"] for part in told} <= {"ok", "not used", "not known"}  # torch may be late on a busy machine


def test_an_empty_home_is_said_to_be_empty(remedy, capsys, monkeypatch):
    monkeypatch.setenv("REMEDY_HOME", str(remedy.home))
    assert main(["list"]) == 0
    assert "remedy submit" in capsys.readouterr().out
    assert main(["list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []
    assert not remedy.home.exists()
