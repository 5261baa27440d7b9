"""Whatever is wrong with what a user hands over: exit code 2, one clear sentence, and nothing left half written.

Most cases end before a process of their own would matter and are run in this one, which saves importing torch fifty
times; those in which the user's code prints, exits, raises late or hangs are run as a user does.
"""

import json
import re
import sys
from pathlib import Path

import pytest

from remedy.cli import main

QUICK = ("--workers=0", "--runs=1")  # what is accepted against all expectation is at least over at once
BAD_TRAININGS = {
    # name: (what is changed, words that the sentence must hold)
    "an unknown metric": ("metric='acuracy'", ["acuracy", "balanced_accuracy"]),
    "a goal out of range": ("goal=1.5", ["goal", "1.5"]),
    "a goal that is no number": ("goal='high'", ["goal", "'high'"]),
    "a goal that is missing": ("goal=None", ["goal", "missing"]),
    "no steps": ("steps=0", ["steps", "0"]),
    "no epochs": ("steps=None, epochs=0", ["epochs", "0"]),
    "neither epochs nor steps": ("steps=None", ["epochs", "steps"]),
    "both epochs and steps": ("epochs=2", ["epochs", "steps"]),
    "batch size zero": ("batch_size=0", ["batch_size", "0"]),
    "a batch size that is no whole number": ("batch_size=2.5", ["batch_size", "2.5"]),
    "an empty train set": ("data=lambda: (NOTHING, data()[1])", ["empty"]),
    "an empty validation set": ("data=lambda: (data()[0], NOTHING)", ["empty"]),
    "one class only": ("data=lambda: (ZEROS, ZEROS)", ["class", "only"]),
    "one class in validation only": (
        "data=lambda: (data()[0], ZEROS)", ["validation", "class"],
    ),
    "data that is one set": ("data=lambda: data()[0]", ["data"]),
    "data that is nothing": ("data=lambda: None", ["data", "None"]),
    "samples without targets": ("data=lambda: (BARE, BARE)", ["target"]),
    "a model with too few outputs": ("model=lambda: nn.Linear(4, 2)", ["model and targets do not fit", "2"]),
    "a model with other inputs": ("model=lambda: nn.Linear(5, 3)", ["model and inputs do not fit", "5", "4"]),
    "a model that is none": ("model=lambda: 42", ["model", "int", "Module"]),
    "a model that returns a tuple": ("model=lambda: Pair()", ["tuple", "tensor"]),
    "a model that raises": ("model=lambda: 1 / 0", ["ZeroDivisionError", "division by zero"]),
    "a loss that returns a vector": ("loss=nn.CrossEntropyLoss(reduction='none')", ["loss", "scalar", "shape"]),
    "a loss that returns a number": ("loss=lambda outputs, targets: 1.0", ["loss", "float", "tensor"]),
    "a loss that has no gradient": ("loss=lambda outputs, targets: torch.tensor(1.0)", ["loss", "gradient"]),
    "a loss that raises": ("loss=lambda outputs, targets: 1 / 0", ["ZeroDivisionError"]),
    "a goal that guessing meets": ("goal=0.01", ["guess", "0.01"]),
    "an optimizer that is none": ("optimizer=lambda parameters: None", ["optimizer", "None"]),
    "an optimizer that is no function": ("optimizer=3", ["optimizer", "3"]),
    "an optimizer without parameters": ("optimizer=lambda _: torch.optim.SGD([], lr=1)", ["optimizer", "empty"]),
    "a metric of one's own without a mode": ("metric=lambda outputs, targets: 0.5", ["mode"]),
    "a mode that contradicts the metric": ("mode='min'", ["mode", "accuracy"]),
    "an unknown field": ("epoch=3", ["epoch"]),
    "a device that is not there": ("device='cuda:77'", ["CUDA"]),
}  # fmt: skip
PAIR = """
    NOTHING = TensorDataset(torch.ones(0, 4), torch.ones(0).long())
    ZEROS = TensorDataset(torch.randn(64, 4), torch.zeros(64).long())
    BARE = TensorDataset(torch.randn(64, 4))

    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(4, 3)

        def forward(self, x):
            return self.head(x), x
"""


@pytest.fixture
def here(remedy, monkeypatch, capfd):
    """Run a command in this process: (exit code, what it said)."""
    for name in ("REMEDY_STORAGE", "REMEDY_FIX", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("REMEDY_HOME", str(remedy.home))
    monkeypatch.chdir(remedy.place)
    monkeypatch.setattr(sys, "path", [*sys.path])

    def run(*args):
        try:
            code = main([str(arg) for arg in args])
        except SystemExit as ended:  # argparse ends the process itself
            code = ended.code
        said = capfd.readouterr()
        return code, said.out, said.err

    return run


def refused(code, out, err, *words):
    """Hold what a refused command said against what a refusal has to be."""
    assert code == 2, err
    assert not out
    assert err.startswith("remedy: ")
    assert err.count("\n") == 1, "one line"
    assert "Traceback" not in err
    assert len(err) < 600
    assert "object at 0x" not in err
    missing = [word for word in words if word not in err]
    assert not missing, err


def nothing_written(remedy):
    studies = remedy.home / "studies"
    assert not studies.exists() or not list(studies.iterdir())
    assert not (remedy.home / "mlflow.db").exists()
    left = [path for path in remedy.place.rglob("*") if path.suffix not in (".py", ".yaml", ".pyc")]
    assert [path for path in left if path.is_file()] == []


@pytest.mark.parametrize("name", BAD_TRAININGS)
def test_a_training_that_cannot_be_one_is_refused(name, here, remedy):
    change, words = BAD_TRAININGS[name]
    refused(*here("submit", *QUICK, remedy.write("train", change, PAIR)), *words)
    nothing_written(remedy)


@pytest.mark.parametrize("command", ["check", "plan", "run"])
def test_every_command_with_a_target_refuses_it_likewise(command, here, remedy):
    refused(*here(command, remedy.write("train", "goal=1.5")), "goal", "1.5")
    assert not remedy.home.exists()


BAD_FILES = {
    "a function that returns a number": ("def training(): return 42", ["42", "remedy.Training"]),
    "a function that returns nothing": ("def training(): pass", ["None", "remedy.Training"]),
    "a function that wants arguments": ("def training(width): pass", ["TypeError", "width"]),
    "no function but a number": ("training = 42", ["int", "callable"]),
    "neither door": ("x = 3", ["training", "prepare"]),
    "an empty file": ("", ["training", "prepare"]),
    "a file that does not parse": ("x = 1\ndef training(: pass", ["does not parse", "line 2"]),
    "a file that raises at import": ("raise KeyError('boom')\ndef training(): pass", ["KeyError", "boom", "line 1"]),
    "a file that imports what is not there": ("import not_there_at_all\ndef training(): pass", ["not_there_at_all"]),
    "a file that exits at import": ("import sys\nsys.exit(7)\ndef training(): pass", ["exit", "7"]),
    "an error of many lines": ("raise RuntimeError('boom\\n' * 5000)\ndef training(): pass", ["RuntimeError", "boom"]),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_file_that_cannot_be_loaded_is_refused(name, here, remedy):
    text, words = BAD_FILES[name]
    (remedy.place / "train.py").write_text(text)
    refused(*here("submit", *QUICK, "train.py"), "train.py", *words)
    nothing_written(remedy)


def test_a_traceback_is_in_the_log_that_the_sentence_names(here, remedy):
    (remedy.place / "train.py").write_text("def inner(): raise RuntimeError('boom')\ndef training(): inner()")
    code, out, err = here("submit", "train.py")
    refused(code, out, err, "RuntimeError: boom")
    log = re.search(r"traceback in (\S+)", err)[1]
    text = Path(log).read_text()
    assert "Traceback" in text
    assert "inner()" in text


TARGETS = {
    "no such file": (["nowhere.py"], ["nowhere.py", "does not exist"]),
    "a folder": (["."], ["folder"]),
    "no such module": (["nowhere.at.all:training"], ["nowhere.at.all", "module"]),
    "no Python file": (["notes.txt"], ["notes.txt", "Python"]),
    "no such function": (["whole.py:nothing"], ["nothing", "training"]),
    "an empty function": (["whole.py:"], ["whole.py:", "function"]),
    "an empty target": ([""], ["target"]),
    "an unknown remedy": (["whole.py", "--only", "wishful_thinking"], ["wishful_thinking"]),
    "an unknown remedy left out": (["whole.py", "--without", "wishful_thinking"], ["wishful_thinking"]),
    "a remedy nearly spelt right": (["whole.py", "--only", "scaledown"], ["scaledown", "scale_down"]),
    "runs below one": (["whole.py", "--runs", "0"], ["--runs", "0"]),
    "runs that are no number": (["whole.py", "--runs", "many"], ["--runs", "many"]),
    "a budget of nothing": (["whole.py", "--budget", "0"], ["--budget", "0"]),
    "a budget that is no number": (["whole.py", "--budget", "nan"], ["--budget", "nan"]),
    "no time": (["whole.py", "--timeout", "-3"], ["--timeout", "-3"]),
    "no time for a run": (["whole.py", "--run-timeout", "0"], ["--run-timeout", "0"]),
    "too few seeds": (["whole.py", "--seeds", "2"], ["--seeds", "2", "3"]),
    "too few seeds to confirm on": (["whole.py", "--confirm-seeds", "1"], ["--confirm-seeds", "1", "5"]),
    "no fixes wanted": (["whole.py", "--fixes", "0"], ["--fixes", "0"]),
    "a seed below zero": (["whole.py", "--seed", "-1"], ["--seed", "-1"]),
    "a seed that is no whole number": (["whole.py", "--seed", "1.5"], ["--seed", "1.5"]),
    "workers below zero": (["whole.py", "--workers", "-1"], ["--workers", "-1"]),
    "a GPU share below zero": (["whole.py", "--workers", "1", "--gpus", "-1"], ["--gpus", "-1"]),
    "a name with a slash": (["whole.py", "--name", "../up"], ["../up"]),
    "an empty name": (["whole.py", "--name", ""], ["name"]),
    "a goal that is no number": (["whole.py", "--goal", "abc"], ["--goal", "abc"]),
    "a goal of another metric": (["whole.py", "--goal", "loss<=0.1"], ["--goal", "loss<=0.1", "accuracy>="]),
    "a goal the wrong way round": (["whole.py", "--goal", "accuracy<=0.5"], ["--goal", "accuracy<=0.5", "accuracy>="]),
    "a goal out of range": (["whole.py", "--goal", "7"], ["goal", "7"]),
    "a goal that guessing meets": (["whole.py", "--goal", "0.1"], ["0.1", "guess"]),
    "an unknown option": (["whole.py", "--wrokers", "2"], ["--wrokers", "--help"]),
    "two targets": (["whole.py", "whole.py"], ["whole.py", "--help"]),
}  # fmt: skip


@pytest.mark.parametrize("name", TARGETS)
def test_a_command_line_that_cannot_be_meant_is_refused(name, here, remedy):
    args, words = TARGETS[name]
    remedy.write("whole")
    (remedy.place / "notes.txt").write_text("not a training")
    code, out, err = here("submit", *QUICK, *args)
    (remedy.place / "notes.txt").unlink()
    refused(code, out, err, *words)
    nothing_written(remedy)


STUDY_FILES = {
    "an unknown key": ("target: whole.py\nwrokers: 2", ["wrokers", "workers"]),
    "a value of another kind": ("target: whole.py\nruns: many", ["runs", "many", "whole number"]),
    "a truth value": ("target: whole.py\nruns: yes", ["runs", "True"]),
    "a list of numbers": ("target: whole.py\nonly: [3]", ["only", "3"]),
    "a name in place of a list": ("target: whole.py\nonly: adam", ["only", "adam", "list"]),
    "no target": ("runs: 3", ["target"]),
    "an empty file": ("", ["target"]),
    "a list": ("- target: whole.py", ["target"]),
    "no YAML": ("target: [whole.py\nruns: 3", ["YAML", "line"]),
    "a target that is not there": ("target: nowhere.py", ["nowhere.py"]),
    "a number out of range": ("target: whole.py\nruns: 0", ["runs", "0"]),
    "workers below zero": ("target: whole.py\nworkers: -1", ["workers", "-1"]),
}  # fmt: skip


@pytest.mark.parametrize("name", STUDY_FILES)
def test_a_study_file_that_cannot_be_meant_is_refused(name, here, remedy):
    text, words = STUDY_FILES[name]
    remedy.write("whole")
    (remedy.place / "study.yaml").write_text(text)
    refused(*here("submit", "study.yaml"), *words)
    nothing_written(remedy)


def test_a_study_file_that_is_not_there_is_refused(here):
    refused(*here("submit", "study.yaml"), "study.yaml")


FIXES = {
    "no such file": (None, ["fix.yaml", "No such file"]),
    "no YAML": ("remedies: {a", ["fix.yaml", "YAML"]),
    "nothing": ("", ["fix.yaml", "remedies"]),
    "another schema": ("schema: 99\nremedies: {optimizer: adam}", ["99", "1"]),
    "an unknown slot": ("schema: 1\nremedies: {optimiser: adam}", ["optimiser", "optimizer"]),
    "an unknown remedy": ("schema: 1\nremedies: {optimizer: adamant}", ["adamant", "adam"]),
    "a remedy of another slot": ("schema: 1\nremedies: {schedule: adam}", ["adam", "schedule"]),
    "a parameter of nothing": ("schema: 1\nremedies: {optimizer: adam, sgd.lr: 0.1}", ["sgd.lr"]),
    "a parameter of another kind": ("schema: 1\nremedies: {optimizer: adam, adam.lr: fast}", ["adam.lr", "fast"]),
    "a number out of range": ("schema: 1\nremedies: {gradient: clip_norm, clip_norm.max_norm: -1}", ["0.1 to 10"]),
    "no schema": ("remedies: {optimizer: adam}", ["schema", "None"]),
    "a number that is none": ("schema: 1\nremedies: {optimizer: adam, adam.lr: .nan}", ["adam.lr", "nan"]),
    "a list": ("schema: 1\nremedies: [adam]", ["remedies"]),
    "keys that are numbers": ("schema: 1\nremedies: {1: adam}", ["text"]),
    "a remedy that is a list": ("schema: 1\nremedies: {optimizer: [adam]}", ["optimizer"]),
}  # fmt: skip


@pytest.mark.parametrize("name", FIXES)
def test_a_broken_fix_file_is_refused(name, here, remedy):
    text, words = FIXES[name]
    remedy.write("whole")
    if text is not None:
        (remedy.place / "fix.yaml").write_text(text)
    refused(*here("run", "whole.py", "--fix", "fix.yaml"), *words)
    nothing_written(remedy)


@pytest.mark.parametrize("command", ["show", "report", "export", "resume", "logs", "stop", "delete", "ui --study"])
def test_a_study_that_is_not_there_is_refused(command, here, remedy):
    refused(*here(*command.split(), "no-such-study"), "no-such-study")
    refused(*here(*command.split(), "../../etc"), "../../etc")
    assert not remedy.home.exists()


@pytest.mark.parametrize(("option", "word"), [("--slot", "optimizer"), ("--symptom", "dead_units")])
def test_a_filter_that_fits_nothing_says_what_there_is(option, word, here):
    refused(*here("remedies", option, "nonsense"), "nonsense", word)


def test_no_command_at_all_says_which_there_are(here):
    code, out, err = here()
    assert code == 2
    assert "submit" in out + err
    refused(*here("sumbit", "whole.py"), "sumbit", "submit", "--help")


# ---------------------------------------------------------------- as a user does

PRINTS = """
    import os, subprocess

    print("a line at import")
    os.write(1, b"a line past Python, at import\\n")
    subprocess.run(["echo", "a line of a child, at import"], check=True)
    times = 0

    def talks(outputs, targets):
        global times
        times += 1
        print("a line in the loss")
        if times % 7 == 0:
            os.write(1, b"a line past Python, in the loss\\n")
        return nn.functional.cross_entropy(outputs, targets)
"""


@pytest.mark.parametrize("command", ["check", "plan", "run", "submit --workers 0 --runs 3"])
def test_what_the_users_code_prints_never_reaches_standard_output(command, remedy):
    name, *options = command.split()
    target = remedy.write("talks", "loss=talks", PRINTS)
    answer = remedy(name, target, *options, "--json", code=None)
    assert answer.code in (0, 3), answer
    assert isinstance(answer.json, dict)
    assert answer.out.count("\n") == 1
    assert "a line" not in answer.err
    if name == "submit":
        said = remedy("logs", answer.json["study"]).out
        assert "a line in the loss" in said
        remedy("logs", answer.json["study"], "--run", 99, code=2)


RAISES = """
    times = 0

    def raises(outputs, targets):
        global times
        times += outputs.requires_grad
        if times >= 50:
            raise RuntimeError("boom at step 50")
        return nn.functional.cross_entropy(outputs, targets)
"""


def test_a_training_that_raises_at_step_50_ends_the_study(remedy, contract):
    answer = remedy(
        "submit", remedy.write("late", "loss=raises", RAISES), "--workers", 0, "--json", "--name", "late", code=2
    )
    contract(answer.json, 2)
    assert "Traceback" not in answer.err
    assert answer.json["runs"] == {**dict.fromkeys(answer.json["runs"], 0), "total": 5, "failed": 5}
    text = remedy("report", "late").out
    assert "boom at step 50" in text
    assert "Traceback" not in text
    shown = remedy("show", "late", "--run", 0).out
    assert "Traceback" in shown
    assert "raise RuntimeError" in shown
    assert "boom at step 50" in shown
    assert "Traceback" in remedy("logs", "late").out


LATE = {
    "a schedule that is none": ("schedule=lambda optimizer: 3", "int"),
    "a sampler that is none": ("sampler=lambda train: 3", "int"),
    "a metric of one's own that raises": ("metric=lambda outputs, targets: 1 / 0, mode='max'", "ZeroDivisionError"),
    "a loss that exits at once": ("loss=lambda outputs, targets: exit(3)", "3"),
}


@pytest.mark.parametrize("name", LATE)
def test_what_only_a_run_can_show_ends_the_study_or_is_refused_before(name, here, remedy):
    change, word = LATE[name]
    code, out, err = here("submit", "--workers=0", remedy.write("train", change))
    assert code == 2
    assert word in out + err
    assert "Traceback" not in out + err


def test_a_training_that_exits_in_a_run_ends_that_run_only(here, remedy, contract):
    act = RAISES.replace('RuntimeError("boom at step 50")', "SystemExit(7)")
    target = remedy.write("exits", "loss=raises", act)
    code, out, _ = here("submit", target, "--workers=0", "--json")
    assert code == 2
    report = json.loads(out)
    contract(report, 2)
    assert report["runs"]["failed"] == 5, "the defaults, the control and the baseline"
    assert all("SystemExit" in reason for reason in report["baseline"]["reasons"])


def test_a_run_that_raises_says_so(remedy):
    answer = remedy("run", remedy.write("late", "loss=raises", RAISES), code=2)
    assert "boom at step 50" in answer.out + answer.err
    assert "Traceback" not in answer.out + answer.err


HANGS = """
    import time

    times = 0

    def hangs(outputs, targets):
        global times
        times += outputs.requires_grad
        if times >= 50:
            time.sleep(3600)
        return nn.functional.cross_entropy(outputs, targets)
"""


def test_a_training_that_hangs_at_step_50_ends_by_its_time_limit(remedy, contract):
    answer = remedy(
        "submit",
        remedy.write("hangs", "loss=hangs", HANGS),
        "--run-timeout",
        2,
        "--workers",
        3,
        "--json",
        code=2,
        timeout=120,
    )
    contract(answer.json, 2)
    assert answer.json["runs"]["failed"] == 5, "the defaults, the control and the baseline"
    assert all("2 s" in reason for reason in answer.json["baseline"]["reasons"])


def test_a_training_that_hangs_while_it_is_loaded_ends_by_its_time_limit(remedy):
    target = remedy.write("hangs", before="import time\ntime.sleep(3600)")
    for command in ("submit", "plan"):
        answer = remedy(command, target, "--run-timeout", 1, code=2, timeout=60)
        refused(answer.code, answer.out, answer.err, "hangs.py", "1 s")
    nothing_written(remedy)


def test_a_loss_that_is_nan_from_the_start_is_a_broken_training_and_no_mistake(remedy, contract):
    target = remedy.write("nan", "loss=lambda outputs, targets: outputs.sum() * float('nan')")
    answer = remedy("submit", target, "--workers", 0, "--json", "--only", "scale_down", code=3)
    contract(answer.json, 3)
    assert answer.json["baseline"]["symptoms"][0]["symptom"] == "non_finite"
    assert "nan" in answer.json["preflight"][0]["message"]
