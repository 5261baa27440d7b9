"""How the budget of a night is shared out."""

from remedy.search.nightly.share import NightShare


class Eater:
    """Explorers that need so much until they have found what there is."""

    def __init__(self, needs, state=None, spent=0.0):
        self.needs = needs
        self.eaten = spent
        self.state = state or {"allotted": 0.0, "reason": None}

    @property
    def hungry(self):
        return self.state["reason"] in (None, "budget")

    def spent(self):
        return self.eaten

    def eat(self):
        self.eaten = min(self.needs, self.state["allotted"])
        self.state["reason"] = "done" if self.eaten >= self.needs else "budget"


def share(explorers, pot, weights=None, fail=()):
    order = []

    def conduct(name, seconds):
        order.append(name)
        if name in fail:
            raise RuntimeError("broken")
        explorers[name].eat()

    NightShare(explorers, weights or dict.fromkeys(explorers, 1.0), pot, conduct, lambda: None, lambda: None).run()
    return order


def test_all_get_the_same_and_what_one_does_not_use_goes_to_the_others():
    explorers = {"small": Eater(5), "large": Eater(1000), "middle": Eater(40)}
    share(explorers, 90)
    assert {name: round(found.spent(), 6) for name, found in explorers.items()} == {
        "small": 5,
        "large": 45,
        "middle": 40,
    }


def test_weights_are_shares():
    explorers = {"one": Eater(1000), "two": Eater(1000)}
    share(explorers, 60, {"one": 1.0, "two": 2.0})
    assert [found.spent() for found in explorers.values()] == [20, 40]


def test_what_was_allotted_before_the_night_was_cut_off_is_spent_first():
    done = {"allotted": 30.0, "reason": "budget"}
    explorers = {"one": Eater(1000, done, 30.0), "two": Eater(1000, {"allotted": 30.0, "reason": None}, 10.0)}
    assert share(explorers, 60) == ["two"]
    assert [found.spent() for found in explorers.values()] == [30, 30]


def test_a_failure_is_one_trainings_own():
    explorers = {"bad": Eater(10), "good": Eater(10)}
    share(explorers, 60, fail={"bad"})
    assert explorers["bad"].state["reason"] == "failed"
    assert "broken" in explorers["bad"].state["said"]
    assert explorers["good"].spent() == 10


def test_nobody_explores_where_nothing_is_left():
    assert share({"one": Eater(10)}, 0.2) == []
