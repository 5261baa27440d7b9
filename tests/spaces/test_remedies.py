"""Remedies that change no module: what they say they changed is what changed."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, ReduceLROnPlateau, StepLR
from torch.utils.data import DataLoader, RandomSampler, TensorDataset, WeightedRandomSampler

from remedy.spaces.objective import Criterion, TargetKind
from remedy.spaces.remedies.balance import Smoothed, Weighted, class_weights, label_smoothing
from remedy.spaces.remedies.inputs import Repair
from remedy.spaces.remedy import Inapplicable


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3))


@pytest.fixture
def applied(training_of, built):
    """Apply remedies to a small training with some parts of its own."""

    def apply(*names, inputs=None, labels=None, parameters=None, **own):
        def data():
            rows = torch.randn(40, 6) if inputs is None else inputs
            train = TensorDataset(rows, torch.arange(len(rows)) % 3 if labels is None else labels)
            return train, train

        given = {"model": model, "data": data, "batch_size": 8, "steps": 40, **own}
        return built(training_of(**given), *names, **(parameters or {}))

    return apply


def two_groups(params):
    params = list(params)
    return torch.optim.SGD(
        [
            {"params": params[:2], "lr": 0.4, "weight_decay": 0.01},
            {"params": params[2:], "lr": 0.1, "weight_decay": 0.0},
        ],
        momentum=0.9,
    )


@pytest.mark.parametrize(("name", "factor"), [("scale_down", 0.1), ("scale_up", 10.0)])
def test_every_learning_rate_is_scaled(name, factor, applied):
    optimizer = applied(name, optimizer=two_groups).optimizer
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.4 * factor, 0.1 * factor])
    parts = applied(name, optimizer=two_groups, schedule=lambda o: LambdaLR(o, lambda step: 0.5))
    assert [group["initial_lr"] for group in parts.optimizer.param_groups] == pytest.approx(
        [0.4 * factor, 0.1 * factor]
    )
    assert "0.4 -> " in parts.receipts[0].text
    assert "2 parameter group(s)" in parts.receipts[0].text


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "rmsprop"])
def test_a_new_optimizer_keeps_the_groups(name, applied):
    parts = applied(name, optimizer=two_groups, parameters={f"{name}__lr": 0.02})
    old = two_groups(parts.model.parameters())
    groups = parts.optimizer.param_groups
    assert [group["lr"] for group in groups] == pytest.approx([0.02, 0.005])
    assert [group["weight_decay"] for group in groups] == [0.01, 0.0]
    for mine, theirs in zip(groups, old.param_groups, strict=True):
        assert [id(p) for p in mine["params"]] == [id(p) for p in theirs["params"]]
        assert not mine.get("momentum")


def test_options_of_the_old_rule_do_not_reach_the_new_one(applied):
    nesterov = lambda params: torch.optim.SGD(params, lr=0.1, momentum=0.9, nesterov=True, maximize=True)  # noqa: E731
    (group,) = applied("sgd", optimizer=nesterov).optimizer.param_groups
    assert (group["momentum"], group["nesterov"], group["maximize"]) == (0, False, True)
    adam = lambda params: torch.optim.Adam(params, lr=0.1, betas=(0.5, 0.6), eps=1e-3)  # noqa: E731
    (group,) = applied("adamw", optimizer=adam).optimizer.param_groups
    assert (group["betas"], group["eps"], group["weight_decay"]) == ((0.9, 0.999), 1e-8, 0.01)
    (group,) = applied("sgd_momentum", optimizer=adam).optimizer.param_groups
    assert (group["momentum"], group["lr"]) == (0.9, 0.01)


@pytest.mark.parametrize(
    ("name", "optimizer"),
    [
        ("sgd", lambda params: torch.optim.SGD(params, lr=0.1)),
        ("sgd_momentum", two_groups),
        ("adam", torch.optim.Adam),
        ("adamw", torch.optim.AdamW),
        ("rmsprop", torch.optim.RMSprop),
    ],
)
def test_an_optimizer_of_the_same_kind_is_inapplicable(name, optimizer, applied):
    with pytest.raises(Inapplicable, match="already is"):
        applied(name, optimizer=optimizer)


def test_weight_decay_goes_on_and_off(applied):
    decays = lambda parts: [group["weight_decay"] for group in parts.optimizer.param_groups]  # noqa: E731
    assert decays(applied("weight_decay_off", optimizer=two_groups)) == [0.0, 0.0]
    up = applied("weight_decay_on", optimizer=two_groups, parameters={"weight_decay_on__value": 0.05})
    assert decays(up) == [0.05, 0.0], "a group that was left out on purpose stays out"
    assert decays(applied("weight_decay_on")) == [1e-3]
    for name in ("weight_decay_on", "weight_decay_off"):
        optimizer = two_groups if name == "weight_decay_on" else (lambda params: torch.optim.SGD(params, lr=0.1))
        with pytest.raises(Inapplicable):
            applied(name, optimizer=optimizer)


def rates(parts, count):
    seen = []
    for _ in range(count):
        seen.append(parts.optimizer.param_groups[0]["lr"])
        parts.optimizer.step()
        parts.scheduler.step()
    return seen


def test_schedules_replace_the_trainings_own_and_say_so(applied):
    own = {"schedule": lambda o: StepLR(o, 1), "optimizer": lambda params: torch.optim.SGD(params, lr=1.0)}
    parts = applied("cosine", **own)
    assert type(parts.scheduler) is CosineAnnealingLR
    assert "in place of the training's own schedule (StepLR)" in parts.receipts[0].text
    seen = rates(parts, 41)
    assert seen[0] == 1.0
    assert seen[20] == pytest.approx(0.5)
    assert seen[40] == pytest.approx(0.0, abs=1e-9)
    seen = rates(applied("step_decay", **own, parameters={"step_decay__factor": 0.5}), 40)
    assert [seen[0], seen[10], seen[20], seen[39]] == pytest.approx([1.0, 0.5, 0.25, 0.125])


@pytest.mark.parametrize(("metric", "goal", "mode"), [("loss", 0.1, "min"), ("accuracy", 0.9, "max")])
def test_a_plateau_follows_the_metric(metric, goal, mode, applied):
    parts = applied("plateau", metric=metric, goal=goal)
    assert type(parts.scheduler) is ReduceLROnPlateau
    assert (parts.scheduler.mode, parts.scheduler.patience, parts.schedule.interval) == (mode, 1, "epoch")
    with pytest.raises(Inapplicable, match="too short"):
        applied("plateau", metric=metric, goal=goal, steps=10)


@pytest.mark.parametrize("interval", ["step", "epoch"])
def test_a_warm_up_multiplies_the_trainings_schedule(interval, applied):
    own = {
        "schedule": lambda o: StepLR(o, 5 if interval == "step" else 1, 0.5), "schedule_interval": interval,
        "optimizer": lambda params: torch.optim.SGD(params, lr=1.0),
    }  # fmt: skip
    parts = applied("warmup", **own, parameters={"warmup__share": 0.25})
    expected = [min(1.0, (step + 1) / 10) * 0.5 ** (step // 5) for step in range(40)]
    assert rates(parts, 40) == pytest.approx(expected)
    assert "multiplying the training's own schedule (StepLR)" in parts.receipts[0].text
    alone = applied("warmup", optimizer=own["optimizer"])
    assert alone.scheduler.get_last_lr() == [0.25]
    assert rates(alone, 6) == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0, 1.0])


def test_clipping_replaces_the_trainings_own(applied):
    parts = applied("clip_norm", clip=lambda params: None, parameters={"clip_norm__max_norm": 0.5})
    assert "in place of the training's own clipping" in parts.receipts[0].text
    for parameter in parts.parameters:
        parameter.grad = torch.full_like(parameter, 3.0)
    parts.gradient(parts.parameters)
    assert float(torch.stack([p.grad.norm() for p in parts.parameters]).norm()) == pytest.approx(0.5, rel=1e-4)
    parts = applied("clip_value", parameters={"clip_value__limit": 0.5})
    for parameter in parts.parameters:
        parameter.grad = torch.full_like(parameter, -3.0)
    parts.gradient(parts.parameters)
    assert all(bool((p.grad == -0.5).all()) for p in parts.parameters)


def test_constraints_hold_after_a_step_and_leave_biases_alone(applied):
    for name in ("clamp_weights", "max_norm"):
        parts = applied(name, parameters={f"{name}__limit": 0.5})
        with torch.no_grad():
            for parameter in parts.parameters:
                parameter.fill_(2.0)
            parts.model[0].weight[0] = 0.01
        parts.weight_constraint(parts.parameters)
        weight, bias = parts.model[0].weight.detach(), parts.model[0].bias
        assert bool((bias == 2).all())
        assert torch.allclose(weight[0], torch.tensor(0.01)), "what is within the limit stays"
        size = weight[1].abs().max() if name == "clamp_weights" else weight[1].norm()
        assert float(size) == pytest.approx(0.5, rel=1e-5)


RARE = torch.tensor([0] * 24 + [1] * 12 + [2] * 4)


def test_the_balanced_sampler_draws_all_classes_alike(applied):
    parts = applied("balanced_sampler", labels=RARE)
    drawn = torch.cat([RARE[torch.tensor(list(parts.sampler))] for _ in range(50)]).bincount() / 2000
    assert torch.allclose(drawn, torch.full((3,), 1 / 3), atol=0.05)
    with pytest.raises(Inapplicable, match="balanced"):
        applied("balanced_sampler")
    with pytest.raises(Inapplicable, match="by a sampler already"):
        applied("balanced_sampler", "class_weights", labels=RARE)


def test_a_loader_gets_the_new_sampler(applied):
    def data(sampler=None):
        train = TensorDataset(torch.randn(40, 6), RARE)
        return DataLoader(train, 8, sampler=sampler, shuffle=sampler is None), DataLoader(train, 8)

    parts = applied("balanced_sampler", data=data, batch_size=None)
    assert parts.epochs.loader.sampler is parts.sampler
    assert type(parts.sampler) is WeightedRandomSampler
    own = lambda: data(WeightedRandomSampler([1.0] * 40, 40))  # noqa: E731
    assert type(applied("oversampling_off", data=own, batch_size=None).epochs.loader.sampler) is RandomSampler
    with pytest.raises(Inapplicable, match="by a sampler already"):
        applied("class_weights", data=own, batch_size=None)


def test_class_weights_of_any_loss_equal_torchs_own(applied):
    facts = applied(labels=RARE).facts
    native = class_weights.function(Criterion(nn.CrossEntropyLoss()), facts=facts).value.loss
    any_loss = class_weights.function(Criterion(F.cross_entropy), facts=facts).value.loss
    assert type(any_loss) is Weighted
    assert native.weight.tolist() == pytest.approx([40 / 72, 40 / 36, 40 / 12])
    scores, labels = torch.randn(40, 3), RARE
    assert torch.allclose(native(scores, labels), any_loss(scores, labels))
    one_hot = Weighted(F.cross_entropy, native.weight, TargetKind.ONE_HOT)
    assert torch.allclose(one_hot(scores, F.one_hot(labels, 3).float()), any_loss(scores, labels))


def test_label_smoothing_of_any_loss_equals_torchs_own(applied):
    facts = applied().facts
    native = label_smoothing.function(Criterion(nn.CrossEntropyLoss()), facts=facts).value.loss
    any_loss = label_smoothing.function(Criterion(F.cross_entropy), facts=facts).value.loss
    assert type(any_loss) is Smoothed
    scores, labels = torch.randn(12, 3), torch.arange(12) % 3
    assert torch.allclose(native(scores, labels), any_loss(scores, labels))
    one_hot = Smoothed(F.cross_entropy, 0.1, TargetKind.ONE_HOT, 3)
    assert torch.allclose(native(scores, labels), one_hot(scores, F.one_hot(labels, 3).float()))


def test_the_users_loss_object_is_never_changed(applied):
    own = nn.CrossEntropyLoss()
    applied("class_weights", "label_smoothing", labels=RARE, loss=own)
    assert own.weight is None
    assert own.label_smoothing == 0


def test_logits_are_capped_smoothly(applied):
    read = applied("logit_soft_cap", parameters={"logit_soft_cap__cap": 10.0}).criterion.read
    assert torch.allclose(read(torch.tensor([-1e6, 0.0, 0.1, 1e6])), torch.tensor([-10, 0, 0.1, 10.0]), atol=1e-4)


def test_inputs_are_standardised_by_feature_or_channel(applied):
    rows = torch.randn(40, 6) * torch.tensor([1.0, 10, 100, 1, 1, 0]) + torch.arange(6)
    rows[0, 0] = torch.inf
    parts = applied("standardise", inputs=rows)
    made = parts.inputs(rows[1:])
    assert torch.allclose(made.mean(0), torch.zeros(6), atol=0.2)
    assert torch.allclose(made.std(0)[:5], torch.ones(5), atol=0.2)
    assert bool((made[:, 5] == 0).all()), "a constant feature is shifted, not divided by 0"
    seen = []
    parts.model[0].register_forward_pre_hook(lambda _m, args: seen.append(args[0]))
    parts.model(rows[1:])
    assert torch.allclose(seen[0], made), "it is a part of the model"
    images = torch.rand(40, 2, 4, 4) * torch.tensor([255.0, 1]).reshape(2, 1, 1)
    flat = lambda: nn.Sequential(nn.Flatten(), nn.Linear(32, 3))  # noqa: E731
    made = applied("standardise", inputs=images, model=flat).inputs(images)
    assert torch.allclose(made.std((0, 2, 3)), torch.ones(2), atol=0.01)
    with pytest.raises(Inapplicable, match="standardised already"):
        applied("standardise")


def test_inputs_that_are_not_finite_become_the_median(applied):
    rows = torch.arange(240.0).reshape(40, 6)
    rows[3, 1], rows[4, 2], rows[5, 3] = torch.nan, torch.inf, -torch.inf
    parts = applied("repair_non_finite", inputs=rows)
    assert type(parts.inputs) is Repair
    assert "3 of 240" in parts.receipts[0].text
    made = parts.inputs(rows)
    assert torch.isfinite(made).all()
    assert made[3, 1] == rows[:, 1].nanmedian()
    assert torch.equal(made[6:], rows[6:])
    with pytest.raises(Inapplicable, match="finite"):
        applied("repair_non_finite")


def test_a_transform_survives_a_model_that_is_built_anew(applied):
    rows = torch.randn(40, 6) * 50
    parts = applied("standardise", "narrower", inputs=rows, model=lambda width=1.0: nn.Sequential(
        nn.Linear(6, round(8 * width)), nn.ReLU(), nn.Linear(round(8 * width), 3)))  # fmt: skip
    seen = []
    parts.model[0].register_forward_pre_hook(lambda _m, args: seen.append(args[0]))
    parts.model(rows)
    assert parts.model[0].out_features == 2
    assert float(seen[0].std()) == pytest.approx(1, rel=0.1)
