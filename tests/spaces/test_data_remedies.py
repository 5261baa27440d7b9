"""Remedies of inputs, targets, batches, budget and precision: what they say they changed is what changed."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, ReduceLROnPlateau, StepLR
from torch.utils.data import DataLoader, RandomSampler, SequentialSampler, TensorDataset

from remedy.spaces.remedy import Inapplicable
from remedy.spaces.schedule import Stretched

LABELS = torch.arange(40) % 3


@pytest.fixture
def applied(training_of, built):
    """Apply remedies to a small training with some parts of its own."""

    def apply(*names, inputs=None, targets=LABELS, parameters=None, **own):
        def data():
            train = TensorDataset(torch.randn(40, 6) if inputs is None else inputs, targets)
            return train, train

        model = lambda: nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3 if targets.dim() == 1 else 1))  # noqa: E731
        given = {"model": model, "data": data, "batch_size": 8, "steps": 40, **own}
        return built(training_of(**given), *names, **(parameters or {}))

    return apply


def test_inputs_are_brought_between_minus_one_and_one(applied):
    rows = torch.rand(40, 6) * torch.tensor([1.0, 10, 100, 1, 1, 0]) + torch.arange(6)
    made = applied("min_max", inputs=rows).inputs(rows)
    assert torch.allclose(made.amin(0)[:5], torch.full((5,), -1.0), atol=1e-5)
    assert torch.allclose(made.amax(0)[:5], torch.full((5,), 1.0), atol=1e-5)
    assert bool((made[:, 5] == 0).all())
    with pytest.raises(Inapplicable, match="already"):
        applied("min_max", inputs=made)


def test_outliers_do_not_move_a_robust_scale_and_are_cut(applied):
    rows = torch.randn(40, 6) * 50 + 300
    rows[0, 0] = 1e9
    parts = applied("robust_scale", inputs=rows)
    made = parts.inputs(rows)
    assert float(made.abs().max()) == 5.0
    assert float(made[1:].std()) < 2
    assert "cut at +-5" in parts.receipts[0].text


def test_features_are_cut_at_their_quantiles(applied):
    rows = torch.randn(40, 6)
    rows[0, 0], rows[1, 1] = 1e9, -1e9
    parts = applied("winsorise", inputs=rows, parameters={"winsorise__q": 0.95})
    made = parts.inputs(rows)
    assert float(made.abs().max()) < 10
    assert "2 outlying values of 240" in parts.receipts[0].text
    assert torch.equal(made[rows.abs() < 0.5], rows[rows.abs() < 0.5])
    with pytest.raises(Inapplicable, match="far outside"):
        applied("winsorise", inputs=torch.rand(40, 6))


def test_long_tails_come_in_and_keep_zero_and_order(applied):
    rows = (4 * torch.randn(40, 6)).exp() * torch.randn(40, 6).sign()
    rows[0] = 0
    made = applied("signed_log", inputs=rows).inputs(rows)
    assert torch.equal(made.sign(), rows.sign())
    assert torch.equal(made[:, 0].argsort(), rows[:, 0].argsort())
    assert float(made.abs().max()) < 30
    with pytest.raises(Inapplicable, match="long tail"):
        applied("signed_log")


FAR = 500 + 40 * torch.randn(40, 1, generator=torch.Generator().manual_seed(0))


def test_targets_are_standardised_for_the_loss_alone(applied, steps):
    own = {"targets": FAR, "loss": nn.MSELoss(), "metric": "r2", "goal": 0.9}
    parts, plain = applied("standardise_targets", **own), applied(**own)
    rows = parts.facts.inputs
    outputs, inner = parts.model(rows), plain.model(rows).detach()
    mean, spread = FAR.mean(), FAR.std(correction=0)
    assert torch.allclose(outputs, inner * spread + mean, atol=1e-2), "the user sees the user's scale"
    expected = nn.functional.mse_loss(inner, (FAR - mean) / spread)
    assert torch.allclose(parts.criterion(outputs, FAR), expected, rtol=1e-4)
    assert float(parts.original(outputs, FAR).detach()) == pytest.approx(
        float((outputs.detach() - FAR).square().mean())
    )
    assert "-> 0 and 1 in 1 column(s)" in parts.receipts[0].text
    assert steps(parts)[-1] < 10
    with pytest.raises(Inapplicable, match="standardised already"):
        applied("standardise_targets", **{**own, "targets": (FAR - mean) / spread})
    with pytest.raises(Inapplicable, match="class index"):
        applied("standardise_targets")


def test_standardised_targets_go_with_an_objective_and_a_loss_of_their_scale(applied):
    own = {"targets": FAR, "loss": nn.MSELoss(), "metric": "r2", "goal": 0.9}
    relu = lambda: nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 1), nn.ReLU())  # noqa: E731
    parts = applied("standardise_targets", "match_objective", model=relu, **own)
    rows = parts.facts.inputs
    inner = parts.model[:3](rows)
    assert torch.allclose(parts.model(rows), inner * FAR.std(correction=0) + FAR.mean(), atol=1e-2)
    parts = applied("standardise_targets", "huber", **own)
    assert 0.5 < parts.criterion.loss.delta < 2, "in the scale that the loss sees"


def test_targets_with_a_graph_are_cut_off_it(applied, steps):
    teacher = nn.Linear(1, 1)
    own = {"targets": teacher(FAR / 500), "loss": nn.MSELoss(), "metric": "r2", "goal": 0.9}
    with pytest.raises(RuntimeError, match="second time"):
        steps(applied(**own))
    teacher.zero_grad()
    steps(applied("detach_targets", **own))
    assert teacher.weight.grad is None
    with pytest.raises(Inapplicable, match="no gradient"):
        applied("detach_targets")


@pytest.mark.parametrize("loader", [False, True])
def test_a_fixed_order_becomes_a_new_one_each_epoch(loader, applied):
    def data():
        train = TensorDataset(torch.arange(240.0).reshape(40, 6), LABELS)
        return DataLoader(train, 8), DataLoader(train, 8)

    own = {"data": data, "batch_size": None} if loader else {"sampler": SequentialSampler}
    orders = {}
    for name in ((), ("shuffle",)):
        parts = applied(*name, **own)
        epochs = parts.epochs.epochs()
        seen = [torch.cat([inputs[:, 0] for inputs, _ in next(epochs)[1]]).tolist() for _ in range(2)]
        assert sorted(seen[0]) == sorted(seen[1])
        orders[name] = seen[0] == seen[1]
    assert orders == {(): True, ("shuffle",): False}
    assert "SequentialSampler" in parts.receipts[0].text
    with pytest.raises(Inapplicable, match="fixed order"):
        applied("shuffle", sampler=RandomSampler)
    with pytest.raises(Inapplicable, match="once an epoch already"):
        applied("oversampling_off", **own)


@pytest.mark.parametrize("loader", [False, True])
@pytest.mark.parametrize(
    ("name", "factor", "size", "batches"), [("larger_batch", 4, 32, 2), ("smaller_batch", 4, 2, 20)]
)
def test_batches_are_of_another_size_and_the_budget_stays(name, factor, size, batches, loader, applied):
    def data():
        train = TensorDataset(torch.randn(40, 6), LABELS)
        return DataLoader(train, 8, shuffle=True), DataLoader(train, 8)

    own = {"data": data, "batch_size": None} if loader else {}
    parameters = {f"{name}__factor": factor}
    parts = applied(name, parameters=parameters, **own)
    _, epoch = next(parts.epochs.epochs())
    sizes = [len(inputs) for inputs, _ in epoch]
    assert (sizes[0], len(sizes), sum(sizes)) == (size, batches, 40)
    assert (parts.steps, parts.facts.batch_size, parts.facts.steps_per_epoch) == (40, size, batches)
    assert f"8 -> {size} samples a batch" in parts.receipts[0].text
    epochs = applied(name, parameters=parameters, steps=None, epochs=3, **own)
    assert epochs.steps == 3 * batches


def test_batches_that_come_ready_cannot_be_resized(applied):
    def data():
        train = TensorDataset(torch.randn(40, 6), LABELS)
        loader = DataLoader(train, batch_sampler=[[*range(20)], [*range(20, 40)]])
        return loader, loader

    for name in ("larger_batch", "smaller_batch"):
        with pytest.raises(Inapplicable, match="batch sampler"):
            applied(name, data=data, batch_size=None)
    with pytest.raises(Inapplicable, match="whole train set"):
        applied("larger_batch", batch_size=40)
    with pytest.raises(Inapplicable, match="as small"):
        applied("smaller_batch", batch_size=2)


def rates(parts, interval):
    seen = []
    for step in range(parts.steps):
        seen.append(parts.optimizer.param_groups[0]["lr"])
        parts.optimizer.step()
        if interval == "step" or (step + 1) % len(parts.epochs) == 0:
            parts.scheduler.step()
    return seen


@pytest.mark.parametrize("interval", ["step", "epoch"])
def test_a_longer_budget_stretches_the_trainings_schedule(interval, applied):
    horizon = 40 if interval == "step" else 8
    own = {
        "optimizer": lambda params: torch.optim.SGD(params, lr=1.0), "schedule_interval": interval,
        "schedule": lambda optimizer: CosineAnnealingLR(optimizer, horizon),
    }  # fmt: skip
    plain, longer = applied(**own), applied("train_longer", **own)
    assert (plain.steps, longer.steps) == (40, 120)
    assert "40 -> 120 optimizer steps" in longer.receipts[0].text
    assert type(longer.scheduler) is Stretched
    assert rates(longer, interval)[::3] == pytest.approx(rates(plain, interval))
    warm = applied("train_longer", "warmup", **own)
    assert "(CosineAnnealingLR)" in warm.receipts[1].text
    cosine = applied("train_longer", "cosine", **own)
    assert cosine.scheduler.T_max == 120, "a schedule of the catalogue's sees the budget"


def test_a_schedule_that_waits_for_the_metric_has_no_horizon(applied):
    assert type(applied("train_longer", schedule=ReduceLROnPlateau).scheduler) is ReduceLROnPlateau


def test_fewer_steps_an_epoch_keep_the_schedule_over_the_budget(applied):
    own = {
        "optimizer": lambda params: torch.optim.SGD(params, lr=1.0), "steps": None, "epochs": 8,
        "schedule": lambda optimizer: StepLR(optimizer, 10, 0.5), "schedule_interval": "step",
    }  # fmt: skip
    fewer = applied("larger_batch", parameters={"larger_batch__factor": 5}, **own)
    assert fewer.steps == 8
    assert rates(fewer, "step") == [1, 1, 0.5, 0.5, 0.25, 0.25, 0.125, 0.125]
    state = fewer.scheduler.state_dict()
    again = applied("larger_batch", parameters={"larger_batch__factor": 5}, **own)
    again.scheduler.load_state_dict(state)
    assert again.scheduler.below.last_epoch == fewer.scheduler.below.last_epoch == 40


def test_half_precision_becomes_full(applied):
    parts = applied("full_precision", precision="float16")
    assert (parts.precision.forward, parts.precision.scaled) == ("float32", False)
    half = lambda: nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3)).half()  # noqa: E731
    parts = applied("full_precision", model=half, inputs=torch.randn(40, 6).half())
    assert {p.dtype for p in parts.parameters} == {torch.float32}
    assert parts.model(parts.facts.inputs).dtype == torch.float32
    assert "4 parameter(s) in half precision" in parts.receipts[0].text
    with pytest.raises(Inapplicable, match="float32 already"):
        applied("full_precision")


@pytest.mark.parametrize(
    ("name", "forward", "scaled"), [("bfloat16", "bfloat16", False), ("loss_scaling", "float16", True)]
)
def test_float16_gets_range_or_a_scaled_loss(name, forward, scaled, applied):
    parts = applied(name, precision="float16")
    assert (parts.precision.forward, parts.precision.scaled) == (forward, scaled)
    assert parts.precision.scaler(parts.device).is_enabled() is scaled
    with parts.precision.autocast(parts.device):
        assert parts.model(parts.facts.inputs).dtype == getattr(torch, forward)
    with pytest.raises(Inapplicable, match="not in float16"):
        applied(name)
