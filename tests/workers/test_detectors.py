"""Each detector fires on its own symptom and lets every healthy run live, on hand-made and on recorded observations.

The recorded traces are real runs (digits, parity; see `expected` in each file), rounded to four digits.
"""

import dataclasses
import json
import math
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from remedy.spaces.objective import TargetKind
from remedy.spaces.symptom import Symptom
from remedy.spaces.verdict import Verdict
from remedy.workers.detectors.base import Detector
from remedy.workers.detectors.catalogue import DETECTORS, detectors
from remedy.workers.detectors.non_finite import NonFinite
from remedy.workers.detectors.streak import Patience, Streak
from remedy.workers.observation import Activation, Layer, Observation, Outputs, Setting, Strain

TRACES = sorted((Path(__file__).parent / "traces").glob("*.json"))
NAN = math.nan
LN10 = math.log(10)

CLASSES = Setting(TargetKind.CLASS_INDEX, 10, 0.1, LN10, 400, 4, 0, 0.1, 0.9, "max", cross_entropy=True)
REAL = Setting(TargetKind.REAL, 0, 0.0, NAN, 400, 4, 0, 0.0, 0.8, "max", cross_entropy=False)
OWN_LOSS = dataclasses.replace(CLASSES, cross_entropy=False)
UNKNOWN_CHANCE = dataclasses.replace(OWN_LOSS, chance=NAN)

Look = dict[str, Any]
Course = tuple[Setting, Callable[[int], Look]]


def observe(setting: Setting, course: Callable[[int], Look], *, length: int = 1) -> list[Observation]:
    """Turn `step -> what is seen` into the observations of a run; what a course leaves out is healthy."""
    return [_observation(setting, step, course(step)) for step in range(4, setting.steps * length + 1, 4)]


def _observation(setting: Setting, step: int, look: Look) -> Observation:
    norms, zero = look.get("norms", (1.0, 1.0, 1.0)), look.get("zero", 0.1)
    real = setting.kind is TargetKind.REAL
    accuracy = NAN if real else look["accuracy"]
    outputs = Outputs(
        count=64, accuracy=accuracy, top_share=NAN if real else look.get("top", 0.2), top_class=-1 if real else 3,
        prediction_entropy=NAN if real else 2.0, top_probability=NAN if real else look.get("sure", 0.7),
        saturated_wrong=NAN if real else look.get("wrong", 0.0), class_spread=1.0,
        input_spread=look.get("spread", 0.9), finite=look.get("finite", True),
    )  # fmt: skip
    validating = step % 20 == 0
    return Observation(
        step=step, loss=look["loss"], mean_loss=look.get("mean_loss", look["loss"]), batch=outputs,
        gradient_norm=math.hypot(*norms) if zero < 1 else 0.0,
        layers=tuple(
            Layer(f"{n}.weight", norm if zero < 1 else 0.0, zero, update)
            for n, (norm, update) in enumerate(zip(norms, look.get("updates", (1e-3,) * len(norms)), strict=True))
        ),
        finite_parameters=look.get("finite", True), learning_rate=0.01,
        metric=look.get("metric", accuracy) if validating else None, validation=outputs if validating else None,
        activations=(Activation("1", 0.1), Activation("3", look.get("dead", 0.2))) if validating else (),
        strain=Strain(**look.get("strain", {}), attention=look.get("attention", NAN) if validating else NAN),
    )  # fmt: skip


def learns(step: int, by: int = 100, level: float = LN10) -> Look:
    return {"loss": level * math.exp(-step / by), "accuracy": 0.95 - 0.85 * math.exp(-step / by)}


def then(at: int, after: Look) -> Callable[[int], Look]:
    """Learn well up to a step, and look like this from there on."""
    return lambda step: learns(step, 30) if step < at else after


GUESSING = {"loss": LN10, "accuracy": 0.1, "top": 1.0, "spread": 3e-4}
DEAD = {**GUESSING, "zero": 1.0, "dead": 1.0, "spread": 0.0}
FROZEN = {"loss": 14.5, "accuracy": 0.1, "zero": 1.0, "top": 1.0}

SICK: dict[Symptom, dict[str, Course]] = {
    Symptom.NON_FINITE: {
        "parameters are lost": (CLASSES, then(200, {"loss": NAN, "accuracy": 0.0, "finite": False})),
        "infinite for ever": (CLASSES, then(200, {"loss": math.inf, "mean_loss": NAN, "accuracy": 0.1})),
        "real numbers": (REAL, then(200, {"loss": math.inf, "mean_loss": NAN, "metric": NAN, "finite": False})),
    },
    Symptom.SATURATED_SOFTMAX: {
        "frozen": (CLASSES, then(160, {**FROZEN, "sure": 1.0, "wrong": 0.9})),
        "frozen half right": (CLASSES, then(160, {**FROZEN, "accuracy": 0.5, "sure": 1.0, "wrong": 0.5})),
        "a loss of the user's own": (OWN_LOSS, then(160, {**FROZEN, "sure": 1.0, "wrong": 0.9})),
        "almost no gradient": (
            CLASSES,
            then(160, {**FROZEN, "zero": 0.9, "norms": (1e-7, 1e-7), "sure": 1.0, "wrong": 0.9}),
        ),
        "now and then a gradient": (
            CLASSES,
            lambda s: then(160, {**FROZEN, "zero": 0.9 if s % 32 == 0 else 1.0, "sure": 1.0, "wrong": 0.8})(s),
        ),
        "blind every other time": (
            CLASSES,
            lambda s: then(160, {**FROZEN, "accuracy": 0.6, "zero": 0.97 if s % 16 < 8 else 1.0, "sure": 1.0})(s),
        ),
    },
    Symptom.DEAD_UNITS: {
        "dead layer": (CLASSES, then(160, DEAD)),
        "half dead": (CLASSES, lambda step: {**learns(step), "dead": 0.7}),
        "real numbers": (REAL, then(160, {"loss": 1.0, "metric": 0.0, "zero": 1.0, "dead": 1.0, "spread": 0.0})),
    },
    Symptom.ZERO_GRADIENT: {
        "frozen unsaturated": (CLASSES, then(160, FROZEN)),
        "real numbers": (REAL, then(0, {"loss": 1.0, "metric": -0.01, "zero": 1.0})),
        "unknown chance": (UNKNOWN_CHANCE, then(160, FROZEN)),
    },
    Symptom.CLASS_TAKEOVER: {
        "after progress": (CLASSES, then(160, {**GUESSING, "loss": 2.4})),
        "never learnt": (CLASSES, lambda _: GUESSING),
    },
    Symptom.ACCURACY_COLLAPSE: {
        "back at chance": (CLASSES, then(160, {"loss": 2.4, "accuracy": 0.11, "top": 0.4})),
        "real numbers": (REAL, lambda s: {"loss": 0.1, "metric": 0.8} if s < 160 else {"loss": 1.2, "metric": -0.1}),
    },
    Symptom.EXPLODING_GRADIENT: {
        "far above guessing": (CLASSES, lambda _: {"loss": 7.0, "accuracy": 0.1}),
        "real numbers": (REAL, lambda step: {"loss": 1.0 if step < 50 else 1e4, "metric": -1e4 if step > 50 else 0.0}),
        "a spike": (CLASSES, lambda s: {**learns(s), "norms": (1e4, 1.0) if s == 200 else (1.0, 1.0)}),
    },
    Symptom.VANISHING_GRADIENT: {
        "from the start": (CLASSES, lambda _: {**GUESSING, "norms": (3e-8, 1e-4, 1.0), "spread": 2e-7}),
    },
    Symptom.WORSE_THAN_GUESSING: {
        "thrown about": (CLASSES, lambda s: {"loss": 1.1 * LN10 + 0.1 * math.sin(s), "accuracy": 0.1}),
        "real numbers": (REAL, lambda s: {"loss": 9.0 + math.sin(s), "metric": -3.0 + 0.1 * math.sin(s)}),
    },
    Symptom.CONSTANT_OUTPUT: {
        "by rounding": (CLASSES, lambda _: {**GUESSING, "spread": 1e-7}),
        "after a while": (CLASSES, then(100, {**GUESSING, "spread": 2e-7})),
        "fading": (CLASSES, lambda s: {**GUESSING, "spread": 0.3 * 0.95**s, "norms": (0.97**s, 1, 1)}),
        "real numbers": (REAL, lambda _: {"loss": 1.0, "metric": 0.0, "spread": 1e-7}),
        "hardly anything": (CLASSES, lambda _: GUESSING),
    },
    Symptom.STILL_WEIGHTS: {
        "a rate far too small": (CLASSES, lambda _: {**GUESSING, "updates": (1e-9, 2e-9, 1e-9)}),
        "one left out": (CLASSES, lambda step: {**learns(step), "updates": (0.0, 1e-3, 1e-3)}),
        "real numbers": (REAL, lambda _: {"loss": 1.0, "metric": 0.0, "updates": (1e-9, 0.0, 0.0)}),
    },
    Symptom.GENERALISATION_GAP: {
        "learnt by heart": (CLASSES, lambda s: {**learns(s, 30), "metric": 0.15}),
    },
    Symptom.DRIFTING_LOGITS: {
        "together": (CLASSES, lambda s: {**GUESSING, "strain": {"offset": 0.3 * s, "offset_ratio": math.sqrt(s)}}),
        "while it learns": (CLASSES, lambda s: {**learns(s), "strain": {"offset": 2.0 * s, "offset_ratio": math.inf}}),
    },
    Symptom.STALE_MOMENTS: {
        "after a quiet phase": (CLASSES, then(200, {"loss": 1.5, "accuracy": 0.6, "strain": {"staleness": 4.0}})),
        "real numbers": (
            REAL,
            lambda s: {
                "loss": 0.1 if s < 200 else 0.9,
                "metric": 0.5,
                "strain": {"staleness": 1.0 if s < 200 else 9.0},
            },
        ),
    },
    Symptom.LARGE_ATTENTION: {
        "grows": (CLASSES, lambda s: {**learns(s), "attention": 1.03**s}),
        "at once": (CLASSES, lambda _: {**GUESSING, "attention": math.inf}),
    },
    Symptom.LOSS_SCALE_COLLAPSE: {
        "below 1": (CLASSES, lambda s: {**learns(s), "strain": {"loss_scale": 2.0 ** (7 - s // 40)}}),
        "again and again": (
            CLASSES,
            lambda s: {**learns(s), "strain": {"loss_scale": 2.0 ** (16 if s < 200 else max(4, 16 - (s - 200) // 4))}},
        ),
        "to nothing": (CLASSES, lambda s: {**learns(s), "strain": {"loss_scale": 0.0 if s > 90 else 2.0**16}}),
    },
    Symptom.CHANCE_PLATEAU: {
        "from the start": (CLASSES, lambda _: GUESSING),
        "a loss of the user's own": (OWN_LOSS, lambda _: GUESSING),
    },
}

HEALTHY: dict[str, Course] = {
    "learns": (CLASSES, learns),
    "slow": (CLASSES, lambda step: learns(step, 300)),
    "own loss": (OWN_LOSS, learns),
    "unknown chance": (UNKNOWN_CHANCE, learns),
    "real numbers": (REAL, lambda step: {"loss": math.exp(-step / 100), "metric": 1 - math.exp(-step / 100)}),
    "noisy": (CLASSES, lambda s: {"loss": 6.0, "accuracy": 0.2, "top": 0.9} if s % 100 < 25 else learns(s)),
    "spike to chance": (CLASSES, lambda s: {**GUESSING, "loss": 50.0} if 200 <= s < 240 else learns(s, 40)),
    "fits exactly": (CLASSES, lambda s: {**learns(s, 30), "zero": 1.0, "sure": 1.0} if s > 150 else learns(s, 30)),
    "softmax into cross-entropy": (
        CLASSES, lambda s: {"loss": 1.49, "accuracy": 0.97, "zero": 1.0, "sure": 1.0} if s > 99 else learns(s, 30)
    ),
    "large beginning": (CLASSES, lambda step: learns(step, 60, 80.0)),
    "a head that was trained before": (
        CLASSES, lambda s: {**learns(s), "strain": {"offset": 60 + s % 8, "offset_ratio": 20.0}}
    ),
    "confident, with an offset": (CLASSES, lambda s: {**learns(s), "strain": {"offset": 0.4 * s, "offset_ratio": 1.5}}),
    "at guessing, with scores next to 0": (
        CLASSES, lambda s: {**learns(s), "strain": {"offset": 1e-3 * s, "offset_ratio": 1e6}}
    ),
    "gradients that grow while the loss falls": (CLASSES, lambda s: {**learns(s), "strain": {"staleness": 5.0}}),
    "odd batches": (
        CLASSES,
        lambda s: {**learns(s, 30), **({"loss": 6.0, "strain": {"staleness": 30.0}} if s % 40 == 0 else {})},
    ),
    "young moments": (
        CLASSES, lambda s: {**learns(s, 30), **({"loss": 6.0, "strain": {"staleness": 9.0}} if s <= 40 else {})}
    ),
    "sharp attention": (CLASSES, lambda s: {**learns(s), "attention": 5000.0 if s == 100 else 400.0}),
    "a scaler finds its level": (
        CLASSES, lambda s: {**learns(s), "strain": {"loss_scale": 2.0 ** max(8, 16 - s // 4)}}
    ),
    "a scaler over a long run": (CLASSES, lambda s: {**learns(s), "strain": {"loss_scale": 2.0 ** (16 - s // 30)}}),
    "bad batches under a guard": (CLASSES, lambda s: {**learns(s), "loss": NAN, "mean_loss": learns(s)["loss"]}),
}  # fmt: skip
# What may be noted, and must live.
LATE: dict[str, Course] = {
    "at chance for 70 %": (CLASSES, lambda s: GUESSING if s < 280 else learns(s - 280, 20)),
    "deep sigmoid": (
        CLASSES,
        lambda s: learns(s) if s > 200 else {**GUESSING, "norms": (1e-6 * 1.05**s, 1, 1), "spread": 2e-5 * 1.03**s},
    ),
    "thrown far off and coming back": (
        CLASSES,
        lambda s: {**GUESSING, "loss": 1e4 * 0.97 ** (s - 100)} if 100 < s < 260 else learns(s, 30),
    ),
    "thrown off by the end of its warm-up": (
        dataclasses.replace(CLASSES, warmup=200),
        lambda s: {"loss": 9.0, "accuracy": 0.1, "top": 1.0} if 60 < s < 220 else learns(s, 30),
    ),
    "batch norm off on validation": (CLASSES, lambda s: {**learns(s, 30), "metric": 0.1 if s > 150 else 0.9}),
    "grokking": (CLASSES, lambda s: {**learns(s, 30), "metric": 0.1 if s < 280 else 0.9}),
    "from far above guessing, slowly": (
        CLASSES,
        lambda s: {"loss": 35 * 0.995**s + 0.5 * math.sin(s), "accuracy": 0.12},
    ),
    "at guessing, by chance above it": (CLASSES, lambda s: {**GUESSING, "loss": 1.02 * LN10 + 0.3 * math.sin(s)}),
    "rounding that grows": (
        CLASSES,
        lambda s: learns(s) if s > 250 else {**GUESSING, "spread": 2e-7, "norms": (1e-8 * 1.03**s, 1, 1)},
    ),
    "a far mean first": (
        REAL,
        lambda s: {"loss": 9.0, "metric": -50 * 0.98**s, "spread": 0.2 * 0.98**s, "norms": (0.98**s, 1, 1)},
    ),
    "far targets, slowly": (REAL, lambda s: {"loss": 1e4, "metric": -90.0 + 0.02 * s}),
}


def feed(make: type[Detector], setting: Setting, seen: Iterable[Observation]) -> list[Verdict]:
    """Return what one detector says, past its own stops."""
    detector = make(setting)
    return [verdict for observation in seen if (verdict := detector.observe(observation)) is not None]


def watch(setting: Setting, seen: Iterable[Observation]) -> tuple[Verdict | None, list[Verdict]]:
    """Return the first stop of the whole catalogue, and the notes before it."""
    run, notes = detectors(setting), []
    for observation in seen:
        for detector in run:
            verdict = detector.observe(observation)
            if verdict is not None and verdict.stops:
                return verdict, notes
            notes += [] if verdict is None else [verdict]
    return None, notes


def symptom_of(make: type[Detector]) -> Symptom:
    return Symptom[re.sub(r"(?<!^)(?=[A-Z])", "_", make.__name__).upper()]


def named(courses: dict[str, Course]) -> list[Any]:
    return [pytest.param(*course, id=name) for name, course in courses.items()]


OWN = [
    pytest.param(make, *course, id=f"{make.__name__}: {name}")
    for make in DETECTORS
    for name, course in SICK[symptom_of(make)].items()
]


def test_every_symptom_has_one_detector() -> None:
    assert sorted(symptom_of(make) for make in DETECTORS) == sorted(Symptom)


@pytest.mark.parametrize(("make", "setting", "course"), OWN)
def test_fires_on_its_own_symptom(make, setting, course) -> None:
    verdicts = feed(make, setting, observe(setting, course))
    assert verdicts
    for verdict in verdicts:
        assert verdict.symptom is symptom_of(make)
        assert 0 <= verdict.onset_step <= verdict.step <= setting.steps
        assert re.search(r"\d", verdict.evidence)
        assert "\n" not in verdict.evidence


@pytest.mark.parametrize(("make", "setting", "course"), OWN)
def test_gives_a_note_once(make, setting, course) -> None:
    verdicts = feed(make, setting, observe(setting, course, length=3))
    assert sum(not verdict.stops for verdict in verdicts) <= 1


@pytest.mark.parametrize("make", DETECTORS)
@pytest.mark.parametrize(("setting", "course"), named(HEALTHY))
def test_is_silent_on_the_healthy(make, setting, course) -> None:
    assert feed(make, setting, observe(setting, course)) == []


@pytest.mark.parametrize("make", DETECTORS)
@pytest.mark.parametrize(("setting", "course"), named(LATE))
def test_lets_late_bloomers_live(make, setting, course) -> None:
    assert not any(verdict.stops for verdict in feed(make, setting, observe(setting, course)))


def test_chance_plateau_never_stops() -> None:
    verdict, notes = watch(CLASSES, observe(CLASSES, lambda _: GUESSING))
    assert verdict is None
    assert Symptom.CHANCE_PLATEAU in {note.symptom for note in notes}


@pytest.mark.parametrize(
    "symptom", [Symptom.NON_FINITE, Symptom.SATURATED_SOFTMAX, Symptom.DEAD_UNITS, Symptom.ZERO_GRADIENT]
)
def test_the_cause_speaks_before_what_follows_from_it(symptom) -> None:
    setting, course = next(iter(SICK[symptom].values()))
    verdict, _ = watch(setting, observe(setting, course))
    assert verdict is not None
    assert verdict.symptom is symptom


def test_a_lost_parameter_stops_at_once() -> None:
    first = next(seen for seen in observe(*SICK[Symptom.NON_FINITE]["parameters are lost"]) if math.isnan(seen.loss))
    verdict = NonFinite(CLASSES).observe(first)
    assert verdict is not None
    assert (verdict.step, verdict.onset_step) == (first.step, first.step)


def test_no_weights_are_no_zero_gradient() -> None:
    frozen = [dataclasses.replace(seen, layers=()) for seen in observe(CLASSES, lambda _: FROZEN)]
    verdict, _ = watch(CLASSES, frozen)
    assert verdict is None or verdict.symptom is Symptom.EXPLODING_GRADIENT


def test_streak_tolerates_gaps_and_ends() -> None:
    streak = Streak(tolerance=1)
    for step, holds in ((10, True), (20, False), (30, True)):
        streak.see(step, holds=holds)
    assert (streak.begin, streak.steps, streak.samples, streak.gaps) == (10, 20, 2, 1)
    assert Patience(share=0.05, steps=10, samples=2).over(streak, CLASSES)
    assert not Patience(share=0.1, steps=10, samples=2).over(streak, CLASSES)
    streak.see(40, holds=False)
    streak.see(50, holds=False)
    assert (streak.since, streak.samples, streak.gaps) == (None, 0, 0)


def number(value: Any) -> Any:
    return float(value) if isinstance(value, str) else value  # "nan", "inf"


def read(path: Path) -> tuple[dict[str, str], Setting, list[Observation]]:
    trace = json.loads(path.read_text())
    raw = {name: number(value) if name not in ("kind", "mode") else value for name, value in trace["setting"].items()}
    setting = Setting(**{**raw, "kind": TargetKind(raw["kind"])})
    return trace["expected"], setting, [_read(trace, row) for row in trace["rows"]]


def _read(trace: dict[str, Any], row: list[Any]) -> Observation:
    step, loss, mean, norm, finite, rate, norms, zeros, batch, metric, validation, dead = row
    return Observation(
        step, number(loss), number(mean), Outputs(*map(number, batch)) if batch else None, number(norm),
        tuple(Layer(name, number(n), z, NAN) for name, n, z in zip(trace["layers"], norms, zeros, strict=True)),
        finite, rate, number(metric), Outputs(*map(number, validation)) if validation else None,
        tuple(Activation(name, share) for name, share in zip(trace["activations"], dead or (), strict=False)),
    )  # fmt: skip


@pytest.mark.parametrize("path", TRACES, ids=lambda path: path.stem)
def test_recorded_runs(path) -> None:
    expected, setting, seen = read(path)
    verdict, notes = watch(setting, seen)
    assert (verdict.symptom if verdict else None) == expected.get("stop")
    assert expected.get("note") is None or expected["note"] in {note.symptom for note in notes}


def test_recorded_runs_are_there() -> None:
    assert sum(path.stem.startswith("healthy") for path in TRACES) >= 3 <= len(TRACES) - 3
