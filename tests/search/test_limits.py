"""What ends a study before it has its answer, what is lost on the way, and what is counted."""

import itertools
from collections import Counter
from pathlib import Path

import pytest

from remedy.search.agenda import Reason
from remedy.search.controller import Controller
from remedy.search.home import StudyFolder
from remedy.spaces.error import InfrastructureError
from remedy.spaces.outcome import Outcome
from remedy.workers.order import Phase, WorkOrder
from remedy.workers.result import OUT_OF_MEMORY
from tests.search.laws import obeyed
from tests.search.scripted import SMALL, STEPS, Told, bench, chance_of, needs

workers = pytest.mark.parametrize("workers", [1, 4])
PAIR = needs("smaller fused", near=0.1)


@workers
@pytest.mark.usefixtures("in_memory")
def test_never_more_runs_than_asked_and_once_a_fix_is_confirmed_it_stays(tmp_path: Path, workers: int) -> None:
    whole = bench(tmp_path / "whole", PAIR, workers, SMALL, fixes=1).run()
    total = whole.agenda.ledger.runs
    codes = []
    for runs in range(1, total + 1):
        told = bench(tmp_path / str(runs), PAIR, workers, SMALL, fixes=1, runs=runs).run()
        assert obeyed(told)
        assert told.agenda.ledger.runs == runs or told.reason is Reason.DONE
        assert told.reason is (Reason.DONE if told.agenda.minimal else Reason.BUDGET)
        assert told.report["reason"] == (None if told.agenda.minimal else "budget")
        codes.append((told.code, told.report["fixes"][0]["minimal"] if told.fixes else None))
    assert codes[0] == (3, None)
    # Confirmed, but the budget ended before it was shown to be minimal: still a fix.
    assert codes == sorted(codes, key=[(3, None), (0, False), (0, True)].index)
    assert set(codes) == {(3, None), (0, False), (0, True)}


@workers
def test_lost_runs_do_not_count_against_the_runs(tmp_path: Path, workers: int) -> None:
    study = bench(tmp_path, needs(), workers, runs=20)
    study.loses = lambda order: order.number % 3 == 1
    told = study.run()
    assert obeyed(told)
    assert told.report["runs"]["lost"] > 5
    assert told.report["runs"]["total"] == 20 + told.report["runs"]["lost"]
    assert told.reason is Reason.BUDGET


@workers
@pytest.mark.parametrize("budget", [0.3, 2.0, 7.5])
def test_the_budget_counts_full_runs(tmp_path: Path, workers: int, budget: float) -> None:
    told = bench(tmp_path, needs(), workers, budget=budget).run()
    assert obeyed(told)
    assert (told.reason, told.code, told.report["reason"]) == (Reason.BUDGET, 3, "budget")
    assert budget <= told.report["cost"]["full_run_equivalents"] < budget + workers
    trained = told.report["cost"]["full_run_equivalents"] * STEPS
    assert told.report["cost"]["steps_trained"] == pytest.approx(trained)


@workers
def test_time_is_up(tmp_path: Path, workers: int) -> None:
    study = bench(tmp_path, needs(), workers, timeout=60.0)
    study.clock = itertools.count().__next__
    told = study.run()
    assert obeyed(told)
    assert (told.reason, told.code, told.report["reason"]) == (Reason.TIMEOUT, 3, "timeout")
    assert told.report["runs"]["total"] > 5
    assert 1 <= told.report["runs"]["stopped"] <= workers
    assert told.report["cost"]["seconds"] >= 60


def test_the_time_of_earlier_sessions_counts(tmp_path: Path) -> None:
    study = bench(tmp_path, needs(), timeout=60.0)
    study.clock = itertools.count().__next__
    controller, executor = study.controller()
    controller.seconds_before = 60.0
    assert controller.run() is Reason.TIMEOUT
    assert executor.orders == []
    assert controller.seconds >= 60.0


@workers
def test_who_stops_a_study_lets_the_runs_under_way_end_and_can_go_on(tmp_path: Path, workers: int) -> None:
    study = bench(tmp_path, PAIR, workers, fixes=1)

    def stop(controller: Controller, order: WorkOrder) -> None:
        if order.number == 20:
            controller.folder.ask_stop()

    told = study.run(watch=stop)
    assert obeyed(told)
    assert (told.reason, told.code, told.report["reason"]) == (Reason.STOPPED, 3, "stopped")
    assert told.report["runs"]["total"] == len(told.executor.orders) == 21
    assert told.report["runs"]["stopped"] == 0
    again = study.run()
    assert again.reason is Reason.STOPPED
    assert again.executor.orders == []
    told.controller.folder.clear_stop()
    assert study.run().names == [({"smaller", "fused"}, "minimal")]


def test_a_study_stopped_before_its_first_run_claims_nothing(tmp_path: Path) -> None:
    study = bench(tmp_path, needs())
    StudyFolder.at(tmp_path).ask_stop()
    told = study.run()
    assert obeyed(told)
    assert (told.reason, told.code) == (Reason.STOPPED, 3)
    assert told.report["baseline"]["runs"] == told.report["cost"]["steps_full"] == 0


def test_runs_of_no_more_use_are_stopped_when_the_answer_is_known(tmp_path: Path) -> None:
    told = bench(tmp_path, needs("clip"), 4, fixes=1).run()
    assert obeyed(told)
    assert told.reason is Reason.DONE
    assert told.report["runs"]["stopped"] > 0
    assert told.report["cost"]["saved"]["controller"] > 0


# ---------------------------------------------------------------- lost runs


def lost_times(told: Told) -> Counter[tuple[str, int]]:
    entries = [entry for entry in told.agenda.ledger.entries if entry.result.outcome is Outcome.LOST]
    return Counter((entry.item.combination.key, entry.item.seed) for entry in entries)


@pytest.mark.parametrize("hungry", [False, True])
def test_a_run_that_starved_is_tried_once_more_with_nothing_beside_it(tmp_path: Path, hungry: bool) -> None:
    study = bench(tmp_path, needs("clip"), 4, fixes=1)
    study.why_lost = f"the machine {OUT_OF_MEMORY}"
    lost, beside = [], []

    def greedy(order: WorkOrder) -> bool:
        return order.phase is Phase.BASELINE and order.seed == study.spec.baseline_seeds[1]

    def starves(order: WorkOrder) -> bool:
        starved = greedy(order) and (hungry or not lost)
        lost.extend([order] * starved)
        return starved

    def watch(controller: Controller, order: WorkOrder) -> None:
        if lost and greedy(order):
            beside.append(len(controller.running) - 1)
        assert len(lost) != 1 or not any(greedy(o) and o is not order for o, _ in controller.running.values())

    study.loses = starves
    told = study.run(watch=watch)
    assert beside == [0]
    ends = [entry.result.outcome for entry in told.agenda.ledger.entries if entry.item.seed == lost[0].seed]
    assert ends[0] is Outcome.LOST
    assert len(ends) == 2
    assert (ends[1] is Outcome.FAILED) == hungry


class Loses:
    """Loses the first attempts at some runs."""

    def __init__(self, times: int, share: float) -> None:
        self.times, self.share = times, share
        self.seen: Counter[tuple[str, int]] = Counter()

    def __call__(self, order: WorkOrder) -> bool:
        place = (str(sorted(order.params.items())), order.seed)
        self.seen[place] += 1
        return chance_of("lost", place) < self.share and self.seen[place] <= self.times


@workers
@pytest.mark.parametrize("times", [1, 2])
def test_a_run_that_was_lost_is_made_again_and_nothing_else_changes(tmp_path: Path, workers: int, times: int) -> None:
    calm = bench(tmp_path / "calm", PAIR, workers, fixes=1).run()
    study = bench(tmp_path / "lossy", PAIR, workers, fixes=1)
    study.loses = Loses(times, 0.2)
    told = study.run()
    assert obeyed(told)
    assert told.found == calm.found
    # What was under way when the answer was known is not made again.
    assert set(lost_times(told).values()) == {times} if workers == 1 else max(lost_times(told).values()) == times
    if workers == 1:
        assert told.report["runs"]["total"] == calm.report["runs"]["total"] + told.report["runs"]["lost"]


@workers
def test_a_run_that_is_lost_three_times_failed(tmp_path: Path, workers: int) -> None:
    study = bench(tmp_path, PAIR, workers, fixes=1)
    study.loses = lambda order: "clip" in order.params.values()
    told = study.run()
    assert obeyed(told)
    failed = [entry for entry in told.agenda.ledger.entries if entry.result.outcome is Outcome.FAILED]
    assert {(entry.item.combination.key, entry.item.seed) for entry in failed} <= set(lost_times(told))
    assert failed
    assert {entry.result.reason for entry in failed} == {"lost 3 times: its worker died"}


@workers
def test_where_everything_is_lost_the_cluster_is_at_fault_and_the_study_can_go_on(tmp_path: Path, workers: int) -> None:
    study = bench(tmp_path, needs("clip"), workers, fixes=1)
    study.loses = lambda order: order.number >= 10
    controller, _ = study.controller()
    with pytest.raises(InfrastructureError, match=r"6 runs were lost one after the other; the last: .*its worker died"):
        controller.run()
    assert sum(entry.result.outcome is Outcome.LOST for entry in controller.agenda.ledger.entries) >= 4
    study.loses = None
    told = study.run()
    # What was given up in the failure of the cluster is no evidence against a remedy.
    assert obeyed(told, most_lost=6)
    assert told.report["runs"]["failed"] == 0
    assert told.names == [({"clip"}, "minimal")]
    assert told.outcomes(Phase.BASELINE) == [Outcome.COLLAPSED] * 3
