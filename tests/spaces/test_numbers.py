"""Remedies for optimizers, learning rates, schedules and losses: what they say they changed is what changed."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import LambdaLR, StepLR
from torch.utils.data import TensorDataset

from remedy.spaces.lion import Lion
from remedy.spaces.muon import MuonAdamW
from remedy.spaces.remedies.confidence import Focal
from remedy.spaces.remedy import Inapplicable
from remedy.spaces.stable_adamw import StableAdamW


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 64), nn.LayerNorm(64), nn.ReLU(), nn.Linear(64, 3))


@pytest.fixture
def applied(training_of, built):
    """Apply remedies to a small training; parameters of theirs as a dict."""

    def apply(*names, labels=None, parameters=None, **own):
        def data():
            targets = torch.arange(40) % 3 if labels is None else labels
            return (TensorDataset(torch.randn(40, 6), targets),) * 2

        return built(
            training_of(**{"model": model, "data": data, "batch_size": 8, "steps": 40, **own}),
            *names,
            **(parameters or {}),
        )

    return apply


def two_groups(params):
    params = list(params)
    first, last = {"params": params[:2], "lr": 0.4, "weight_decay": 0.01}, {"params": params[2:], "lr": 0.1}
    return torch.optim.SGD([first, last], momentum=0.9, nesterov=True)


def option(parts, name):
    return [group[name] for group in parts.optimizer.param_groups]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("radam", torch.optim.RAdam), ("nadam", torch.optim.NAdam), ("adafactor", torch.optim.Adafactor),
        ("stable_adamw", StableAdamW), ("lion", Lion), ("muon", MuonAdamW),
    ],
)  # fmt: skip
def test_a_newer_optimizer_keeps_the_groups(name, kind, applied, steps):
    parts = applied(name, optimizer=two_groups, parameters={f"{name}__lr": 0.004})
    assert type(parts.optimizer) is kind
    assert option(parts, "lr") == pytest.approx([0.004, 0.001])
    assert option(parts, "weight_decay") == [0.01, 0.0]
    old = two_groups(parts.model.parameters()).param_groups
    for mine, theirs in zip(parts.optimizer.param_groups, old, strict=True):
        assert [id(p) for p in mine["params"]] == [id(p) for p in theirs["params"]]
    losses = steps(parts, 40)
    assert sum(losses[-5:]) < sum(losses[:5])


def test_options_of_an_optimizer_change_alone(applied):
    adam = {"optimizer": lambda params: torch.optim.Adam(params, lr=0.1, betas=(0.8, 0.999), eps=1e-4)}
    parts = applied("lower_beta2", **adam)
    assert (option(parts, "betas"), option(parts, "lr")) == ([(0.8, 0.95)], [0.1])
    assert option(applied("adam_eps", **adam), "eps") == [1e-2]
    assert option(applied("smaller_eps", **adam), "eps") == [1e-8]
    assert option(applied("amsgrad", **adam), "amsgrad") == [True]
    assert option(applied("less_momentum", **adam), "betas") == [(0.0, 0.999)]
    parts = applied("less_momentum", optimizer=two_groups)
    assert (option(parts, "momentum"), option(parts, "nesterov")) == ([0.0, 0.0], [False, False])
    assert "0.9 -> 0" in parts.receipts[0].text
    plain = {"optimizer": lambda params: torch.optim.SGD(params, lr=0.1)}
    assert option(applied("more_momentum", **plain), "momentum") == [0.9]
    for name in ("lower_beta2", "adam_eps", "smaller_eps", "amsgrad", "less_momentum"):
        with pytest.raises(Inapplicable):
            applied(name, **plain)


def test_every_parameter_joins_the_largest_group(applied, steps):
    parts = applied("every_parameter", optimizer=lambda params: torch.optim.SGD(list(params)[4:], lr=0.1))
    assert {id(p) for p in parts.parameters} == {id(p) for p in parts.model.parameters()}
    assert "0.weight, 0.bias, 1.weight, 1.bias" in parts.receipts[0].text
    before = parts.model[0].weight.detach().clone()
    steps(parts)
    assert not torch.equal(before, parts.model[0].weight)
    frozen = model()
    frozen[0].requires_grad_(False)
    with pytest.raises(Inapplicable, match="every parameter that takes a gradient"):
        applied("every_parameter", model=lambda: frozen, optimizer=lambda params: torch.optim.SGD(
            [p for p in params if p.requires_grad], lr=0.1))  # fmt: skip


def rate_of(parts, parameter):
    return next(g["lr"] for g in parts.optimizer.param_groups if any(p is parameter for p in g["params"]))


def test_rates_are_spread_over_layers_and_groups_stay_apart(applied):
    parts = applied("rate_by_width", optimizer=two_groups)
    first, norm, last = parts.model[0], parts.model[1], parts.model[3]
    assert rate_of(parts, first.weight) == 0.4
    assert rate_of(parts, last.weight) == pytest.approx(0.05)
    assert rate_of(parts, norm.weight) == rate_of(parts, last.bias) == 0.1
    assert option(parts, "weight_decay").count(0.01) == 1
    parts = applied("last_layer_rate", optimizer=two_groups)
    assert rate_of(parts, parts.model[3].weight) == rate_of(parts, parts.model[3].bias) == pytest.approx(0.01)
    assert rate_of(parts, parts.model[1].weight) == 0.1
    with pytest.raises(Inapplicable, match="no layer has more than 128"):
        applied("rate_by_width", optimizer=two_groups, parameters={"rate_by_width__base": 128})


def test_a_scheduler_that_counts_groups_is_not_given_others(applied):
    own = {"schedule": lambda o: LambdaLR(o, [lambda _s: 1.0, lambda _s: 0.5]), "optimizer": two_groups}
    with pytest.raises(Inapplicable, match="does not take the parameter groups"):
        applied("last_layer_rate", **own)
    assert applied("last_layer_rate", "cosine", **own).scheduler is not None


def test_biases_and_norms_are_spared_the_decay(applied):
    decayed = {"optimizer": lambda params: torch.optim.AdamW(params, weight_decay=0.3)}
    parts = applied("decay_matrices_only", **decayed)
    decays = {id(p): g["weight_decay"] for g in parts.optimizer.param_groups for p in g["params"]}
    assert all(decays[id(p)] == (0.3 if p.dim() > 1 else 0.0) for p in parts.model.parameters())
    assert "4 biases and norm parameters" in parts.receipts[0].text
    with pytest.raises(Inapplicable, match="no bias"):
        applied("decay_matrices_only")


def test_the_range_test_finds_a_rate_leaves_no_trace_and_is_counted(applied, steps):
    slow = {"optimizer": lambda params: torch.optim.SGD(params, lr=1e-6), "labels": torch.arange(40) % 2}
    baseline, parts = applied(**slow), applied("range_test", **slow)
    assert 1e-3 < option(parts, "lr")[0] < 3
    assert 30 < parts.rehearsed <= 100
    assert not parts.optimizer.state
    for mine, theirs in zip(parts.model.parameters(), baseline.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)
        assert mine.grad is None
    assert option(applied("range_test", **slow), "lr") == option(parts, "lr"), "the same run, the same rate"
    with pytest.raises(Inapplicable, match="no learning rate"):
        applied("range_test", model=flat)


def flat() -> nn.Module:
    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = model()

        def forward(self, inputs):
            return 0.0 * self.net(inputs)

    return Flat()


def rates(parts, count):
    seen = []
    for _ in range(count):
        seen.append(parts.optimizer.param_groups[0]["lr"])
        parts.optimizer.step()
        parts.scheduler.step()
    return seen


def test_schedules_follow_their_formulas(applied):
    own = {"optimizer": lambda params: torch.optim.SGD(params, lr=1.0), "schedule": lambda o: StepLR(o, 1)}
    seen = rates(applied("exponential", **own), 40)
    assert [seen[0], seen[20]] == pytest.approx([1.0, 0.1])
    assert rates(applied("polynomial", **own), 21)[20] == pytest.approx(0.5)
    seen = rates(applied("one_cycle", **own, parameters={"one_cycle__peak": 2.0}), 40)
    assert seen[0] == pytest.approx(2.0 / 25)
    assert max(seen) == pytest.approx(2.0)
    assert seen[-1] < 1e-3
    parts = applied("constant", **own)
    assert parts.scheduler is None
    assert "in place of the training's own schedule (StepLR)" in parts.receipts[0].text
    with pytest.raises(Inapplicable, match="constant already"):
        applied("constant")


RARE = torch.tensor([0] * 24 + [1] * 12 + [2] * 4)
SCORES = 3 * torch.randn(40, 3, generator=torch.Generator().manual_seed(0))


def test_class_weights_by_effective_number_lie_between_none_and_inverse(applied):
    weights = applied("effective_number_weights", labels=RARE).criterion.loss.weight
    effective = [(1 - 0.99) / (1 - 0.99**count) for count in (24, 12, 4)]
    assert weights.tolist() == pytest.approx([3 * weight / sum(effective) for weight in effective], rel=1e-4)
    assert 1 < weights[2] / weights[0] < 6


def test_logits_are_adjusted_by_the_shares_of_the_classes(applied):
    criterion = applied("logit_adjustment", labels=RARE).criterion
    shares = (torch.tensor([24.0, 12, 4]) / 40).log()
    assert torch.allclose(criterion(SCORES, RARE), F.cross_entropy(SCORES + shares, RARE))
    for name in ("effective_number_weights", "logit_adjustment"):
        with pytest.raises(Inapplicable, match="balanced"):
            applied(name)
        with pytest.raises(Inapplicable, match="by a sampler already"):
            applied("balanced_sampler", name, labels=RARE)


def test_a_focal_loss_weighs_by_what_is_missing(applied):
    p = SCORES.softmax(1).gather(1, RARE[:, None])[:, 0]
    expected = ((1 - p) ** 2 * -p.log()).mean()
    for loss in (nn.CrossEntropyLoss(), F.cross_entropy):
        criterion = applied("focal_loss", labels=RARE, loss=loss).criterion
        assert type(criterion.loss) is Focal
        assert torch.allclose(criterion(SCORES, RARE), expected)
    ignored = RARE.clone()
    ignored[:30] = -100
    assert float(criterion(SCORES, ignored)) == pytest.approx(float(((1 - p) ** 2 * -p.log())[30:].mean()), rel=1e-5)
    smoothed = applied("focal_loss", "label_smoothing", labels=RARE).criterion.loss
    assert (type(smoothed), smoothed.label_smoothing, smoothed.gamma) == (Focal, 0.1, 2.0)


def test_losses_of_logits_follow_their_formulas(applied):
    plain = F.cross_entropy(SCORES, RARE)
    entropy = torch.distributions.Categorical(logits=SCORES).entropy().mean()
    assert torch.allclose(applied("confidence_penalty").criterion(SCORES, RARE), plain - 0.1 * entropy)
    z = SCORES.exp().sum(1).log().square().mean()
    assert torch.allclose(applied("z_loss").criterion(SCORES, RARE), plain + 1e-3 * z)
    unit = SCORES / SCORES.norm(dim=1, keepdim=True)
    assert torch.allclose(applied("logit_norm").criterion(SCORES, RARE), F.cross_entropy(10 * unit, RARE))
    s = torch.where(SCORES >= 0, SCORES + 1, 1 / (1 - SCORES))
    expected = -(s / s.sum(1, keepdim=True)).log().gather(1, RARE[:, None]).mean()
    assert torch.allclose(applied("stable_max").criterion(SCORES, RARE), expected)
    sure = torch.tensor([[300.0, 0.0, 0.0]], requires_grad=True)
    applied("stable_max").criterion(sure, torch.tensor([0])).backward()
    assert float(sure.grad.abs().max()) > 1e-6, "the gradient does not vanish where the softmax is 1"


def test_a_loss_that_another_remedy_brought_is_not_exchanged_again(applied):
    with pytest.raises(Inapplicable, match="would be lost"):
        applied("generalised_cross_entropy", "focal_loss", loss=F.cross_entropy)


@pytest.mark.parametrize("name", ["z_loss", "logit_norm", "confidence_penalty", "focal_loss"])
def test_what_reads_no_logits_is_left_alone(name, applied, training_of, built):
    for problem in ("regression", "binary", "mlp"):
        with pytest.raises(Inapplicable, match=r"logits|several classes"):
            built(training_of(problem), name)
    if name != "focal_loss":
        assert len(built(training_of("mlp"), "fused_cross_entropy", name).receipts) == 2


def test_the_steps_of_stable_adamw_and_lion_follow_the_papers() -> None:
    weight = nn.Parameter(torch.tensor([1.0, -1.0]))
    lion = Lion([weight], lr=0.1)
    weight.grad = torch.tensor([5.0, -1e-4])
    lion.step()
    assert weight.tolist() == pytest.approx([0.9, -0.9])
    weight = nn.Parameter(torch.tensor([1.0]))
    stable = StableAdamW([weight], lr=0.1, betas=(0.0, 0.99))
    for _ in range(100):
        weight.grad = torch.tensor([0.01])
        stable.step()
    before = float(weight.detach())
    weight.grad = torch.tensor([10.0])
    stable.step()
    second = (0.99 - 0.99**101) / (1 - 0.99**101)
    moment = second * 0.01**2 + (1 - second) * 100
    excess = math.sqrt(100 / moment)
    assert before - float(weight.detach()) == pytest.approx(0.1 / excess * 10 / math.sqrt(moment), rel=1e-3)
