"""The report of a study: figures that are not there are null, and nothing is counted that is no evidence."""

import dataclasses
import json
import math
from pathlib import Path

import pytest

from remedy.search.agenda import Agenda, Reason
from remedy.search.controller import Controller
from remedy.search.home import StudyFolder
from remedy.search.ledger import Item
from remedy.search.report import report
from remedy.spaces.combination import Combination
from remedy.spaces.outcome import Outcome
from remedy.spaces.symptom import Symptom
from remedy.spaces.verdict import Verdict
from remedy.workers.order import Phase, WorkOrder
from remedy.workers.result import RunResult
from tests.search.laws import obeyed
from tests.search.scripted import SPACE, bench, needs, spec


def baseline(*results: RunResult) -> Agenda:
    agenda = Agenda(spec(), SPACE)
    for seed, result in enumerate(results):
        agenda.tell(Item(Phase.BASELINE, Combination(), seed), dataclasses.replace(result, number=seed))
    return agenda


COLLAPSED = RunResult(
    0, Outcome.COLLAPSED, "gone", math.nan, 40, 100, verdict=Verdict(Symptom.NON_FINITE, 40, 38, "loss is nan"),
    first_losses=(2.3, math.inf), saved_by="collapse", curves={"metric": ((10, math.nan), (20, -math.inf))},
)  # fmt: skip


def test_numbers_that_are_not_finite_are_null(tmp_path: Path) -> None:
    agenda = baseline(COLLAPSED, COLLAPSED)
    found = report(agenda, Reason.STOPPED, 1.0, StudyFolder.at(tmp_path), {})
    json.dumps(found, allow_nan=False)
    assert found["baseline"]["metric"] == [None, None]
    assert found["baseline"]["chance"] is None
    assert found["reason"] == "stopped"


@pytest.mark.parametrize(("losses", "same"), [((2.3, 2.2), True), ((2.3, 2.1), False), ((), False)])
def test_runs_that_are_the_same_whatever_their_seed_are_no_evidence_over_seeds(
    tmp_path: Path, losses: tuple[float, ...], same: bool
) -> None:
    first = dataclasses.replace(COLLAPSED, metric=0.1, first_losses=(2.3, 2.2) if losses else ())
    agenda = baseline(first, first, dataclasses.replace(first, first_losses=losses))
    found = report(agenda, Reason.EXHAUSTED, 1.0, StudyFolder.at(tmp_path), {})
    assert found["baseline"].get("deterministic", False) is same


def test_symptoms_are_gathered_over_the_seeds_the_stop_before_the_note(tmp_path: Path) -> None:
    note = Verdict(Symptom.CHANCE_PLATEAU, 20, 5, "2.30 for 15 steps", stops=False)
    missed = RunResult(0, Outcome.MISSED, metric=0.1, steps=100, steps_full=100, notes=(note,))
    agenda = baseline(dataclasses.replace(COLLAPSED, notes=(note,)), missed, missed)
    symptoms = report(agenda, Reason.EXHAUSTED, 1.0, StudyFolder.at(tmp_path), {})["baseline"]["symptoms"]
    assert [(s["symptom"], s["runs"], s["stopped"], s["onset_step"]) for s in symptoms] == [
        ("non_finite", 1, True, [38]),
        ("chance_plateau", 3, False, [5, 5, 5]),
    ]


def test_steps_are_counted_once_and_what_was_saved_has_a_cause(tmp_path: Path) -> None:
    agenda = baseline(COLLAPSED, RunResult(0, Outcome.FAILED, steps=7, steps_full=100))
    alone = Combination.of(SPACE.remedies[0].first())
    success = RunResult(2, Outcome.CONVERGED, metric=0.95, steps=70, steps_full=100, saved_by="success")
    agenda.tell(Item(Phase.SEARCH, alone, 100), success)
    agenda.tell(Item(Phase.SEARCH, alone, 101), RunResult(3, Outcome.LOST, steps=3))
    agenda.tell(
        Item(Phase.SEARCH, alone, 102), RunResult(4, Outcome.STOPPED, steps=20, steps_full=100, saved_by="controller")
    )
    cost = report(agenda, Reason.BUDGET, 1.0, StudyFolder.at(tmp_path), {})["cost"]
    assert cost["steps_trained"] == 40 + 7 + 70 + 3 + 20
    assert cost["steps_full"] == 100 + 7 + 100 + 3 + 100
    assert cost["saved"] == {"collapse": 60 / 310, "success": 30 / 310, "controller": 80 / 310}
    assert cost["saved_by_early_stop"] == pytest.approx(170 / 310)


def test_an_effect_is_told_on_shared_seeds_only(tmp_path: Path) -> None:
    agenda = baseline(COLLAPSED, COLLAPSED, COLLAPSED)
    alone = Combination.of(SPACE.by_name["drop"].first())
    agenda.tell(Item(Phase.SEARCH, alone, 100), dataclasses.replace(COLLAPSED, number=3))
    found = report(agenda, Reason.BUDGET, 1.0, StudyFolder.at(tmp_path), {})["remedies"]
    assert [(row["remedy"], row["effect"], row["interval"]) for row in found] == [("drop", None, None)]
    agenda.tell(Item(Phase.SEARCH, Combination(), 100), dataclasses.replace(COLLAPSED, number=4))
    (row,) = report(agenda, Reason.BUDGET, 1.0, StudyFolder.at(tmp_path), {})["remedies"]
    assert (row["effect"], row["shared_seeds"]) == (0.0, 1)


def test_listeners_hear_of_every_run_once(tmp_path: Path) -> None:
    heard: list[int] = []
    ticks: list[int] = []

    class Hears:
        def ended(self, order: WorkOrder, item: Item, result: RunResult) -> None:
            assert order.number == result.number
            assert dict(order.params) == item.combination.params
            heard.append(result.number)

        def tick(self, controller: Controller) -> None:
            ticks.append(len(controller.running))

    controller, executor = bench(tmp_path, needs("clip"), 3, fixes=1).controller()
    controller.listeners.append(Hears())
    controller.run()
    assert sorted(heard) == sorted(order.number for order in executor.orders)
    assert len(heard) == len(set(heard))
    assert max(ticks) <= 3
    assert controller.progress == {}


def test_the_report_of_a_study_that_goes_on_is_true_at_any_time(tmp_path: Path) -> None:
    study = bench(tmp_path, needs("clip", "smaller fused", near=0.1), 3)

    def look(controller: Controller, order: WorkOrder) -> None:
        found = report(controller.agenda, Reason.STOPPED, controller.seconds, controller.folder, {})
        json.dumps(found, allow_nan=False)
        assert found["exit_code"] == (0 if found["fixes"] else 3)

    assert obeyed(study.run(watch=look))
