"""What past studies taught: what is kept, what it comes to, and how it orders a search."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remedy.search.knowledge import NO_SYMPTOM, known, lesson, posterior, rows
from remedy.search.prior import ranked
from remedy.search.rows import LESSON, TAG, finish
from remedy.spaces.catalogue import REMEDIES
from remedy.spaces.symptom import Symptom
from remedy.spaces.verdict import Verdict

DEAD = Symptom.DEAD_UNITS


def reported(state="broken", alone=None, symptoms=("dead_units", "chance_plateau", "dead_units")):
    made = {"clip_norm": (6, 6), "adam": (0, 1), "warmup": (0, 0)} if alone is None else alone
    return {
        "baseline": {"state": state, "symptoms": [{"symptom": name} for name in symptoms]},
        "remedies": [
            {"remedy": name, "alone": {"converged": converged, "runs": runs}}
            for name, (converged, runs) in made.items()
        ]
        + [{"remedy": "never_tried", "alone": None}],
    }


def order(taught=None, seen=(), suggested=()):
    return [remedy.name for remedy in ranked(REMEDIES, seen, suggested, taught)]


def verdict(symptom=DEAD):
    return Verdict(symptom, 10, 5, "seen")


def test_a_lesson_is_each_remedy_alone_against_the_symptoms_seen():
    assert lesson(reported()) == {
        "symptoms": ["dead_units", "chance_plateau"],
        "alone": {"clip_norm": [6, 6], "adam": [0, 1]},
    }
    assert lesson(reported(symptoms=()))["symptoms"] == [NO_SYMPTOM]


@pytest.mark.parametrize("report", [reported("healthy"), reported("unstable"), reported(alone={}), {}])
def test_what_proves_nothing_about_a_remedy_teaches_nothing(report):
    assert lesson(report) is None
    assert LESSON not in finish(report, "note", ()).tags


def test_the_whole_catalogue_fits_into_the_tag():
    whole = reported(alone={remedy.name: (20, 20) for remedy in REMEDIES}, symptoms=[s.value for s in Symptom])
    kept = finish(whole, "note", ()).tags[LESSON]
    assert len(kept) <= TAG / 2
    assert json.loads(kept) == lesson(whole)


def test_a_training_counts_once_however_many_studies_it_had():
    again = [("a", f"study {n}", lesson(reported())) for n in range(5)]
    other = ("b", "another", lesson(reported(alone={"clip_norm": (0, 4)})))
    found = {(row.symptom, row.remedy): row for row in rows([*again, other])}
    clip = found["dead_units", "clip_norm"]
    assert (clip.converged, clip.runs, clip.trainings, clip.shares) == (30, 34, 2, 1.0)
    assert clip.expected == pytest.approx((2 * 0.5 + 1.0) / 4)
    assert [row.remedy for row in rows([*again, other]) if row.symptom == "dead_units"] == ["clip_norm", "adam"]


@pytest.mark.parametrize(
    "said",
    [{}, {"symptoms": ["dead_units"]}, {"symptoms": 3, "alone": {}}, {"symptoms": ["x"], "alone": {"adam": 4}},
     {"symptoms": ["x"], "alone": {"adam": [1]}}, {"symptoms": ["x"], "alone": [["adam", 1, 2]]},
     {"symptoms": ["x"], "alone": {"adam": [5, 4]}}, {"symptoms": ["x"], "alone": {"adam": [0, 0]}}, [], "text", None],
)  # fmt: skip
def test_a_lesson_of_another_shape_is_left_out(said):
    assert rows([("a", "s", said)]) == []


@given(prior=st.floats(0.01, 0.99), trainings=st.integers(0, 50), data=st.data())
def test_the_posterior_lies_between_the_prior_and_what_was_seen(prior, trainings, data):
    shares = data.draw(st.floats(0, trainings))
    low, high = sorted((prior, shares / trainings if trainings else prior))
    assert low - 1e-9 <= posterior(prior, (shares, trainings)) <= high + 1e-9


def test_what_restored_such_trainings_comes_first_and_what_did_not_later():
    usual = order(seen=[verdict()])
    last, first = usual[-1], usual[0]
    taught = known(rows([(f"t{n}", "s", lesson(reported(alone={last: (5, 5), first: (0, 5)}))) for n in range(3)]))
    learnt = order(taught, [verdict()])
    assert learnt[0] == last
    assert learnt.index(first) > 0
    assert sorted(learnt) == sorted(usual)
    others = [name for name in usual if name not in (first, last)]
    assert [name for name in learnt if name not in (first, last)] == others


def test_what_is_known_of_another_symptom_changes_nothing():
    taught = known(rows([("t", "s", lesson(reported(symptoms=("non_finite",))))]))
    assert order(taught, [verdict()]) == order(None, [verdict()])
    assert order(taught) == order()
    of_none = known(rows([("t", "s", lesson(reported(symptoms=())))]))
    assert order(of_none)[0] == "clip_norm"


def test_a_fault_that_pre_flight_found_goes_before_what_was_taught():
    taught = known(rows([("t", "s", lesson(reported()))]))
    assert order(taught, [verdict()], ["fused_cross_entropy"])[0] == "fused_cross_entropy"


def test_it_is_the_same_after_a_journey_through_json():
    taught = known(rows([("t", "s", lesson(reported()))]))
    assert order(json.loads(json.dumps(taught)), [verdict()]) == order(taught, [verdict()])
