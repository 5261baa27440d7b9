"""How often a run is looked at, what a look costs, and that records repeat all the same."""

import dataclasses
import math
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from remedy.spaces.assembly import assemble
from remedy.spaces.combination import Combination
from remedy.spaces.metric import decide
from remedy.spaces.objective import Scale, TargetKind
from remedy.spaces.process import reset_process
from remedy.spaces.training import Training
from remedy.workers import loop
from remedy.workers.checkpoint import Checkpoint
from remedy.workers.loop import train
from remedy.workers.observation import Layer, Observation
from remedy.workers.pace import Pace, Price, interval
from remedy.workers.probe import Probe, describe

STEPS = 400


def training(width: int = 64, rate: float = 0.01, steps: int = STEPS, device: str = "cpu") -> Training:
    inputs = torch.randn(640, 16, generator=torch.Generator().manual_seed(0))
    data = TensorDataset(inputs, inputs[:, :4].argmax(1)), TensorDataset(inputs[:64], inputs[:64, :4].argmax(1))
    return Training(
        model=lambda: nn.Sequential(nn.Linear(16, width), nn.ReLU(), nn.Linear(width, 4)), data=lambda: data,
        loss=nn.CrossEntropyLoss(), optimizer=lambda p: torch.optim.SGD(p, lr=rate), batch_size=64, steps=steps,
        metric="accuracy", goal=0.9, device=device,
    )  # fmt: skip


def seen_of(plan: Training) -> list[Observation]:
    reset_process()
    return list(train(plan, assemble(plan, Combination(), {}, seed=1, data_seed=0)))


def look(step: int, loss: float = 1.0, norm: float = 1.0, zero: float = 0.1) -> Observation:
    layers = (Layer("weight", norm, zero, math.nan),)
    return Observation(step, loss, loss, None, norm, layers, finite_parameters=True, learning_rate=0.1)


def looked_at(pace: Pace, course) -> list[int]:
    """Walk through a run and return the steps that are looked at."""
    found = []
    for step in range(1, pace.steps + 1):
        if pace.due(step):
            found.append(step)
            pace.see(course(step))
    return found


def calm(step: int) -> Observation:
    return look(step, loss=math.exp(-step / 100))


def test_a_cheap_step_is_looked_at_rarely_and_a_dear_one_often() -> None:
    small, large = (Pace(STEPS), Pace(STEPS))
    small.settle(Price(nodes=16, multiplied=10_000, tensors=4, numbers=1000))
    large.settle(Price(nodes=400, multiplied=10**10, tensors=100, numbers=10**6))
    assert (small.every, large.every) == (16, 4)
    few, many = looked_at(small, calm), looked_at(large, calm)
    assert len(few) < 35
    assert len(many) > 99
    assert max(b - a for a, b in pairwise(few)) == 16
    assert few[:5] == [1, 4, 8, 12, 16], "the beginning is looked at closely"
    assert few[-1] == STEPS


@pytest.mark.parametrize(
    "odd",
    [look(0, loss=math.nan), look(0, loss=5.0), look(0, norm=100.0), look(0, norm=1e-3), look(0, zero=1.0)],
    ids=["not finite", "risen", "norm grown", "norm shrunk", "all zero"],
)
def test_it_tightens_when_something_looks_wrong_and_calms_down(odd) -> None:
    pace = Pace(STEPS, 16)
    steps = looked_at(pace, lambda s: dataclasses.replace(odd, step=s) if 200 <= s < 216 else calm(s))
    gaps = {b: b - a for a, b in pairwise(steps)}
    assert {gap for step, gap in gaps.items() if 48 < step <= 200} == {16}
    assert {gap for step, gap in gaps.items() if 216 <= step <= 240} == {4}
    assert {gap for step, gap in gaps.items() if 300 < step < 390} == {16}


def test_a_run_of_any_length_begins_and_ends_with_a_look() -> None:
    for steps in (1, 7, 99, 100, 5000):
        pace = Pace(steps, 4 * interval(steps))
        found = looked_at(pace, calm)
        assert (found[0], found[-1]) == (1, steps)


def test_work_is_counted_not_timed() -> None:
    reset_process()
    model = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 5))
    with Price.counting(model) as price:
        outputs = model(torch.randn(2, 1, 6, 6))
    price = price.of(outputs.square().mean())
    assert price.multiplied == 2 * 8 * 36 * 9 + 2 * 5 * 8 * 36
    assert (price.tensors, price.numbers) == (4, sum(p.numel() for p in model.parameters()))
    assert price.nodes >= 4 + price.tensors
    assert not any(module._forward_hooks for module in model.modules()), "hooks are gone after the step"


def test_the_same_run_is_looked_at_at_the_same_steps_and_sees_the_same() -> None:
    one, again = seen_of(training()), seen_of(training())
    assert repr(one) == repr(again)  # what was not measured is NaN, which equals nothing
    assert len(one) < STEPS // interval(STEPS), "it is calm"


def test_a_look_changes_nothing_of_a_run(monkeypatch) -> None:
    plan = training()
    often = seen_of(plan)
    monkeypatch.setattr(Pace, "due", lambda _self, _step: False)
    rarely = seen_of(plan)
    assert len(rarely) < len(often)
    metrics = [[(s.step, s.metric) for s in seen if s.metric is not None] for seen in (often, rarely)]
    assert metrics[0] == metrics[1]


def test_a_run_that_goes_on_is_looked_at_as_the_unbroken_one(tmp_path) -> None:
    plan = training(rate=3.0)  # now and then something looks wrong
    whole = seen_of(plan)
    reset_process()
    checkpoint = Checkpoint.open(tmp_path / "kept.pt", seconds=0)
    for seen in train(plan, assemble(plan, Combination(), {}, seed=1, data_seed=0), checkpoint):
        checkpoint.seen.append(seen)
        if seen.step >= 150:
            break
    reset_process()
    again = Checkpoint.open(tmp_path / "kept.pt", seconds=0)
    assert again.every == 16
    kept = list(again.seen)
    rest = list(train(plan, assemble(plan, Combination(), {}, seed=1, data_seed=0), again))
    assert repr([*kept, *rest]) == repr(whole)


# ---------------------------------------------------------------- what is read


def test_shares_of_zeros_are_exact_where_they_decide() -> None:
    reset_process()
    plan = training(width=4096)
    parts = assemble(plan, Combination(), {}, seed=1, data_seed=0)
    probe = Probe(parts)
    first, last = (p for p in parts.model.parameters() if p.dim() > 1)
    for filled, expected in ((0, 1.0), (1, 0.9999), (first.numel() // 2, 0.5)):
        first.grad, last.grad = torch.zeros_like(first), torch.ones_like(last)
        first.grad.view(-1)[torch.randperm(first.numel())[:filled]] = 1e-3
        told = probe.gradients(snapshot=True).tolist()
        layers, finite = probe.layers(told, probe.moved().tolist())
        assert layers[0].zero_share == pytest.approx(expected, abs=0.02)
        assert (layers[0].zero_share == 1) == (filled == 0)
        assert layers[0].gradient_norm == pytest.approx(float(first.grad.norm()))
        assert (layers[1].zero_share, layers[1].update_ratio, finite) == (0.0, 0.0, True)
        assert told[0] == pytest.approx(float(torch.cat([first.grad.flatten(), last.grad.flatten()]).norm()))
    # A norm that underflows is no proof of zeros.
    first.grad = torch.full_like(first, 1e-30)
    assert probe.layers(probe.gradients().tolist(), [1.0])[0][0].zero_share < 1


def test_how_far_a_step_moves_is_measured_again_at_each_look_and_after_weights_have_grown() -> None:
    reset_process()
    parts = assemble(training(), Combination(), {}, seed=1, data_seed=0)
    probe = Probe(parts)
    weights = [p for p in parts.model.parameters() if p.dim() > 1]
    for share in (0.5, 0.125):
        for p in parts.model.parameters():
            p.grad = torch.ones_like(p)
        told = probe.gradients(snapshot=True).tolist()
        with torch.no_grad():
            for p in weights:
                p.mul_(1 + share)
        layers, _ = probe.layers(told, probe.moved().tolist())
        assert [layer.update_ratio for layer in layers] == [pytest.approx(share, rel=1e-5)] * len(weights)
        assert all(math.isnan(layer.update_ratio) for layer in probe.layers(told, probe.moved().tolist())[0])
        weights[0].data = torch.ones(len(weights[0]) + 1, weights[0].shape[1])


def test_a_parameter_that_is_lost_is_seen() -> None:
    reset_process()
    parts = assemble(training(), Combination(), {}, seed=1, data_seed=0)
    probe = Probe(parts)
    assert probe.moved().tolist() == [1.0]
    with torch.no_grad():
        next(iter(parts.model.parameters())).view(-1)[3] = math.inf
    assert probe.moved().tolist() == [0.0]


@pytest.mark.parametrize("kind", [TargetKind.CLASS_INDEX, TargetKind.ONE_HOT, TargetKind.BINARY])
@pytest.mark.parametrize("ignored", [-100, 2])
def test_statistics_are_those_of_the_metric(kind, ignored) -> None:
    generator = torch.Generator().manual_seed(0)
    classes = torch.randint(0, 5, (200,), generator=generator)
    outputs = 5 * torch.randn(200, 1 if kind is TargetKind.BINARY else 5, generator=generator)
    targets = {
        TargetKind.CLASS_INDEX: classes, TargetKind.ONE_HOT: nn.functional.one_hot(classes, 5).float(),
        TargetKind.BINARY: (classes > 2).float()[:, None],
    }[kind]  # fmt: skip
    shown = describe(outputs, targets, kind, Scale.LOGITS, ignored)
    predicted, truth = decide(outputs, targets, kind, Scale.LOGITS, ignored)
    assert shown.count == len(truth)
    assert shown.accuracy == pytest.approx(float((predicted == truth).float().mean()))
    assert shown.top_share == pytest.approx(float(predicted.bincount().max()) / len(truth))
    assert shown.top_class == int(predicted.bincount().argmax())
    assert shown.finite
    whole = outputs.softmax(1) if kind is not TargetKind.BINARY else outputs.sigmoid()
    as_probabilities = describe(whole, targets, kind, Scale.PROBABILITIES, ignored)
    assert as_probabilities.top_probability == pytest.approx(shown.top_probability, rel=1e-5)
    broken = outputs.clone()
    broken[3] = math.nan
    assert (
        describe(broken, targets, kind, Scale.LOGITS).finite,
        describe(broken, targets, kind, Scale.LOGITS).accuracy,
    ) == (False, 0.0)


# ---------------------------------------------------------------- on a GPU


def test_what_is_held_back_is_yielded_whole_and_in_order(monkeypatch) -> None:
    """The GPU's way of looking, one look behind, on any machine: it sees what the other way sees."""
    plan, at_once = training(), seen_of(training())
    monkeypatch.setattr(loop, "waits", lambda _device: True)
    assert repr(seen_of(plan)) == repr(at_once)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_no_step_waits_for_the_gpu() -> None:
    reset_process()
    plan = training(device="cuda")
    parts = assemble(plan, Combination(), {}, seed=1, data_seed=0)
    pace = Pace(STEPS, 4)
    live = loop._Live(plan, parts, Probe(parts), pace)
    batches = [
        (x, y)
        for x, y in zip(
            torch.randn(50, 64, 16, device="cuda"), torch.randint(0, 4, (50, 64), device="cuda"), strict=True
        )
    ]
    for step, batch in enumerate(batches[:10], start=1):  # what is allocated once
        list(live.update(batch, step, validating=False, snapshot=False))
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        seen = [
            o
            for step, batch in enumerate(batches[10:], start=11)
            for o in live.update(batch, step, validating=False, snapshot=step % 20 == 0)
        ]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len(seen) >= 5
    assert all(math.isfinite(o.gradient_norm) and o.batch is not None for o in seen)
