"""The executor of a night: lent to one study after the other, and no training sees another's modules."""

import itertools
import sys
from collections.abc import Iterable

from remedy.search.nightly.pool import Lent, NightPool, grouped
from remedy.spaces.outcome import Outcome
from remedy.spaces.target import find
from remedy.workers.executor import Event, Finished, InProcess, Progressed
from remedy.workers.order import Phase, WorkOrder
from remedy.workers.result import RunResult
from tests.nightly.conftest import row


class Slow:
    """An executor that gives what it is told to give, when it is told to."""

    capacity = 2

    def __init__(self):
        self.taken: list[WorkOrder] = []
        self.cancelled: list[int] = []
        self.closed = 0
        self.events: list[Event] = []

    def submit(self, order):
        self.taken.append(order)

    def wait(self, timeout: float) -> Iterable[Event]:
        events, self.events = self.events, []
        return events

    def cancel(self, number):
        self.cancelled.append(number)

    def close(self):
        self.closed += 1


def order(number, source=None):
    return WorkOrder(number, source, {}, 0, 0, Phase.BASELINE)


def test_what_one_study_gave_up_is_not_taken_for_a_run_of_the_next():
    inner, numbers = Slow(), itertools.count()
    first = Lent(inner, numbers)
    first.submit(order(0))
    first.close()
    assert inner.cancelled == [0]
    assert not inner.closed
    second = Lent(inner, numbers)
    second.submit(order(0))
    inner.events = [
        Finished(RunResult(0, Outcome.STOPPED)),
        Progressed(1, 5, 0.5),
        Finished(RunResult(1, Outcome.CONVERGED)),
    ]
    assert second.wait(0) == [Progressed(0, 5, 0.5), Finished(RunResult(0, Outcome.CONVERGED))]


def test_one_executor_serves_the_night():
    made = []
    pool = NightPool(lambda: made.append(Slow()) or made[-1])
    pool.serve("/a", ["model", "data"])
    pool.lend().close()
    pool.serve("/b", ["other"])
    pool.lend().close()
    assert len(made) == 1
    pool.serve("/c", ["model"])
    assert made[0].closed == 1, "a worker that knows /a's model would take it for /c's"
    pool.lend()
    assert len(made) == 2
    pool.close()


def test_trainings_are_put_together_as_long_as_their_modules_have_other_names():
    needs = [("one", "/a", ["model"]), ("two", "/b", ["model"]), ("three", "/a", ["model", "x"]), ("four", "/b", ["y"])]
    assert grouped(needs) == [["one", "three", "four"], ["two"]]


def test_two_trainings_with_modules_of_the_same_name_get_their_own(nights):
    for folder, rate in (("one", 0.3), ("two", 0.01)):
        path = nights.write(f"{folder}/train", change="optimizer=settings.optimizer", before="import settings")
        text = "import torch\ndef optimizer(parameters):\n    return torch.optim.SGD(parameters, lr=%g)\n"
        (path.parent / "settings.py").write_text(text % rate)
    nights.sweep({"target": "one/train.py", "name": "one"}, {"target": "two/train.py", "name": "two"}, budget=3)
    nights.run("2026-11-21")
    found = nights.report("2026-11-21", 0)
    assert row(found, "one")["status"] == "healthy"
    assert row(found, "two")["status"] == "broken", "it was trained with its own settings, not with those of the other"
    assert set(row(found, "two")["facts"]["code"]) == {"train.py", "settings.py"}
    assert "settings" not in sys.modules, "and what a night imports is gone after it"


def test_a_run_through_the_pool_is_a_run(nights):
    pool = NightPool(InProcess)
    lent = pool.lend()
    lent.submit(order(7, find(str(nights.write("t")))))
    results = []
    while not results:
        results = [event.result for event in lent.wait(1) if isinstance(event, Finished)]
    assert (results[0].number, results[0].outcome) == (7, Outcome.CONVERGED)
    pool.close()
