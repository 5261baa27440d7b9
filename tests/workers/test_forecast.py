"""The forecast gives up what cannot make it any more, waits for what blooms late, and only while searching."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from remedy.search import audit
from remedy.spaces.error import InputError
from remedy.spaces.objective import TargetKind
from remedy.spaces.outcome import Outcome
from remedy.spaces.target import Source, find
from remedy.workers.detectors.choice import changes, detecting, in_force, read_forecast
from remedy.workers.detectors.threshold import thresholds, with_values
from remedy.workers.ending import broken, stopped
from remedy.workers.forecast import Forecast
from remedy.workers.observation import Layer, Observation, Setting
from remedy.workers.order import Phase, WorkOrder
from remedy.workers.result import RunResult
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


def given_up(setting: Setting, course: Course, **thresholds: float) -> tuple[int, str] | None:
    forecast = with_values(Forecast, thresholds)(setting)
    return next(((seen.step, why) for seen in observations(course) if (why := forecast.hopeless(seen))), None)


HOPELESS: dict[str, tuple[Setting, Course, float]] = {
    "weights that hardly move": (SETTING, lambda _: {"metric": 0.1, "update": 1e-4}, 0.35),
    "at guessing to the end": (SETTING, lambda _: {"metric": 0.1}, 0.95),
    "a straight line to half way": (SETTING, lambda s: {"metric": 0.1 + 0.4 * s / 400}, 0.65),
    "far targets": (REAL, lambda s: {"metric": -90 + 0.02 * s}, 0.45),
    "back at guessing": (SETTING, lambda s: {"metric": 0.6 if s <= 100 else 0.1}, 0.45),
    "weights that hardly move, a little more each time": (
        SETTING,
        lambda s: {"metric": 0.1, "update": 1e-6 * 1.003**s},
        0.35,
    ),
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
    "falls and comes back": (SETTING, lambda s: {"metric": 0.1 if 100 < s <= 140 else 0.9}),
    "falls, and its loss comes down": (
        SETTING,
        lambda s: {"metric": 0.1 if 100 < s <= 240 else 0.9, "loss": 9 - 0.03 * max(0, s - 100) + 0.01 * math.sin(s)},
    ),
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


def test_an_impatient_search_asks_for_the_line_to_the_goal() -> None:
    late = WAITED_FOR["blooms at 70 %"]
    step, why = given_up(*late, demand_from=0.2) or (0, "")
    assert step == 80
    assert "0.23 is asked for" in why  # nine tenths of the way by 0.8 of the budget
    on_the_line = WAITED_FOR["a straight line to the goal"]
    assert given_up(*on_the_line, demand_from=0.2, demand_by=1.2) is None
    assert given_up(*on_the_line, demand_from=0.2, demand_by=0.4) is not None


RISES: dict[str, tuple[Course, int | None]] = {
    "to stay": (lambda s: {"metric": 0.1 + 0.85 * s / 400, "loss": 2.3 if s <= 80 else 3.0}, 108),
    "for a look": (lambda s: {"metric": 0.1 + 0.85 * s / 400, "loss": 2.3 + 3 * (100 < s <= 104)}, None),
    "with the learning rate": (
        lambda s: {"metric": 0.1 + 0.85 * s / 400, "loss": 2.3 if s <= 80 else 3.0, "rate": 0.01 if s <= 80 else 0.1},
        None,
    ),
    "once it is at its goal": (
        lambda s: {"metric": 0.95 if s > 20 else 0.1, "loss": 2.3 if s <= 200 else 9.0}, None
    ),
}  # fmt: skip


@pytest.mark.parametrize(("course", "step"), RISES.values(), ids=RISES)
def test_a_loss_that_rises_is_not_forgiven_where_that_is_asked_for(course, step) -> None:
    assert given_up(SETTING, course) is None
    found = given_up(SETTING, course, risen=0.2)
    assert (found and found[0]) == step


def test_a_loss_that_does_not_fall_is_not_forgiven_where_that_is_asked_for() -> None:
    flat = (SETTING, lambda s: {"metric": 0.1 + 0.85 * s / 400})
    step, _ = given_up(*flat, risen=-0.01, risen_by=-100) or (0, "")
    assert step == 80  # the first two stretches


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


# ---------------------------------------------------------------- as a study file has it

HASTY = read_forecast({"late": 0, "chance": 1, "falling": 1e9}, "here")
"""It gives up whatever is not at its goal at the fourth validation: a wrong stop, on purpose."""


def test_every_threshold_has_a_reason_and_may_be_what_it_is() -> None:
    known = thresholds(Forecast)
    assert {"late", "slow", "far", "travel"} <= set(known)
    assert all(threshold.why and threshold.permits(threshold.value) for threshold in known.values())
    bare = [name for name, value in vars(Forecast).items() if isinstance(value, int | float)]
    assert not bare, f"write {bare} as Threshold(value, why)"


@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        (3, "forecast is 3; it may be on, off, or its thresholds: {chance: 0.1}"),
        ({"later": 1}, "forecast has no threshold 'later'; it may be chance, "),
        ({"late": 2}, "forecast: late is 2; it may be a number from 0 to 1"),
        ({"far": 1}, "forecast: far is 1; it may be a number from -1000 to 0"),
        ({"slow": "fast"}, "forecast: slow is 'fast'; it may be a number, 0 or more"),
        ({"slow": True}, "forecast: slow is True; it may be a number, 0 or more"),
    ],
)
def test_what_cannot_be_is_named_with_what_it_may_be(raw, sentence) -> None:
    with pytest.raises(InputError) as error:
        read_forecast(raw, "study file 'x.yaml'")
    assert str(error.value).startswith("study file 'x.yaml': ")
    assert sentence in str(error.value)


def test_a_choice_sets_what_it_names_or_switches_it_off() -> None:
    made = Forecast.of(SETTING, read_forecast({"late": 0.5}, "here"))
    assert made is not None
    assert (made.late, made.slow) == (0.5, Forecast.slow)
    assert Forecast.of(SETTING, read_forecast("off", "here")) is None
    assert Forecast.of(SETTING, {**read_forecast("off", "here"), **read_forecast("on", "here")}) is not None


def test_its_thresholds_are_kept_and_a_change_is_named() -> None:
    now = in_force({})
    assert now["forecast.late"] == Forecast.late
    assert in_force(read_forecast(False, "here"))["forecast"] is False
    assert changes({**now, "forecast.late": 0.5}, now) == [f"the forecast.late is {Forecast.late:g}, not 0.5"]
    assert changes(detecting(now), now) == []  # a study from before they were kept
    assert not [name for name in detecting(now) if name.startswith("forecast")]


# ---------------------------------------------------------------- audited


def audited_watch() -> tuple[Watch, list[Observation]]:
    setting, course, _ = HOPELESS["a straight line to half way"]
    return Watch(setting, [], audited=True, forecast=Forecast(setting)), observations(course)


def test_an_audited_run_that_it_would_give_up_goes_on() -> None:
    watch, looks = audited_watch()
    assert all(watch.see(look) for look in looks)
    assert 0 < watch.foretold_step < watch.setting.steps - 20
    assert (watch.outcome, watch.given_up, watch.spared) == (Outcome.MISSED, "", None)
    assert watch.foretold


def order(source: Source, phase: Phase = Phase.SEARCH, **change: Any) -> WorkOrder:
    return WorkOrder(0, source, {}, 0, 0, phase, **change)


@pytest.fixture
def healthy(remedy) -> Source:
    return find(str(remedy.write("healthy", "optimizer=lambda p: torch.optim.SGD(p, lr=0.1)")))


def test_a_study_file_sets_it_and_an_audit_says_what_its_stops_were_worth(healthy) -> None:
    plain = perform(order(healthy, detectors=read_forecast("off", "here"), audited=True))
    given_up = perform(order(healthy, detectors=HASTY))
    assert (plain.outcome, plain.foretold) == (Outcome.CONVERGED, "")
    assert (given_up.outcome, given_up.saved_by, given_up.foretold) == (Outcome.MISSED, "controller", "")
    assert given_up.steps < given_up.steps_full
    audited = perform(order(healthy, detectors=HASTY, audited=True))
    assert (audited.outcome, audited.steps, audited.saved_by) == (Outcome.CONVERGED, audited.steps_full, "")
    assert (audited.foretold, audited.foretold_step) == (given_up.reason, given_up.steps)
    assert audited.forecast_decided
    assert not audited.audit_decided
    assert RunResult.from_json(audited.to_json()) == audited
    told = audit.told(0.5, [audited, given_up])
    assert told is not None
    assert told["stops"] == told["audited"] == 0, "no detector stopped one"
    mine = told["forecast"]
    assert (mine["stops"], mine["audited"], mine["converged"], mine["undecided"]) == (2, 1, 1, 0)
    assert mine["steps"] == audited.steps - audited.foretold_step
    first, second = audit.lines(told)
    assert first == "Audit of early stops: no detector stopped a run."
    assert second.startswith("Audit of the forecast: 1 of 1 that ran on to the end would have converged [")
    assert "of 2 runs that it gives up, 50% are drawn" in second
    assert audit.of_run(audited) == f"given up by the forecast at step {given_up.steps}, let run on: converged"


def test_an_untouched_run_is_not_given_up_whatever_is_asked(healthy) -> None:
    assert perform(order(healthy, Phase.BASELINE, detectors=HASTY)).outcome is Outcome.CONVERGED


def test_what_is_cut_off_or_raises_after_the_forecast_is_missed(healthy) -> None:
    watch, looks = audited_watch()
    for look in looks[:-5]:
        watch.see(look)
    parts = SimpleNamespace(steps=watch.setting.steps, receipts=())
    cut = stopped(order(healthy), watch, parts, 1.0)  # type: ignore[arg-type]
    raised = broken(order(healthy), ValueError("x"), watch, watch.step, watch.setting.steps, 1.0)
    for result in (cut, raised):
        assert (result.outcome, result.verdict) == (Outcome.MISSED, None)
        assert result.reason == result.foretold == watch.foretold
    assert cut.saved_by == "controller"
    assert not cut.forecast_decided
    assert raised.forecast_decided, "what raises did not converge"
    told = audit.told(1.0, [cut])
    assert told is not None
    assert (told["forecast"]["stops"], told["forecast"]["audited"], told["forecast"]["undecided"]) == (1, 0, 1)
    assert (
        "of 1 run that it gives up, none ran on to the end (100% are drawn, 1 of them cut off" in audit.lines(told)[1]
    )
