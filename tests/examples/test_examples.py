"""Every example goes wrong the way it says, and what is said to restore it does."""

import dataclasses
from pathlib import Path

import pytest

from remedy.cli import main
from remedy.spaces.catalogue import REMEDIES
from remedy.spaces.combination import checked
from remedy.spaces.outcome import Outcome
from remedy.spaces.script import Script
from remedy.spaces.target import find
from remedy.workers.order import Phase, WorkOrder
from remedy.workers.run import perform

FOLDER = Path(__file__).parents[2] / "examples"
EXAMPLES = sorted(path.stem for path in FOLDER.glob("*.py") if "def training(" in path.read_text())
SCRIPTS = {"own_loop": "accuracy>=0.87"}  # with a loop of their own, and what is asked of them
HEALTHY = {"healthy"}
SEEDS = (8, 9)

SYMPTOMS = {
    "wide_softmax": {"saturated_softmax", "zero_gradient", "accuracy_collapse", "class_takeover"},
    "deep_takeover": {"saturated_softmax", "zero_gradient", "accuracy_collapse", "class_takeover"},
    "dead_relu": {"dead_units"},
    "stuck_at_ln_n": {"chance_plateau"},
}
RESTORED_BY = {
    "wide_softmax": {"learning_rate": "scale_down", "scale_down.factor": 0.1},
    "deep_takeover": {"learning_rate": "scale_down", "scale_down.factor": 0.1},
    "dead_relu": {"gradient": "clip_norm", "clip_norm.max_norm": 1.0},
    "stuck_at_ln_n": {"objective": "fused_cross_entropy", "learning_rate": "scale_up", "scale_up.factor": 10.0},
}


def trained(name, params, seed):
    """Train one run of an example, in this process, to its end."""
    combination = checked(params, {remedy.name: remedy for remedy in REMEDIES})
    source = find(str(FOLDER / f"{name}.py"))
    return perform(WorkOrder(0, source, combination.params, seed, data_seed=0, phase=Phase.CONFIRM))


def test_there_is_something_known_of_each():
    assert set(EXAMPLES) == set(RESTORED_BY) | HEALTHY
    assert set(SYMPTOMS) == set(RESTORED_BY)


@pytest.mark.parametrize("name", sorted(RESTORED_BY))
def test_untouched_it_goes_wrong_as_it_says(name):
    result = trained(name, {}, SEEDS[0])
    assert result.outcome in (Outcome.COLLAPSED, Outcome.MISSED), result.reason
    seen = {str(note.symptom) for note in result.notes} | ({str(result.verdict.symptom)} if result.verdict else set())
    assert seen & SYMPTOMS[name]
    if result.outcome is Outcome.COLLAPSED:
        assert result.verdict.evidence
        assert result.verdict.onset_step <= result.verdict.step == result.steps


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", sorted(RESTORED_BY))
def test_what_is_said_to_restore_it_does(name, seed):
    result = trained(name, RESTORED_BY[name], seed)
    assert result.outcome is Outcome.CONVERGED, result.reason
    assert result.steps == result.steps_full
    assert [receipt.remedy for receipt in result.receipts] == [
        value for key, value in RESTORED_BY[name].items() if "." not in key
    ]


@pytest.mark.parametrize("name", sorted(HEALTHY))
def test_the_healthy_one_converges(name):
    result = trained(name, {}, SEEDS[0])
    assert result.outcome is Outcome.CONVERGED
    assert result.verdict is None


@pytest.mark.parametrize("name", EXAMPLES)
def test_check_names_what_is_wrong(name, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("REMEDY_HOME", str(tmp_path))
    assert main(["check", str(FOLDER / f"{name}.py")]) == 0
    said = capsys.readouterr().out
    if name in HEALTHY:
        assert "converged" in said
        assert "pre-flight error" not in said
    else:
        assert any(symptom in said for symptom in SYMPTOMS[name])
    assert "remedy submit" in said


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_goes_wrong_like_its_twin_and_is_restored_like_it(name, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("REMEDY_HOME", str(tmp_path))
    assert main(["check", str(FOLDER / f"{name}.py"), "--goal", SCRIPTS[name], "--seed", str(SEEDS[0])]) == 0
    said = capfd.readouterr().out
    assert any(symptom in said for symptom in SYMPTOMS["wide_softmax"])
    assert f"next: remedy submit {FOLDER / name}.py --goal '{SCRIPTS[name]}'" in said

    script = Script(metric="accuracy", goal=0.87, steps=400, interval="step", reports=tuple(range(20, 401, 20)))
    source = dataclasses.replace(find(str(FOLDER / f"{name}.py")), script=script)
    order = WorkOrder(0, source, {}, SEEDS[0], data_seed=0, phase=Phase.CONFIRM)
    broken, twin = perform(order), trained("wide_softmax", {}, SEEDS[0])
    assert broken.outcome is Outcome.COLLAPSED
    assert broken.first_losses == twin.first_losses
    assert (broken.verdict.symptom, broken.verdict.onset_step) == (twin.verdict.symptom, twin.verdict.onset_step)
    restored = perform(dataclasses.replace(order, params=RESTORED_BY["wide_softmax"]))
    assert restored.outcome is Outcome.CONVERGED, restored.reason
    assert [receipt.remedy for receipt in restored.receipts] == ["scale_down"]


def test_every_example_is_tested():
    files = {path.stem for path in FOLDER.glob("*.py")}
    assert files == {*EXAMPLES, *SCRIPTS, "digits"}
