"""The nightly check of a training, on made-up results: what is run next, and what it shows."""

import pytest

from remedy.search.nightly.check import Anchor, NightCheck, Status
from remedy.search.spec import Spec
from remedy.spaces.combination import Combination
from remedy.spaces.outcome import Outcome
from remedy.spaces.target import Source
from remedy.workers.result import RunResult

SPEC = Spec("check", Source("/nowhere/t.py", "training", "0" * 64), steps=100)
FIX = Combination.of({"learning_rate": "scale_down", "scale_down.factor": 0.1})
HEALTHY = Anchor("2026-11-20", Status.HEALTHY, 3, 3, 3)
BAD = Anchor("2026-11-20", Status.BROKEN, 0, 8, 0)


def play(check, converges, outcome=Outcome.MISSED):
    """Run all that a check wants; return the stages of its runs in order."""
    stages = []
    for _ in range(100):
        wanted = next(iter(check.wants()), None)
        if wanted is None:
            return stages
        stage, item = wanted
        good = converges(item.combination, item.seed)
        check.tell(item, RunResult(len(stages), Outcome.CONVERGED if good else outcome, metric=float(good), steps=100))
        stages.append(stage)
    raise AssertionError("a check ends")


def always(combination, seed):
    return True


def never(combination, seed):
    return False


def test_a_first_night_is_a_baseline_and_is_compared_with_nothing():
    for converges, status in ((always, Status.HEALTHY), (never, Status.BROKEN), (lambda c, s: s == 1, Status.UNSTABLE)):
        check = NightCheck(SPEC, "2026-11-21")
        assert play(check, converges) == [0, 0, 0]
        assert check.change().status is status
        assert check.next_anchor().night == "2026-11-21"


def test_the_same_outcome_on_the_same_seeds_is_unchanged_and_costs_no_more():
    check = NightCheck(SPEC, "2026-11-21", HEALTHY)
    assert play(check, always) == [0, 0, 0]
    assert (check.change().status, check.change().kind) == (Status.HEALTHY, "unchanged")
    assert check.next_anchor() is HEALTHY


def test_a_regression_is_confirmed_on_fresh_seeds():
    check = NightCheck(SPEC, "2026-11-21", HEALTHY)
    assert play(check, never) == [0] * 3 + [1] * 5
    assert check.change().status is Status.NEWLY_BROKEN
    assert check.change().p == pytest.approx(1 / 56), "the rerun alone: 3 of 3 against 0 of 5"
    assert not {*check.fresh} & {*SPEC.baseline_seeds, *SPEC.search_seeds}
    anchor = check.next_anchor()
    assert (anchor.night, anchor.status, anchor.runs) == ("2026-11-21", Status.BROKEN, 5)
    again = NightCheck(SPEC, "2026-11-22", Anchor.from_json(anchor.to_json()))
    assert play(again, never) == [0, 0, 0]
    assert again.change().status is Status.BROKEN


def test_one_unlucky_seed_is_inside_the_noise():
    check = NightCheck(SPEC, "2026-11-21", HEALTHY)
    assert play(check, lambda _, seed: seed != 1) == [0] * 3 + [1] * 5
    assert (check.change().status, check.change().kind) == (Status.HEALTHY, "inside the noise")
    assert check.counts == (7, 8)
    assert check.next_anchor() is HEALTHY


def test_what_raised_the_suspicion_is_no_evidence_for_it():
    many = Anchor("2026-11-20", Status.HEALTHY, 20, 20, 3)
    check = NightCheck(SPEC, "2026-11-21", many)
    play(check, lambda _, seed: seed not in (0, 1, 2, 200))
    assert check.counts == (4, 8), "together that would be far from 20 of 20"
    assert check.rerun == (4, 5)
    assert (check.change().status, check.change().kind) == (Status.HEALTHY, "inside the noise")


def test_a_rerun_that_was_cut_off_confirms_nothing():
    many = Anchor("2026-11-20", Status.HEALTHY, 20, 20, 3)
    check = NightCheck(SPEC, "2026-11-21", many)
    for _ in range(3 + 4):
        _, item = next(iter(check.wants()))
        check.tell(item, RunResult(0, Outcome.MISSED, steps=100))
    assert (check.change().status, check.change().kind) == (Status.UNSTABLE, "unconfirmed")
    assert not check.change().status.red
    assert check.next_anchor() is many, "and the next night asks again"


def test_what_cannot_be_told_apart_is_run_on_up_to_twenty_fresh_seeds_and_not_called_healthy():
    check = NightCheck(SPEC, "2026-11-21", HEALTHY)
    stages = play(check, lambda _, seed: seed % 2 == 0)
    assert stages.count(1) == 20
    assert check.change().kind == "inside the noise"
    assert check.change().status is Status.UNSTABLE


def test_small_steps_downwards_are_seen_because_the_anchor_stays():
    anchor = Anchor("2026-11-01", Status.HEALTHY, 20, 20, 3)
    first = NightCheck(SPEC, "2026-11-20", anchor)
    play(first, lambda _, seed: seed not in (1, 205))
    assert first.next_anchor() is anchor, "each night alone is inside the noise"
    second = NightCheck(SPEC, "2026-11-21", first.next_anchor())
    play(second, lambda _, seed: seed not in (0, 1, 200, 202, 204, 205, 206))
    assert second.change().status is Status.NEWLY_BROKEN


def test_a_repair_is_confirmed_too():
    check = NightCheck(SPEC, "2026-11-21", Anchor("2026-11-20", Status.BROKEN, 0, 3, 0), FIX)
    assert play(check, always) == [0] * 3 + [1] * 5, "and what repaired it is not needed"
    assert check.change().status is Status.FIXED
    assert check.next_anchor().status is Status.HEALTHY


def test_last_nights_best_fix_runs_after_the_baseline_as_a_contrast_on_the_same_seeds():
    check = NightCheck(SPEC, "2026-11-21", BAD, FIX, 5)
    assert play(check, lambda combination, _: bool(combination)) == [0] * 3 + [2] * 10
    assert check.contrast() == {"converged": 5, "runs": 5, "interval": pytest.approx([0.5655, 1.0], abs=1e-3),
                                "base_converged": 0, "base_runs": 5, "whole": True, "holds": True}  # fmt: skip
    worse = NightCheck(SPEC, "2026-11-21", BAD, FIX, 5)
    play(worse, never)
    assert not worse.contrast()["holds"]


def test_a_training_whose_own_code_fails_did_not_run_and_keeps_its_anchor():
    check = NightCheck(SPEC, "2026-11-21", HEALTHY, FIX)
    assert play(check, never, Outcome.FAILED) == [0, 0, 0], "nothing is gained by more of it"
    assert check.change().status is Status.NOT_RUN
    assert check.next_anchor() is HEALTHY


def test_a_baseline_that_is_not_whole_is_no_night():
    check = NightCheck(SPEC, "2026-11-21", HEALTHY)
    _, item = next(iter(check.wants()))
    check.tell(item, RunResult(0, Outcome.MISSED, steps=100))
    assert check.change().status is Status.NOT_RUN
    assert check.next_anchor() is HEALTHY
