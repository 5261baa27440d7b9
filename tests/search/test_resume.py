"""A study that was cut off and goes on equals the study that was not."""

import itertools
import json
from pathlib import Path

import pytest

from remedy.search.agenda import Reason
from remedy.search.home import StudyFolder
from remedy.search.study import Trials, repair
from remedy.spaces.combination import Combination
from remedy.spaces.error import InputError
from remedy.spaces.outcome import Outcome
from tests.search.laws import obeyed
from tests.search.scripted import SMALL, Bench, Killed, Told, bench, needs


def narrow(combination: Combination, seed: int) -> float:
    """Only the sampler finds it; on the way there a pair that is reduced."""
    factor = float(combination.params.get("smaller.factor", 1.0))
    if combination.names >= {"fused", "drop"} or ("fused" in combination.names and seed != 100):
        return 0.95
    return 0.95 if factor < 0.06 else 0.3 + 0.5 * (1 - factor)


def small(path: Path, workers: int = 1) -> Bench:
    return bench(path, narrow, workers, SMALL, fixes=3)


def killed_every(study: Bench, answers: int) -> Told:
    """Work in sessions that each die after so many results."""
    for session in itertools.count():
        controller, executor = study.controller(dies_after=answers, seed=session)
        try:
            return Told(controller, executor, controller.run())
        except Killed:
            assert session < 200
    raise AssertionError


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Told:
    told = small(tmp_path_factory.mktemp("unbroken")).run()
    assert obeyed(told)
    assert told.controller.trials.asked > 3
    return told


def test_the_same_seed_is_the_same_study(tmp_path: Path, unbroken: Told) -> None:
    assert small(tmp_path).run().sequence == unbroken.sequence


def test_another_seed_samples_other_values(tmp_path: Path) -> None:
    def sampled(seed: int) -> set[str]:
        told = bench(tmp_path / str(seed), needs(), 1, SMALL, seed=seed).run()
        assert obeyed(told)
        assert told.report["baseline"]["seeds"] == [seed * 1000, seed * 1000 + 1, seed * 1000 + 2]
        trials = told.controller.trials._study.get_trials(deepcopy=False)
        asked = [trial for trial in trials if "remedy.proposed" in trial.user_attrs]
        return {Combination.of(trial.params).key for trial in asked if "remedy.discarded" not in trial.user_attrs}

    one, other = sampled(0), sampled(1)
    assert len(one) > 3
    assert len(other) > 3
    assert not one & other


@pytest.mark.parametrize("answers", [0, 1, 3, 4, 9, 16, 23, 29, 34, 39])
def test_cut_off_anywhere_it_goes_on_with_the_very_same_runs(tmp_path: Path, unbroken: Told, answers: int) -> None:
    study = small(tmp_path)
    controller, _ = study.controller(dies_after=answers)
    try:
        controller.run()
    except Killed:
        assert len(StudyFolder.at(tmp_path).numbers()) == answers
    told = study.run()
    assert obeyed(told)
    assert told.sequence == unbroken.sequence
    assert told.found == unbroken.found
    assert told.reason is unbroken.reason
    same = {"runs", "remedies", "baseline"}
    assert {key: told.report[key] for key in same} == {key: unbroken.report[key] for key in same}
    costs = [{k: v for k, v in each.report["cost"].items() if k != "seconds"} for each in (told, unbroken)]
    assert costs[0] == costs[1]


@pytest.mark.parametrize("answers", [1, 4])
def test_cut_off_again_and_again_it_still_ends_the_same(tmp_path: Path, unbroken: Told, answers: int) -> None:
    told = killed_every(small(tmp_path), answers)
    assert obeyed(told)
    assert told.sequence == unbroken.sequence
    assert told.found == unbroken.found


@pytest.mark.parametrize(("workers", "answers"), [(2, 5), (3, 10), (4, 17)])
def test_with_several_workers_no_run_is_repeated_and_the_fixes_are_the_same(
    tmp_path: Path, workers: int, answers: int
) -> None:
    truth = needs("clip", "smaller fused", near=0.1)
    calm = bench(tmp_path / "calm", truth, workers, SMALL, runs=45).run()
    study = bench(tmp_path / "cut", truth, workers, SMALL, runs=45)
    told = killed_every(study, answers)
    assert obeyed(told)
    assert {(frozenset(names), state) for names, state in told.names} == {
        (frozenset(names), state) for names, state in calm.names
    }
    assert told.names


def test_a_study_that_is_resumed_reads_what_happened_in_the_order_in_which_it_happened(tmp_path: Path) -> None:
    told = bench(tmp_path, narrow, 4, SMALL, runs=40).run()
    controller, _ = bench(tmp_path, narrow, 4, SMALL, runs=40).controller()
    assert controller.agenda.ledger.entries == told.agenda.ledger.entries
    assert controller.agenda.candidates == told.agenda.candidates
    assert controller.agenda.asked == told.agenda.asked


def test_a_finished_study_is_not_worked_on_again(tmp_path: Path) -> None:
    told = bench(tmp_path, needs("clip"), fixes=1).run()
    again = bench(tmp_path, needs("clip"), fixes=1).run()
    assert again.executor.orders == []
    assert {**again.report, "cost": {**again.report["cost"], "seconds": told.report["cost"]["seconds"]}} == told.report


def test_a_study_goes_on_toward_larger_totals(tmp_path: Path) -> None:
    whole = bench(tmp_path / "whole", needs("clip"), runs=60, fixes=1).run()
    first = bench(tmp_path / "cut", needs("clip"), runs=8, fixes=1).run()
    assert first.reason is Reason.BUDGET
    told = bench(tmp_path / "cut", needs("clip"), runs=60, fixes=1).run()
    assert obeyed(told)
    assert told.sequence == whole.sequence


def test_a_result_that_was_saved_but_not_told_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = small(tmp_path)
    controller, _ = study.controller()
    calls = itertools.count()
    tell = Trials.tell

    def dies(self: Trials, number: int, value: float | None, outcome: str) -> None:
        if next(calls) == 6:
            raise Killed
        tell(self, number, value, outcome)

    with monkeypatch.context() as patched:
        patched.setattr(Trials, "tell", dies)
        with pytest.raises(Killed):
            controller.run()
    told = study.run()
    assert obeyed(told)
    numbers = [entry.result.number for entry in told.agenda.ledger.entries]
    assert len(numbers) == len(set(numbers))
    assert told.report["runs"]["lost"] == 0


@pytest.mark.parametrize("place", ["enqueue_trial", "ask"])
def test_a_trial_that_was_cut_off_before_its_run_began_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    study = small(tmp_path)
    controller, _ = study.controller()
    inner, calls, original = controller.trials._study, itertools.count(), getattr(controller.trials._study, place)

    def dies(*args: object, **named: object) -> object:
        done = original(*args, **named)
        if next(calls) == 5:
            raise Killed
        return done

    monkeypatch.setattr(inner, place, dies)
    with pytest.raises(Killed):
        controller.run()
    told = study.run()
    assert obeyed(told)
    assert told.found == small(tmp_path / "calm").run().found


@pytest.mark.parametrize("torn", ['{"op_code": 4, "tri', '{"op_code": 6, "worker_id": "a", "trial_id": 3}', "\x00\x00"])
def test_a_torn_last_line_of_the_journal_is_cut_off(tmp_path: Path, torn: str) -> None:
    study = bench(tmp_path, needs("clip"), 1, SMALL, fixes=1)
    controller, _ = study.controller(dies_after=6)
    with pytest.raises(Killed):
        controller.run()
    journal = StudyFolder.at(tmp_path).storage
    whole = journal.read_bytes()
    journal.write_bytes(whole + torn.encode())
    repair(journal)
    assert journal.read_bytes() == whole
    journal.write_bytes(whole + torn.encode())
    told = study.run()
    assert obeyed(told)
    assert told.names == [({"clip"}, "minimal")]


@pytest.mark.parametrize("cut", range(1, 300, 83))
def test_a_journal_that_lost_its_end_is_gone_on_with(tmp_path: Path, cut: int) -> None:
    study = bench(tmp_path, needs("clip"), 1, SMALL, fixes=1)
    controller, _ = study.controller(dies_after=6)
    with pytest.raises(Killed):
        controller.run()
    journal = StudyFolder.at(tmp_path).storage
    journal.write_bytes(journal.read_bytes()[:-cut])
    told = study.run()
    assert obeyed(told)
    assert told.names == [({"clip"}, "minimal")]


def test_a_journal_that_is_whole_or_absent_is_left_alone(tmp_path: Path) -> None:
    repair(tmp_path / "absent")
    assert not (tmp_path / "absent").exists()
    for content in (b"", b"one\n", b"one\ntwo\n"):
        (tmp_path / "journal").write_bytes(content)
        repair(tmp_path / "journal")
        assert (tmp_path / "journal").read_bytes() == content


def test_a_study_has_one_controller(tmp_path: Path) -> None:
    folder = StudyFolder.at(tmp_path / "twice")
    refused = pytest.raises(InputError, match="study 'twice' is being worked on by another process")
    with folder.lease(), refused, folder.lease():
        pass
    with folder.lease():
        pass


def test_what_every_run_was_to_be_can_be_read_without_the_samplers_storage(tmp_path: Path) -> None:
    told = bench(tmp_path, needs("clip"), 2, SMALL, fixes=1).run()
    lines = [json.loads(line) for line in (tmp_path / "items.jsonl").read_text().splitlines()]
    assert [line["run"] for line in lines] == [order.number for order in told.executor.orders]
    results = StudyFolder.at(tmp_path)
    assert results.numbers() == sorted(line["run"] for line in lines)
    assert {results.load_run(number).outcome for number in results.numbers()} <= set(Outcome)
