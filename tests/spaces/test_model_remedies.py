"""Capacity, activations, norms and initial weights: what is put in is where it belongs, and nowhere else."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import parametrize
from torch.utils.data import DataLoader, TensorDataset

from remedy.spaces.catalogue import REMEDIES
from remedy.spaces.error import InputError
from remedy.spaces.given import Given
from remedy.spaces.remedy import Inapplicable


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3))


def conv() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 6), nn.ReLU(),
        nn.Linear(6, 3),
    )  # fmt: skip


class Nested(nn.Module):
    """A shared layer, calls beside modules, and a stack inside."""

    def __init__(self) -> None:
        super().__init__()
        self.shared, self.inner, self.head = nn.Linear(6, 6), mlp()[:4], nn.Linear(6, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        inputs = F.relu(self.shared(torch.tanh(self.shared(inputs))))
        return self.head(self.inner(inputs).relu())


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.hidden, self.head = nn.LSTM(6, 8, batch_first=True), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(F.relu(self.hidden(self.rnn(inputs)[0][:, -1])))


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(9, 8)
        self.body = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        words = inputs.abs().long().clamp_max(8)
        return self.head(self.body(self.embed(words)).mean(1))


def test_stacks_become_wider_and_deeper(applied_to):
    parts = applied_to(conv, "wider", shape=(1, 8, 8), wider__factor=2.0)
    assert [m.out_channels for m in parts.model if isinstance(m, nn.Conv2d)] == [8, 16]
    assert (parts.model[5].in_features, parts.model[5].out_features, parts.model[7].out_features) == (256, 12, 3)
    assert "0 4 -> 8" in parts.receipts[0].text
    assert parts.model(torch.randn(2, 1, 8, 8)).shape == (2, 3)
    parts = applied_to(mlp, "deeper", deeper__factor=2.0)
    assert sum(isinstance(m, nn.Linear) for m in parts.model.modules()) == 5
    assert sum(isinstance(m, nn.ReLU) for m in parts.model.modules()) == 4
    assert "2 of width 6 behind 3" in parts.receipts[0].text
    nested = applied_to(Nested, "deeper").model
    assert sum(isinstance(m, nn.Linear) for m in nested.modules()) > 4
    knob = lambda width=1.0, depth=1.0: nn.Sequential(  # noqa: E731
        nn.Linear(6, int(4 * width)), *[nn.Linear(int(4 * width), int(4 * width)) for _ in range(int(depth))],
        nn.Linear(int(4 * width), 3),
    )  # fmt: skip
    parts = applied_to(knob, "wider", "deeper", wider__factor=2.0, deeper__factor=3.0)
    assert [m.out_features for m in parts.model] == [8, 8, 8, 8, 3]
    for name in ("wider", "deeper"):
        with pytest.raises(Inapplicable):
            applied_to(Recurrent, name, shape=(5, 6))


def test_rezero_starts_as_the_identity(applied_to):
    parts = applied_to(mlp, "rezero")
    inputs = torch.randn(4, 6)
    assert torch.equal(parts.model(inputs), parts.model[4](inputs))
    scales = [p for name, p in parts.model.named_parameters() if name.endswith("scale")]
    assert len(scales) == 2
    assert {id(p) for p in scales} < {id(p) for p in parts.parameters}
    parts.criterion(parts.model(inputs), torch.zeros(4).long()).backward()
    assert all(float(p.grad) != 0 for p in scales)


def test_learned_slopes_are_trained_wherever_the_activation_stood(applied_to):
    parts = applied_to(Nested, "prelu", prelu__slope=0.3)
    slopes = [p for p in parts.parameters if p.numel() == 1]
    assert len(slopes) == 3, "two modules, and one for all calls"
    parts.criterion(parts.model(torch.randn(8, 6)), torch.zeros(8).long()).backward()
    assert all(float(p.grad) != 0 for p in slopes)
    assert {id(p) for p in slopes} <= {id(p) for p in parts.model.parameters()}
    assert "calls of relu" in parts.receipts[0].text.replace("call(s)", "calls")
    assert len(list(applied_to(mlp, "prelu").model.children())) == 5, "a stack runs nothing more"


def test_selu_brings_what_belongs_to_it(applied_to):
    build = lambda: nn.Sequential(nn.Linear(60, 200), nn.ReLU(), nn.Dropout(0.2), nn.Linear(200, 3))  # noqa: E731
    model = applied_to(build, "selu", shape=(60,)).model
    assert [type(m) for m in model[1:3]] == [nn.SELU, nn.AlphaDropout]
    assert float(model[0].weight.detach().std()) == pytest.approx(60**-0.5, rel=0.05)
    with pytest.raises(Inapplicable, match="does not go with norm layers: 1"):
        applied_to(lambda: nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3)), "selu")
    for norm in ("batch_norm_on", "layer_norm_on", "rms_norm_on"):
        with pytest.raises(Inapplicable, match="SELU"):
            applied_to(mlp, "selu", norm)


@pytest.mark.parametrize("name", ["weight_norm", "spectral_norm", "rms_norm_on"])
@pytest.mark.parametrize(("build", "shape"), [(mlp, (6,)), (conv, (1, 8, 8)), (Nested, (6,)), (Recurrent, (5, 6))])
def test_norms_land_on_hidden_layers_alone(name, build, shape, applied_to, steps):
    parts = applied_to(build, name, shape=shape)
    head = parts.model.head if hasattr(parts.model, "head") else list(parts.model.children())[-1]
    assert not parametrize.is_parametrized(head)
    assert not hasattr(head, "remedy_after")
    steps(parts, 4)
    again = applied_to(build, shape=shape).model
    assert sum(p.numel() for p in again.parameters()) <= sum(p.numel() for p in parts.parameters)


def test_parametrised_weights_start_as_they_were_and_take_other_initial_ones(applied_to):
    plain = applied_to(mlp).model
    normed = applied_to(mlp, "weight_norm").model
    inputs = torch.randn(3, 6)
    assert torch.allclose(normed(inputs), plain(inputs), atol=1e-6)
    drawn = applied_to(mlp, "weight_norm", "orthogonal", orthogonal__gain=1.0).model
    weight = drawn[0].weight
    assert torch.allclose(weight @ weight.T, torch.eye(6), atol=1e-5)
    spectral = applied_to(mlp, "spectral_norm").model
    assert float(torch.linalg.matrix_norm(spectral[0].weight.detach(), 2)) == pytest.approx(1, rel=0.2)
    with pytest.raises(Inapplicable, match="parametrised already"):
        applied_to(
            lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(6, 6)), nn.Linear(6, 3)),
            "weight_norm",
        )


def test_transformers_are_normalised_before_their_branches(applied_to, steps):
    parts = applied_to(Encoder, "pre_norm")
    assert parts.model.body.norm_first is True
    parts.model.eval()
    before = parts.model(torch.randn(3, 6) * 3)
    assert before.shape == (3, 3)
    steps(parts, 4)
    parts = applied_to(Encoder, "zero_residual_branches")
    words = torch.randn(3, 6) * 3
    hidden = parts.model.embed(words.abs().long().clamp_max(8))
    norms = parts.model.body
    assert torch.allclose(norms(hidden), norms.norm2(norms.norm1(hidden)), atol=1e-5), "nothing but the norms is left"
    parts = applied_to(Encoder, "embedding_norm")
    rows = parts.model.embed(torch.arange(9))
    assert torch.allclose(rows.std(1, correction=0), torch.ones(9), atol=1e-2)
    assert "1 embedding(s): embed" in parts.receipts[0].text
    for name in ("pre_norm", "zero_residual_branches", "embedding_norm"):
        with pytest.raises(Inapplicable):
            applied_to(mlp, name)


class Doubled(nn.Module):
    """Blocks of every way to write a sum, and sums that are no residual path."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one, self.two, self.three = (nn.Linear(6, 6) for _ in range(4))
        self.norm, self.drop, self.left, self.right = nn.LayerNorm(6), nn.Dropout(0.5), nn.Linear(6, 6), nn.Linear(6, 6)
        self.shared, self.behind, self.head = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.stem(inputs)
        hidden = hidden + self.drop(self.one(torch.relu(hidden)))
        hidden = torch.add(F.dropout(self.norm(self.two(hidden)), 0.1, self.training), hidden)
        branch = self.three(hidden.tanh())
        branch += hidden
        hidden = self.left(branch) + self.right(branch)  # neither is computed from the other
        hidden = hidden + self.shared(hidden)
        hidden = hidden + F.relu(self.behind(hidden))  # at 0 a ReLU passes nothing back
        return self.head(self.shared(hidden))


def test_branches_that_end_in_a_layer_start_as_nothing(applied_to, steps):
    parts = applied_to(Doubled, "zero_residual_branches")
    assert parts.receipts[0].text.endswith("3 layer(s) that end a residual branch set to 0: one, norm, three")
    model = parts.model.eval()
    inputs = torch.randn(5, 6)
    hidden = model.left(model.stem(inputs)) + model.right(model.stem(inputs))
    hidden = hidden + model.shared(hidden)
    expected = model.head(model.shared(hidden + F.relu(model.behind(hidden))))
    assert torch.allclose(model(inputs), expected, atol=1e-6)
    steps(parts, 4)
    assert model.one.weight.detach().abs().sum() > 0, "they are learned"


class BasicBlock(nn.Module):
    """Of torchvision's name, and not of its parts."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.last = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs + self.last(F.relu(self.inner(inputs)))


def test_a_block_of_a_known_name_and_other_parts(applied_to):
    blocks = lambda: nn.Sequential(BasicBlock(), BasicBlock(), nn.Linear(6, 3))  # noqa: E731
    assert "0.last, 1.last" in applied_to(blocks, "zero_residual_branches").receipts[0].text
    with pytest.raises(Inapplicable, match="are computed from others"):
        applied_to(lambda: nn.Sequential(normed(), nn.Linear(6, 3)), "zero_residual_branches")


def normed() -> nn.Module:
    block = BasicBlock()
    nn.utils.parametrizations.weight_norm(block.last)
    return block


def spoiled(change):
    def build():
        model = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.LayerNorm(32), nn.Linear(32, 3))
        with torch.no_grad():
            for parameter in model.parameters():
                change(parameter)
        return model

    return build


@pytest.mark.parametrize("change", [nn.init.zeros_, nn.init.ones_, lambda p: nn.init.normal_(p, std=30)])
def test_spoilt_weights_are_drawn_anew(change, applied_to):
    model = applied_to(spoiled(change), "default_weights").model
    assert 0.05 < float(model[0].weight.detach().std()) < 1
    assert bool((model[2].weight == 1).all()), "norm layers too"
    lecun = applied_to(spoiled(change), "lecun").model
    assert float(lecun[3].weight.detach().std()) == pytest.approx(32**-0.5, rel=0.25)
    small = applied_to(spoiled(change), "truncated_normal").model
    assert 0 < float(small[0].weight.detach().abs().max()) <= 0.04 + 1e-6
    assert bool((small[0].bias == 0).all())


@pytest.mark.parametrize(("build", "shape"), [(mlp, (6,)), (conv, (1, 8, 8)), (Nested, (6,)), (Recurrent, (5, 6))])
def test_lsuv_gives_each_layer_outputs_of_spread_one(build, shape, applied_to):
    parts = applied_to(build, "lsuv", shape=shape)
    seen = {}
    for path, module in parts.model.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d) and path != "shared":  # one that runs twice has two spreads
            module.register_forward_hook(lambda _m, _a, out, path=path: seen.update({path: float(out.detach().std())}))
    parts.model(parts.facts.inputs)
    assert all(spread == pytest.approx(1, abs=0.12) for spread in seen.values()), seen


def test_the_last_bias_starts_from_the_shares_of_the_classes(training_of, built):
    def parts_of(targets, outputs, loss, metric="loss"):
        sets = torch.utils.data.TensorDataset(torch.randn(len(targets), 6), targets)
        model = lambda: nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, outputs))  # noqa: E731
        training = training_of(model=model, data=lambda: (sets, sets), loss=loss, metric=metric, batch_size=8)
        return built(training, "output_prior")

    rare = torch.tensor([0] * 30 + [1] * 9 + [2])
    bias = parts_of(rare, 3, nn.CrossEntropyLoss()).model[2].bias
    assert torch.allclose(bias.softmax(0), torch.tensor([0.75, 0.225, 0.025]), atol=1e-3)
    bits = (rare > 0).float()[:, None]
    assert float(parts_of(bits, 1, nn.BCEWithLogitsLoss()).model[2].bias.detach().sigmoid()) == pytest.approx(0.25)
    assert float(parts_of(50 + bits, 1, nn.MSELoss()).model[2].bias.detach()) == pytest.approx(50.25)
    with pytest.raises(Inapplicable, match="balanced"):
        parts_of(torch.arange(30) % 3, 3, nn.CrossEntropyLoss())


def test_hidden_biases_become_positive_and_the_last_one_stays(applied_to):
    plain, model = applied_to(conv, shape=(1, 8, 8)).model, applied_to(conv, "positive_bias", shape=(1, 8, 8)).model
    assert all(bool((model[place].bias == 0.1).all()) for place in (0, 2, 5))
    assert torch.equal(model[7].bias, plain[7].bias)


def test_frozen_parameters_are_trained(applied_to, steps):
    def build():
        model = mlp()
        model[0].requires_grad_(False)
        return model

    parts = applied_to(build, "unfreeze")
    before = parts.model[0].weight.clone()
    steps(parts, 3)
    assert not torch.equal(parts.model[0].weight, before)
    assert "2 frozen parameter(s) are trained: 0.weight, 0.bias" in parts.receipts[0].text
    with pytest.raises(Inapplicable, match="trained already"):
        applied_to(mlp, "unfreeze")


def test_dropout_becomes_lower(applied_to):
    build = lambda: nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Dropout(0.8), nn.Linear(6, 3))  # noqa: E731
    parts = applied_to(build, "dropout_lower", dropout_lower__factor=0.5)
    assert parts.model[2].p == 0.4
    assert "2 (p=0.8 -> 0.4)" in parts.receipts[0].text
    with pytest.raises(Inapplicable, match="no dropout"):
        applied_to(mlp, "dropout_lower")


@pytest.fixture(scope="module")
def process_group():
    """A group of this process alone: enough for a model to be wrapped for real."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def compiled_in_place(model: nn.Module) -> nn.Module:
    model.compile(backend="eager")
    return model


def with_a_part(wrap):
    def build(model: nn.Module) -> nn.Module:
        model[2] = wrap(model[2])
        return model

    return build


def fsdp(model: nn.Module) -> nn.Module:
    return FullyShardedDataParallel(model, device_id=torch.device("cpu"))


def sharded(model: nn.Module) -> nn.Module:
    return fully_shard(model, mesh=init_device_mesh("cpu", (1,)))


WRAPPED = {
    "DataParallel": (nn.DataParallel, "a DataParallel"),
    "DDP": (DistributedDataParallel, "a DistributedDataParallel"),
    "FSDP": (fsdp, "a FullyShardedDataParallel"),
    "fully_shard": (sharded, "a FSDPSequential"),
    "torch.compile": (lambda m: torch.compile(m, backend="eager"), "a OptimizedModule"),
    "compile()": (compiled_in_place, r"a Sequential after its compile\(\)"),
    "script": (torch.jit.script, "a RecursiveScriptModule"),
    "a part in DDP": (with_a_part(DistributedDataParallel), "a Sequential whose part '2' is a DistributedDataParallel"),
    "a part sharded": (with_a_part(sharded), "a Sequential whose part '2' is a FSDPLinear"),
}


@pytest.mark.parametrize("how", WRAPPED)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_a_wrapped_model_is_refused_in_one_sentence_at_both_doors(how, applied_to, process_group):
    wrap, said = WRAPPED[how]
    with pytest.raises(InputError, match=rf"^model\(\) returned {said}; it may return the plain module"):
        applied_to(lambda: wrap(mlp()), "layer_norm_on")
    model = wrap(mlp())
    loader = DataLoader(TensorDataset(torch.randn(8, 6), torch.arange(8) % 3), 4)
    parts = (model, nn.CrossEntropyLoss(), torch.optim.SGD(model.parameters(), lr=0.1), loader)
    with pytest.raises(InputError, match=rf"^remedy.prepare was given {said}; it may be given the plain module"):
        Given.of(parts)


class Tied(nn.Module):
    """Two layers of a stack share their weights, and an embedding those of the output."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(3, 6), nn.Linear(6, 3)
        self.body = nn.Sequential(*mlp()[:4], nn.Linear(6, 6), nn.ReLU())
        self.body[4].weight, self.head.weight = self.body[0].weight, self.embed.weight

    def forward(self, inputs: Tensor) -> Tensor:
        words = (inputs.abs() * 2).long().clamp_max(2)
        return self.head(self.body(self.embed(words).mean(1)))


@pytest.mark.parametrize("name", [r.name for r in REMEDIES])
def test_parameters_that_are_shared_stay_shared(name, applied_to, steps):
    try:
        parts = applied_to(Tied, name)
    except Inapplicable:
        return
    steps(parts, 2)
    model = parts.model
    for one, other in (("body.0", "body.4"), ("embed", "head")):
        assert model.get_submodule(one).weight is model.get_submodule(other).weight
    if name in ("weight_norm", "spectral_norm"):
        assert parts.receipts[0].text.endswith("on 1 hidden layer(s): body.2")


@pytest.mark.parametrize("name", ["match_objective", "wider", "deeper", "rezero", "prelu", "weight_norm", "lsuv"])
def test_a_model_with_a_compiled_part_is_inapplicable(name, applied_to):
    def build():
        model = nn.Sequential(mlp(), nn.ReLU())
        model[0].compile(backend="eager")
        return model

    with pytest.raises(Inapplicable, match="compiled and cannot be changed safely"):
        applied_to(build, name)
