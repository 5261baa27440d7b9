"""The executor of this process: it can be asked to stop, and says how far it is."""

import textwrap
import time
from pathlib import Path

import pytest

from remedy.spaces.outcome import Outcome
from remedy.spaces.target import find
from remedy.workers.executor import Event, Finished, InProcess, Progressed
from remedy.workers.order import Phase, WorkOrder

SLOW = """
    import time, torch, remedy
    from torch import nn
    from torch.utils.data import TensorDataset
    x = torch.randn(40, 2)
    sets = TensorDataset(x, (x[:, 0] > 0).long())
    def loss(outputs, targets):
        time.sleep(0.02)
        return nn.functional.cross_entropy(outputs, targets)
    def training():
        return remedy.Training(model=lambda: nn.Linear(2, 2), data=lambda: (sets, sets), loss=loss,
            optimizer=lambda p: torch.optim.SGD(p, lr=0.1), batch_size=4, steps=100_000, goal=0.9)
"""


def order(place: Path, number: int = 0, timeout: float | None = None, checkpoint: str = "") -> WorkOrder:
    path = place / f"slow{number}.py"
    path.write_text(textwrap.dedent(SLOW))
    log = str(place / f"{number}.log")
    return WorkOrder(number, find(str(path)), {}, 1, 0, Phase.BASELINE, timeout=timeout, log=log, checkpoint=checkpoint)


def until(executor: InProcess, kind: type[Event]) -> Event:
    give_up = time.monotonic() + 30
    while time.monotonic() < give_up:
        for event in executor.wait(0.1):
            if isinstance(event, kind):
                return event
    pytest.fail(f"no {kind.__name__} came")


def test_a_run_under_way_ends_when_it_is_cancelled(tmp_path):
    executor = InProcess()
    executor.submit(order(tmp_path))
    seen = until(executor, Progressed)
    executor.cancel(0)
    ended = until(executor, Finished)
    assert isinstance(seen, Progressed)
    assert isinstance(ended, Finished)
    assert ended.result.outcome is Outcome.STOPPED
    assert seen.steps <= ended.result.steps < 1000
    assert ended.result.steps_full == 100_000


def test_the_limit_of_a_run_counts_the_whole_of_it(tmp_path):
    executor = InProcess()
    executor.submit(order(tmp_path, timeout=1.5))
    began = time.monotonic()
    ended = until(executor, Finished)
    assert isinstance(ended, Finished)
    assert ended.result.outcome is Outcome.FAILED
    assert ended.result.reason == "took longer than 1.5 s (--run-timeout)"
    assert 1.4 < time.monotonic() - began < 15
    executor.submit(order(tmp_path, number=1))
    until(executor, Progressed)
    executor.close()
    assert executor.wait(0.1) == []


def test_a_state_that_cannot_be_kept_does_not_end_the_run(tmp_path, monkeypatch):
    from remedy.workers import checkpoint

    monkeypatch.setattr(checkpoint.Checkpoint.open.__func__, "__defaults__", (0.0,))
    monkeypatch.setattr("remedy.workers.loop.VALIDATIONS", 50_000)
    kept = tmp_path / "kept"
    kept.write_text("a file where a folder would have to be")
    executor = InProcess()
    executor.submit(order(tmp_path, checkpoint=str(kept / "run.pt")))
    until(executor, Progressed)
    executor.cancel(0)
    ended = until(executor, Finished)
    assert isinstance(ended, Finished)
    assert ended.result.outcome is Outcome.STOPPED
    assert (tmp_path / "0.log").read_text().count("no checkpoints are kept") == 1
