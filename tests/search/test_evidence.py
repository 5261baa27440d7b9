"""The statistics, against SciPy's."""

import itertools

import pytest
from scipy.stats import binomtest, fisher_exact  # type: ignore[import-untyped]  # it brings no types

from remedy.search.evidence import LEAST_RUNS, MOST_RUNS, better, can_hold, difference, fisher, holds, wilson

SHARES = [(k, n) for n in (1, 2, 5, 6, 10, 20, 97) for k in {0, 1, n // 2, n - 1, n} if 0 <= k <= n]


@pytest.mark.parametrize(("converged", "runs"), SHARES)
def test_the_wilson_interval_is_that_of_scipy_and_holds_the_share(converged: int, runs: int) -> None:
    low, high = wilson(converged, runs)
    known = binomtest(converged, runs).proportion_ci(confidence_level=0.95, method="wilson")
    assert (low, high) == pytest.approx((known.low, known.high), abs=1e-9)
    assert 0 <= low <= converged / runs <= high <= 1


def test_five_of_five_shows_more_than_half() -> None:
    assert wilson(5, 5) == pytest.approx((0.5655, 1.0), abs=5e-5)
    assert wilson(0, 0) == (0.0, 1.0)


def test_the_exact_test_is_that_of_scipy() -> None:
    for runs, base_runs in itertools.product((1, 5, 10, 20), (1, 5, 9, 20)):
        for converged, base in itertools.product({0, 1, runs // 2, runs}, {0, 1, base_runs // 2, base_runs}):
            table = [[converged, runs - converged], [base, base_runs - base]]
            known = fisher_exact(table, alternative="greater").pvalue
            assert fisher(converged, runs, base, base_runs) == pytest.approx(known, abs=1e-12), table


def test_newcombes_interval_is_that_of_his_example() -> None:
    """Newcombe 1998, table II, method 10: 56/70 against 48/80."""
    assert difference(56, 70, 48, 80) == pytest.approx((0.0524, 0.3339), abs=5e-5)


def test_the_interval_of_a_difference_holds_it_and_turns_with_it() -> None:
    for converged, base in itertools.product(range(6), range(8)):
        low, high = difference(converged, 5, base, 7)
        assert -1 <= low <= converged / 5 - base / 7 <= high <= 1
        turned = difference(base, 7, converged, 5)
        assert (-turned[1], -turned[0]) == pytest.approx((low, high))
    assert difference(5, 5, 0, 5)[0] > 0.3
    assert difference(3, 5, 3, 5)[0] < 0 < difference(3, 5, 3, 5)[1]


def test_what_five_seeds_can_show() -> None:
    assert better(5, 5, 0, 5)
    assert better(4, 5, 0, 5)
    assert better(5, 5, 1, 5)
    assert not better(4, 5, 1, 5)
    assert not better(5, 5, 2, 5)


def test_eighty_per_cent() -> None:
    assert [holds(converged, 5) for converged in range(6)] == [False] * 4 + [True] * 2
    assert holds(8, 10)
    assert not holds(5, 7)
    assert holds(6, 7)
    assert not holds(0, 0)


def test_a_proof_ends_as_soon_as_it_cannot_succeed_and_not_before() -> None:
    for runs in range(LEAST_RUNS, MOST_RUNS + 1):
        for converged, failed in itertools.product(range(runs + 1), repeat=2):
            if converged + failed <= runs:
                best = any(holds(converged + more, runs) for more in range(runs - converged - failed + 1))
                assert can_hold(converged, failed, runs) == best
