"""Rules of a step: gradients, guards, averages, units drawn anew. What they say they do is what happens."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from remedy.spaces.remedy import Inapplicable


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3))


@pytest.fixture
def applied(training_of, built):
    """Apply one remedy to a small net with Adam, or other parts."""

    def apply(name, build=model, *, shape=(6,), classes=3, **own):
        def data():
            train = TensorDataset(torch.randn(24, *shape), torch.arange(24) % classes)
            return train, train

        values = {f"{name}__{key}": own.pop(key) for key in list(own) if key in PARAMETERS}
        return built(training_of(**{"model": build, "data": data, "batch_size": 8, **own}), name, **values)

    return apply


PARAMETERS = {"share", "z", "percentile", "variance", "sigmas", "factor", "begin", "least"}


def give(parts, value):
    """Give every parameter the same gradient; returns the parameters."""
    for parameter in parts.parameters:
        parameter.grad = torch.full_like(parameter, value)
    return parts.parameters


def norm(parts):
    return float(torch.stack([p.grad.norm() for p in parts.parameters]).norm())


def weights(parts):
    return [p.detach().clone() for p in parts.model.parameters()]


def unchanged(parts, before):
    return all(torch.equal(p, old) for p, old in zip(parts.model.parameters(), before, strict=True))


def test_adaptive_clipping_looks_at_each_unit_and_spares_the_last_layer(applied):
    parts = applied("adaptive_clip", share=0.1)
    weight = parts.model[0].weight
    with torch.no_grad():
        weight.fill_(2.0)
    give(parts, 3.0)
    weight.grad[0] = 1e-4
    parts.gradient(parts.parameters)
    assert weight.grad[1:].norm(dim=1).tolist() == pytest.approx([0.1 * weight[1].norm().item()] * 5)
    assert weight.grad[0].tolist() == pytest.approx([1e-4] * 6), "what is within the limit stays"
    assert bool((parts.model[2].weight.grad == 3).all())
    assert bool((parts.model[2].bias.grad == 3).all())


def test_z_clipping_brings_an_outlier_near_the_mean_and_forgets_what_is_not_finite(applied):
    parts = applied("z_clip", z=2.0)
    for step in range(40):
        parts.gradient(give(parts, 1.0 + 0.1 * (step % 2)))
    usual = norm(parts)
    parts.gradient(give(parts, 100.0))
    assert norm(parts) < 1.5 * usual
    parts.gradient(give(parts, math.nan))
    parts.gradient(give(parts, 1.0))
    assert norm(parts) == pytest.approx(usual, rel=0.1), "neither the outlier nor the NaN stays in the averages"


def test_auto_clipping_is_a_percentile_of_the_norms(applied):
    parts = applied("auto_clip", percentile=50.0)
    for value in (1.0, 2.0, 3.0, 4.0):
        parts.gradient(give(parts, value))
    give(parts, 3.0)
    third = norm(parts)
    parts.gradient(give(parts, 50.0))
    assert norm(parts) == pytest.approx(third, rel=1e-4)


def test_clip_off_takes_the_users_own_clipping_away(applied):
    assert applied("clip_off", clip=lambda _p: None).gradient is None
    with pytest.raises(Inapplicable, match="does not clip"):
        applied("clip_off")


@pytest.mark.parametrize("name", ["centred_gradient", "orthogonal_gradient"])
def test_directions_are_taken_out_of_matrices_and_the_users_clipping_follows(name, applied):
    parts = applied(name, clip=lambda ps: nn.utils.clip_grad_value_(ps, 0.5))
    for parameter in parts.parameters:
        parameter.grad = torch.randn_like(parameter)
    weight, bias = parts.model[0].weight, parts.model[0].bias
    sizes = weight.grad.norm(), bias.grad.clamp(-0.5, 0.5).clone()
    parts.gradient.__class__(None)(parts.parameters)
    if name == "centred_gradient":
        assert torch.allclose(weight.grad.mean(1), torch.zeros(6), atol=1e-6)
    else:
        assert float((weight * weight.grad).detach().sum()) == pytest.approx(0, abs=1e-4)
        assert float(weight.grad.norm()) == pytest.approx(float(sizes[0]), rel=1e-5)
    parts.gradient(parts.parameters)
    assert torch.allclose(bias.grad, sizes[1]), "a bias keeps its direction"
    assert float(weight.grad.abs().max()) <= 0.5


def test_noise_falls_with_the_steps(applied):
    parts = applied("gradient_noise", variance=0.1, build=lambda: nn.Linear(60, 60), shape=(60,), classes=60)
    for step in range(50):
        parts.gradient(give(parts, 0.0))
        spread = float(parts.model.weight.grad.std())
        assert spread == pytest.approx((0.1 / (1 + step) ** 0.55) ** 0.5, rel=0.1)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("name", ["skip_non_finite", "skip_spike", "back_off", "roll_back"])
def test_a_guard_leaves_a_step_out_that_is_not_finite(name, bad, applied):
    parts = applied(name)
    before = weights(parts)
    give(parts, 1.0)
    parts.model[0].weight.grad[2, 3] = bad
    parts.update(torch.tensor(1.0))
    assert unchanged(parts, before)
    assert not parts.optimizer.state, "the optimizer has not even seen it"
    give(parts, 1.0)
    parts.update(torch.tensor(bad))
    assert unchanged(parts, before)
    give(parts, 1.0)
    parts.update(torch.tensor(1.0))
    assert not unchanged(parts, before)


def test_large_but_finite_gradients_are_no_reason_to_skip(applied):
    parts = applied("skip_non_finite", optimizer=lambda ps: torch.optim.SGD(ps, lr=1e-30))
    before = weights(parts)
    give(parts, 1e30)  # its 2-norm overflows, its entries do not
    parts.update(torch.tensor(1.0))
    assert not unchanged(parts, before)


@pytest.mark.parametrize("kind", ["loss", "gradient"])
def test_spikes_are_left_out_and_with_back_off_later_steps_are_smaller(kind, applied):
    for name in ("skip_spike", "back_off"):
        parts = applied(name, optimizer=lambda ps: torch.optim.SGD(ps, lr=0.1), steps=200)
        for step in range(30):
            give(parts, 1.0 + 0.01 * (step % 3))
            parts.update(torch.tensor(1.0 + 0.01 * (step % 3)))
        before = weights(parts)
        give(parts, 50.0 if kind == "gradient" else 1.0)
        parts.update(torch.tensor(9.0 if kind == "loss" else 1.0))
        assert unchanged(parts, before)
        give(parts, 1.0)
        parts.update(torch.tensor(1.0))
        moved = float((before[0] - parts.model[0].weight).detach().mean())
        assert moved == pytest.approx(0.1 if name == "skip_spike" else 0.03, rel=1e-3)
        assert [group["lr"] for group in parts.optimizer.param_groups] == [0.1], "a scheduler never sees it"


def test_the_optimizers_memory_is_cleared_and_the_rate_rises_again(applied):
    parts = applied("reset_optimizer", share=0.2, steps=40)  # every 8 steps, with a ramp of 2
    held, moved = [], []
    for _ in range(18):
        before = weights(parts)
        give(parts, 1.0)
        parts.update(torch.tensor(1.0))
        held.append(int(parts.optimizer.state[parts.parameters[0]]["step"]))
        moved.append(float((before[0] - parts.model[0].weight).detach().mean()))
    assert held == [*range(1, 9), *range(1, 9), 1, 2]
    assert moved[8] == pytest.approx(0.5 * moved[0], rel=1e-3)
    assert moved[9] == pytest.approx(moved[0], rel=1e-3)


def test_what_was_learnt_comes_back_and_the_rate_is_lower(applied):
    parts = applied("roll_back", factor=0.5, steps=200, optimizer=lambda ps: torch.optim.SGD(ps, lr=0.1, momentum=0.9))
    for step in range(60):
        give(parts, 0.01)
        parts.update(torch.tensor(2.0 * 0.9**step))
    good = weights(parts)
    lost = 0
    while lost < 30:
        give(parts, 1.0)
        parts.update(torch.tensor(2.0))
        lost += 1
        if all(torch.allclose(p, old, atol=0.01) for p, old in zip(parts.model.parameters(), good, strict=True)):
            break
    assert 2 <= lost < 15, "not at the first bad batch, and not long after"
    assert parts.guard._scale == 0.5
    assert parts.optimizer.state[parts.parameters[0]]["momentum_buffer"].max() < 0.2, "its memory came back, too"


@pytest.mark.parametrize(("name", "own"), [("ema_weights", {"share": 0.1}), ("swa_weights", {"begin": 0.5})])
def test_averages_judge_and_training_goes_on_with_its_own_weights(name, own, applied):
    parts = applied(name, **own, steps=40, build=lambda: nn.Sequential(nn.Linear(6, 3), nn.BatchNorm1d(3)))
    seen = []
    for value in range(1, 41):
        with torch.no_grad():
            parts.model[0].weight.fill_(float(value))
            parts.model[1].running_mean.fill_(float(value))
        parts.averaging.update(parts.model)
        seen.append(value)
    expected = sum(seen[20:]) / 20
    if name == "ema_weights":
        expected = 1.0
        for value in seen[1:]:
            expected = 0.75 * expected + 0.25 * value
    before = weights(parts)
    with parts.judged():
        assert float(parts.model[0].weight[0, 0].detach()) == pytest.approx(expected, rel=1e-5)
        assert float(parts.model[1].running_mean[0]) == pytest.approx(expected, rel=1e-5)
    assert unchanged(parts, before)
    assert float(parts.model[1].running_mean[0]) == 40


def test_nothing_is_averaged_before_it_begins(applied):
    parts = applied("swa_weights", steps=40)
    parts.averaging.update(parts.model)
    before = weights(parts)
    with parts.judged():
        assert unchanged(parts, before)


def test_dormant_units_are_drawn_anew_with_nothing_going_out_of_them(applied):
    parts = applied("redraw_dormant", least=0.0, steps=40)
    first, last = parts.model[0], parts.model[2]
    with torch.no_grad():
        first.bias[2], first.bias[4] = -100.0, -100.0
    before, going = weights(parts), last.weight.detach().clone()
    for _ in range(5):
        assert unchanged(parts, before)
        parts.weight_constraint(parts.parameters)
    assert not torch.equal(first.weight[2], before[0][2])
    assert float(first.bias[4].detach().abs()) < 1
    assert torch.equal(first.weight[[0, 1, 3, 5]], before[0][[0, 1, 3, 5]])
    assert bool((last.weight[:, [2, 4]] == 0).all())
    assert torch.equal(last.weight[:, [0, 1, 3, 5]], going[:, [0, 1, 3, 5]])
    assert parts.model.training


def test_dormant_filters_of_a_convolution_too(applied):
    build = lambda: nn.Sequential(  # noqa: E731
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3)
    )
    parts = applied("redraw_dormant", build, shape=(1, 6, 6), steps=40)
    with torch.no_grad():
        parts.model[0].bias[1] = -100.0
    for _ in range(5):
        parts.weight_constraint(parts.parameters)
    assert float(parts.model[0].bias[1].detach()) > -1
    assert bool((parts.model[2].weight[:, 1] == 0).all())
    with pytest.raises(Inapplicable, match="no Sequential"):
        applied("redraw_dormant", lambda: nn.Linear(6, 3))
