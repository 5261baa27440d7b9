"""Every example goes wrong the way it says, and what is said to restore it does."""

from pathlib import Path

import pytest

from remedy.cli import main
from remedy.spaces.catalogue import REMEDIES
from remedy.spaces.combination import checked
from remedy.spaces.outcome import Outcome
from remedy.spaces.target import find
from remedy.workers.order import Phase, WorkOrder
from remedy.workers.run import perform

FOLDER = Path(__file__).parents[2] / "examples"
EXAMPLES = sorted(path.stem for path in FOLDER.glob("*.py") if "def training(" in path.read_text())
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
