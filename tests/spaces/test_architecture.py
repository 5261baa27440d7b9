"""Models become narrower, shallower or residual, and start from other weights; what belongs along goes along."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from remedy.spaces.remedy import Inapplicable


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


def conv2() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.PReLU(4), nn.Conv2d(4, 8, 3, stride=2), nn.GroupNorm(4, 8), nn.ReLU(),
        nn.Flatten(), nn.Linear(8 * 4, 6), nn.LayerNorm(6), nn.ReLU(), nn.Linear(6, 3),
    )  # fmt: skip


def test_a_stack_becomes_narrower_with_all_that_belongs_to_it(applied_to):
    model = applied_to(conv2, "narrower", shape=(1, 8, 8), narrower__factor=0.5).model
    assert [type(module).__name__ for module in model] == [type(module).__name__ for module in conv2()]
    assert (model[0].out_channels, model[1].num_features, model[2].num_parameters) == (2, 2, 2)
    assert (model[3].in_channels, model[3].out_channels, model[3].stride) == (2, 4, (2, 2))
    assert (model[4].num_channels, model[7].in_features, model[8].normalized_shape) == (4, 4 * 4, (3,))
    assert model(torch.randn(2, 1, 8, 8)).shape == (2, 3)


def test_the_declared_knobs_come_first_and_do_not_undo_each_other(applied_to):
    def build(width: float = 1.0, depth: float = 1.0) -> nn.Module:
        size = round(16 * width)
        hidden = [layer for _ in range(round(4 * depth)) for layer in (nn.Linear(size, size), nn.ReLU())]
        return nn.Sequential(nn.Linear(6, size), nn.ReLU(), *hidden, nn.Linear(size, 3))

    parts = applied_to(build, "narrower", "shallower", narrower__factor=0.25, shallower__factor=0.5)
    assert parts.model[0].out_features == 4
    assert len(parts.model) == 2 + 2 * 2 + 1
    assert "width=0.25" in parts.receipts[0].text
    assert "depth=0.5" in parts.receipts[1].text


def test_layers_of_equal_width_are_left_out_or_bridged(applied_to):
    deep = lambda: nn.Sequential(*[m for _ in range(4) for m in (nn.Linear(6, 6), nn.Tanh())], nn.Linear(6, 3))  # noqa: E731
    parts = applied_to(deep, "shallower", shallower__factor=0.5)
    assert kinds(parts.model)["Linear"] == 3
    assert "2 of 4" in parts.receipts[0].text
    model = applied_to(deep, "residual").model
    inputs, expected = torch.randn(2, 6), None
    expected = inputs
    for block in (model[0], model[2], model[4], model[6]):
        expected = expected + torch.tanh(block.body[0](expected))
    assert torch.allclose(model(inputs), model[8](expected))
    for name in ("shallower", "residual"):
        with pytest.raises(Inapplicable):
            applied_to(Functional, name)


def test_a_shared_layer_is_not_torn_apart(applied_to):
    def build():
        layer = nn.Linear(6, 6)
        return nn.Sequential(layer, nn.ReLU(), layer, nn.ReLU(), nn.Linear(6, 3))

    with pytest.raises(Inapplicable, match="no stack"):
        applied_to(build, "narrower")


@pytest.mark.parametrize("name", ["he", "xavier", "orthogonal", "small_last_layer"])
def test_initialisation_leaves_norm_layers_alone(name, applied_to):
    plain, model = applied_to(conv2, shape=(1, 8, 8)).model, applied_to(conv2, name, shape=(1, 8, 8)).model
    for path, module in model.named_modules():
        old = plain.get_submodule(path)
        if isinstance(module, nn.Linear | nn.Conv2d):
            touched = name != "small_last_layer" or path == "10"
            assert torch.equal(module.weight, old.weight) is not touched
            assert bool((module.bias == 0).all()) is touched
        elif isinstance(module, nn.BatchNorm2d | nn.GroupNorm | nn.LayerNorm):
            assert bool((module.weight == 1).all())
    if name == "orthogonal":
        weight = model[10].weight
        assert torch.allclose(weight @ weight.T, 1.4**2 * torch.eye(3), atol=1e-5)
    if name == "small_last_layer":
        assert model[10].weight.abs().max() < 0.06
