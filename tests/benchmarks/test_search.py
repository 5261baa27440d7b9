"""The search benchmark replays what a study would have got, counts what it says, and its methods do what they are."""

import math
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))  # they are scripts, and import each other by name

import run_cache
import searchers
from broken_trainings import CASES, Kind
from run_cache import RunCache
from search_tables import POINTS, Found, tables

import search
from remedy.spaces.catalogue import REMEDIES
from remedy.spaces.combination import Combination
from remedy.spaces.outcome import Outcome
from remedy.spaces.space import Space
from remedy.spaces.symptom import Symptom
from remedy.workers.order import Phase, WorkOrder
from remedy.workers.run import perform

SPACE = Space(REMEDIES)
BY_NAME = SPACE.by_name
CASE = {case.name: case for case in CASES}


def first(*names: str) -> Combination:
    made = Combination()
    for name in names:
        made = made.plus(Combination.of(BY_NAME[name].first()))
    return made


@pytest.fixture
def cache(tmp_path):
    with_runs = RunCache(tmp_path / "cache")
    yield with_runs
    with_runs.close()


@pytest.mark.parametrize("phase", [Phase.SEARCH, Phase.CONFIRM])
@pytest.mark.parametrize(("name", "remedies"), [("adam_too_fast", ()), ("too_slow", ("adam",))])
def test_what_is_replayed_is_what_a_study_gets(cache, name, remedies, phase) -> None:
    order = WorkOrder(0, cache.source(CASE[name]), first(*remedies).params, 7, 0, phase)
    real, kept = perform(order), cache.run(CASE[name], first(*remedies), 7).of(phase)
    for field in ("outcome", "steps", "steps_full", "metric", "saved_by", "verdict", "notes", "goal_step"):
        assert getattr(kept, field) == getattr(real, field), field
    assert kept.curves["metric"] == real.curves["metric"]


def test_a_run_is_trained_once_and_kept_on_disk(cache, tmp_path) -> None:
    before = cache.run(CASE["too_slow"], Combination(), 1)
    again = RunCache(tmp_path / "cache")
    assert again.run(CASE["too_slow"], Combination(), 1) == before
    assert (cache.trained, again.trained, again.remembered) == (1, 0, 1)
    again.close()


def test_a_run_is_known_by_the_files_it_goes_through_and_by_no_others() -> None:
    names = {path.stem for path in run_cache.trained_by()}
    assert {"run", "loop", "watch", "ending", "forecast", "catalogue", "dead_units", "statistics"} <= names
    assert not {"preflight", "probation", "attempt", "easy", "ray_executor"} & names


def test_who_is_not_to_prove_is_done_with_the_first_true_fix(cache) -> None:
    bench = search.Bench(CASE["too_slow"], cache, 6)
    found = search.theirs(bench, 0, "greedy, one at a time", proving=False)
    assert (found.proving, found.minimal, found.held) == (False, None, None)
    assert found.true == found.cost
    assert found.true_fix
    assert found.cost == 1 + found.runs - 1  # the untouched run, and each of its trials to the end


def test_what_a_method_ends_early_costs_what_it_was_trained(cache) -> None:
    class Impatient:
        content = False
        told: tuple[float, int] = (math.nan, 0)

        def stops(self, percent: int, value: float) -> bool:
            return percent >= 30

        def tell(self, value: float, symptoms: object) -> None:
            self.told = (value, 1)

    made = cache.run(CASE["too_slow"], first("adam"), 1)
    assert made.whole.outcome is Outcome.CONVERGED
    impatient = Impatient()
    steps, converged = search.trial(impatient, made, "max")
    assert 0.3 * made.whole.steps_full <= steps <= 0.4 * made.whole.steps_full
    assert not converged
    assert impatient.told == (dict(made.whole.curves["metric"])[steps], 1)


class Enduring:
    content = False

    def stops(self, percent: int, value: float) -> bool:
        return False

    def tell(self, value: float, symptoms: object) -> None:
        """Nothing is learnt."""


def test_a_content_method_ends_its_trials_where_remedy_ends_them(cache) -> None:
    class Patient(Enduring):
        content = True

    made = cache.run(CASE["too_slow"], first("adam"), 1)
    assert made.search.saved_by == "success"
    assert search.trial(Patient(), made, "max") == (made.search.steps, True)
    assert search.trial(Enduring(), made, "max") == (made.whole.steps, True)
    assert made.search.steps < made.whole.steps


def test_asha_stops_the_worse_and_draws_what_random_draws() -> None:
    asha, random = (searchers.PEERS[name](SPACE, 3, (), 0.0) for name in ("Ray Tune ASHA", "random"))
    stopped = []
    for level in (0.9, 0.8, 0.7, 0.1, 0.95):
        assert asha.ask() == random.ask()
        stopped.append(any(asha.stops(percent, level) for percent in range(5, 101, 5)))
        asha.tell(level, ())
        random.tell(level, ())
    assert stopped == [False, True, True, True, False]


@pytest.mark.parametrize("name", ["Optuna TPE, median", "Optuna TPE, Hyperband"])
def test_optuna_prunes_by_its_own_rule(name) -> None:
    study = searchers.PEERS[name](SPACE, 0, (), 0.0)
    for level in range(30, 0, -1):
        study.ask()
        pruned = any(study.stops(percent, level / 30) for percent in range(5, 101, 5))
        study.tell(level / 30, ())
    assert pruned  # the worst of all


def test_greedy_keeps_what_helps_and_ends_where_nothing_does() -> None:
    greedy = searchers.Greedy(SPACE, [Symptom.EXPLODING_GRADIENT], 0.1)
    assert greedy.ask() == first("selu", "lecun")
    greedy.tell(0.1, ())
    assert greedy.ask() == first("relu", "he")
    greedy.tell(0.4, [Symptom.ACCURACY_COLLAPSE])
    asked = list(iter(lambda: _next(greedy), None))
    kept = [made for made in asked if {"relu", "he"} < made.names]
    assert kept[0] == first("relu", "he", "adam")
    assert [made.params["scale_down.factor"] for made in kept if "scale_down" in made.names] == [0.1, 0.01, 0.003]
    assert asked.index(kept[0]) > len([made for made in asked if len(made.names) == 1]) / 2
    assert len(set(asked)) == len(asked)


def _next(greedy: searchers.Greedy) -> Combination | None:
    made = greedy.ask()
    if made is not None:
        greedy.tell(0.1, ())
    return made


def test_few_changes_are_few() -> None:
    sparse = searchers.Sparse(SPACE, 0)
    counts = [len(sparse.ask().names) for _ in range(50)]
    assert set(counts) == {1, 2, 3}


def test_a_healthy_training_is_left_alone_and_others_are_repaired(cache) -> None:
    healthy = search.ours(search.Bench(CASE["sound_rings"], cache, 10), 0)
    assert (healthy.code, healthy.true, healthy.minimal) == (4, None, None)
    assert 3 <= healthy.cost < 8  # three runs and what pre-flight tries
    bench = search.Bench(CASE["too_slow"], cache, 2)
    found = search.theirs(bench, 0, "random, 1 to 3 changes")
    assert found.cost >= 2
    assert found.runs >= 1
    assert found.true is None or found.true <= 2


def test_tables_say_what_can_be_counted_by_hand() -> None:
    def row(case: str, method: str, repeat: int, true: float | None) -> Found:
        return Found(case, method, repeat, true=true, minimal=None if true is None else 2 * true, held=20, cost=50)

    rows = [row("too_slow", "remedy", repeat, cost) for repeat, cost in enumerate((4.0, 1.0, 6.0))]
    rows += [row("too_slow", "random", repeat, cost) for repeat, cost in enumerate((16.0, None, 8.0))]
    lines = tables(rows, 50)
    assert POINTS == (5, 10, 20, 50)
    shares = {line.split()[0]: line.split()[1:5] for line in lines if line.endswith("n=3")}
    assert shares.pop("less") == ["pre-flight", "0.67", "1.00", "1.00"]
    assert shares == {"remedy": ["0.67", "1.00", "1.00", "1.00"], "random": ["0.00", "0.33", "0.67", "0.67"]}
    costs = next(line.split() for line in lines if line.startswith("too_slow"))
    assert costs == ["too_slow", "4.0", "4.0", "16.0", "3", "repeats"]
    # A repeat that one of them has not made is left out for all.
    fewer = next(line.split() for line in tables(rows[:5], 50) if line.startswith("too_slow"))
    assert fewer == ["too_slow", "4.0", "4.0", ">50.0", "2", "repeats"]
    assert any("remedy is 4.00 times cheaper" in line for line in lines)


def test_the_trainings_are_what_was_asked_for() -> None:
    kinds = [case.kind for case in CASES]
    assert kinds.count(Kind.PAIR) >= 2
    assert sum(case.repairable and "examples/" not in case.target for case in CASES) >= 8
    assert {Kind.HEALTHY, Kind.HOPELESS, Kind.LUCK} <= set(kinds)
    assert all((case.kind is Kind.PAIR) == (case.together is not None) for case in CASES)
