"""Whole studies of worlds whose truth is known: what is found, and what is not claimed."""

from pathlib import Path

import pytest

from remedy.search.agenda import Reason
from remedy.search.candidate import State
from remedy.search.evidence import fisher
from remedy.spaces.catalogue import REMEDIES as CATALOGUE
from remedy.spaces.combination import Combination
from remedy.spaces.outcome import Outcome
from remedy.spaces.space import Space
from remedy.workers.order import Phase
from tests.search.laws import obeyed
from tests.search.scripted import SMALL, SPACE, Told, Truth, bench, chance_of, needs

workers = pytest.mark.parametrize("workers", [1, 3])
BASELINE, FIRST, CONFIRM = (0, 1, 2), 100, range(200, 220)


def rows(told: Told, place: int = 0) -> dict[str, tuple[int, int]]:
    """What remained without each remedy of a fix: name -> (converged, runs)."""
    return {row["without"]: (row["converged"], row["runs"]) for row in told.report["fixes"][place]["ablation"]}


@workers
def test_one_remedy_is_found_confirmed_and_compared_with_the_baseline_on_the_same_seeds(
    tmp_path: Path, workers: int
) -> None:
    told = bench(tmp_path, needs("fused"), workers, fixes=1).run()
    assert obeyed(told)
    assert (told.reason, told.code, told.report["reason"]) == (Reason.DONE, 0, None)
    assert told.names == [({"fused"}, "minimal")]
    fix = told.report["fixes"][0]
    assert fix["seeds"] == fix["ablation"][0]["seeds"] == list(CONFIRM[:5])
    assert rows(told) == {"fused": (0, 5)}
    (row,) = [row for row in told.report["remedies"] if row["remedy"] == "fused"]
    assert row["alone"] == {"converged": 6, "runs": 6}
    assert (row["effect"], row["shared_seeds"]) == (1.0, 6)


@workers
def test_a_pair_is_found_where_neither_half_helps_and_both_halves_are_run(tmp_path: Path, workers: int) -> None:
    told = bench(tmp_path, needs("smaller fused", near=0.1), workers, fixes=1).run()
    assert obeyed(told)
    assert told.names == [({"smaller", "fused"}, "minimal")]
    assert told.reason is Reason.DONE
    for name, (converged, runs) in rows(told).items():
        assert converged == 0, name
        assert runs >= 2, name


@workers
def test_a_remedy_that_was_lucky_once_is_refuted_on_fresh_seeds(tmp_path: Path, workers: int) -> None:
    def lucky(combination: Combination, seed: int) -> float:
        return 0.95 if "drop" in combination.names and seed == FIRST else 0.3

    told = bench(tmp_path, lucky, workers, SMALL).run()
    assert obeyed(told)
    assert (told.reason, told.code) == (Reason.EXHAUSTED, 3)
    assert told.fixes == []
    assert ("drop", "refuted", 5) in told.found
    fresh = [outcome for outcome in told.outcomes(Phase.CONFIRM) if outcome is not Outcome.COLLAPSED]
    assert fresh == []


@workers
def test_a_pair_is_reduced_to_the_one_remedy_that_suffices(tmp_path: Path, workers: int) -> None:
    def unlucky(combination: Combination, seed: int) -> float:
        if seed == FIRST and combination.names == {"smaller"}:
            return 0.6
        return 0.95 if "smaller" in combination.names else 0.2

    told = bench(tmp_path, unlucky, workers, fixes=1).run()
    assert obeyed(told)
    assert told.names == [({"smaller"}, "minimal")]
    reduced = [c for c in told.agenda.candidates if c.state is State.REDUCED]
    assert reduced
    assert all(len(c.combination.names) == 2 for c in reduced)


@workers
def test_an_unstable_baseline_takes_more_seeds_until_the_difference_is_shown(tmp_path: Path, workers: int) -> None:
    lucky = {0, 201, 203, 206, 209, 211}

    def unstable(combination: Combination, seed: int) -> float:
        return 0.95 if "clip" in combination.names or seed in lucky else 0.6

    told = bench(tmp_path, unstable, workers, fixes=1).run()
    assert obeyed(told)
    assert told.report["baseline"]["state"] == "unstable"
    assert told.report["baseline"]["converged"] == 1
    (fix,) = told.report["fixes"]
    assert (fix["converged"], fix["runs"]) == (10, 10)
    assert rows(told) == {"clip": (4, 10)}
    assert fisher(5, 5, 2, 5) > 0.05 > fisher(10, 10, 4, 10)


def test_no_more_than_twenty_seeds_are_asked_of_a_fix_that_does_not_beat_the_baseline(tmp_path: Path) -> None:
    def nearly_healthy(combination: Combination, seed: int) -> float:
        if "clip" in combination.names:
            return 0.95
        return 0.95 if seed in (0, 1) or (seed in CONFIRM and seed % 5) else 0.6

    told = bench(tmp_path, nearly_healthy, space=SMALL).run()
    assert obeyed(told)
    assert ("clip(norm=1)", "refuted", 20) in told.found
    assert told.code == 3


@workers
def test_where_the_baseline_converges_on_the_seed_of_the_search_another_is_taken(tmp_path: Path, workers: int) -> None:
    lucky = {1, FIRST, FIRST + 1}
    told = bench(tmp_path, lambda c, seed: 0.95 if "clip" in c.names or seed in lucky else 0.6, workers, fixes=1).run()
    assert obeyed(told)
    assert told.names == [({"clip"}, "minimal")]
    assert told.agenda.search_seed == FIRST + 2
    # All others would have converged on the lucky seeds; none was sent to fresh ones for that.
    assert {c.combination.label for c in told.agenda.candidates} == {"clip(norm=1)"}


@workers
def test_a_healthy_training_is_left_alone(tmp_path: Path, workers: int) -> None:
    told = bench(tmp_path, lambda c, seed: 0.97, workers, seeds=4).run()
    assert obeyed(told)
    assert (told.code, told.report["reason"]) == (4, None)
    assert told.outcomes(Phase.BASELINE) == [Outcome.CONVERGED] * 4
    others = [e.item for e in told.agenda.ledger.entries if e.item.phase is not Phase.BASELINE]
    assert len(others) <= workers <= 3  # the control, and what was begun beside it
    assert all(not item.combination for item in others)


@workers
def test_a_training_whose_code_fails_is_bad_input(tmp_path: Path, workers: int) -> None:
    told = bench(tmp_path, lambda c, seed: Outcome.FAILED, workers).run()
    assert obeyed(told)
    assert (told.reason, told.code) == (Reason.FAILED, 2)
    assert told.report["baseline"]["outcomes"] == ["failed"] * 3
    assert told.report["baseline"]["metric"] == [None] * 3


@workers
def test_where_nothing_helps_nothing_is_claimed(tmp_path: Path, workers: int) -> None:
    told = bench(tmp_path, needs(), workers).run()
    assert obeyed(told)
    assert (told.reason, told.code, told.report["reason"]) == (Reason.EXHAUSTED, 3, "exhausted")
    alone = {e.item.combination.label for e in told.agenda.ledger.entries if len(e.item.combination.names) == 1}
    assert len(alone) >= len(SPACE.remedies)
    pairs = {e.item.combination.names for e in told.agenda.ledger.entries if len(e.item.combination.names) == 2}
    assert len(pairs) >= 20


@workers
def test_what_cannot_be_applied_is_said_and_not_tried_in_pairs(tmp_path: Path, workers: int) -> None:
    def world(combination: Combination, seed: int) -> float | Outcome:
        if "scaled" in combination.names:
            return Outcome.INAPPLICABLE
        if "leaky" in combination.names:
            return Outcome.FAILED
        return 0.95 if "drop" in combination.names else 0.2

    told = bench(tmp_path, world, workers, fixes=1).run()
    assert obeyed(told)
    assert told.names == [({"drop"}, "minimal")]
    by_name = {row["remedy"]: row for row in told.report["remedies"]}
    if "scaled" in by_name:
        assert by_name["scaled"]["alone"] is None
        assert by_name["scaled"]["inapplicable"] == "scripted: inapplicable"
    everything = bench(tmp_path / "all", lambda c, seed: Outcome.INAPPLICABLE if c else 0.2, workers).run()
    assert obeyed(everything)
    assert everything.code == 3
    assert everything.report["runs"]["inapplicable"] >= len(SPACE.remedies)
    assert all(len(e.item.combination.names) != 2 for e in everything.agenda.ledger.entries[: 4 + len(SPACE.remedies)])


@workers
@pytest.mark.parametrize("wanted", [1, 2, 3])
def test_it_ends_with_the_number_of_fixes_asked_for(tmp_path: Path, workers: int, wanted: int) -> None:
    told = bench(tmp_path, needs("clip", "drop", "leaky", "narrow"), workers, fixes=wanted).run()
    assert obeyed(told)
    assert told.reason is Reason.DONE
    assert len(told.fixes) == wanted
    assert all(state == "minimal" for _, state in told.names)
    if workers == 1:
        # Nothing is run after the last proof: its last run is the last run.
        assert told.agenda.ledger.entries[-1].item.phase in (Phase.CONFIRM, Phase.MINIMISE)


def test_fixes_are_told_least_invasive_first(tmp_path: Path) -> None:
    told = bench(tmp_path, needs("narrow", "drop", "smaller momentum"), fixes=3).run()
    assert obeyed(told)
    assert [names for names, _ in told.names[:2]] == [{"drop"}, {"narrow"}]
    assert [fix["fix_file"].rpartition("/")[2] for fix in told.report["fixes"]][:2] == ["fix-1.yaml", "fix-2.yaml"]


def test_confirming_goes_before_searching_and_the_first_fix_is_priced_when_it_is_confirmed(tmp_path: Path) -> None:
    told = bench(tmp_path, needs("clip"), fixes=2).run()
    phases = [phase for _, _, phase in told.sequence]
    found = next(i for i, e in enumerate(told.agenda.ledger.entries) if e.item.combination.names == {"clip"})
    # What is left of the untouched training's own runs comes before: what converged is judged by them.
    first = phases.index("confirm")
    assert set(phases[found + 1 : first]) <= {"baseline", "search"}
    assert not any(e.item.combination for e in told.agenda.ledger.entries[found + 1 : first])
    assert phases.count("baseline") == phases[:first].count("baseline") == 3
    assert phases[first : first + 10] == ["confirm"] * 5 + ["minimise"] * 5
    trained = sum(entry.result.steps for entry in told.agenda.ledger.entries[: first + 10])
    assert told.report["cost"]["steps_to_first_fix"] == trained


def test_a_value_in_a_narrow_range_is_found_by_the_sampler(tmp_path: Path) -> None:
    def narrow(combination: Combination, seed: int) -> float:
        factor = float(combination.params.get("smaller.factor", 1.0))
        return 0.95 if factor < 0.06 else 0.3 + 0.5 * (1 - factor)

    told = bench(tmp_path, narrow, fixes=1).run()
    assert obeyed(told)
    assert told.names == [({"smaller"}, "minimal")]
    assert float(told.fixes[0].combination.params["smaller.factor"]) < 0.06


def noise(share: float) -> Truth:
    """Anything converges on that share of the seeds, by luck alone."""
    return lambda combination, seed: 0.95 if chance_of("noise", combination.key, seed) < share else 0.3


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5])
def test_luck_alone_is_no_fix(tmp_path: Path, share: float) -> None:
    told = bench(tmp_path, noise(share), 2, runs=50).run()
    assert obeyed(told)
    assert told.fixes == []


def test_the_whole_catalogue_can_be_searched(tmp_path: Path) -> None:
    last = CATALOGUE[-1].name
    told = bench(tmp_path, needs(last), 4, Space(CATALOGUE), fixes=1).run()
    assert obeyed(told)
    assert told.names == [({last}, "minimal")]
