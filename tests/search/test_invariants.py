"""The laws of a study, over many worlds drawn at random."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from remedy.search.agenda import Reason
from remedy.spaces.combination import Combination
from remedy.spaces.outcome import Outcome
from remedy.workers.order import WorkOrder
from tests.search.laws import obeyed
from tests.search.scripted import REMEDIES, SMALL, SPACE, Bench, Truth, bench, chance_of

KINDS = {"neutral": 9, "cure": 1, "mostly": 2, "sometimes": 3, "poison": 2, "inapplicable": 1, "fails": 1}
SHARES = {"cure": 1.0, "mostly": 0.85, "sometimes": 0.4}


def world(seed: int) -> Truth:
    """Some remedies help on some seeds, some harm, some cannot be applied, and some help only together."""
    draw = random.Random(seed)
    base = draw.choice([0.0, 0.0, 0.0, 0.2, 0.5, 0.7])
    kinds = {r.name: draw.choices(list(KINDS), list(KINDS.values()))[0] for r in REMEDIES}
    together = [{r.name for r in draw.sample(REMEDIES, 2)} for _ in range(draw.randint(0, 3))]

    def truth(combination: Combination, place: int) -> float | Outcome:
        mine = {kinds[name] for name in combination.names}
        if "inapplicable" in mine:
            return Outcome.INAPPLICABLE
        if "fails" in mine:
            return Outcome.FAILED
        share = max([base, *(SHARES.get(kind, 0.0) for kind in mine)])
        if any(names <= combination.names for names in together):
            share = 0.95
        if "poison" in mine:
            share = 0.0
        if chance_of(seed, combination.key, place) < share:
            return 0.95
        return 0.2 + 0.6 * chance_of("value", seed, combination.key)

    return truth


def losing(seed: int) -> Callable[[WorkOrder], bool]:
    return lambda order: chance_of("lost", seed, order.number) < 0.04


def drawn(path: Path, seed: int) -> Bench:
    """A study of a world, with what was asked drawn too."""
    draw = random.Random(-1 - seed)
    asked = {
        "fixes": draw.choice([1, 2, 3]),
        "seeds": draw.choice([3, 3, 5]),
        "confirm_seeds": draw.choice([5, 5, 7]),
        "runs": draw.choice([None, None, 15, 40]),
        "budget": draw.choice([None, None, 12.5]),
        "seed": draw.choice([0, 7]),
    }
    study = bench(path, world(seed), 1 + seed % 4, draw.choice([SMALL, SPACE]), **asked)
    study.loses = losing(seed) if seed % 3 == 0 else None
    return study


@pytest.mark.parametrize("block", range(4))
@pytest.mark.usefixtures("in_memory")
def test_the_laws_hold_in_every_world(tmp_path: Path, block: int) -> None:
    ends = set()
    for seed in range(block * 10, block * 10 + 10):
        told = drawn(tmp_path / str(seed), seed).run(seed=seed)
        assert obeyed(told), seed
        ends.add(told.reason)
    assert ends - {Reason.FAILED, Reason.HEALTHY}


@pytest.mark.parametrize("seed", range(5))
def test_the_laws_hold_with_a_journal(tmp_path: Path, seed: int) -> None:
    assert obeyed(drawn(tmp_path, 1000 + seed).run())
