"""Activations, norm layers, dropout and sizes are exchanged where they stand, and nowhere else."""

from __future__ import annotations

import copy
from collections import Counter

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from remedy.spaces.calls import trace
from remedy.spaces.remedy import Inapplicable
from remedy.spaces.surgery import hidden_activations, layers


def kinds(model: nn.Module) -> Counter[str]:
    return Counter(type(module).__name__ for module in model.modules())


class Functional(nn.Module):
    """All its activations are calls; the sigmoid at the end belongs to the output."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three, self.four = (nn.Linear(6, 6) for _ in range(4))
        self.act = nn.ReLU()
        self.head = nn.Linear(6, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        inputs = F.relu(self.one(inputs))
        inputs = torch.relu(self.two(inputs))
        inputs = self.three(inputs).relu()
        inputs = self.act(self.four(inputs))
        return torch.sigmoid(self.head(inputs))


def test_nested_and_shared_activations_are_swapped_once(applied_to):
    def build():
        act = nn.ReLU()
        return nn.Sequential(
            nn.Sequential(nn.Linear(6, 6), act),
            nn.Sequential(nn.Linear(6, 6), nn.Sequential(act)),
            nn.Linear(6, 3),
            nn.Sigmoid(),
        )

    parts = applied_to(build, "leaky_relu", leaky_relu__slope=0.2)
    assert kinds(parts.model)["ReLU"] == 0
    assert parts.model[0][1] is parts.model[1][1][0]
    assert parts.model[0][1].negative_slope == 0.2
    assert isinstance(parts.model[3], nn.Sigmoid), "the output's activation stays"
    assert "2 module(s): 0.1, 1.1.0" in parts.receipts[0].text


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("name", "function"), [("elu", F.elu), ("silu", F.silu), ("gelu", F.gelu), ("tanh", torch.tanh)]
)
def test_calls_are_swapped_in_training_and_evaluation(name, function, training, applied_to):
    model = applied_to(Functional, name).model.train(training)
    inputs = torch.randn(5, 6)
    expected = inputs
    for layer in (model.one, model.two, model.three, model.four):
        expected = function(layer(expected))
    assert torch.allclose(model(inputs), torch.sigmoid(model.head(expected)), atol=1e-6)


def test_the_receipt_counts_modules_and_calls(applied_to):
    text = applied_to(Functional, "elu").receipts[0].text
    assert "1 module(s): act" in text
    assert "3 call(s) of relu" in text


def test_a_copy_of_a_swapped_model_swaps_by_its_own_weights(applied_to):
    model = applied_to(Functional, "tanh").model
    twin = copy.deepcopy(model)
    with torch.no_grad():
        twin.one.weight.zero_()
        twin.one.bias.zero_()
    inputs = torch.randn(2, 6)
    assert not torch.allclose(model(inputs), twin(inputs))
    assert torch.allclose(twin(inputs), twin(torch.zeros(2, 6)))


def test_a_forward_pass_with_another_count_is_refused(applied_to):
    class Grows(Functional):
        extra = False

        def forward(self, inputs: Tensor) -> Tensor:
            return super().forward(F.relu(inputs) if self.extra else inputs)

    model = applied_to(Grows, "elu").model
    model(torch.randn(2, 6))
    model.extra = True
    with pytest.raises(RuntimeError, match="it varies"):
        model(torch.randn(2, 6))


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
def test_checkpointed_calls_are_refused(reentrant, applied_to):
    class Saves(Functional):
        def forward(self, inputs: Tensor) -> Tensor:
            inputs = checkpoint(lambda x: F.relu(self.two(x)), self.one(inputs), use_reentrant=reentrant)
            return self.head(inputs)

    with pytest.raises(Inapplicable, match="checkpointing"):
        applied_to(Saves, "elu")


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("activation", ["relu", "gelu", nn.ReLU()])
def test_a_transformer_has_its_activation_swapped(activation, training, applied_to):
    def build():
        body = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True, activation=copy.deepcopy(activation))
        return nn.Sequential(body, nn.Flatten(), nn.Linear(20, 3))

    model = applied_to(build, "tanh", shape=(5, 4)).model.train(training)
    with torch.no_grad():
        names = [call.name for call in trace(model, torch.randn(3, 5, 4), training=training).calls]
        assert "tanh" in names
        expected = model[0].norm1(torch.randn(3, 5, 4))
        assert torch.isfinite(model(expected)).all()
    assert "relu" not in names


def test_what_is_the_same_already_is_inapplicable(applied_to):
    for name in ("relu",):
        with pytest.raises(Inapplicable, match="already is ReLU"):
            applied_to(Functional, name)
    with pytest.raises(Inapplicable, match="no hidden activation"):
        applied_to(lambda: nn.Sequential(nn.Linear(6, 3), nn.Sigmoid()), "elu")
    applied_to(lambda: nn.Sequential(nn.Linear(6, 6), nn.LeakyReLU(0.01), nn.Linear(6, 3)), "leaky_relu")


def test_hidden_activations_and_layers_are_found_in_order():
    model, inputs = Functional(), torch.randn(4, 6)
    hidden = hidden_activations(model, inputs)
    assert list(hidden.modules) == ["act"]
    assert hidden.names == ("relu", "relu", "relu")
    assert [layer.path for layer in layers(model, inputs)] == ["one", "two", "three", "four", "head"]


def test_a_trace_leaves_no_mark():
    model = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 3))
    before = copy.deepcopy(model.state_dict())
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    trace(model, torch.randn(8, 6, generator=torch.Generator()), training=True)
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())


def conv1() -> nn.Module:
    return nn.Sequential(nn.Conv1d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 6, 3))


def conv3() -> nn.Module:
    return nn.Sequential(nn.Conv3d(1, 4, 2), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 8, 3))


def conv2() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.PReLU(4), nn.Conv2d(4, 8, 3, stride=2), nn.GroupNorm(4, 8), nn.ReLU(),
        nn.Flatten(), nn.Linear(8 * 4, 6), nn.LayerNorm(6), nn.ReLU(), nn.Linear(6, 3),
    )  # fmt: skip


def bare() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3))


@pytest.mark.parametrize(
    ("build", "shape", "norm"),
    [
        (bare, (6,), "BatchNorm1d"),
        (conv1, (2, 8), "BatchNorm1d"),
        (conv3, (1, 3, 3, 3), "BatchNorm3d"),
        (Functional, (6,), "BatchNorm1d"),
    ],
)
def test_norm_layers_stand_behind_hidden_layers_before_their_activation(build, shape, norm, applied_to):
    for name, kind in (("batch_norm_on", norm), ("layer_norm_on", None)):
        plain, parts = applied_to(build, shape=shape), applied_to(build, name, shape=shape)
        found = [path for path, module in parts.model.named_modules() if "Norm" in type(module).__name__]
        hidden = layers(plain.model, plain.facts.inputs)[:-1]
        assert found == [f"{layer.path}.remedy_after" for layer in hidden]
        assert str(len(found)) in parts.receipts[0].text
        if kind:
            assert kinds(parts.model)[kind] == len(found)
            outputs = dict(trace(parts.model, parts.facts.inputs, training=True).modules)[hidden[0].path]
            assert torch.allclose(outputs.transpose(0, 1).flatten(1).mean(1), torch.zeros(outputs.shape[1]), atol=1e-5)


def test_norm_layers_know_where_they_do_not_fit(applied_to):
    sequence = lambda: nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Flatten(), nn.Linear(20, 3))  # noqa: E731
    with pytest.raises(Inapplicable, match="no hidden Linear or Conv layer that BatchNorm fits"):
        applied_to(sequence, "batch_norm_on", shape=(5, 4))
    assert kinds(applied_to(sequence, "layer_norm_on", shape=(5, 4)).model)["LayerNorm"] == 1
    for name in ("batch_norm_on", "layer_norm_on"):
        with pytest.raises(Inapplicable, match="already: 1, 4, 8"):
            applied_to(conv2, name, shape=(1, 8, 8))


def test_batch_norm_goes_or_becomes_group_norm(applied_to):
    model = applied_to(conv2, "batch_norm_off", shape=(1, 8, 8)).model
    assert isinstance(model[1], nn.Identity)
    assert isinstance(model[4], nn.GroupNorm)
    model = applied_to(conv2, "group_norm", shape=(1, 8, 8)).model
    assert isinstance(model[1], nn.GroupNorm)
    assert 4 % model[1].num_groups == 0


def test_dropout_goes_on_and_off(applied_to):
    parts = applied_to(Functional, "dropout_on", dropout_on__p=0.5)
    assert "4 hidden activation(s)" in parts.receipts[0].text
    inputs = torch.randn(2, 6)
    assert not torch.equal(parts.model(inputs), parts.model(inputs))
    parts.model.eval()
    assert torch.equal(parts.model(inputs), parts.model(inputs))

    class Drops(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.head = nn.LSTM(6, 6, 2, dropout=0.5, batch_first=True), nn.Linear(6, 3)
            self.attention, self.drop = nn.MultiheadAttention(6, 2, 0.5, batch_first=True), nn.Dropout(0.5)

        def forward(self, inputs: Tensor) -> Tensor:
            hidden = self.rnn(inputs)[0]
            hidden = self.drop(self.attention(hidden, hidden, hidden)[0])
            return self.head(F.dropout(hidden.mean(1), 0.5, self.training))

    parts = applied_to(Drops, "dropout_off", shape=(4, 6))
    assert "4 dropout(s) off" in parts.receipts[0].text
    inputs = torch.randn(2, 4, 6)
    assert torch.equal(parts.model(inputs), parts.model(inputs))
    with pytest.raises(Inapplicable, match="no dropout"):
        applied_to(bare, "dropout_off")
