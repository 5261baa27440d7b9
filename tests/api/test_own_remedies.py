"""Remedies of one's own, declared in modules that a study file names: like ours everywhere, or refused by name."""

import dataclasses
import json
import os
import sys
import textwrap
from pathlib import Path

import pytest
import yaml
from torch import nn

import remedy as face
from remedy.cli import main
from remedy.spaces.error import InputError, UserCodeError
from remedy.spaces.outcome import Outcome
from remedy.spaces.target import Source, find, found_again, load
from remedy.workers.order import Phase, WorkOrder
from remedy.workers.run import perform
from tests.workers import scripts

OWN = '''
    import remedy


    @remedy.remedy(
        {slot!r},
        treats=["chance_plateau"],
        invasiveness=1,
        source="our team",
        python=remedy.Python(optimizer="for group in optimizer.param_groups:\\n    group['lr'] *= $factor"),
        factor={range},
    )
    def {name}(optimizer, *, factor: float = 10.0) -> remedy.Change:
        """{told}"""
        for group in optimizer.param_groups:
            group["lr"] *= factor
        return remedy.Change(optimizer, f"ten times as fast: x {{factor:g}}")
'''
STUDY = "target: train.py\nremedies: [own.py]\n"


def declared(folder, file="own.py", name="ten_times", **change):
    said = {"slot": "learning_rate", "range": "remedy.Float(2.0, 20.0)", "told": "Learns faster.", **change}
    path = folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(OWN).format(name=name, **said))
    return path


@pytest.fixture
def here(remedy, monkeypatch, capfd):
    """Run a command in this process: (exit code, standard output, standard error)."""
    monkeypatch.setenv("REMEDY_HOME", str(remedy.home))
    monkeypatch.chdir(remedy.place)
    monkeypatch.setattr(sys, "path", [*sys.path])

    def run(*args):
        code = main([str(arg) for arg in args])
        said = capfd.readouterr()
        return code, said.out, said.err

    return run


@pytest.mark.timeout(900)
@pytest.mark.parametrize("workers", [0, 1])
def test_they_are_searched_reported_and_exported_like_ours(remedy, contract, workers):
    remedy.write("train")
    declared(remedy.place)
    (remedy.place / "study.yaml").write_text(f"{STUDY}only: [ten_times, tanh]\nfixes: 1\nruns: 40\nname: own\n")
    report = remedy("submit", "study.yaml", "--workers", workers, "--json", timeout=800).json
    contract(report, 0)
    assert report["fixes"][0]["remedies"]["learning_rate"] == "ten_times"
    assert {row["remedy"] for row in report["remedies"]} <= {"ten_times", "tanh"}
    assert "ten times as fast" in remedy("report", "own").out
    if workers:
        return  # Ray's workers have imported it; what is left is the same

    remedy("export", "own")
    kept = yaml.safe_load((remedy.place / "fix.yaml").read_text())
    assert kept["remedies"]["learning_rate"] == "ten_times"
    assert remedy("run", "study.yaml", "--fix", "fix.yaml", "--seed", 77, "--json").json["outcome"] == "converged"
    refused = remedy("run", "train.py", "--fix", "fix.yaml", code=2).err
    assert "'ten_times'" in refused, "without the study file nobody knows it"

    remedy("export", "own", "--as", "python")
    text = (remedy.place / "fix.py").read_text()
    assert f"group['lr'] *= {kept['remedies']['ten_times.factor']!r}" in text
    assert "NOT IN HERE" not in text

    # What travels is the file as it was: another one is another study.
    declared(remedy.place, told="Learns faster, in other words.")
    refused = remedy("resume", "own", "--workers", 0, "--runs", 45, code=2).err
    assert "own.py has changed" in refused


def test_plan_lists_them_beside_those_of_the_training_and_of_a_module(here, remedy):
    inside = textwrap.dedent(OWN).replace("import remedy", "", 1)
    inside = inside.format(name="inside", slot="learning_rate", range="remedy.Float(2.0, 20.0)", told="Learns.")
    path = remedy.write("train")
    path.write_text(path.read_text() + inside)
    declared(remedy.place)
    declared(remedy.place, "team/cures.py", "of_a_module", slot="optimizer")
    (remedy.place / "study.yaml").write_text("target: train.py\nremedies: [own.py, team.cures]\n")
    code, out, err = here("plan", "study.yaml", "--json")
    assert code == 0, err
    slots = json.loads(out)["slots"]
    assert {"ten_times", "inside"} <= set(slots["learning_rate"])
    assert "of_a_module" in slots["optimizer"]
    assert not remedy.home.exists()


def test_the_catalogue_lists_them_with_their_file(here, remedy):
    remedy.write("train")
    own = declared(remedy.place)
    (remedy.place / "study.yaml").write_text(STUDY)
    code, out, err = here("remedies", "study.yaml", "--slot", "learning_rate", "--json")
    assert code == 0, err
    rows = {row["remedy"]: row for row in json.loads(out)}
    assert rows["ten_times"] | {"declared_in": None} == {
        "remedy": "ten_times", "slot": "learning_rate", "treats": ["chance_plateau"], "invasiveness": 1,
        "parameters": {"factor": "2 to 20"}, "first": {"factor": 10.0}, "summary": "Learns faster.",
        "source": "our team", "python": True, "declared_in": None,
    }  # fmt: skip
    assert rows["ten_times"]["declared_in"] == str(own.resolve())
    assert rows["scale_up"]["declared_in"] is None
    assert f"declared in {own.resolve()}" in here("remedies", "study.yaml")[1]
    refused(here("remedies", "nowhere.py"), "nowhere.py")


def test_a_file_is_named_from_where_the_study_file_lies(here, remedy):
    (remedy.place / "below").mkdir()
    remedy.write("below/train")
    declared(remedy.place / "below")
    (remedy.place / "below" / "study.yaml").write_text(STUDY)
    code, out, err = here("plan", "below/study.yaml", "--json")
    assert code == 0, err
    assert "ten_times" in json.loads(out)["slots"]["learning_rate"]


def test_one_that_the_training_imports_too_is_the_same(here, remedy):
    remedy.write("train", before="from own import ten_times")
    declared(remedy.place)
    (remedy.place / "study.yaml").write_text(STUDY)
    code, out, err = here("plan", "study.yaml", "--json")
    assert code == 0, err
    assert json.loads(out)["slots"]["learning_rate"].count("ten_times") == 1


MISTAKES = {
    # name: (what is declared, words that the sentence must hold)
    "an unknown slot": ({"slot": "learning_speed"}, ["'ten_times'", "learning_speed", "learning_rate"]),
    "a default out of its range": ({"range": "remedy.Float(0.1, 0.5)"}, ["'ten_times'", "factor=10.0", "0.1 to 0.5"]),
    "a range that is none": ({"range": "(2.0, 20.0)"}, ["'ten_times'", "(2.0, 20.0)", "Float, Int or Choice"]),
    "a range that is empty": ({"range": "remedy.Float(3.0, 2.0)"}, ["Float(3.0, 2.0)", "low must be smaller"]),
    "no sentence": ({"told": ""}, ["'ten_times'", "docstring"]),
    "the name of one of ours": ({"name": "scale_up"}, ["'scale_up'", "own.py", "one in the catalogue"]),
    "a name in capitals": ({"name": "Faster"}, ["'Faster'", "lower case"]),
}  # fmt: skip


def refused(answer, *words):
    code, out, err = answer
    assert code == 2, err
    assert not out
    assert err.startswith("remedy: ")
    assert err.count("\n") == 1, "one line"
    missing = [word for word in words if word not in err]
    assert not missing, err


@pytest.mark.parametrize("command", ["plan", "submit --workers 0 --runs 1", "run", "check"])
@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_in_a_declaration_is_refused_by_name(name, command, here, remedy):
    change, words = MISTAKES[name]
    remedy.write("train")
    declared(remedy.place, **change)
    (remedy.place / "study.yaml").write_text(STUDY)
    first, *options = command.split()
    refused(here(first, "study.yaml", *options), "own.py", *words)
    studies = remedy.home / "studies"
    assert not studies.exists() or not list(studies.iterdir())


FILES = {
    # name: (what the study file says, what is in own.py, words)
    "a file that is not there": ("[nowhere.py]", "", ["nowhere.py", "does not exist", "remedy.remedy"]),
    "a module that is not there": ("[no.such.module]", "", ["no.such.module", "neither a file nor a module"]),
    "no list": ("own.py", "", ["remedies", "own.py", "a list"]),
    "no text in it": ("[1]", "", ["remedies", "[1]"]),
    "a folder": ("[..]", "", ["..", "folder"]),
    "no Python": ("[own.py]", "def :", ["own.py", "line 1"]),
    "a file that declares none": ("[own.py]", "x = 1", ["own.py", "declares none"]),
    "a file that raises": ("[own.py]", "1 / 0", ["own.py", "ZeroDivisionError", "line 1"]),
    "a file that ends the process": ("[own.py]", "raise SystemExit(3)", ["own.py", "SystemExit"]),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_remedies_that_cannot_be_one_is_refused(name, here, remedy):
    said, text, words = FILES[name]
    remedy.write("train")
    (remedy.place / "own.py").write_text(text + "\n")
    (remedy.place / "study.yaml").write_text(f"target: train.py\nremedies: {said}\n")
    refused(here("plan", "study.yaml"), *words)


def test_two_of_one_name_are_refused_with_both_files(here, remedy):
    remedy.write("train")
    declared(remedy.place)
    declared(remedy.place, "other.py")
    (remedy.place / "study.yaml").write_text("target: train.py\nremedies: [own.py, other.py]\n")
    refused(here("plan", "study.yaml"), "'ten_times'", "other.py", "own.py")


# ---------------------------------------------------------------- how they travel


def order_of(source, **params):
    given = {key.replace("__", "."): value for key, value in params.items()}
    return WorkOrder(0, source, given, 3, 0, Phase.SEARCH)


def travelled(order):
    """The order as a worker gets it."""
    return WorkOrder.from_json(json.loads(json.dumps(dataclasses.asdict(order))))


def test_the_source_carries_the_files_with_their_hashes(remedy):
    target, own = remedy.write("train"), declared(remedy.place)
    source = find(str(target), remedies=[str(own)])
    assert [(Path(one.path), len(one.sha256)) for one in source.beside] == [(own.resolve(), 64)]
    assert Source.from_json(json.loads(json.dumps(dataclasses.asdict(source)))) == source
    assert found_again(source) == source
    assert {"train.py", "own.py"} <= set(load(source).code)
    order = order_of(source, learning_rate="ten_times", ten_times__factor=20.0)
    assert travelled(order) == order
    own.write_text(own.read_text() + "# changed\n")
    assert found_again(source) != source


def test_a_worker_applies_them_and_refuses_a_file_that_has_changed(remedy):
    target, own = remedy.write("train"), declared(remedy.place)
    source = find(str(target), remedies=[str(own)])
    result = perform(travelled(order_of(source, learning_rate="ten_times", ten_times__factor=20.0)))
    assert result.outcome is Outcome.CONVERGED
    assert [receipt.text for receipt in result.receipts] == ["ten times as fast: x 20"]
    for name in [name for name in sys.modules if name.startswith("_remedy_user_")]:
        del sys.modules[name]  # as in a worker that begins
    own.write_text(own.read_text() + "# changed\n")
    result = perform(travelled(order_of(source, learning_rate="ten_times", ten_times__factor=20.0)))
    assert result.outcome is Outcome.FAILED
    assert "own.py has changed since the study began" in result.reason


def test_a_file_outside_of_what_is_sent_to_a_cluster_is_refused(remedy, tmp_path):
    from remedy.commands.cluster import _below

    target, own = remedy.write("train"), declared(tmp_path / "elsewhere")
    source = find(str(target), remedies=[str(own)])
    assert _below(remedy.place.resolve(), source).path == "train.py"
    with pytest.raises(InputError, match=r"own.py lies outside of .*work"):
        _below(remedy.place.resolve(), source.beside[0])


def test_one_that_returns_no_change_fails_its_run_by_name(remedy):
    target, own = remedy.write("train"), declared(remedy.place)
    own.write_text(own.read_text().replace("return remedy.Change(", "remedy.Change("))
    result = perform(order_of(find(str(target), remedies=[str(own)]), learning_rate="ten_times"))
    assert result.outcome is Outcome.FAILED
    assert "remedy 'ten_times' returned NoneType; it may return a remedy.Change" in result.reason


def test_a_fix_with_one_is_applied_in_code_that_gives_it(remedy):
    target, own = remedy.write("train"), declared(remedy.place)
    loaded = load(find(str(target), remedies=[str(own)]))
    fix = remedy.place / "fix.yaml"
    fix.write_text("schema: 1\nremedies: {learning_rate: ten_times, ten_times.factor: 20, activation: tanh}\n")
    parts = face.assemble(face.load_fix(fix, loaded.remedies).apply(loaded.builders), seed=7)
    assert parts.optimizer.param_groups[0]["lr"] == pytest.approx(0.2)
    assert isinstance(parts.model[1], nn.Tanh)
    with pytest.raises(InputError, match=r"'ten_times' is unknown.*scale_up.*remedy.load_fix\(path, \[it\]\)"):
        face.load_fix(fix)


def test_an_error_of_a_file_is_kept_with_its_traceback(remedy):
    target = remedy.write("train")
    own = remedy.place / "own.py"
    own.write_text("import remedy\n\n1 / 0\n")
    with pytest.raises(UserCodeError, match=r"own.py raised ZeroDivisionError.*line 3") as error:
        load(find(str(target), remedies=[str(own)]))
    assert "Traceback" in error.value.trace


# ---------------------------------------------------------------- scripts


def test_a_run_of_a_script_applies_them(remedy):
    target = scripts.written(remedy.place, scripts.text(epochs=20))
    declared(remedy.place)
    (remedy.place / "study.yaml").write_text(f"{STUDY}goal: accuracy>=0.85\n")
    plan = remedy("plan", "study.yaml", "--json").json
    assert "ten_times" in plan["slots"]["learning_rate"]
    fix = remedy.place / "fix.yaml"
    fix.write_text("schema: 1\nremedies: {learning_rate: ten_times, ten_times.factor: 20.0}\n")
    ran = remedy("run", "study.yaml", "--fix", fix, "--json").json
    assert ran["outcome"] == "converged"
    assert [receipt["changed"] for receipt in ran["receipts"]] == ["ten times as fast: x 20"]
    refused = remedy("run", target, "--goal", "accuracy>=0.85", "--fix", fix, code=2).err
    assert "'ten_times'" in refused


def test_a_fix_applied_by_the_environment_knows_those_that_the_script_imports(remedy):
    import subprocess

    declared(remedy.place)
    saying = "print('accuracy', right / len(held))"
    target = scripts.written(remedy.place, scripts.text(epochs=20, after=saying))
    (remedy.place / "fix.yaml").write_text("schema: 1\nremedies: {learning_rate: ten_times, ten_times.factor: 20.0}\n")
    clean = {name: value for name, value in os.environ.items() if not name.startswith("REMEDY_")}

    def produced():
        command = [sys.executable, str(target)]
        environment = {**clean, "REMEDY_FIX": "fix.yaml"}
        return subprocess.run(
            command, cwd=remedy.place, env=environment, capture_output=True, text=True, check=False, timeout=200
        )

    assert "'ten_times'" in produced().stderr, "nobody has declared it"
    target.write_text(target.read_text().replace("import remedy", "import remedy\nfrom own import ten_times", 1))
    done = produced()
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split("accuracy")[1]) >= 0.85
