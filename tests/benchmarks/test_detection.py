"""The corpus packs what was seen; the detection benchmark says of a handful of traces what can be counted by hand."""

import dataclasses
import math
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))  # they are scripts, and import each other by name

import corpus
import detection
from corpus import Look, Trace
from corpus_kinds import KINDS, Kind, Role
from corpus_parts import adam, mlp
from peers import PEERS, epochs

from remedy.spaces.objective import TargetKind
from remedy.workers.observation import Layer, Observation, Outputs, Setting

STEPS = 400
SETTING = Setting(
    TargetKind.CLASS_INDEX, 10, 0.1, math.log(10), STEPS, 4, 0, 0.1, 0.9, "max", cross_entropy=True
)  # fmt: skip


def outputs(accuracy: float) -> Outputs:
    return Outputs(64, accuracy, 0.2, 3, 2.0, 0.7, 0.0, 1.0, 0.9, finite=True)


def seen(step: int, loss: float, accuracy: float, *, sound: bool = True) -> Look:
    norm = 1.0 if sound else math.nan
    layers = tuple(Layer(f"{place}.weight", norm, 0.1, 1e-2) for place in (0, 2))
    observation = Observation(
        step, loss, loss, outputs(accuracy), norm, layers,
        finite_parameters=sound, learning_rate=0.01, metric=accuracy if step % 20 == 0 else None,
        validation=outputs(accuracy) if step % 20 == 0 else None,
    )  # fmt: skip
    return Look(observation, (norm / 100, norm / 100), math.nan)


def trace(kind: str, seed: int, *, lost_at: int = STEPS + 1, learns_from: int = 0) -> Trace:
    def look(step: int) -> Look:
        if step >= lost_at:
            return seen(step, math.nan, 0.0, sound=False)
        way = math.exp(-max(0, step - learns_from) / 60)
        return seen(step, 0.05 + 2.25 * way, 0.95 - 0.85 * way)

    return Trace(
        kind, Role.JUDGE, search=False, seed=seed, setting=SETTING, looks=tuple(map(look, range(4, STEPS + 1, 4)))
    )


HEALTHY = [trace("learns", seed) for seed in range(6)]
LATE = [trace("late", seed, learns_from=200) for seed in range(6)]
LOST = [trace("lost", seed, lost_at=100) for seed in range(6)]
RUNS = [*HEALTHY, *LATE, *LOST]


def test_a_run_is_judged_by_its_end() -> None:
    assert not any(run.doomed for run in (*HEALTHY, *LATE))
    assert all(run.doomed for run in LOST)
    assert 0.5 <= LATE[0].plateau < 0.6


def test_what_is_counted_is_what_can_be_counted_by_hand() -> None:
    results = detection.compared(RUNS)
    assert set(results) == {"remedy", "remedy + forecast", *PEERS}
    ours = detection.Score.of(results["remedy"])
    assert (ours.saved, ours.caught, ours.wrong, ours.healthy) == (0.75, 1, 0, 12)  # at the first NaN, step 100 of 400
    exploding = detection.Score.of(results["SageMaker ExplodingTensor"])
    assert (exploding.saved, exploding.wrong) == (0.75, 0)
    impatient = [run for run in results["EarlyStopping, patience 3"] if run.kind == "late"]
    assert all(run.wrong and run.stop < 0.5 for run in impatient)
    lines = detection.table(results, detection.impatience(RUNS))
    assert len(lines) == 1 + len(results)
    assert "BEHIND" not in "".join(lines)


def test_a_stop_after_the_goal_is_reached_is_not_wrong() -> None:
    assert detection.judged(HEALTHY[0], 40).wrong
    assert not detection.judged(HEALTHY[0], 380).wrong
    assert detection.judged(LOST[0], None).stop == 1


def test_a_search_counts_its_best() -> None:
    study = [*HEALTHY[:5], *LATE[:5], *LOST[:5]]
    lines = {line[:36].strip(): line[36:].split("  ") for line in detection.searches_table([study])}
    ours = [cell.strip() for cell in lines["remedy"] if cell.strip()]
    assert ours == ["5 of 5", "25%", "0 of 10", "0 of 1", "0 of 10"]


def test_twice_the_same_is_said() -> None:
    one, other = (detection.table(detection.compared(RUNS), detection.impatience(RUNS)) for _ in range(2))
    assert one == other


def test_an_epoch_is_a_twentieth() -> None:
    cut = epochs(HEALTHY[0])
    assert [epoch.step for epoch in cut] == list(range(20, STEPS + 1, 20))
    assert cut[0].accuracy < cut[-1].accuracy


def test_what_is_recorded_is_read_back(tmp_path) -> None:
    kind = next(kind for kind in KINDS if kind.name == "healthy_spirals")
    short = Kind(
        "short", Role.CALIBRATE, lambda seed: dataclasses.replace(
            kind.training(seed), model=mlp((2, 8, 3)), optimizer=adam(0.01), steps=40
        )
    )  # fmt: skip
    made = corpus.record(short, 3000)
    corpus._write(short, [corpus.packed(made)], tmp_path)
    (again,) = corpus.traces(short, tmp_path)
    assert (again.setting, again.doomed, len(again.looks)) == (made.setting, made.doomed, len(made.looks))
    for before, after in zip(made.looks, again.looks, strict=True):
        assert after.seen.step == before.seen.step
        assert after.seen.mean_loss == pytest.approx(before.seen.mean_loss, rel=1e-3)
        assert after.seen.batch.accuracy == pytest.approx(before.seen.batch.accuracy, rel=1e-3)
        assert after.mean_gradients == pytest.approx(before.mean_gradients, rel=1e-3)
        assert (after.seen.metric is None) == (before.seen.metric is None)


def test_the_sets_share_no_kind_and_have_enough() -> None:
    names = [kind.name for kind in KINDS]
    assert len(names) == len(set(names))
    for role in Role:
        own = [kind for kind in KINDS if kind.role is role and not kind.search]
        assert len(own) >= 30
        assert all(kind.seeds == (6 if role is Role.FINAL else 10) for kind in own)


@pytest.mark.parametrize("kind", [k for k in KINDS if k.role is Role.CALIBRATE and not k.search], ids=lambda k: k.name)
def test_no_healthy_run_that_calibrated_is_stopped(kind) -> None:
    runs = [run for run in corpus.traces(kind) if not run.doomed]
    assert [run.seed for run in runs if detection.both(run) is not None] == []
