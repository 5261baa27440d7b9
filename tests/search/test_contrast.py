"""Contrasts, pairs and recipes: only what was run on the same seeds, and nothing made of too few of them."""

import dataclasses
import itertools
import json
import math
from pathlib import Path

import jsonschema
import pytest

from remedy.search.agenda import Agenda
from remedy.search.contrast import alone
from remedy.search.drawing import drawings
from remedy.search.evidence import LEAST_TOLD, balance, difference, fisher
from remedy.search.findings import Findings
from remedy.search.interaction import interactions
from remedy.search.ledger import Entry, Item
from remedy.search.note import note
from remedy.search.page import report_html
from remedy.search.recipe import recipe, spread
from remedy.search.report import report
from remedy.search.tables import tables
from remedy.spaces.catalogue import REMEDIES
from remedy.spaces.combination import Combination
from remedy.spaces.outcome import Outcome
from remedy.spaces.space import Space
from remedy.workers.order import Phase
from remedy.workers.result import RunResult
from tests.search.scripted import SPACE, bench, needs, spec
from tests.search.wide import conducted, train

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "report.schema.json").read_text())
CLIP, SMALLER = (Combination.of(SPACE.by_name[name].first()) for name in ("clip", "smaller"))
BOTH, NOTHING = CLIP.plus(SMALLER), Combination()
GOOD = RunResult(0, Outcome.CONVERGED, metric=0.95, steps=100, steps_full=100, seconds=2.0, goal_step=50)
BAD = RunResult(0, Outcome.MISSED, metric=0.2, steps=100, steps_full=100, seconds=2.0)
FRESH, OWN = spec().confirm_list(20), spec().search_seeds[0]


def told(*runs: tuple[Combination, int, RunResult], **asked: object) -> Agenda:
    """Return an agenda that was told of these runs."""
    agenda = Agenda(spec(**asked), SPACE)
    for number, (combination, seed, ended) in enumerate(runs):
        phase = Phase.SEARCH if seed == OWN else Phase.CONFIRM if seed in FRESH else Phase.BASELINE
        result = dataclasses.replace(ended, number=number, first_losses=ended.first_losses or (seed + 0.5,))
        agenda.ledger.add(Entry(Item(phase, combination, seed), result))
    return agenda


def both(seeds: tuple[int, ...], good: int, base: int = 0) -> list[tuple[Combination, int, RunResult]]:
    """Return runs of clip alone and of the untouched training: so many of each converge."""
    mine = [(CLIP, seed, GOOD if place < good else BAD) for place, seed in enumerate(seeds)]
    return mine + [(NOTHING, seed, GOOD if place < base else BAD) for place, seed in enumerate(seeds)]


@pytest.mark.parametrize("seeds", [1, 2, 3, 4, 5, 20])
def test_an_interval_is_told_from_four_seeds_on(seeds: int) -> None:
    agenda = told(*both(FRESH[:seeds], seeds))
    found = alone(agenda.ledger, agenda.spec, CLIP)
    assert found is not None
    assert found.effect == 1
    assert found.interval == (difference(seeds, seeds, 0, seeds) if seeds >= 4 else None)
    assert (fisher(seeds, seeds, 0, seeds) < 0.05) == (seeds >= LEAST_TOLD), "fewer cannot tell all from none"


def test_fresh_seeds_stand_alone_where_there_are_any() -> None:
    agenda = told(*both((OWN,), 1), *both(FRESH[:5], 2, 1))
    found = alone(agenda.ledger, agenda.spec, CLIP)
    assert found is not None
    assert (found.fresh, found.seeds) == (True, FRESH[:5])
    assert found.counts == ((1, 2, 5), (-1, 1, 5))
    agenda = told(*both((OWN,), 1))
    found = alone(agenda.ledger, agenda.spec, CLIP)
    assert found is not None
    assert (found.fresh, found.seeds) == (False, (OWN,))


def test_there_is_no_contrast_without_a_shared_seed_or_where_nothing_was_changed() -> None:
    agenda = told((CLIP, OWN, GOOD), (NOTHING, FRESH[0], BAD))
    assert alone(agenda.ledger, agenda.spec, CLIP) is None
    nothing = RunResult(0, Outcome.INAPPLICABLE, "nothing to clip")
    agenda = told((CLIP, OWN, nothing), (NOTHING, OWN, BAD))
    assert alone(agenda.ledger, agenda.spec, CLIP) is None
    lost = RunResult(0, Outcome.LOST, "its worker died")
    agenda = told((CLIP, OWN, lost), (NOTHING, OWN, BAD))
    assert alone(agenda.ledger, agenda.spec, CLIP) is None


def test_identical_runs_have_no_interval() -> None:
    same = dataclasses.replace(BAD, first_losses=(2.3, 2.2))
    agenda = told(*((NOTHING, seed, same) for seed in spec().baseline_seeds), *both(FRESH[:10], 10))
    found = alone(agenda.ledger, agenda.spec, CLIP)
    assert found is not None
    assert found.effect == 1
    assert found.interval is None


@pytest.mark.parametrize("counts", [*itertools.product((0, 3, 5), repeat=4)])
def test_the_balance_of_four_shares_holds_its_interval(counts: tuple[int, ...]) -> None:
    pair, first, second, base = counts
    parts = ((1, pair, 5), (-1, first, 5), (-1, second, 5), (1, base, 5))
    effect = (pair - first - second + base) / 5
    low, high = balance(parts)
    assert -2 <= low <= effect <= high <= 2
    turned = balance(tuple((-sign, *count) for sign, *count in parts))
    assert (-turned[1], -turned[0]) == pytest.approx((low, high))
    assert (
        high - low >= difference(pair, 5, first, 5)[1] - difference(pair, 5, first, 5)[0] - 1e-9
        or high == 2
        or low == -2
    )


@pytest.mark.parametrize(
    ("pair", "first", "second", "effect"),
    [
        (GOOD, BAD, BAD, 1.0),
        (GOOD, GOOD, BAD, 0.0),
        (GOOD, GOOD, GOOD, -1.0),
        (BAD, GOOD, BAD, -1.0),
        (BAD, BAD, BAD, 0),
    ],
)
def test_an_interaction_is_what_a_pair_does_beyond_the_sum(
    pair: RunResult, first: RunResult, second: RunResult, effect: float
) -> None:
    runs = ((BOTH, pair), (SMALLER, first), (CLIP, second), (NOTHING, BAD))
    agenda = told(*((combination, seed, result) for seed in FRESH[:5] for combination, result in runs))
    (row,) = interactions(agenda.ledger, agenda.spec)
    assert row["remedies"] == ["smaller", "clip"]
    assert row["effect"] == effect
    assert row["interval"][0] <= effect <= row["interval"][1]
    assert row["together"] == {"converged": 5 * (pair is GOOD), "runs": 5}
    assert row["first"] == {"converged": 5 * (first is GOOD), "runs": 5}


@pytest.mark.parametrize("missing", [BOTH, SMALLER, CLIP, NOTHING])
def test_there_is_no_interaction_where_one_of_the_four_was_not_run(missing: Combination) -> None:
    four = [(combination, seed, GOOD) for seed in (OWN, *FRESH[:2]) for combination in (BOTH, SMALLER, CLIP, NOTHING)]
    agenda = told(*(run for run in four if run[0] != missing))
    assert interactions(agenda.ledger, agenda.spec) == []
    agenda = told(*(run for run in four if run[0] != missing or run[1] == FRESH[1]))
    (row,) = interactions(agenda.ledger, agenda.spec)
    assert (row["seeds"], row["fresh"], row["interval"]) == ([FRESH[1]], True, None)


def test_a_pair_of_other_values_is_another_pair() -> None:
    other = Combination.of({**CLIP.params, "clip.norm": 9.0})
    agenda = told(*((c, FRESH[0], BAD) for c in (BOTH, SMALLER, other, NOTHING)))
    assert interactions(agenda.ledger, agenda.spec) == []


# ---------------------------------------------------------------- recipes


def entries(*metrics: float, steps: int = 50) -> list[Entry]:
    """Return confirming runs with these final metrics."""
    made = [dataclasses.replace(GOOD, number=n, metric=m, goal_step=steps) for n, m in enumerate(metrics)]
    return [Entry(Item(Phase.CONFIRM, CLIP, seed), result) for seed, result in zip(FRESH, made, strict=False)]


def test_a_recipe_is_figures_over_seeds() -> None:
    found = recipe(entries(0.9, 0.95, 1.0))
    assert found["metric"] == {
        "mean": pytest.approx(0.95),
        "sd": pytest.approx(0.05),
        "lowest": 0.9,
        "highest": 1.0,
        "runs": 3,
    }
    assert found["steps_to_goal"]["mean"] == 50
    assert found["seconds_to_goal"]["mean"] == 1.0, "half of its steps, half of its two seconds"
    assert found["against_first"] is None


@pytest.mark.parametrize(("mode", "better"), [("max", 2), ("min", 1)])
def test_recipes_are_compared_seed_by_seed(mode: str, better: int) -> None:
    mine, first = entries(0.9, 0.95, 1.0, steps=20), entries(0.8, 0.96, 0.9, 0.7)
    found = recipe(mine, first, mode)["against_first"]
    assert (found["metric"]["runs"], found["better"]) == (3, better)
    assert found["metric"]["mean"] == pytest.approx((0.1 - 0.01 + 0.1) / 3)
    assert (found["steps_to_goal"]["mean"], found["sooner"]) == (-30, 3)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ((), None),
        ((math.nan, math.inf), None),
        ((2.0, math.nan), (2.0, None, 1)),
        ((1.0, 3.0), (2.0, pytest.approx(math.sqrt(2)), 2)),
    ],
)
def test_a_spread_is_of_what_is_finite(values: tuple[float, ...], told: tuple[object, ...] | None) -> None:
    found = spread(values)
    assert (found and (found["mean"], found["sd"], found["runs"])) == told


# ---------------------------------------------------------------- the report of whole studies


def made_up(path: Path, how: str) -> tuple[dict, object]:
    """Return the report and the folder of a made-up study."""
    if how == "failed":
        return conducted(path, lambda number, *_: RunResult(number, Outcome.FAILED, "ValueError: no"))
    if how == "healthy":
        return conducted(path, lambda number, names, seed, search: train(number, ["scale_down"], seed, search))
    if how == "no fix":
        return conducted(path, lambda number, names, seed, search: train(number, [], seed, search))
    if how == "pairs":

        def needs_two(number: int, names: frozenset[str], seed: int, search: bool) -> RunResult:
            return train(number, ["scale_down"] if {"clip_norm", "warmup"} <= names else [], seed, search)

        known = Space(REMEDIES).by_name
        both = Combination.of(known["clip_norm"].first()).plus(Combination.of(known["warmup"].first()))
        return conducted(path, needs_two, runs=60, ask=lambda: both)
    if how == "identical":

        def same(number: int, names: frozenset[str], seed: int, search: bool) -> RunResult:
            return dataclasses.replace(train(number, names, 0, search), first_losses=(2.3, 2.2))

        return conducted(path, same)
    return conducted(path, runs={"nothing": 0, "one run": 1}.get(how, 45))


KINDS = ("fixes", "pairs", "identical", "no fix", "healthy", "failed", "nothing", "one run")


@pytest.mark.parametrize("how", KINDS)
def test_every_report_has_the_published_shape_and_every_form(how: str, tmp_path: Path) -> None:
    found, folder = made_up(tmp_path, how)
    jsonschema.Draft202012Validator(SCHEMA).validate(found)
    findings = Findings.of(found, folder)
    data = tables(findings)
    assert set(drawings(findings)) <= set(data), "the numbers of every figure"
    page = report_html(findings)
    assert all(f"{findings.study}-{name}.csv" in page for name in data)
    assert note(found).startswith("## ")
    if how == "identical":
        assert found["baseline"]["deterministic"] is True
        assert found["fixes"], "its counts are told all the same"
        assert "too few seeds" not in note(found) + page
        assert "identical runs converged" in page
        assert all(told["interval"] is None for row in found["remedies"] for told in row["contrasts"])


def test_a_fix_of_two_is_told_with_what_each_does_and_what_both_do(tmp_path: Path) -> None:
    found, folder = made_up(tmp_path, "pairs")
    fix = found["fixes"][0]
    assert {row["without"] for row in fix["ablation"]} == {"clip_norm", "warmup"}
    for row in fix["ablation"]:
        assert row["with"] == {"converged": row["runs"], "runs": row["runs"]}
        assert (row["effect"], row["converged"]) == (1.0, 0)
    left = {
        (row["remedy"], told["fix"])
        for row in found["remedies"]
        for told in row["contrasts"]
        if told["kind"] == "left_out"
    }
    assert left == {("clip_norm", 1), ("warmup", 1)}
    pair = found["interactions"][0]
    assert (set(pair["remedies"]), pair["effect"], pair["fresh"]) == ({"clip_norm", "warmup"}, 1.0, True)
    data = tables(Findings.of(found, folder))
    assert "Left out of a fix of several remedies" in data["effects"]
    assert f"{pair['remedies'][0]},{pair['remedies'][1]},True" in data["interactions"]


def test_a_report_from_before_there_were_contrasts_is_a_page_all_the_same(tmp_path: Path) -> None:
    found, folder = made_up(tmp_path, "fixes")
    for key in ("interactions", "importance"):
        del found[key]
    for row in found["remedies"]:
        del row["contrasts"]
    for fix in found["fixes"]:
        del fix["recipe"]
    page = report_html(Findings.of(found, folder))
    assert "What fixes it" in page
    assert "so that there is no contrast" in page
    assert note(found).startswith("## ")


# ---------------------------------------------------------------- models


def test_models_are_asked_of_a_whole_study_and_name_the_slot_that_decides(tmp_path: Path) -> None:
    study = bench(tmp_path, needs("clip", near=0.0), fixes=2, runs=60)
    done = study.run()
    found = done.controller.trials.importance()
    assert found is not None
    counted = [e for e in done.agenda.ledger.entries if e.result.outcome is not Outcome.INAPPLICABLE]
    assert (found["kind"], found["trials"]) == ("model-based", len(counted))
    assert found["slots"][0]["slot"] == "gradient"
    for name in ("fanova", "ped_anova"):
        assert sum(row[name] for row in found["slots"]) == pytest.approx(1)
    assert found == done.controller.trials.importance(), "the same again"
    jsonschema.Draft202012Validator(SCHEMA).validate(
        report(done.agenda, done.reason, 1.0, done.controller.folder, {}, found)
    )


@pytest.mark.parametrize("world", ["few", "nothing converges", "everything converges"])
def test_models_are_not_asked_where_there_is_nothing_to_tell(tmp_path: Path, world: str) -> None:
    truth = {"few": needs("clip"), "nothing converges": needs("never"), "everything converges": lambda *_: 0.95}[world]
    done = bench(tmp_path, truth, runs=15 if world == "few" else 40).run()
    assert done.controller.trials.importance() is None
