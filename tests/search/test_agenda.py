"""The agenda without a controller: what a run is worth, in which order things are tried, how proofs meet."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remedy.search.agenda import Agenda
from remedy.search.candidate import State
from remedy.search.grade import graded
from remedy.search.ledger import Item
from remedy.search.prior import ranked
from remedy.spaces.combination import Combination
from remedy.spaces.outcome import Outcome
from remedy.spaces.symptom import Symptom
from remedy.spaces.verdict import Verdict
from remedy.workers.order import Phase
from remedy.workers.result import RunResult
from tests.search.scripted import CHANCE, REMEDIES, SPACE, spec


def result(outcome: Outcome, *values: float, steps: int = 100, goal_step: int | None = None) -> RunResult:
    curve = tuple((place, value) for place, value in enumerate(values))
    last = values[-1] if values else math.nan
    return RunResult(
        0, outcome, metric=last, steps=steps, steps_full=100, curves={"metric": curve}, goal_step=goal_step,
        setting={"chance": CHANCE},
    )  # fmt: skip


def grade(outcome: Outcome, *values: float, steps: int = 100) -> float:
    return graded(result(outcome, *values, steps=steps), spec(), CHANCE)


def test_nearly_is_worth_more_than_not_at_all() -> None:
    at_once = grade(Outcome.COLLAPSED, 0.1, 0.1, steps=20)
    late = grade(Outcome.COLLAPSED, 0.1, 0.8, 0.1, steps=90)
    missed = grade(Outcome.MISSED, 0.3, 0.5, 0.6)
    nearly = grade(Outcome.MISSED, 0.5, 0.8, 0.89)
    touched = grade(Outcome.MISSED, 0.95, 0.95, 0.95)
    assert 0 < at_once < late < missed < nearly < touched < 1 <= grade(Outcome.CONVERGED, 0.95)
    assert grade(Outcome.FAILED) == grade(Outcome.INAPPLICABLE) == 0


def test_among_the_converged_the_sooner_is_worth_more() -> None:
    soon, late = (graded(result(Outcome.CONVERGED, 0.95, goal_step=step), spec(), CHANCE) for step in (10, 90))
    assert 1 <= late < soon <= 1.5


def test_where_less_is_better_nearer_is_still_worth_more() -> None:
    asked = spec(metric="loss", mode="min", goal=0.1)
    far, near = (graded(result(Outcome.MISSED, 2.3, last), asked, 2.3) for last in (2.0, 0.2))
    assert 0 < far < near < 1


@given(
    st.lists(st.floats(), max_size=6),
    st.sampled_from([Outcome.COLLAPSED, Outcome.MISSED, Outcome.STOPPED, Outcome.FAILED]),
    st.floats(),
    st.integers(0, 100),
)
def test_a_grade_is_a_number_whatever_was_measured(
    values: list[float], outcome: Outcome, chance: float, steps: int
) -> None:
    assert 0 <= graded(result(outcome, *values, steps=steps), spec(), chance) < 1


def names(seen: list[Verdict], *suggested: str) -> list[str]:
    return [remedy.name for remedy in ranked(REMEDIES, seen, suggested)]


def test_what_pre_flight_suggests_comes_first_then_what_treats_the_symptom_then_the_least_invasive() -> None:
    takeover = Verdict(Symptom.CLASS_TAKEOVER, 10, 5, "99 %")
    exploding = Verdict(Symptom.EXPLODING_GRADIENT, 10, 5, "1e9", stops=False)
    assert names([])[:4] == ["smaller", "larger", "clip", "warmup"]
    assert names([takeover])[:3] == ["smaller", "warmup", "clip"]
    assert names([exploding])[0] == "clip"
    # What only was noted weighs less than what stopped a run.
    assert names([exploding, takeover])[:3] == ["smaller", "warmup", "clip"]
    assert names([takeover], "narrow", "fused")[:3] == ["narrow", "fused", "smaller"]
    assert sorted(names([takeover], "fused")) == sorted(remedy.name for remedy in REMEDIES)


def named(*chosen: str) -> Combination:
    combination = Combination()
    for name in chosen:
        combination = combination.plus(Combination.of(SPACE.by_name[name].first()))
    return combination


class Told:
    """An agenda that is told runs by hand."""

    def __init__(self, **asked: int) -> None:
        self.agenda = Agenda(spec(**asked), SPACE)
        self.tell(Phase.BASELINE, named(), {0: False, 1: False, 2: False})

    def tell(self, phase: Phase, combination: Combination, came: dict[int, bool]) -> None:
        for seed, converged in came.items():
            outcome = Outcome.CONVERGED if converged else Outcome.COLLAPSED
            self.agenda.tell(Item(phase, combination, seed), result(outcome, 0.95 if converged else 0.1))

    def states(self) -> list[tuple[str, str, int]]:
        return [(c.combination.label, str(c.state), c.count) for c in self.agenda.candidates]

    def wanted(self, count: int = 3) -> list[tuple[str, str]]:
        running: list[Item] = []
        for _ in range(count):
            item = self.agenda.next(running, lambda: None)
            if item is None:
                break
            running.append(item)
        return [(str(item.phase), item.combination.label) for item in running]


ALL = dict.fromkeys(range(200, 205), True)
NONE = dict.fromkeys(range(200, 205), False)


def test_the_proof_of_three_remedies_goes_down_to_one_although_every_run_is_known_already() -> None:
    told = Told()
    told.tell(Phase.SEARCH, named(), {100: False})
    for combination in (named("clip"), named("clip", "fused")):
        told.tell(Phase.MINIMISE, combination, ALL)
    told.tell(Phase.MINIMISE, named(), NONE)
    for part in (("clip",), ("fused",), ("drop",), ("clip", "fused"), ("clip", "drop"), ("fused", "drop")):
        told.tell(Phase.SEARCH, named(*part), {100: False})
    told.tell(Phase.SEARCH, named("clip", "fused", "drop"), {100: True})
    told.tell(Phase.CONFIRM, named("clip", "fused", "drop"), ALL)
    assert told.states() == [
        (named("clip", "fused", "drop").label, "reduced", 5),
        (named("clip", "fused").label, "reduced", 5),
        (named("clip").label, "minimal", 5),
    ]
    assert [c.combination.names for c in told.agenda.fixes] == [{"clip"}]


def test_what_is_left_of_a_fix_is_judged_on_all_seeds_of_the_fix() -> None:
    """Eight of ten hold, although three of the first five do not."""
    told = Told()
    first, more = range(200, 205), range(205, 210)
    base = {200: True, 201: True, 202: False, 203: False, 204: False} | dict.fromkeys(more, False)
    pair, half = named("clip", "fused"), named("clip")
    told.tell(Phase.SEARCH, pair, {100: True})
    told.tell(Phase.CONFIRM, pair, dict.fromkeys(first, True))
    told.tell(Phase.MINIMISE, named(), {seed: base[seed] for seed in first})
    assert told.states() == [(pair.label, "confirming", 10)]
    told.tell(Phase.CONFIRM, pair, dict.fromkeys(more, True))
    told.tell(Phase.MINIMISE, named(), {seed: base[seed] for seed in more})
    assert told.states() == [(pair.label, "minimising", 10)]
    told.tell(Phase.MINIMISE, half, {200: False, 201: False} | dict.fromkeys([202, 203, 204, *more], True))
    assert told.states() == [(pair.label, "reduced", 10), (half.label, "minimal", 10)]


def test_what_was_refuted_on_few_seeds_may_hold_on_more() -> None:
    told = Told()
    pair, half = named("clip", "fused"), named("clip")
    told.tell(Phase.SEARCH, half, {100: True})
    told.tell(Phase.CONFIRM, half, {200: False, 201: False})
    assert told.states() == [(half.label, "refuted", 5)]
    told.tell(Phase.SEARCH, pair, {100: True})
    base = {200: True, 201: True} | dict.fromkeys(range(202, 210), False)
    told.tell(Phase.MINIMISE, named(), base)
    told.tell(Phase.CONFIRM, pair, dict.fromkeys(range(200, 210), True))
    told.tell(Phase.MINIMISE, half, dict.fromkeys(range(202, 210), True))
    assert told.states()[1:] == [(pair.label, "reduced", 10), (half.label, "minimal", 10)]


def test_a_larger_candidate_waits_for_a_smaller_one_and_goes_on_where_that_is_refuted() -> None:
    told = Told(fixes=1)
    told.tell(Phase.SEARCH, named(), {100: False})
    pair, half = named("clip", "fused"), named("clip")
    told.tell(Phase.SEARCH, pair, {100: True})
    told.tell(Phase.SEARCH, half, {100: True})
    assert [state[:2] for state in told.states()] == [(pair.label, "confirming"), (half.label, "confirming")]
    assert told.wanted(5) == [("confirm", half.label)] * 5
    told.tell(Phase.CONFIRM, half, {200: False, 201: False})
    assert told.wanted(5) == [("confirm", pair.label)] * 5


def test_what_converged_while_its_half_was_on_trial_is_nominated_when_the_half_is_refuted() -> None:
    told = Told()
    told.tell(Phase.SEARCH, named(), {100: False})
    half, pair = named("clip"), named("clip", "fused")
    other = Combination.of({"gradient": "clip", "clip.norm": 5.0})
    told.tell(Phase.SEARCH, half, {100: True})
    told.tell(Phase.SEARCH, pair, {100: True})
    told.tell(Phase.SEARCH, other, {100: True})
    assert told.states() == [(half.label, "confirming", 5)]
    told.tell(Phase.CONFIRM, half, {200: False, 201: False})
    assert told.states()[1:] == [(other.label, "confirming", 5)]
    told.tell(Phase.CONFIRM, other, {200: False, 201: False})
    assert told.states()[2:] == [(pair.label, "confirming", 5)]


def test_a_fix_found_later_with_fewer_remedies_takes_the_place_of_the_larger() -> None:
    told = Told(fixes=2)
    told.tell(Phase.SEARCH, named(), {100: False})
    pair, half = named("clip", "fused"), Combination.of({"gradient": "clip", "clip.norm": 5.0})
    told.tell(Phase.SEARCH, pair, {100: True})
    told.tell(Phase.CONFIRM, pair, ALL)
    told.tell(Phase.MINIMISE, named(), NONE)
    for rest in (named("clip"), named("fused")):
        told.tell(Phase.MINIMISE, rest, NONE)
    assert [c.combination for c in told.agenda.minimal] == [pair]
    told.tell(Phase.SEARCH, half, {100: True})
    told.tell(Phase.CONFIRM, half, ALL)
    assert [c.combination for c in told.agenda.minimal] == [half]
    assert told.agenda.ended is None


@pytest.mark.parametrize("outcome", [Outcome.LOST, Outcome.STOPPED])
def test_a_proposal_whose_run_was_lost_or_stopped_is_run_again(outcome: Outcome) -> None:
    told = Told()
    told.tell(Phase.SEARCH, named(), {100: False})
    while (item := told.agenda.next([], lambda: None)) is not None:
        told.tell(item.phase, item.combination, {item.seed: False})
    proposal = named("narrow", "drop", "fused", "leaky")
    item = told.agenda.next([], lambda: proposal)
    assert item == Item(Phase.SEARCH, proposal, 100)
    told.agenda.tell(item, RunResult(9, outcome, steps=3))
    assert told.agenda.next([], lambda: None) == item
    told.tell(item.phase, item.combination, {item.seed: False})
    assert told.agenda.next([], lambda: None) is None


def test_stopped_baseline_runs_say_nothing_about_the_baseline() -> None:
    agenda = Agenda(spec(), SPACE)
    for seed, outcome in enumerate([Outcome.CONVERGED, Outcome.CONVERGED, Outcome.STOPPED]):
        agenda.tell(Item(Phase.BASELINE, Combination(), seed), result(outcome, 0.95))
    assert agenda.baseline_state is None
    assert agenda.next([], lambda: None) == Item(Phase.BASELINE, Combination(), 2)


def test_pairs_are_tried_when_the_singles_are_done_the_best_first() -> None:
    told = Told()
    told.tell(Phase.SEARCH, named(), {100: False})
    values = {"drop": 0.6, "narrow": 0.5}
    for remedy in REMEDIES:
        told.agenda.tell(
            Item(Phase.SEARCH, named(remedy.name), 100), result(Outcome.MISSED, values.get(remedy.name, 0.2))
        )
    assert told.wanted(1) == [("search", named("drop", "narrow").label)]
    assert [c.state for c in told.agenda.candidates if c.state is State.CONFIRMING] == []


def test_what_guessing_reaches_is_read_from_a_baseline_run_that_knows_it() -> None:
    agenda = Agenda(spec(), SPACE)
    assert math.isnan(agenda.chance)
    agenda.tell(Item(Phase.BASELINE, Combination(), 0), RunResult(0, Outcome.FAILED))
    assert math.isnan(agenda.chance)
    agenda.tell(Item(Phase.BASELINE, Combination(), 1), result(Outcome.MISSED, 0.3))
    assert agenda.chance == CHANCE
