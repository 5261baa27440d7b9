"""Detectors as a study asks for them: others thresholds, some of them off; and runs that an audit lets run on."""

import dataclasses

import pytest

from remedy.search.audit import drawn, told
from remedy.search.ledger import Item
from remedy.search.spec import Spec
from remedy.spaces.combination import Combination
from remedy.spaces.error import InputError
from remedy.spaces.outcome import Outcome
from remedy.spaces.script import Script
from remedy.spaces.symptom import Symptom
from remedy.spaces.target import Source, find
from remedy.workers.detectors import catalogue
from remedy.workers.detectors.catalogue import DETECTORS, name_of
from remedy.workers.detectors.choice import changes, in_force, read, said
from remedy.workers.detectors.streak import Patience
from remedy.workers.detectors.threshold import Threshold, thresholds
from remedy.workers.executor import Executor, Finished
from remedy.workers.order import Phase, WorkOrder
from remedy.workers.result import RunResult
from remedy.workers.run import perform
from tests.workers import scripts
from tests.workers.test_detectors import CLASSES

# It ends whatever does not learn within a few steps: a wrong stop, on purpose.
HASTY = {"factor": 0.5, "chance": 1, "grace": 0, "patience": {"share": 0, "steps": 4, "samples": 1}}
CHOICE = read({"exploding_gradient": HASTY}, "here")
SCRIPT = Script(metric="accuracy", goal=0.85, steps=200, reports=tuple(range(10, 201, 10)))

# ---------------------------------------------------------------- choosing


def test_every_threshold_of_every_detector_has_a_reason() -> None:
    for make in DETECTORS:
        bare = [
            name
            for kind in make.__mro__
            for name, value in vars(kind).items()
            if isinstance(value, int | float | Patience) and not name.startswith("_")
        ]
        assert not bare, f"{name_of(make)}: write {bare} as Threshold(value, why)"
        assert thresholds(make)
        for name, known in thresholds(make).items():
            assert known.why, f"{name_of(make)}.{name}"
            assert known.permits(known.value), f"{name_of(make)}.{name} may not be what it is"


def test_a_choice_changes_what_it_names_and_nothing_else() -> None:
    choice = read(
        {"chance_plateau": False, "dead-units": "off", "class_takeover": True,
         "exploding_gradient": {"factor": 2, "patience": {"share": 0.4}, "patience.steps": 7}},
        "here",
    )  # fmt: skip
    made = {name_of(type(d)): d for d in catalogue.detectors(CLASSES, choice)}
    assert list(made) == [n for n in map(name_of, DETECTORS) if n not in ("chance_plateau", "dead_units")]
    changed, plain = made["exploding_gradient"], {name_of(type(d)): d for d in catalogue.detectors(CLASSES)}
    assert (changed.factor, changed.growth) == (2, plain["exploding_gradient"].growth)  # type: ignore[attr-defined]
    before = plain["exploding_gradient"].patience  # type: ignore[attr-defined]
    assert changed.patience == dataclasses.replace(before, share=0.4, steps=7)  # type: ignore[attr-defined]
    assert said(choice).startswith("chance_plateau off, dead_units off, exploding_gradient.factor 2")


def test_all_detectors_can_be_off() -> None:
    assert catalogue.detectors(CLASSES, read(False, "here")) == []


def test_what_is_shared_by_two_detectors_is_set_for_each() -> None:
    choice = read({"class_takeover": {"least_peak": 0.9}}, "here")
    made = {name_of(type(d)): d for d in catalogue.detectors(CLASSES, choice)}
    assert made["class_takeover"]._fall.limits.least_peak == 0.9  # type: ignore[attr-defined]
    assert made["accuracy_collapse"]._fall.limits.least_peak < 0.9  # type: ignore[attr-defined]


WRONG = [
    (["x"], "detectors is ['x']; it may be such as"),
    ({"vanishing": False}, "detectors: 'vanishing' is none; it may be non_finite, "),
    ({"dead_units": 3}, "dead_units is 3; it may be on, off, or its thresholds: {dead: 0.99}"),
    ({"dead_units": {"ded": 1}}, "dead_units has no threshold 'ded'; it may be dead, "),
    ({"dead_units": {"patience": 3}}, "dead_units has no threshold 'patience'; it may be dead, "),
    ({"dead_units": {"dead": 2}}, "dead_units: dead is 2; it may be a number from 0 to 1"),
    ({"dead_units": {"dead": "high"}}, "dead is 'high'; it may be a number from 0 to 1"),
    ({"dead_units": {"dead": float("nan")}}, "dead is nan; it may be a number from 0 to 1"),
    ({"non_finite": {"patience": 1.5}}, "patience is 1.5; it may be a whole number, 1 or more"),
    ({"non_finite": {"patience": True}}, "patience is True; it may be a whole number, 1 or more"),
]


@pytest.mark.parametrize(("raw", "sentence"), WRONG)
def test_what_cannot_be_is_named_with_what_it_may_be(raw, sentence) -> None:
    with pytest.raises(InputError) as error:
        read(raw, "study file 'x.yaml'")
    assert str(error.value).startswith("study file 'x.yaml': ")
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_thresholds_of_another_version_are_a_change() -> None:
    now = in_force({})
    assert changes(now, now) == []
    assert changes({}, now) == []  # a study from before they were kept
    known = Threshold(1.3, "why")
    assert known.value == 1.3
    assert changes({**now, "dead_units.dead": 0.5}, now) == ["the detectors' dead_units.dead is 0.99, not 0.5"]
    assert changes(now, {**now, "dead_units.more": 1.0}) == ["the detectors have dead_units.more, which they had not"]


# ---------------------------------------------------------------- real runs


@pytest.fixture
def healthy(remedy) -> Source:
    return find(str(remedy.write("healthy", "optimizer=lambda p: torch.optim.SGD(p, lr=0.1)")))


@pytest.fixture
def doomed(remedy) -> Source:
    return find(str(remedy.write("doomed", "optimizer=lambda p: torch.optim.SGD(p, lr=1e20)")))


def order(source: Source, **change) -> WorkOrder:
    return WorkOrder(0, source, {}, 0, 0, Phase.BASELINE, **change)


def run(executor: Executor, asked: WorkOrder) -> RunResult:
    executor.submit(asked)
    for _ in range(1000):
        for event in executor.wait(0.5):
            if isinstance(event, Finished):
                return event.result
    raise AssertionError(asked)


def test_a_threshold_that_is_set_decides_a_run(executor, healthy) -> None:
    assert run(executor, order(healthy)).outcome is Outcome.CONVERGED
    hasty = run(executor, order(healthy, detectors=CHOICE))
    assert hasty.outcome is Outcome.COLLAPSED
    assert hasty.verdict is not None
    assert hasty.verdict.symptom is Symptom.EXPLODING_GRADIENT
    assert hasty.steps < hasty.steps_full


def test_a_detector_that_is_off_stops_nothing(executor, doomed) -> None:
    assert run(executor, order(doomed)).verdict is not None
    left_alone = run(executor, order(doomed, detectors=read(False, "here")))
    assert left_alone.outcome is Outcome.MISSED
    assert left_alone.steps == left_alone.steps_full


def test_an_audited_run_goes_on_and_may_converge(executor, healthy) -> None:
    stopped, audited, plain = (
        run(executor, order(healthy, **change))
        for change in ({"detectors": CHOICE}, {"detectors": CHOICE, "audited": True}, {})
    )
    assert audited.spared == stopped.verdict
    assert audited.outcome is Outcome.CONVERGED
    assert (audited.verdict, audited.saved_by, audited.steps) == (None, "", audited.steps_full)
    # It is the same run: watched or not, stopped or not, it saw the same.
    assert audited.curves == plain.curves
    assert audited.audit_decided


def test_an_audited_run_that_does_not_converge_is_collapsed_with_its_verdict(executor, doomed) -> None:
    stopped, audited = (run(executor, order(doomed, audited=audited)) for audited in (False, True))
    assert (stopped.outcome, stopped.saved_by, stopped.spared) == (Outcome.COLLAPSED, "collapse", None)
    assert audited.outcome is Outcome.COLLAPSED
    assert audited.verdict == audited.spared == stopped.verdict
    assert (audited.saved_by, audited.steps) == ("", audited.steps_full)
    assert audited.reason == stopped.reason
    assert RunResult.from_json(audited.to_json()).spared == audited.spared


def test_what_an_audited_run_raises_after_its_verdict_is_no_failure_of_the_users(remedy) -> None:
    raises = (
        "loss=lambda o, t: nn.functional.cross_entropy(o, t) if o.isfinite().all() or count() < 15 else 1 / 0, "
        "optimizer=lambda p: torch.optim.SGD(p, lr=1e20)"
    )
    count = "import itertools\ncalls = itertools.count()\n\ndef count():\n    return next(calls)"
    source = find(str(remedy.write("raises", raises, count)))
    audited = perform(order(source, audited=True))
    assert audited.outcome is Outcome.COLLAPSED
    assert audited.verdict is not None
    assert "ZeroDivisionError" in audited.trace
    assert audited.audit_decided


def test_a_script_is_watched_as_chosen_and_audited(tmp_path) -> None:
    source = find(
        str(
            scripts.written(tmp_path, scripts.text(optimizer="optimizer = torch.optim.SGD(model.parameters(), lr=0.1)"))
        )
    )
    source = dataclasses.replace(source, script=dataclasses.replace(SCRIPT, cwd=str(tmp_path)))
    stopped, audited = (perform(order(source, detectors=CHOICE, audited=audited)) for audited in (False, True))
    assert stopped.outcome is Outcome.COLLAPSED
    assert stopped.steps < 200
    assert audited.spared == stopped.verdict
    assert (audited.outcome, audited.steps) == (Outcome.CONVERGED, 200)


# ---------------------------------------------------------------- the draw


def spec(**change) -> Spec:
    return Spec(**{"study": "s", "source": Source("/x.py", "training", "0" * 64), **change})


def test_the_share_is_drawn_and_the_same_again() -> None:
    items = [Item(Phase.SEARCH, Combination(), seed) for seed in range(2000)]
    asked = spec(audit=0.1)
    first = [drawn(asked, item) for item in items]
    assert 140 < sum(first) < 260
    assert first == [
        drawn(dataclasses.replace(asked, study="again", source=Source("/y.py", "training", "0" * 64)), item)
        for item in items
    ]
    assert first != [drawn(dataclasses.replace(asked, seed=1), item) for item in items]
    assert not any(drawn(spec(), item) for item in items)
    assert all(drawn(spec(audit=1.0), item) for item in items)
    # A larger share audits the same runs, and more.
    assert all(more or not fewer for fewer, more in zip(first, (drawn(spec(audit=0.3), i) for i in items), strict=True))


def test_an_audit_that_was_cut_off_says_nothing() -> None:
    from remedy.spaces.verdict import Verdict

    verdict = Verdict(Symptom.DEAD_UNITS, 30, 20, "9 of 9")
    cut = RunResult(1, Outcome.COLLAPSED, steps=50, steps_full=100, verdict=verdict, spared=verdict)
    whole = dataclasses.replace(cut, number=2, steps=100)
    stopped = RunResult(3, Outcome.COLLAPSED, steps=30, steps_full=100, verdict=verdict, saved_by="collapse")
    right = RunResult(4, Outcome.CONVERGED, steps=100, steps_full=100, spared=verdict)
    found = told(0.2, [cut, whole, stopped, right])
    assert found is not None
    assert (found["stops"], found["audited"], found["converged"], found["undecided"]) == (4, 2, 1, 1)
    assert found["steps"] == 20 + 70 + 70
    assert found["symptoms"] == [{"symptom": "dead_units", "audited": 2, "converged": 1}]
    assert found["runs"] == [4]
    assert told(0, [cut]) is None


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_a_share_is_one(share) -> None:
    with pytest.raises(InputError, match=r"--audit is .*; it may be a share of the early stops, 0 to 1"):
        spec(audit=share)
