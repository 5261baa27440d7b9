"""Laws of distributions, combinations and spaces, on many made-up values."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remedy.spaces.catalogue import REMEDIES
from remedy.spaces.combination import Combination, checked
from remedy.spaces.distribution import Choice, Float, Int
from remedy.spaces.error import InputError
from remedy.spaces.python import Python
from remedy.spaces.remedy import KEEP, Change, remedy
from remedy.spaces.seeding import derive
from remedy.spaces.slot import Slot
from remedy.spaces.space import Space

CATALOGUE = {remedy.name: remedy for remedy in REMEDIES}


class Draws:
    """A trial that lets Hypothesis choose."""

    def __init__(self, data: st.DataObject) -> None:
        self.data = data

    def suggest_float(self, name, low, high, *, log=False):
        return self.data.draw(st.floats(low, high), name)

    def suggest_int(self, name, low, high, *, log=False):
        return self.data.draw(st.integers(low, high), name)

    def suggest_categorical(self, name, choices):
        return self.data.draw(st.sampled_from(choices), name)


@st.composite
def combinations(draw):
    return Space(REMEDIES).sample(Draws(draw(st.data())))


finite = st.floats(allow_nan=False, allow_infinity=False, width=32)
distributions = st.one_of(
    st.tuples(finite, finite).filter(lambda pair: pair[0] < pair[1]).map(lambda pair: Float(*pair)),
    st.tuples(st.floats(1e-9, 1.0), st.floats(1.5, 1e9)).map(lambda pair: Float(*pair, log=True)),
    st.tuples(st.integers(1, 50), st.integers(51, 99), st.booleans()).map(lambda three: Int(*three)),
    st.sets(st.one_of(st.integers(), st.text(), finite), min_size=2, max_size=5).map(lambda some: Choice(*some)),
)


@given(distributions, st.data())
def test_a_distribution_holds_what_it_suggests(distribution, data):
    value = distribution.suggest(Draws(data), "x")
    assert distribution.holds(value)
    assert not distribution.holds(None)
    assert str(distribution)


@given(st.floats(), st.floats())
def test_an_empty_range_is_refused(low, high):
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        with pytest.raises(ValueError, match="low must be smaller"):
            Float(low, high)
    if low <= 0 and low < high and math.isfinite(low) and math.isfinite(high):
        with pytest.raises(ValueError, match="positive"):
            Float(low, high, log=True)


@pytest.mark.parametrize(
    "wrong", [lambda: Int(3, 3), lambda: Int(0, 3, log=True), lambda: Choice(1), lambda: Choice(1, 1)]
)
def test_ranges_without_a_choice_are_refused(wrong):
    with pytest.raises(ValueError, match="at least"):
        wrong()


def test_a_bool_is_no_number_and_a_number_no_bool():
    assert not Float(0, 2).holds(True)
    assert not Int(0, 2).holds(True)
    assert not Choice(1, 2).holds(True)
    assert Choice(True, False).holds(True)


@given(combinations())
def test_every_sample_is_valid_and_travels_as_a_flat_dict(combination):
    assert checked(combination.params, CATALOGUE) == combination
    assert Combination.of(combination.params) == combination
    assert Combination.of(dict(reversed(combination.params.items()))) == combination
    assert Combination.of(Space(REMEDIES).full(combination)) == combination
    assert list(combination.remedies) == [str(slot) for slot in Slot if str(slot) in combination.remedies]
    assert bool(combination) == bool(combination.names)
    for key in combination.params:
        assert key.split(".")[0] in {*combination.remedies, *combination.names}


@given(combinations())
def test_leaving_out_and_adding_are_inverse(combination):
    for slot, name in combination.remedies.items():
        left = combination.without(name)
        assert name not in left.names
        assert left.names == combination.names - {name}
        own = Combination.of(
            {key: value for key, value in combination.items if key == slot or key.startswith(f"{name}.")}
        )
        assert left.plus(own) == combination
        assert own.plus(left) == combination
    assert combination.without("nothing of it") == combination


@given(combinations(), combinations())
def test_in_a_sum_the_second_wins(one, other):
    both = one.plus(other)
    assert both.remedies == {**one.remedies, **other.remedies}
    assert checked(both.params, CATALOGUE) == both
    assert both.plus(other) == both
    assert one.plus(Combination()) == one
    assert Combination().plus(one) == one


@given(combinations(), combinations())
def test_the_key_is_the_content(one, other):
    assert (one.key == other.key) == (one == other)
    assert (one.label == "baseline") == (not one)


@given(st.text(min_size=1), st.sampled_from(REMEDIES))
def test_unknown_names_are_refused(text, known):
    if text not in set(Slot) and "." not in text:
        with pytest.raises(InputError, match="is unknown"):
            checked({text: known.name}, CATALOGUE)
    if text != KEEP and (text not in CATALOGUE or CATALOGUE[text].slot != known.slot):
        with pytest.raises(InputError, match="is unknown"):
            checked({str(known.slot): text}, CATALOGUE)
    if text not in known.distributions:
        with pytest.raises(InputError, match="belongs to no chosen remedy"):
            checked({**known.first(), f"{known.name}.{text}": 1.0}, CATALOGUE)


def test_a_value_of_another_kind_is_refused_and_a_missing_one_filled_in():
    first = CATALOGUE["clip_norm"].first()
    with pytest.raises(InputError, match="may be"):
        checked({**first, "clip_norm.max_norm": "much"}, CATALOGUE)
    with pytest.raises(InputError, match=r"clip_norm.max_norm is 11; it may be 0.1 to 10"):
        checked({**first, "clip_norm.max_norm": 11}, CATALOGUE)
    assert checked({"gradient": "clip_norm"}, CATALOGUE) == Combination.of(first)


def test_a_remedy_of_another_slot_is_refused():
    with pytest.raises(InputError, match=r"it may be .*clip_norm, .*clip_value"):
        checked({"gradient": "adam"}, CATALOGUE)


@given(st.integers(), st.lists(st.one_of(st.text(), st.integers()), max_size=3))
def test_seeds_are_in_range_and_depend_on_the_names(seed, names):
    value = derive(seed, *names)
    assert 0 <= value < 2**31
    assert value == derive(seed, *names)
    assert value != derive(seed, *names, "more")


def test_a_space_is_chosen_by_name():
    space = Space.of(REMEDIES, only=["adam", "clip_norm"], without=["clip_norm"])
    assert list(space.by_name) == ["adam"]
    assert space.describe()["optimizer"]["adam"]["beta2"] == "0.95, 0.99, 0.999"
    with pytest.raises(InputError, match="--only 'adamm'"):
        Space.of(REMEDIES, only=["adamm"])
    with pytest.raises(InputError, match="nothing"):
        Space.of(REMEDIES, only=["adam"], without=["adam"])


def fine(value, *, factor: float = 0.5):
    """Does something."""
    return Change(value, str(factor))


def no_default(value, *, factor: float):
    """Does something."""


def two_values(value, other, *, factor: float = 0.5):
    """Does something."""


def undocumented(value, *, factor: float = 0.5):
    return Change(value, str(factor))


@pytest.mark.parametrize(
    ("function", "change", "message"),
    [
        (fine, {"slot": "colour"}, "slot is 'colour', it may be one of inputs"),
        (fine, {"treats": ["boredom"]}, "treats 'boredom', it may be one of non_finite"),
        (fine, {"invasiveness": 6}, "invasiveness is 6, it may be 1 to 5"),
        (fine, {"invasiveness": 0}, "invasiveness is 0"),
        (fine, {"source": " "}, "a docstring of one sentence and a source"),
        (fine, {"name": "Keep Me"}, "lower case letters"),
        (fine, {"name": KEEP}, "lower case letters"),
        (fine, {"factor": Float(0.6, 0.9)}, "default factor=0.5 is not in 0.6 to 0.9"),
        (fine, {"factor": 0.5}, "factor is 0.5, it may be a Float, Int or Choice"),
        (fine, {"extra": Float(0, 1)}, "not so for extra"),
        (fine, {"python": "optimizer.step()"}, "python is 'optimizer.step.*may be a remedy.Python"),
        (fine, {"python": Python(model="costs = $5")}, "python is .* begins a name"),
        (no_default, {}, "'factor' needs a default"),
        (two_values, {}, "takes the slot's value as its one argument"),
        (undocumented, {}, "a docstring of one sentence and a source"),
    ],
)
def test_a_declaration_that_contradicts_itself_is_refused_by_name(function, change, message):
    given_ = {"slot": "gradient", "invasiveness": 1, "source": "a paper", "factor": Float(0.1, 0.9), **change}
    named = change.get("name", function.__name__)
    with pytest.raises(ValueError, match=message) as error:
        remedy(given_.pop("slot"), **given_)(function)
    assert f"remedy {named!r}" in str(error.value)


def test_a_declaration_keeps_what_it_says():
    made = remedy(Slot.GRADIENT, treats=["non_finite"], invasiveness=2, source="a paper", factor=Float(0.1, 0.9))(fine)
    assert made.first() == {"gradient": "fine", "fine.factor": 0.5}
    assert (made.summary, made.wants_facts) == ("Does something.", False)
    with pytest.raises(ValueError, match="receipt"):
        Change(None, "  ")
