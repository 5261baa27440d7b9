"""What differs between two nights, and which nights are alike."""

from remedy.search.nightly.facts import NightFacts, differences, unlike

NIGHT = NightFacts("a" * 40, {"t.py": "1", "part.py": "2"}, "d" * 64, {"torch": "2.12", "remedy": "0.1", "numpy": "2"},
                   "s", {"goal": 0.9, "seeds": 3}, "cpu")  # fmt: skip


def changed(**facts):
    return NightFacts(**{**NIGHT.to_json(), **facts})


def test_nothing_differs_between_two_equal_nights():
    assert differences(NIGHT.to_json(), NIGHT.to_json()) == []
    assert NightFacts.from_json(NIGHT.to_json()) == NIGHT


def test_each_difference_is_named():
    now = changed(commit="b" * 40 + "+", code={"t.py": "9", "new.py": "3"}, data="e" * 64, device="cuda",
                  versions={"torch": "2.13", "remedy": "0.1", "pandas": "3"})  # fmt: skip
    assert differences(NIGHT.to_json(), now.to_json()) == [
        "new.py is imported now",
        "part.py is imported no more",
        "t.py has changed",
        "git commit aaaaaaaaa -> bbbbbbbbb+",
        "the data: hash dddddddd -> eeeeeeee",
        "numpy 2 -> not imported",
        "pandas not imported -> 3",
        "torch 2.12 -> 2.13",
        "the device: cpu -> cuda",
    ]


def test_of_a_training_that_could_not_be_loaded_only_what_is_known_is_compared():
    now = NightFacts("a" * 40, {"t.py": "9"})
    assert differences(NIGHT.to_json(), now.to_json()) == ["t.py has changed"]


def test_nights_that_are_judged_otherwise_are_not_compared():
    assert unlike(NIGHT.to_json(), changed(yardstick={"goal": 0.95, "seeds": 3}).to_json()) == "goal 0.9 -> 0.95"
    assert unlike(NIGHT.to_json(), changed(data="x").to_json()) == ""


def test_a_study_is_carried_on_only_with_the_same_training_space_and_versions():
    alike = [changed(commit="c"), changed(versions={**NIGHT.versions, "numpy": "3"})]
    others = [changed(code={"t.py": "9"}), changed(space="z"), changed(data="z"), changed(yardstick={"goal": 1}),
              changed(versions={**NIGHT.versions, "remedy": "0.2"}),
              changed(versions={"torch": "3", "remedy": "0.1"})]  # fmt: skip
    assert {facts.kin for facts in alike} == {NIGHT.kin}
    assert NIGHT.kin not in {facts.kin for facts in others}
    assert len({facts.mark for facts in (NIGHT, *alike[1:])}) == 2, (
        "tonight's runs are only those of tonight's packages"
    )
