"""Parts of many remedies are tried until none of them can be left out."""

from hypothesis import given
from hypothesis import strategies as st

from remedy.search.reduction import parts

NAMES = tuple("abcdefgh")


def reduced(names: tuple[str, ...], needed: set[frozenset[str]]) -> tuple[tuple[str, ...], int]:
    """Reduce as a study does, one part after the other; return what is left, and how many parts were tried."""
    known: dict[frozenset[str], bool] = {}
    while True:
        for part in parts(names):
            own = frozenset(part)
            if own not in known:
                known[own] = any(names_of <= own for names_of in needed)
            if known[own]:
                names = part
                break
        else:
            return names, len(known)


@given(st.sets(st.frozensets(st.sampled_from(NAMES), min_size=1, max_size=4), min_size=1, max_size=3))
def test_what_is_left_converges_and_no_remedy_of_it_can_be_left_out(needed) -> None:
    left, tried = reduced(NAMES, needed)
    assert frozenset(left) in needed
    assert not any(names < set(left) for names in needed)
    assert tried <= len(NAMES) ** 2


def test_one_remedy_is_found_alone_though_two_others_would_do_and_two_take_fewer_than_all_pairs() -> None:
    assert reduced(NAMES, {frozenset("c"), frozenset("ab")}) == (("c",), 3)
    for needed in ("ab", "ah", "gh"):
        left, tried = reduced(NAMES, {frozenset(needed)})
        assert "".join(left) == needed
        assert tried <= len(NAMES) + 18  # there are 28 pairs


@given(st.lists(st.sampled_from(NAMES), unique=True, max_size=8))
def test_every_part_is_smaller_keeps_the_order_and_comes_once(names) -> None:
    made = list(parts(names))
    assert len(set(made)) == len(made)
    for part in made:
        assert 0 < len(part) < len(names)
        assert list(part) == [name for name in names if name in part]
    if len(names) > 1:
        assert {(name,) for name in names} <= set(made)
        assert {tuple(other for other in names if other != name) for name in names} <= set(made)
