"""What is built of a training and a combination: schedulers that set their own rate, and fixes in a user's own loop."""

import pickle
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR
from torch.utils.data import TensorDataset

import remedy
from remedy.spaces.catalogue import REMEDIES
from remedy.spaces.combination import Combination
from remedy.spaces.fix import fix_text
from remedy.spaces.remedy import Inapplicable
from remedy.spaces.space import Space

SPACE = Space.of(REMEDIES)
X = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
SETS = TensorDataset(X, (X[:, 0] > 0).long())


def two_groups(parameters):
    first, *rest = list(parameters)
    return torch.optim.SGD([{"params": [first]}, {"params": rest, "lr": 0.01}], lr=0.1, momentum=0.9)


def training(**change):
    usual = {
        "model": lambda: nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)),
        "data": lambda: (SETS, SETS),
        "loss": nn.CrossEntropyLoss(),
        "optimizer": two_groups,
        "batch_size": 16,
        "steps": 12,
        "goal": 0.9,
    }
    return remedy.Training(**{**usual, **change})


def built(plan, *names):
    chosen = Combination()
    for name in names:
        chosen = chosen.plus(Combination.of(SPACE.by_name[name].first()))
    return SPACE.apply(plan, chosen, seed=1, data_seed=0)


ONE_CYCLE = {
    "schedule": lambda optimizer: OneCycleLR(optimizer, max_lr=[0.1, 0.01], total_steps=12),
    "schedule_interval": "step",
}


@pytest.mark.parametrize("name", ["scale_down", "scale_up", "adam"])
def test_a_rate_that_the_trainings_scheduler_overwrites_is_not_counted_as_changed(name):
    assert built(training(**ONE_CYCLE)).scheduler is not None
    with pytest.raises(Inapplicable, match="sets its own learning rate"):
        built(training(**ONE_CYCLE), name)


def test_every_remedy_of_a_combination_that_finds_nothing_is_named():
    with pytest.raises(Inapplicable) as found:
        built(training(), "clip_norm", "batch_norm_off", "weight_decay_off")
    assert set(found.value.remedies) == {"batch_norm_off", "weight_decay_off"}
    assert all(f"{name}: " in str(found.value) for name in found.value.remedies)
    with pytest.raises(Inapplicable) as found:
        built(training(), "batch_norm_off")
    assert found.value.remedies == ("batch_norm_off",)
    assert not str(found.value).startswith("batch_norm_off")
    with pytest.raises(Inapplicable) as found:
        built(training(**ONE_CYCLE), "scale_down", "clip_norm")
    assert found.value.remedies == ("scale_down",)
    again = pickle.loads(pickle.dumps(found.value))
    assert (str(again), again.remedies) == (str(found.value), ("scale_down",))


def test_another_schedule_in_its_place_makes_the_rate_count_again():
    parts = built(training(**ONE_CYCLE), "scale_down", "cosine")
    assert parts.optimizer.param_groups[0]["lr"] == pytest.approx(0.01)


def test_a_scheduler_that_wants_as_many_groups_as_there_are_gets_them():
    schedule = {"schedule": lambda o: LambdaLR(o, [lambda s: 1.0, lambda s: 0.5]), "schedule_interval": "step"}
    parts = built(training(**schedule), "scale_down")
    assert [group["lr"] for group in parts.optimizer.param_groups] == pytest.approx([0.01, 0.0005])


def test_a_fix_is_applied_in_a_loop_of_the_users_own(tmp_path: Path):
    path = tmp_path / "fix.yaml"
    path.write_text(
        fix_text({"activation": "tanh", "gradient": "clip_norm", "clip_norm.max_norm": 0.5}, {"study": "s"})
    )
    fixed = remedy.load_fix(path).apply(training())
    parts = remedy.assemble(fixed, seed=3)
    assert [receipt.remedy for receipt in parts.receipts] == ["tanh", "clip_norm"]
    assert any(isinstance(module, nn.Tanh) for module in parts.model.modules())
    assert not any(isinstance(module, nn.ReLU) for module in parts.model.modules())
    _, batches = next(parts.epochs.epochs())
    for inputs, targets in batches:
        parts.optimizer.zero_grad()
        parts.criterion(parts.model(100 * inputs), targets).backward()
        parts.gradient(parts.parameters)
        norm = torch.stack([p.grad.norm() for p in parts.parameters]).norm()
        assert float(norm) <= 0.5 + 1e-4
        parts.optimizer.step()
    assert [p.shape for p in remedy.assemble(training()).parameters] == [p.shape for p in parts.parameters]


@pytest.mark.parametrize("name", ["schedule", "sampler"])
def test_a_schedule_or_sampler_that_is_none_is_refused_in_one_sentence(name):
    with pytest.raises(remedy.InputError, match=rf"{name}\(\) returned int"):
        built(training(**{name: lambda _part: 3}))
