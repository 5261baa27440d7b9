"""A run that stops and goes on equals the unbroken run."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from remedy.spaces.target import find
from remedy.workers import checkpoint
from remedy.workers.order import Phase, WorkOrder
from remedy.workers.result import RunResult
from remedy.workers.run import stream

TRAINING = """
    import random
    import numpy as np
    import torch, remedy
    from torch import nn
    from torch.utils.data import Dataset, TensorDataset

    class Noisy(Dataset):  # draws from all three global generators
        def __init__(self, inputs, targets):
            self.inputs, self.targets = inputs, targets
        def __len__(self):
            return len(self.inputs)
        def __getitem__(self, place):
            noise = 0.1 * torch.randn(6) + random.random() + float(np.random.rand())
            return self.inputs[place] + 0.01 * noise, self.targets[place]

    def data():
        inputs = torch.randn(90, 6)
        targets = inputs[:, :3].argmax(1)
        return Noisy(inputs[:70], targets[:70]), TensorDataset(inputs[70:], targets[70:])

    def training():
        return remedy.Training(
            model=lambda: nn.Sequential(
                nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 3)
            ),
            data=data, loss=nn.CrossEntropyLoss(), optimizer=lambda p: torch.optim.Adam(p, lr=0.01),
            schedule=lambda o: torch.optim.lr_scheduler.{schedule}, schedule_interval="{interval}",
            batch_size=8, epochs=12, metric="accuracy", goal=0.9,
        )
"""


class Cut(BaseException):
    """Stands for the death of the process."""


@pytest.mark.parametrize("stop", [1, 17, 60, 100])
@pytest.mark.parametrize(
    ("schedule", "interval"),
    [("LambdaLR(o, lambda s: min(1, s / 20))", "step"), ("ReduceLROnPlateau(o, 'max')", "epoch")],
)
def test_goes_on_as_if_it_had_never_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, schedule: str, interval: str, stop: int
) -> None:
    path = tmp_path / "train.py"
    path.write_text(textwrap.dedent(TRAINING.format(schedule=schedule, interval=interval)))
    source = find(str(path))

    def order(kept: str) -> WorkOrder:
        return WorkOrder(0, source, {}, seed=1, data_seed=0, phase=Phase.BASELINE, checkpoint=kept)

    unbroken = last(order(""))
    monkeypatch.setattr(checkpoint.Checkpoint.open.__func__, "__defaults__", (0.0,))  # keep at every validation
    file = tmp_path / "kept" / "run.pt"

    def cut(observation, _setting) -> None:
        if observation.step >= stop:
            raise Cut

    with pytest.raises(Cut):
        list(stream(order(str(file)), look=cut))
    assert file.exists() == (stop > 6), "a validation comes every 6 steps"
    assert [name.name for name in tmp_path.glob("kept/*.part")] == []
    resumed = last(order(str(file)))
    assert resumed.curves == unbroken.curves
    assert (resumed.outcome, resumed.metric, resumed.steps) == (unbroken.outcome, unbroken.metric, unbroken.steps)


def test_a_damaged_file_means_beginning_anew(tmp_path: Path) -> None:
    path = tmp_path / "train.py"
    path.write_text(textwrap.dedent(TRAINING.format(schedule="StepLR(o, 3)", interval="epoch")))
    file = tmp_path / "run.pt"
    file.write_bytes(b"half a checkp")
    order = WorkOrder(0, find(str(path)), {}, seed=1, data_seed=0, phase=Phase.BASELINE, checkpoint=str(file))
    assert last(order).steps == 108


def last(order: WorkOrder) -> RunResult:
    result = list(stream(order))[-1]
    assert isinstance(result, RunResult)
    return result
