"""What is tried next: what pre-flight found, singles by the prior, and what came nearest with what it lacks."""

from pathlib import Path

import pytest

from remedy.render import report_text
from remedy.search.agenda import Agenda
from remedy.search.defaults import DEFAULTS, defaults
from remedy.search.ledger import Item
from remedy.search.note import note
from remedy.search.prior import ranked
from remedy.search.tries import Tries
from remedy.spaces import catalogue
from remedy.spaces.combination import Combination
from remedy.spaces.outcome import Outcome
from remedy.spaces.space import Space
from remedy.spaces.symptom import Symptom
from remedy.spaces.verdict import Verdict
from remedy.workers.order import Phase
from remedy.workers.result import RunResult
from tests.search.laws import obeyed
from tests.search.scripted import CHANCE, REMEDIES, SMALL, SPACE, bench, needs, spec

FAULTS = ({"check": "head", "suggests": ["fused", "drop"]}, {"check": "scale", "suggests": ["scaled", "smaller"]})
SUGGESTED = ("fused", "drop", "scaled", "smaller")


def named(*chosen: str) -> Combination:
    combination = Combination()
    for name in chosen:
        combination = combination.plus(Combination.of(SPACE.by_name[name].first()))
    return combination


def ended(outcome: Outcome, last: float = CHANCE, steps: int = 100, *shown: Symptom) -> RunResult:
    return RunResult(
        0, outcome, metric=last, steps=steps, steps_full=100, curves={"metric": ((1, CHANCE), (steps, last))},
        setting={"chance": CHANCE}, notes=tuple(Verdict(symptom, 1, 1, "seen", stops=False) for symptom in shown),
    )  # fmt: skip


def told(**asked: object) -> Agenda:
    """An agenda whose untouched training collapsed on all seeds."""
    agenda = Agenda(spec(**asked), SPACE)
    for phase, seeds in ((Phase.BASELINE, (0, 1, 2)), (Phase.SEARCH, (100,))):
        for seed in seeds:
            agenda.tell(Item(phase, Combination(), seed), ended(Outcome.COLLAPSED, steps=40))
    return agenda


def tell(agenda: Agenda, result: RunResult, *names: str) -> None:
    agenda.tell(Item(Phase.SEARCH, named(*names), 100), result)


def tries(agenda: Agenda) -> list[frozenset[str]]:
    return [made.names for made in agenda.tries.ordered(100, CHANCE, agenda._closed)]


def test_each_fault_found_is_repaired_alone_then_two_at_once_then_otherwise() -> None:
    agenda = told(preflight=FAULTS, suggested=SUGGESTED)
    assert tries(agenda)[:5] == [{"fused"}, {"scaled"}, {"fused", "scaled"}, {"drop"}, {"smaller"}]


def test_what_cannot_be_applied_is_replaced_by_what_the_fault_names_next() -> None:
    agenda = told(preflight=FAULTS, suggested=SUGGESTED)
    tell(agenda, ended(Outcome.INAPPLICABLE, steps=0), "fused")
    assert tries(agenda)[:3] == [{"drop"}, {"scaled"}, {"drop", "scaled"}]


def test_what_came_clearly_nearer_is_joined_at_once_with_what_treats_the_symptom_it_shows() -> None:
    agenda = told()
    tell(agenda, ended(Outcome.MISSED, 0.6, 100, Symptom.EXPLODING_GRADIENT), "fused")
    assert tries(agenda)[0] == {"fused", "clip"}
    assert len(tries(agenda)[1]) == 1  # and then a single one: what came near need not be on the way
    tell(agenda, ended(Outcome.MISSED, 0.6, 100, Symptom.EXPLODING_GRADIENT), "fused", "clip")
    assert len(tries(agenda)[0]) == 1


def test_where_nothing_came_nearer_the_first_singles_are_tried_alone_and_what_trained_nothing_is_none_of_them() -> None:
    agenda = told()
    order = [remedy.name for remedy in agenda.tries.order()]
    for name in order[:3]:
        tell(agenda, ended(Outcome.INAPPLICABLE, steps=0), name)
    for name in order[3:9]:
        assert tries(agenda)[0] == {name}
        tell(agenda, ended(Outcome.COLLAPSED, steps=40), name)
    assert len(tries(agenda)[0]) == 2
    tell(agenda, ended(Outcome.COLLAPSED, steps=40), *tries(agenda)[0])
    assert tries(agenda)[0] == {order[9]}


def test_what_was_given_up_as_too_slow_is_nearer_than_what_died_as_soon() -> None:
    agenda = told()
    slow = agenda.value(ended(Outcome.MISSED, CHANCE, 24))
    assert slow > agenda.value(ended(Outcome.COLLAPSED, CHANCE, 40)) > 0
    tell(agenda, ended(Outcome.MISSED, CHANCE, 24), "fused")
    assert tries(agenda)[0] > {"fused"}


def test_no_more_than_three_are_joined_and_a_third_comes_later() -> None:
    agenda = told()
    tell(agenda, ended(Outcome.MISSED, 0.6), "fused")
    tell(agenda, ended(Outcome.MISSED, 0.7), "fused", "clip")
    sizes = [len(names) for names in tries(agenda)]
    assert max(sizes) == 3
    assert sizes.index(3) > sizes.index(2)
    tell(agenda, ended(Outcome.MISSED, 0.8), "fused", "clip", "drop")
    assert max(len(names) for names in tries(agenda)) == 3


def test_who_misses_without_a_symptom_is_taken_for_too_slow() -> None:
    first = ranked(catalogue.REMEDIES, [], ())[0]
    assert first.treats[0] is Symptom.CHANCE_PLATEAU
    seen = [Verdict(Symptom.EXPLODING_GRADIENT, 1, 1, "seen")]
    assert Symptom.EXPLODING_GRADIENT in ranked(catalogue.REMEDIES, seen, ())[0].treats


def test_what_is_tried_follows_from_what_is_known_alone() -> None:
    agenda = told(preflight=FAULTS, suggested=SUGGESTED)
    tell(agenda, ended(Outcome.MISSED, 0.5), "fused")
    again = Tries(agenda.spec, agenda.space, agenda.ledger)
    assert list(again.ordered(100, CHANCE, set())) == list(agenda.tries.ordered(100, CHANCE, set()))


# ---------------------------------------------------------------- when the search begins


def test_the_search_begins_with_the_control_that_failed_and_the_baseline_goes_on_beside_it(tmp_path: Path) -> None:
    study = bench(tmp_path, needs("leaky"), 1, fixes=1).run()
    assert obeyed(study)
    runs = [(phase, min(1, len(e.item.combination.names))) for (_, _, phase), e in zip(
        study.sequence, study.agenda.ledger.entries, strict=True)]  # fmt: skip
    once, tries = ("search", 0), [("search", 1)] * 6
    assert runs[:15] == [once, *tries, ("baseline", 0), *tries, ("baseline", 0)]
    assert study.report["baseline"]["runs"] == 3


@pytest.mark.parametrize("asked", [{"runs": 4}, {"runs": 3}, {"budget": 2.9}])
def test_where_little_may_be_spent_the_baseline_comes_first(tmp_path: Path, asked: dict[str, float]) -> None:
    study = bench(tmp_path, lambda *_: 0.6, 1, **asked).run()
    assert obeyed(study)
    assert study.report["baseline"]["runs"] == 3


@pytest.mark.parametrize("lucky", [0, 1])
def test_where_luck_decides_nothing_is_tried_before_the_baseline_and_the_control_are_known(
    tmp_path: Path, lucky: int
) -> None:
    def truth(combination: Combination, seed: int) -> float:
        return 0.95 if "clip" in combination.names or seed == lucky else 0.6

    study = bench(tmp_path, truth, 1, fixes=1).run()
    assert obeyed(study)
    entries = study.agenda.ledger.entries
    assert study.report["baseline"]["state"] == "unstable"
    known = next(place for place, e in enumerate(entries) if e.item.seed == lucky)
    whole = max(place for place, e in enumerate(entries) if e.item.phase is Phase.BASELINE)
    assert not any(entry.item.combination for entry in entries[known : whole + 1])


def test_a_candidate_that_failed_on_a_fresh_seed_lets_another_go_before() -> None:
    agenda = told(fixes=1)
    for name in ("clip", "drop"):
        tell(agenda, ended(Outcome.CONVERGED, 0.95), name)
    agenda.tell(Item(Phase.CONFIRM, named("clip"), 200), ended(Outcome.MISSED, 0.5))
    wanted = agenda.next([], lambda: None)
    assert wanted is not None
    assert (wanted.phase, wanted.combination) == (Phase.CONFIRM, named("drop"))


def test_every_remedy_is_tried_alone_in_the_end(tmp_path: Path) -> None:
    study = bench(tmp_path, needs(), 1).run()
    alone = {e.item.combination.names for e in study.agenda.ledger.entries if len(e.item.combination.names) == 1}
    assert alone >= {frozenset([remedy.name]) for remedy in REMEDIES}


# ---------------------------------------------------------------- known-good defaults, and parts of many


def catalogued(told_first: RunResult | None = None) -> Agenda:
    agenda = Agenda(spec(), Space(catalogue.REMEDIES))
    if told_first is not None:
        item = agenda.next([], lambda: None)
        assert item is not None
        agenda.tell(item, told_first)
    return agenda


def test_a_study_begins_with_the_defaults_and_the_control_beside_them() -> None:
    agenda = catalogued()
    first = agenda.next([], lambda: None)
    assert first is not None
    assert (first.phase, first.seed, first.combination.names) == (Phase.SEARCH, 100, set(DEFAULTS))
    second = agenda.next([first], lambda: None)
    assert second == Item(Phase.SEARCH, Combination(), 100)


def test_what_found_nothing_is_left_out_of_the_defaults_and_what_preflight_suggests_takes_its_place() -> None:
    refused = ("standardise_targets", "match_objective", "constant")
    agenda = catalogued(RunResult(0, Outcome.INAPPLICABLE, "nothing", refused=refused))
    again = agenda.next([], lambda: None)
    assert again is not None
    assert again.combination.names == set(DEFAULTS) - set(refused)
    space = Space(catalogue.REMEDIES)
    assert "fused_cross_entropy" in defaults(space, ("fused_cross_entropy",), refused).names
    assert "fused_cross_entropy" not in defaults(space, ("fused_cross_entropy",), ()).names


def test_few_defaults_are_none() -> None:
    agenda = Agenda(spec(), Space.of(catalogue.REMEDIES, only=("adam", "clip_norm", "wider")))
    assert agenda.next([], lambda: None) == Item(Phase.SEARCH, Combination(), 100)
    assert len(set(DEFAULTS)) == len({by_name.slot for by_name in map(Space(catalogue.REMEDIES).by_name.get, DEFAULTS)})


def test_of_many_that_converge_together_each_is_tried_alone_then_parts_and_nothing_is_proved_before() -> None:
    agenda = catalogued(ended(Outcome.CONVERGED, 0.95))
    agenda.tell(Item(Phase.SEARCH, Combination(), 100), ended(Outcome.COLLAPSED, steps=40))
    alone: list[str] = []
    while len(tried := tried_next(agenda).combination.names) == 1:
        alone += tried
        agenda.tell(tried_next(agenda), ended(Outcome.MISSED))
    assert sorted(alone) == sorted(DEFAULTS)
    assert not list(agenda.candidates)
    likely = [remedy.name for remedy in agenda.tries.order() if remedy.name in DEFAULTS]
    assert tried == set(likely[:5])
    agenda.tell(tried_next(agenda), ended(Outcome.CONVERGED, 0.95))
    assert tried_next(agenda).combination.names == set(likely[:2])


def tried_next(agenda: Agenda) -> Item:
    """What is tried next; the untouched training, which is run now and then between, misses."""
    while (item := agenda.next([], lambda: None)) is not None and not item.combination:
        agenda.tell(item, ended(Outcome.MISSED))
    assert item is not None
    return item


@pytest.mark.parametrize("workers", [1, 3])
def test_three_remedies_that_are_needed_together_are_found_among_the_defaults(tmp_path: Path, workers: int) -> None:
    world = needs("standardise adam clip_norm")
    told = bench(tmp_path, world, workers, Space(catalogue.REMEDIES), fixes=1, runs=120).run()
    assert obeyed(told)
    assert told.names == [({"standardise", "adam", "clip_norm"}, "minimal")]


def test_the_defaults_are_made_once_whatever_finds_nothing_alone_later() -> None:
    agenda = catalogued(ended(Outcome.CONVERGED, 0.95))
    assert agenda.tries.defaults(100) == []
    item = Item(Phase.SEARCH, Combination.of(agenda.space.by_name["range_test"].first()), 100)
    agenda.tell(item, RunResult(0, Outcome.INAPPLICABLE, "nothing", refused=("range_test",)))
    assert agenda.tries.defaults(100) == []
    assert [made.names for made in agenda.tries.defaults(101)] == [set(DEFAULTS)]  # where the seed is no good


def test_a_study_that_confirmed_nothing_names_what_converged_and_was_not_refuted(tmp_path: Path) -> None:
    told = bench(tmp_path, needs("fused"), 1, SMALL, runs=12).run()
    assert obeyed(told)
    assert (told.code, told.report["fixes"]) == (3, [])
    (made,) = told.report["unproved"]
    assert "fused" in made
    assert f"Converged on the search's seed, and not proved: {made}" in report_text(told.report)
    assert f"converged on the search's seed, and not proved: `{made}`" in note(told.report)
    assert bench(tmp_path / "other", needs("fused"), 1, SMALL, fixes=1).run().report["unproved"] == []
