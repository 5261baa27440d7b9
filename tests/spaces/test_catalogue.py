"""Every remedy of the catalogue, on trainings of every kind. The list is the catalogue: a new remedy is tested too."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from remedy.spaces.calls import trace
from remedy.spaces.catalogue import REMEDIES
from remedy.spaces.parts import Parts
from remedy.spaces.remedy import Inapplicable
from remedy.spaces.slot import Slot
from remedy.spaces.surgery import NORMS, layers

MODEL = {Slot.WIDTH, Slot.DEPTH, Slot.RESIDUAL, Slot.ACTIVATION, Slot.NORMALISATION, Slot.DROPOUT, Slot.INITIALISATION}
# What of a run each slot may change; everything else has to stay what it is in the baseline.
MAY_CHANGE = {
    **{slot: {"structure", "forward", "weights"} for slot in MODEL},
    Slot.INPUTS: {"inputs", "forward"},
    Slot.TARGETS: {"forward", "read", "turn"},
    Slot.SAMPLING: {"sampler"},
    Slot.BATCH_SIZE: {"batch_size", "steps", "schedule"},  # the budget stays, and the schedule over it
    Slot.BUDGET: {"steps", "schedule"},  # the training's own schedule follows
    Slot.PRECISION: {"precision", "weights", "forward"},
    Slot.OBJECTIVE: {"forward", "loss", "read"},
    Slot.CLASS_WEIGHT: {"loss"},
    Slot.LABEL_SMOOTHING: {"loss"},
    Slot.LOGITS: {"read", "loss"},
    Slot.OPTIMIZER: {"optimizer"},
    Slot.LEARNING_RATE: {"optimizer"},
    Slot.WEIGHT_DECAY: {"optimizer"},
    Slot.SCHEDULE: {"schedule", "optimizer"},  # a warm-up begins by lowering the learning rate
    Slot.WEIGHT_CONSTRAINT: {"constraint"},
    Slot.GRADIENT: {"gradient"},
    Slot.AVERAGING: {"averaging"},
    Slot.GUARD: {"guard"},
}


def look(parts: Parts) -> dict[str, Any]:
    model, sampler = parts.model, parts.sampler
    hooks = [
        (path, len(module._forward_hooks), len(module._forward_pre_hooks), "forward" in module.__dict__)
        for path, module in model.named_modules()
    ]
    groups = [{key: str(value) for key, value in g.items() if key != "params"} for g in parts.optimizer.param_groups]
    loss = parts.criterion.loss
    return {
        "structure": [
            (path, type(m), m.extra_repr(), getattr(m, "norm_first", "")) for path, m in model.named_modules()
        ],
        "forward": hooks,
        "weights": [p.detach().clone() for p in model.parameters()],
        "inputs": parts.inputs is None,
        "sampler": type(sampler),
        "loss": vars(loss) if isinstance(loss, nn.Module) else loss.__class__.__name__,
        "read": type(parts.criterion.read).__name__ + getattr(parts.criterion.read, "__name__", ""),
        "optimizer": (type(parts.optimizer), groups),
        "schedule": (type(parts.scheduler), parts.schedule.interval, getattr(parts.scheduler, "patience", None)),
        "constraint": type(parts.weight_constraint),
        "gradient": type(parts.gradient),
        "averaging": type(parts.averaging),
        "guard": type(parts.guard),
        "turn": str(parts.criterion.turn),
        "precision": parts.precision,
        "steps": parts.steps,
        "batch_size": parts.value(Slot.BATCH_SIZE),
    }


def same(a: Any, b: Any) -> bool:
    if isinstance(a, list) and a and isinstance(a[0], torch.Tensor):
        return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    return str(a) == str(b)


def test_each_remedy_trains_or_says_why_not(any_remedy, problem, training_of, built, steps):
    training = training_of(problem)
    baseline = built(training)
    try:
        parts = built(training, any_remedy)
    except Inapplicable as reason:
        if len(str(reason)) < 10:
            pytest.fail(f"too short a reason: {reason}")
        return
    (receipt,) = parts.receipts
    assert receipt.remedy == any_remedy
    assert len(receipt.text) > 10
    before, after = look(baseline), look(parts)
    changed = {key for key in before if not same(before[key], after[key])}
    slot = receipt.slot
    assert changed <= MAY_CHANGE[slot], changed - MAY_CHANGE[slot]
    assert changed, "a remedy that changes nothing has to be inapplicable"
    assert {id(p) for p in parts.parameters} == {id(p) for p in parts.model.parameters()}
    losses = steps(parts)
    if bool(torch.isfinite(torch.tensor(steps(baseline))).all()):
        assert all(bool(torch.isfinite(t).all()) for t in [torch.tensor(losses), *parts.model.parameters()])


@pytest.mark.parametrize("name", [r.name for r in REMEDIES if r.slot is Slot.NORMALISATION])
def test_normalisation_never_lands_on_the_output_layer(name, problem, training_of, built):
    training = training_of(problem)
    plain = built(training)
    output = layers(plain.model, plain.facts.inputs)[-1]
    try:
        parts = built(training, name)
    except Inapplicable:
        return
    now = parts.model.get_submodule(output.path)
    assert type(now) is type(output.module)
    assert not list(now.children())
    assert not now._forward_hooks
    seen = trace(parts.model, parts.facts.inputs, training=True)
    behind = seen.modules[[path for path, _ in seen.modules].index(output.path) :]
    assert not [path for path, _ in behind if isinstance(parts.model.get_submodule(path), NORMS)]


def _by_dim(parameters: Any) -> torch.optim.Optimizer:
    own = list(parameters)
    matrices, rest = [p for p in own if p.dim() > 1], [p for p in own if p.dim() < 2]
    groups = [{"params": matrices, "lr": 0.04, "weight_decay": 0.01}, {"params": rest, "lr": 0.01}]
    return torch.optim.SGD(groups, momentum=0.9, lr=0.1)


def test_several_parameter_groups_are_kept(any_remedy, training_of, built, steps):
    inputs = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    data = TensorDataset(inputs, (torch.arange(64) % 8 > 5).long())
    model = lambda: nn.Sequential(  # noqa: E731
        nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.1), nn.Linear(8, 2)
    )
    training = training_of(model=model, data=lambda: (data, data), optimizer=_by_dim)
    try:
        parts = built(training, any_remedy)
    except Inapplicable:
        return
    groups = parts.optimizer.param_groups
    assert len(groups) >= 2
    for group in groups:
        assert len({p.dim() > 1 for p in group["params"]}) == 1, "a group holds what the user gave two options"
    if not {"optimizer"} & MAY_CHANGE[parts.receipts[0].slot]:
        assert [(g["lr"], g["weight_decay"], g["momentum"]) for g in groups] == [(0.04, 0.01, 0.9), (0.01, 0, 0.9)]
    steps(parts)


def test_each_remedy_applies_somewhere(any_remedy, problems, training_of, built, steps):
    reasons = []
    for problem in problems:
        try:
            steps(built(training_of(problem), any_remedy))
        except Inapplicable as reason:
            reasons.append(str(reason))
        else:
            return
    pytest.fail(f"{any_remedy} applies to no problem: {reasons}")


def test_the_names_are_unique():
    assert len({remedy.name for remedy in REMEDIES}) == len(REMEDIES)


def test_each_remedy_says_what_it_treats_and_where_it_is_from(any_remedy):
    remedy = {r.name: r for r in REMEDIES}[any_remedy]
    assert remedy.treats
    assert len(set(remedy.treats)) == len(remedy.treats)
    assert remedy.summary.endswith(".")
    assert "\n" not in remedy.summary


def test_a_remedy_gives_the_same_run_twice(any_remedy, training_of, built, steps):
    try:
        first = built(training_of("mlp"), any_remedy)
    except Inapplicable:
        return
    losses = steps(first)
    assert losses == steps(built(training_of("mlp"), any_remedy))
