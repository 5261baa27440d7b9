"""The forecast gives up what cannot make it any more, waits for what blooms late, and only while searching."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from remedy.spaces.objective import TargetKind
from remedy.spaces.outcome import Outcome
from remedy.spaces.target import find
from remedy.workers.forecast import Forecast
from remedy.workers.observation import Layer, Observation, Setting
from remedy.workers.order import Phase, WorkOrder
from remedy.workers.run import perform
from remedy.workers.watch import Watch

EXAMPLES = Path(__file__).parents[2] / "examples"
SETTING = Setting(
    TargetKind.CLASS_INDEX, 10, 0.1, math.log(10), 400, 4, 0, 0.1, 0.9, "max", cross_entropy=True
)  # fmt: skip
REAL = dataclasses.replace(SETTING, kind=TargetKind.REAL, classes=0, chance=0.0, goal=0.8, cross_entropy=False)
Course = Callable[[int], dict[str, Any]]


def observations(course: Course) -> list[Observation]:
    return [_observation(step, course(step)) for step in range(4, 401, 4)]


def _observation(step: int, look: dict[str, Any]) -> Observation:
    return Observation(
        step, 2.3, look.get("loss", 2.3), None, look.get("norm", 1.0),
        (Layer("0.weight", 1.0, 0.1, look.get("update", 1e-2)), Layer("1.weight", 1.0, 0.1, 1e-4)),
        finite_parameters=True, learning_rate=look.get("rate", 0.01),
        metric=look["metric"] if step % 20 == 0 else None,
    )  # fmt: skip


def given_up(setting: Setting, course: Course) -> tuple[int, str] | None:
    forecast = Forecast(setting)
    return next(((seen.step, why) for seen in observations(course) if (why := forecast.hopeless(seen))), None)


HOPELESS: dict[str, tuple[Setting, Course, float]] = {
    "weights that hardly move": (SETTING, lambda _: {"metric": 0.1, "update": 1e-4}, 0.35),
    "at guessing to the end": (SETTING, lambda _: {"metric": 0.1}, 0.95),
    "a straight line to half way": (SETTING, lambda s: {"metric": 0.1 + 0.4 * s / 400}, 0.65),
    "far targets": (REAL, lambda s: {"metric": -90 + 0.02 * s}, 0.45),
    "not a number": (SETTING, lambda _: {"metric": math.nan}, 0.95),
}
WAITED_FOR: dict[str, tuple[Setting, Course]] = {
    "learns": (SETTING, lambda s: {"metric": 0.95 - 0.85 * math.exp(-s / 100)}),
    "blooms at 70 %": (SETTING, lambda s: {"metric": 0.1 if s < 280 else 0.95}),
    "blooms at 95 %, told by its loss": (
        SETTING,
        lambda s: {"metric": 0.1 if s < 380 else 0.95, "loss": 2.3 - 0.001 * max(0, s - 300) + 0.01 * math.sin(s)},
    ),
    "blooms step by step": (SETTING, lambda s: {"metric": 0.1 + 0.3 * (s > 200) + 0.3 * (s > 280) + 0.3 * (s > 350)}),
    "accelerates": (SETTING, lambda s: {"metric": 0.1 + 0.85 * (s / 400) ** 4}),
    "small steps that grow": (SETTING, lambda s: {"metric": 0.1 if s < 280 else 0.95, "update": 1e-5 * 1.02**s}),
    "a learning rate that comes up": (
        SETTING, lambda s: {"metric": 0.1 if s < 280 else 0.95, "update": 1e-4, "rate": 1e-4 * s}
    ),
    "a straight line to the goal": (SETTING, lambda s: {"metric": 0.1 + 0.85 * s / 400}),
    "from far off": (REAL, lambda s: {"metric": 0.9 - 20 * math.exp(-s / 60)}),
}  # fmt: skip


@pytest.mark.parametrize(("setting", "course", "by"), HOPELESS.values(), ids=HOPELESS)
def test_gives_up(setting, course, by) -> None:
    found = given_up(setting, course)
    assert found is not None
    step, why = found
    assert step <= by * setting.steps
    assert str(step) in why or "%" in why


@pytest.mark.parametrize(("setting", "course"), WAITED_FOR.values(), ids=WAITED_FOR)
def test_waits(setting, course) -> None:
    assert given_up(setting, course) is None


def test_a_run_given_up_is_missed_and_never_a_collapse() -> None:
    setting, course, _ = HOPELESS["a straight line to half way"]
    watch = Watch(setting, [], forecast=Forecast(setting))
    last = next(look.step for look in observations(course) if not watch.see(look))
    assert last < setting.steps - 20
    assert watch.outcome is Outcome.MISSED
    assert watch.given_up
    assert watch.verdict is None


@pytest.mark.parametrize("phase", [Phase.BASELINE, Phase.SEARCH])
def test_only_the_search_gives_runs_up(phase) -> None:
    source = find(str(EXAMPLES / "stuck_at_ln_n.py"))
    result = perform(WorkOrder(0, source, {}, 3, 0, phase))
    assert result.outcome is Outcome.MISSED
    if phase is Phase.SEARCH:
        assert result.steps < result.steps_full
        assert (result.saved_by, bool(result.reason)) == ("controller", True)
    else:
        assert (result.steps, result.saved_by, result.reason) == (result.steps_full, "", "")
