"""A run with a rule that remembers, stopped and gone on with, equals the unbroken run."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from remedy.spaces.catalogue import REMEDIES
from remedy.spaces.target import find
from remedy.workers import checkpoint
from remedy.workers.order import Phase, WorkOrder
from remedy.workers.result import RunResult
from remedy.workers.run import stream

TRAINING = """
    import torch, remedy
    from torch import nn
    from torch.utils.data import TensorDataset

    def data():
        inputs = torch.randn(90, 6)
        targets = inputs[:, :3].argmax(1)
        inputs[::17] *= 40  # spikes, for those that look for them
        return TensorDataset(inputs[:70], targets[:70]), TensorDataset(inputs[70:], targets[70:])

    def training():
        return remedy.Training(
            model=lambda: nn.Sequential(
                nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 3)
            ),
            data=data, loss=nn.CrossEntropyLoss(), optimizer=lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
            schedule=lambda o: torch.optim.lr_scheduler.StepLR(o, 4), batch_size=8, epochs=12, goal=0.9,
        )
"""
OF_A_RULE = ["gradient", "averaging", "guard", "weight_constraint"]
NEW_OPTIMIZERS = {"lion", "muon", "stable_adamw", "adafactor"}
REMEMBERS = [remedy for remedy in REMEDIES if remedy.slot in OF_A_RULE or remedy.name in NEW_OPTIMIZERS]


class Cut(BaseException):
    """Stands for the death of the process."""


@pytest.mark.parametrize("remedy", [r for r in REMEMBERS if r.name != "clip_off"], ids=lambda remedy: remedy.name)
def test_goes_on_as_if_it_had_never_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, remedy) -> None:
    path, file = tmp_path / "train.py", tmp_path / "run.pt"
    path.write_text(textwrap.dedent(TRAINING))

    def order(kept: str) -> WorkOrder:
        return WorkOrder(0, find(str(path)), remedy.first(), 1, 0, Phase.SEARCH, checkpoint=kept)

    unbroken = last(order(""))
    monkeypatch.setattr(checkpoint.Checkpoint.open.__func__, "__defaults__", (0.0,))  # keep at every validation

    def cut(observation, _setting) -> None:
        if observation.step >= 60:
            raise Cut

    with pytest.raises(Cut):
        list(stream(order(str(file)), look=cut, watched=False))
    assert file.exists()
    assert checkpoint.Checkpoint.open(file).step > 50, "it is read back, not begun anew"
    resumed = last(order(str(file)))
    assert unbroken.steps == resumed.steps == 108
    assert resumed.curves == unbroken.curves


def last(order: WorkOrder) -> RunResult:
    result = list(stream(order, watched=False))[-1]
    assert isinstance(result, RunResult)
    assert result.outcome in ("converged", "missed"), result.reason
    return result
