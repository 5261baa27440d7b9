"""Every remedy of the catalogue through door B: ten steps of a script's own loop, or a reason why not."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from remedy.spaces.catalogue import REMEDIES
from remedy.spaces.combination import checked
from remedy.spaces.facade import closed
from remedy.spaces.given import Given
from remedy.spaces.remedy import Inapplicable
from remedy.spaces.script import Script
from remedy.spaces.seeding import seed_all
from remedy.workers.fitting import advance, fit, handed, scheduled

BY_NAME = {remedy.name: remedy for remedy in REMEDIES}
KNOWN = Script(metric="accuracy", goal=0.9, steps=100)


class Quiet:
    """Hears everything, and lets it be."""

    def __init__(self, parts):
        self.parts, self.losses, self.steps = parts, [], 0

    def computed(self, loss, outputs, targets):
        self.losses.append(loss.detach())

    def refused(self, why):
        raise Inapplicable(str(why))

    def stepping(self):
        return self.losses[-1] if self.losses else torch.zeros(())

    def stepped(self):
        self.steps += 1
        advance(self.parts, self.steps, end_of_epoch=False)

    def delivered(self, batch, *, train, last):
        pass


class Net(nn.Module):
    """A model with functional calls and two groups of parameters, one of them frozen."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU())
        self.head = nn.Linear(16, 3)

    def forward(self, x):
        return self.head(torch.relu(self.body(x)))


def classes():
    x = torch.randn(160, 8)
    return TensorDataset(x, x[:, :3].argmax(1))


def given(kind):
    seed_all(0)
    if kind == "regression":
        x = torch.randn(160, 8)
        data, model, loss = (
            TensorDataset(x, x[:, :1] * 30 + 100),
            nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1)),
            nn.MSELoss(),
        )
    elif kind == "probabilities":
        data, model = classes(), nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3), nn.Softmax(1))

        def loss(p, t):
            return nn.functional.nll_loss(p.clamp(1e-7, 1 - 1e-7).log(), t)
    else:
        data, model, loss = classes(), Net(), nn.CrossEntropyLoss(label_smoothing=0.1)
    names = [p for name, p in model.named_parameters() if not name.startswith("head")]
    groups = [{"params": names, "lr": 0.01}]
    if isinstance(model, Net):
        groups.append({"params": list(model.head.parameters()), "lr": 0.1, "weight_decay": 0.01})
    optimizer = torch.optim.SGD(groups, momentum=0.9)
    return Given.of((model, loss, optimizer, DataLoader(data, 16, shuffle=True)))


def ten_steps(model, loss_fn, optimizer, loader):
    for done, (x, y) in enumerate(loader, start=1):
        optimizer.zero_grad()
        loss = loss_fn(model(x), y)
        loss.backward()
        optimizer.step()
        if done == 10:
            return loss
    raise AssertionError


@pytest.mark.parametrize("kind", ["two groups", "probabilities", "regression"])
@pytest.mark.parametrize("name", BY_NAME)
def test_every_remedy_trains_ten_steps_or_says_why_not(kind, name):
    parts = given(kind)
    own = parts.optimizer
    if str(BY_NAME[name].slot) in closed(parts, hidden_scheduler=False, accumulates=False):
        pytest.skip(f"the slot {BY_NAME[name].slot} is closed in a script")
    script = Script(metric="r2", goal=0.9, steps=100) if kind == "regression" else KNOWN
    try:
        _, made = fit(parts, script, checked(BY_NAME[name].first(), BY_NAME), seed=1, data_seed=0)
    except Inapplicable as why:
        assert str(why)  # noqa: PT017  (raised or not is the remedy's to say)
        return
    assert [receipt.remedy for receipt in made.receipts] == [name]
    ear = Quiet(made)
    before = {id(p): p.detach().clone() for p in made.model.parameters()}
    try:
        loss = ten_steps(*handed(parts, made, ear, ordered=True))
    except Inapplicable as why:
        assert "its logits are known only" in str(why)  # noqa: PT017
        return
    assert loss.dim() == 0
    assert ear.steps == 10
    trained = {id(p) for group in made.optimizer.param_groups for p in group["params"]}
    assert trained == {id(p) for p in made.model.parameters()}, "surgery and optimizer agree"
    assert any(not torch.equal(before[id(p)], p) for p in made.model.parameters())
    assert BY_NAME[name].slot == "optimizer" or made.optimizer is own, "the script's own optimizer, as an object"
    assert scheduled(made) == (BY_NAME[name].slot == "schedule")


def test_which_slots_are_closed_is_said_with_the_reason():
    shut = closed(given("two groups"), hidden_scheduler=False, accumulates=False)
    assert all(why for why in shut.values())
    assert "budget" in shut
    assert "optimizer" not in shut


def test_groups_are_kept_as_objects_and_new_parameters_follow_the_layer_before():
    parts = given("two groups")
    body, head = parts.optimizer.param_groups
    _, made = fit(parts, KNOWN, checked(BY_NAME["batch_norm_on"].first(), BY_NAME), seed=1, data_seed=0)
    assert made.optimizer.param_groups[0] is body
    assert made.optimizer.param_groups[1] is head
    norms = [m for m in made.model.modules() if isinstance(m, nn.BatchNorm1d)]
    assert norms
    new = {id(p) for norm in norms for p in norm.parameters()}
    assert new <= {id(p) for p in body["params"]}
    assert [id(p) for p in head["params"]] == [id(p) for p in made.model.head.parameters()]
    assert (body["lr"], head["lr"], head["weight_decay"]) == (0.01, 0.1, 0.01)


def test_a_frozen_layer_stays_out_of_the_optimizer():
    parts = given("two groups")
    del parts.optimizer.param_groups[1]
    _, made = fit(parts, KNOWN, checked(BY_NAME["layer_norm_on"].first(), BY_NAME), seed=1, data_seed=0)
    held = {id(p) for p in made.parameters}
    assert not held & {id(p) for p in made.model.head.parameters()}


SCHEDULERS = {
    "StepLR": lambda o: torch.optim.lr_scheduler.StepLR(o, 3, 0.5),
    "MultiStepLR": lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [2, 2, 5], 0.5),
    "LambdaLR": lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda step: 1 / (step + 1)),
    "MultiplicativeLR": lambda o: torch.optim.lr_scheduler.MultiplicativeLR(o, lambda step: 0.9),
    "ExponentialLR": lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.9),
    "LinearLR": lambda o: torch.optim.lr_scheduler.LinearLR(o, 0.1, 0.9, 5),
    "ConstantLR": lambda o: torch.optim.lr_scheduler.ConstantLR(o, 0.1, 4),
    "PolynomialLR": lambda o: torch.optim.lr_scheduler.PolynomialLR(o, 8, 2.0),
    "CosineAnnealingLR": lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 9, 0.001),
    "CosineAnnealingWarmRestarts": lambda o: torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(o, 3, 2, 0.001),
    "ReduceLROnPlateau": lambda o: torch.optim.lr_scheduler.ReduceLROnPlateau(o, "max", 0.5, 1, min_lr=0.002),
    "ChainedScheduler": lambda o: torch.optim.lr_scheduler.ChainedScheduler(
        [torch.optim.lr_scheduler.ConstantLR(o, 0.1, 4), torch.optim.lr_scheduler.ExponentialLR(o, 0.9)]
    ),
    "SequentialLR": lambda o: torch.optim.lr_scheduler.SequentialLR(
        o,
        [torch.optim.lr_scheduler.LinearLR(o, 0.1, 1.0, 4), torch.optim.lr_scheduler.CosineAnnealingLR(o, 6)],
        milestones=[4],
    ),
}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_scheduler_built_anew_gives_the_same_rates(name):
    rates = []
    for through in (False, True):
        seed_all(0)
        model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.04)
        scheduler = SCHEDULERS[name](optimizer)
        loader = DataLoader(classes(), 16)
        factor = 1.0
        if through:
            parts = Given.of((model, nn.CrossEntropyLoss(), optimizer, scheduler, loader))
            chosen = checked({"learning_rate": "scale_down", "scale_down.factor": 0.5}, BY_NAME)
            _, made = fit(parts, KNOWN, chosen, seed=0, data_seed=0)
            _, _, optimizer, scheduler, loader = handed(parts, made, Quiet(made), ordered=True)
            assert type(scheduler).__name__ == name
            factor = 0.5
        seen = []
        for _step in range(12):
            seen.append(optimizer.param_groups[0]["lr"] / factor)
            optimizer.step()
            scheduler.step(*([0.1] if name == "ReduceLROnPlateau" else []))
        rates.append(seen)
    floors = name in ("CosineAnnealingLR", "CosineAnnealingWarmRestarts", "ReduceLROnPlateau")
    assert rates[1] == pytest.approx(rates[0], abs=0.003 if floors else 1e-9)  # floors are no part of the rate
