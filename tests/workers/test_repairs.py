"""Every remedy that treats a symptom repairs a training that is broken without it: on 4 of 5 seeds, against 1 of 5."""

from __future__ import annotations

from functools import cache

import pytest

from remedy.spaces.catalogue import REMEDIES
from remedy.spaces.combination import Combination
from remedy.spaces.outcome import Outcome
from remedy.spaces.space import Space
from remedy.workers.detectors.catalogue import detectors
from remedy.workers.loop import train
from remedy.workers.run import setting_of
from remedy.workers.watch import Watch
from tests.workers import broken, broken_model

SPACE = Space.of(REMEDIES)
SEEDS, LEAST, MOST = 5, 4, 1
ROWS = [*broken.ROWS, *broken_model.ROWS]


def converges(training, combination, seed) -> bool:
    parts = SPACE.apply(training, combination, seed=seed, data_seed=0)
    setting = setting_of(training, parts)
    watch = Watch(setting, detectors(setting))
    try:
        for seen in train(training, parts):
            if not watch.see(seen):
                break
    except RuntimeError:  # the training's own: the run has failed
        return False
    return watch.outcome is Outcome.CONVERGED


def share(build, combination) -> tuple[int, int]:
    """Return (converged, runs); no more runs are made than decide."""
    converged = failed = 0
    for seed in range(SEEDS):
        good = converges(build(), combination, seed)
        converged, failed = converged + good, failed + (not good)
        if converged == LEAST or failed == SEEDS - MOST or (converged > MOST and failed > SEEDS - LEAST):
            break
    return converged, converged + failed


@cache
def untouched(build) -> tuple[int, int]:
    return share(build, Combination())


@pytest.mark.filterwarnings("ignore:Using a target size:UserWarning")  # one of the faults
@pytest.mark.parametrize(("name", "values", "build"), ROWS, ids=[f"{name}-{build.__name__}" for name, _, build in ROWS])
def test_restores_what_is_broken_without_it(name, values, build) -> None:
    own = {f"{name}.{key}": value for key, value in values.items()}
    combination = Combination.of({**SPACE.by_name[name].first(), **own})
    broken_share, restored = untouched(build), share(build, combination)
    assert broken_share[0] <= MOST, f"without any remedy {broken_share[0]} of {broken_share[1]} seeds converge"
    assert restored[0] >= LEAST, f"with {name} {restored[0]} of {restored[1]} seeds converge"


def test_every_remedy_that_claims_a_symptom_has_repaired_one() -> None:
    proved = {name for name, _, _ in ROWS}
    assert not [remedy.name for remedy in REMEDIES if remedy.treats and remedy.name not in proved]
    assert proved <= set(SPACE.by_name)
