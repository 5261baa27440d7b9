"""What wears on a run, in trainings that truly show it; and reading it changes no number."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import SequentialSampler, TensorDataset

import remedy
from remedy.spaces.catalogue import REMEDIES
from remedy.spaces.combination import Combination
from remedy.spaces.parts import Parts
from remedy.spaces.process import reset_process
from remedy.spaces.space import Space
from remedy.spaces.symptom import Symptom
from remedy.spaces.verdict import Verdict
from remedy.workers.checkpoint import Checkpoint
from remedy.workers.detectors.catalogue import detectors
from remedy.workers.loop import train
from remedy.workers.observation import Observation, Strain
from remedy.workers.run import setting_of
from remedy.workers.strain import Gauge, _Attention, strain

WORN = (Symptom.DRIFTING_LOGITS, Symptom.STALE_MOMENTS, Symptom.LARGE_ATTENTION, Symptom.LOSS_SCALE_COLLAPSE)
SPACE = Space.of(REMEDIES)
SCALED = {"precision": "loss_scaling"}


def split(inputs: torch.Tensor, targets: torch.Tensor) -> tuple[TensorDataset, TensorDataset]:
    return TensorDataset(inputs[:-128], targets[:-128]), TensorDataset(inputs[-128:], targets[-128:])


def drawn(count: int, classes: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    """Clouds of eight numbers, one a class."""
    generator = torch.Generator().manual_seed(0)
    targets = torch.randint(0, classes, (count,), generator=generator)
    inputs = 0.5 * torch.randn(count, 8, generator=generator)
    inputs[range(count), targets % 8] += 2
    return inputs, targets


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 4))


def plan(**more: Any) -> remedy.Training:
    return remedy.Training(**{
        "model": net, "data": lambda: split(*drawn(640)), "loss": nn.CrossEntropyLoss(), "batch_size": 32,
        "optimizer": lambda p: torch.optim.Adam(p, lr=0.01), "steps": 200, "metric": "accuracy", "goal": 0.9, **more,
    })  # fmt: skip


def made(training: remedy.Training, values: dict[str, Any] | None = None, seed: int = 1) -> Parts:
    reset_process()
    return SPACE.apply(training, Combination.of(values or {}), seed=seed, data_seed=0)


def run(
    training: remedy.Training, values: dict[str, Any] | None = None, seed: int = 1
) -> tuple[list[Observation], dict[Symptom, Verdict]]:
    """Train to the end; return what was seen, and of what wears on it the notes."""
    parts = made(training, values, seed)
    watching = detectors(setting_of(training, parts))
    seen, notes = [], {}
    for observation in train(training, parts):
        seen.append(observation)
        for verdict in (detector.observe(observation) for detector in watching):
            if verdict is not None and verdict.symptom in WORN:
                assert not verdict.stops
                assert verdict.symptom not in notes, "a note is given once"
                notes[verdict.symptom] = verdict
    return seen, notes


# ---------------------------------------------------------------- trainings that show it


def rare() -> remedy.Training:
    """A thousand rare classes under an Adam that forgets them between two visits: each score sinks until its next."""

    def data() -> tuple[TensorDataset, TensorDataset]:
        generator = torch.Generator().manual_seed(0)
        inputs = 0.01 * torch.randn(2048, 8, generator=generator)
        return split(inputs, torch.randint(0, 1000, (2048,), generator=generator))

    return plan(
        model=lambda: nn.Linear(8, 1000), data=data, batch_size=4, steps=300, goal=0.5,
        optimizer=lambda p: torch.optim.Adam(p, lr=0.3, betas=(0.9, 0.9)),
    )  # fmt: skip


def sorted_classes(beta2: float = 0.999, rate: float = 0.03) -> remedy.Training:
    """Two classes until they are learnt by heart, then four: the moments remember small gradients."""

    def data() -> tuple[TensorDataset, TensorDataset]:
        inputs, targets = drawn(6528)
        order = torch.cat([(targets < 2).nonzero()[:, 0], (targets >= 2).nonzero()[:, 0]])
        train_set = TensorDataset(inputs[order[:-128]], targets[order[:-128]])
        shown = torch.randperm(len(order), generator=torch.Generator().manual_seed(1))[:128]
        return train_set, TensorDataset(inputs[shown], targets[shown])

    return plan(
        data=data, sampler=SequentialSampler, batch_size=16, steps=400,
        optimizer=lambda p: torch.optim.Adam(p, lr=rate, betas=(0.9, beta2)),
    )  # fmt: skip


class Attending(nn.Module):
    """Two encoder layers of torch's over eight positions."""

    def __init__(self, activation: str = "relu") -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True, activation=activation)
        self.embed, self.head = nn.Linear(4, 16), nn.Linear(16, 4)
        self.body = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(self.embed(inputs.reshape(len(inputs), -1, 4))).mean(1))  # type: ignore[no-any-return]


class Written(nn.Module):
    """Attention written out."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.head = nn.Linear(4, 16), nn.Linear(4, 16), nn.Linear(4, 4)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        rows = inputs.reshape(len(inputs), -1, 4)
        weights = (self.query(rows) @ self.key(rows).transpose(1, 2) / 4).softmax(-1)
        return self.head((weights @ rows).mean(1))  # type: ignore[no-any-return]


def attending(rate: float, model: Callable[[], nn.Module] = Attending) -> remedy.Training:
    def data() -> tuple[TensorDataset, TensorDataset]:
        inputs = torch.randn(640, 32, generator=torch.Generator().manual_seed(0))
        return split(inputs, inputs.reshape(-1, 8, 4)[:, :, 0].argmax(1) % 4)

    return plan(model=model, data=data, optimizer=lambda p: torch.optim.Adam(p, lr=rate), steps=60)


class Loud(nn.Module):
    """A net whose scores are too large for float16."""

    def __init__(self) -> None:
        super().__init__()
        self.body = net()

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return 30_000 * self.body(inputs)  # type: ignore[no-any-return]


def halved(model: Callable[[], nn.Module] = net) -> remedy.Training:
    return plan(model=model, precision="float16", optimizer=lambda p: torch.optim.SGD(p, lr=1e-2))


SICK = {
    Symptom.DRIFTING_LOGITS: (rare, {}),
    Symptom.STALE_MOMENTS: (sorted_classes, {}),
    Symptom.LARGE_ATTENTION: (lambda: attending(0.3), {}),
    Symptom.LOSS_SCALE_COLLAPSE: (lambda: halved(Loud), SCALED),
}
HEALTHY = {
    "plain": (plan, {}),
    "float16": (halved, SCALED),
    "a transformer": (lambda: attending(3e-3), {}),
    "attention written out": (lambda: attending(3e-3, Written), {}),
    "rare classes, held together by the z-loss": (rare, {"logits": "z_loss", "z_loss.weight": 0.1}),
    "rare classes under decay": (rare, {"weight_decay": "weight_decay_on"}),
    "RAdam": (lambda: plan(optimizer=lambda p: torch.optim.RAdam(p, lr=0.01)), {}),
}


@pytest.mark.parametrize("symptom", WORN)
@pytest.mark.parametrize("seed", [1, 2])
def test_a_training_that_shows_it_is_noted(symptom, seed) -> None:
    build, values = SICK[symptom]
    _, notes = run(build(), values, seed)
    assert symptom in notes
    assert notes[symptom].onset_step <= notes[symptom].step


@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_training_is_not(name) -> None:
    build, values = HEALTHY[name]
    assert run(build(), values)[1] == {}


def test_what_there_is_not_is_not_measured() -> None:
    seen, _ = run(plan(optimizer=lambda p: torch.optim.SGD(p, lr=0.1), loss=F.cross_entropy))
    close = [o for o in seen if o.metric is not None or o.step <= 10]
    assert all(math.isfinite(o.strain.offset) and math.isfinite(o.strain.offset_ratio) for o in close)
    # Where nothing looks wrong, they are not read between validations.
    assert any(math.isnan(o.strain.offset) and math.isnan(o.strain.offset_ratio) for o in seen)
    assert all(math.isnan(x) for o in seen for x in (o.strain.staleness, o.strain.attention, o.strain.loss_scale))
    real = plan(
        loss=nn.MSELoss(), metric="r2", model=lambda: nn.Linear(8, 1),
        data=lambda: split(drawn(640)[0], drawn(640)[0][:, :1]),
    )  # fmt: skip
    seen = run(real)[0]
    assert all(math.isnan(o.strain.offset) for o in seen)
    assert all(math.isfinite(o.strain.staleness) for o in seen if o.metric is not None)


# ---------------------------------------------------------------- the figures are right


@pytest.mark.parametrize(
    ("kind", "amsgrad"),
    [(torch.optim.Adam, False), (torch.optim.Adam, True), (torch.optim.AdamW, True), (torch.optim.NAdam, False),
     (torch.optim.RAdam, False)],
)  # fmt: skip
def test_staleness_is_that_of_the_definition(kind, amsgrad) -> None:
    more = {"amsgrad": True} if amsgrad else {}
    parts = made(plan(optimizer=lambda p: kind(p, lr=0.01, betas=(0.9, 0.95), **more)))
    gauge, inputs = Gauge(parts), drawn(64)[0]
    for step in range(1, 9):
        parts.optimizer.zero_grad()
        parts.model((1 + step**2) * inputs).square().mean().backward()
        parts.optimizer.step()
        expected = []
        for p in (p for p in parts.model.parameters() if p.dim() > 1):
            state = parts.optimizer.state[p]
            second = state["max_exp_avg_sq" if amsgrad else "exp_avg_sq"] / (1 - 0.95**step)
            expected.append(float((p.grad**2 / second.clamp(min=1e-16)).mean().sqrt()))
        assert float(gauge.figures(None)[2]) == pytest.approx(max(expected), rel=1e-4)
    assert max(expected) > 1


def test_the_offset_is_that_of_the_definition() -> None:
    gauge = Gauge(made(plan()))
    scores = torch.tensor([[10.0, 11.0, 12.0, 13.0], [-20.0, -20.0, -22.0, -22.0]])
    worn = strain([float(figure) for figure in gauge.figures(scores)])
    assert (worn.offset, worn.offset_ratio) == pytest.approx((16.25, 16.25 / float(scores.std(1).mean())))
    assert strain([3.0, 0.0, 1.0, 1.0]).offset_ratio == math.inf
    assert all(math.isnan(x) for odd in (None, scores[:, :1], scores[0], [scores]) for x in gauge.figures(odd)[:2])


E, H, N = 16, 4, 6
LAYER: dict[str, Any] = {"d_model": E, "nhead": H, "dim_feedforward": 32, "dropout": 0.0, "batch_first": True}
CAUSAL = nn.Transformer.generate_square_subsequent_mask(N)
FILLED = torch.zeros(3, N, dtype=torch.bool)
FILLED[0, 3:] = True


def products(attention: nn.MultiheadAttention, x: torch.Tensor) -> torch.Tensor:
    projected = F.linear(x, attention.in_proj_weight, attention.in_proj_bias)
    query, key = (part.unflatten(-1, (H, -1)).transpose(1, 2) for part in projected.split(E, dim=-1)[:2])
    return (query @ key.transpose(2, 3) / math.sqrt(E // H)).abs().detach()


def seen_by(call: Callable[[], Any]) -> float:
    watching = _Attention()
    with torch.no_grad():
        plain = call()
        with watching:
            watched = call()
    assert torch.equal(plain[0], watched[0])
    return math.nan if watching.largest is None else float(watching.largest)


@pytest.fixture
def rows() -> torch.Tensor:
    rows = torch.randn(3, N, E, generator=torch.Generator().manual_seed(3))
    rows[0, 4] *= 20  # filled up, and later than what the first positions may see
    return rows


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("first", [False, True])
def test_attention_of_torchs_layers_is_seen(rows, first) -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(**LAYER, norm_first=first).eval()
    sizes = products(layer.self_attn, layer.norm1(rows) if first else rows)
    assert seen_by(lambda: layer(rows)) == pytest.approx(float(sizes.max()), rel=1e-5)
    assert seen_by(lambda: layer(rows, src_mask=CAUSAL)) == pytest.approx(float(sizes.tril().max()), rel=1e-5)
    seen = sizes.masked_fill(FILLED[:, None, None, :], 0)
    assert seen_by(lambda: layer(rows, src_key_padding_mask=FILLED)) == pytest.approx(float(seen.max()), rel=1e-5)
    if not first:  # those torch never nests
        nested = nn.TransformerEncoder(layer, 1).eval()
        short = seen.masked_fill(FILLED[:, None, :, None], 0)
        found = seen_by(lambda: nested(rows, src_key_padding_mask=FILLED))
        assert found == pytest.approx(float(short.max()), rel=1e-5)
    assert seen_by(lambda: layer.self_attn(rows, rows, rows)) == pytest.approx(
        float(products(layer.self_attn, rows).max()), rel=1e-5
    )


def test_attention_that_is_called_or_written_is_seen() -> None:
    torch.manual_seed(0)
    query, key = torch.randn(2, 4, N, 8), torch.randn(2, 4, N, 8)
    key[:, :, -1] *= 10
    sizes = query @ key.transpose(2, 3) / math.sqrt(8)
    attend, below = F.scaled_dot_product_attention, torch.ones(N, N, dtype=torch.bool).tril()
    cases: list[tuple[Callable[[], torch.Tensor], torch.Tensor]] = [
        (lambda: attend(query, key, key), sizes.abs()),
        (lambda: attend(query, key, key, is_causal=True), sizes.abs().tril()),
        (lambda: attend(query, key, key, attn_mask=below), sizes.abs().tril()),
        (lambda: attend(query, key, key, attn_mask=CAUSAL), sizes.abs().tril()),
        (lambda: attend(query, key, key, scale=0.1), 0.1 * math.sqrt(8) * sizes.abs()),
        (lambda: attend(query, key[:, ::2], key[:, ::2], enable_gqa=True),
         (query @ key[:, ::2].repeat_interleave(2, 1).transpose(2, 3) / math.sqrt(8)).abs()),
        (lambda: sizes.masked_fill(~below, -1e9).softmax(-1), sizes.masked_fill(~below, 0)),
        (lambda: sizes[0].softmax(-1), sizes[0]),
    ]  # fmt: skip
    for call, expected in cases:
        assert seen_by(call) == pytest.approx(float(expected.max()), rel=1e-5)
    assert math.isnan(seen_by(lambda: torch.randn(4, 10, generator=torch.Generator().manual_seed(0)).softmax(1)))


# ---------------------------------------------------------------- reading changes nothing


class Restless(Attending):
    """Draws while it is judged, and counts its passes."""

    def __init__(self) -> None:
        super().__init__()
        self.passes: list[int] = []

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        if not self.training:
            self.passes.append(len(inputs))
        return super().forward(inputs) + (0 if self.training else torch.rand(1))  # type: ignore[no-any-return]


class Compiled(Attending):
    """Attends in code that refuses to be run under a watch."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        if torch._C._len_torch_dispatch_stack() > 0:
            raise RuntimeError("this is not supported")
        return super().forward(inputs)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("model", [Attending, lambda: Attending("gelu"), Restless, Written, net, Compiled])
def test_no_number_of_a_run_is_changed(model, precision, monkeypatch) -> None:
    training = dataclasses.replace(attending(3e-3, model), precision=precision)
    if model is net:
        training = plan(precision=precision, steps=60)
    watched, _ = run(training)
    monkeypatch.setattr(Gauge, "attention", lambda _: math.nan)
    monkeypatch.setattr(Gauge, "figures", lambda *_, **__: list(torch.full((4, 1), math.nan)))
    plain, _ = run(training)
    bare = [dataclasses.replace(seen, strain=Strain()) for seen in watched]
    assert repr(bare) == repr(plain)
    attends = [math.isfinite(o.strain.attention) for o in watched if o.step % 6 == 0]
    assert len(attends) == 10
    assert all(attends) if model not in (net, Compiled) else not any(attends)


def test_a_model_without_attention_is_asked_once() -> None:
    class Counted(Restless):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            self.passes.append(len(inputs))
            return self.head(self.embed(inputs.reshape(len(inputs), -1, 4)).mean(1))  # type: ignore[no-any-return]

    training = attending(3e-3, Counted)
    parts = made(training)
    assert sum(o.metric is not None for o in train(training, parts)) > 20
    assert parts.model.passes.count(8) == 1
    attentive = attending(3e-3, Restless)
    parts = made(attentive)
    assert sum(math.isfinite(o.strain.attention) for o in train(attentive, parts)) == 10
    assert parts.model.passes.count(8) == 10


def test_a_checkpoint_from_before_is_read(tmp_path: Path) -> None:
    training = plan(steps=40)
    parts = made(training)
    kept = Checkpoint(tmp_path / "run.pt", seconds=0)
    for seen in train(training, parts, kept):
        kept.seen.append(seen)
    state = torch.load(kept.path, weights_only=True)
    assert state["seen"][0]["strain"]["offset"] == kept.seen[0].strain.offset
    for raw in state["seen"]:
        del raw["strain"]
    torch.save(state, kept.path)
    again = Checkpoint.open(kept.path)
    assert 0 < again.step < 40
    assert repr(again.seen) == repr(
        [dataclasses.replace(seen, strain=Strain()) for seen in kept.seen[: len(again.seen)]]
    )
