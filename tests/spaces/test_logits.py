"""The softmax in front of the loss is stripped, however it is written; nobody but the loss sees a difference."""

from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from torch.utils.data import TensorDataset

from remedy.spaces.cross_entropy import CrossEntropy
from remedy.spaces.logits import Squash, find, remembered
from remedy.spaces.parts import Parts
from remedy.spaces.remedy import Inapplicable


class Net(nn.Module):
    """A classifier whose head is given as a function; remembers what it computed the probabilities from."""

    def __init__(self, head: Callable[[Tensor], Tensor], outputs: int = 4) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, outputs)
        )
        self.head, self.seen = head, []

    def forward(self, inputs: Tensor) -> Tensor:
        self.seen.append(self.body(inputs))
        return self.head(self.seen[-1])


def _exp_sum(z: Tensor) -> Tensor:
    e = torch.exp(z)
    return e / e.sum(dim=1, keepdim=True)


def _stable_exp_sum(z: Tensor) -> Tensor:
    e = (z - z.max(dim=1, keepdim=True).values).exp()
    return torch.div(e, torch.sum(e, 1).unsqueeze(1))


def _rounded_up(z: Tensor) -> Tensor:
    p = z.softmax(1)
    return p.clamp(1e-7, 1 - 1e-7)


def _with_a_log(z: Tensor) -> Tensor:
    p = z.softmax(1)
    p.clamp(1e-3, 1).log()  # such as for printing: it is computed from the outputs, not they from it
    return p


HEADS = {
    "module": nn.Softmax(dim=1), "last dim": nn.Softmax(dim=-1), "nested": nn.Sequential(nn.Sequential(nn.Softmax(1))),
    "F.softmax": lambda z: F.softmax(z, dim=1), "torch.softmax": lambda z: torch.softmax(z, -1),
    "method": lambda z: z.softmax(1), "exp/sum": _exp_sum, "stable exp/sum": _stable_exp_sum, "clamped": _rounded_up,
    "logged": _with_a_log, "twice": lambda z: torch.softmax(z + 0 * torch.softmax(-z, 1), 1),
    "exp of log": lambda z: F.log_softmax(z, 1).exp(), "cast": lambda z: z.double().softmax(1).float(),
}  # fmt: skip
SIGMOIDS = {
    "module": nn.Sigmoid(), "torch.sigmoid": torch.sigmoid, "method": lambda z: z.sigmoid(),
    "torch.special": torch.special.expit, "written": lambda z: 1 / (1 + torch.exp(-z)),
}  # fmt: skip


def naive(probabilities: Tensor, targets: Tensor) -> Tensor:
    return -torch.log(probabilities[torch.arange(len(targets)), targets]).mean()


def keras(probabilities: Tensor, targets: Tensor) -> Tensor:
    return -(targets * probabilities.clamp(1e-7, 1 - 1e-7).log()).sum(1).mean()


def softmax_inside(logits: Tensor, targets: Tensor) -> Tensor:
    return naive(logits.softmax(1), targets)


@pytest.fixture
def stripped(training_of, built) -> Callable[..., Parts]:
    def strip(
        head: Callable[[Tensor], Tensor], loss=naive, targets=None, remedy="fused_cross_entropy", outputs=4
    ) -> Parts:
        def data():
            inputs = torch.randn(32, 6)
            data = TensorDataset(inputs, torch.arange(32) % 4 if targets is None else targets)
            return data, data

        training = training_of(model=lambda: Net(head, outputs), data=data, loss=loss)
        return built(training, remedy)

    return strip


@pytest.mark.parametrize("head", list(HEADS))
@pytest.mark.parametrize("train", [True, False])
def test_the_loss_reads_what_the_net_computed(head, train, stripped):
    parts = stripped(HEADS[head])
    parts.model.train(train)
    inputs = torch.randn(8, 6)
    outputs = parts.model(inputs)
    assert torch.allclose(outputs, parts.model.seen[-1].softmax(1), atol=1e-5)
    read = parts.criterion.read(outputs)
    assert torch.allclose(read.float().log_softmax(1), parts.model.seen[-1].log_softmax(1), atol=1e-5)
    assert "no tensor" not in parts.receipts[0].text
    targets = torch.arange(8) % 4
    loss = parts.criterion(outputs, targets).float()
    assert torch.allclose(loss, F.cross_entropy(parts.model.seen[-1], targets), atol=1e-5)


@pytest.mark.parametrize("head", list(HEADS))
def test_a_confidently_wrong_sample_has_a_gradient(head, stripped):
    parts = stripped(HEADS[head])
    last = parts.model.body[-1]
    with torch.no_grad():
        last.weight.zero_()
        last.bias.copy_(torch.tensor([80.0, 0.0, 0.0, 0.0]))
    loss = parts.criterion(parts.model(torch.randn(8, 6)), torch.full((8,), 2))
    loss.backward()
    assert loss.item() == pytest.approx(80, rel=1e-3)
    assert last.bias.grad[0].item() == pytest.approx(1, rel=1e-3)


@pytest.mark.parametrize("head", list(SIGMOIDS))
@pytest.mark.parametrize(("labels", "shape"), [(1, (32, 1)), (1, (32,)), (3, (32, 3))])
def test_the_sigmoid_is_stripped_too(head, labels, shape, stripped):
    def loss(p: Tensor, y: Tensor) -> Tensor:
        p, y = p.reshape(-1), y.reshape(-1)
        return -(y * p.clamp(1e-7, 1).log() + (1 - y) * (1 - p).clamp(1e-7, 1).log()).mean()

    targets = (torch.rand(shape, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    parts = stripped(SIGMOIDS[head], loss, targets, "fused_binary_cross_entropy", labels)
    outputs = parts.model(torch.randn(32, 6))
    logits = parts.model.seen[-1]
    expected = F.binary_cross_entropy_with_logits(logits, targets.reshape(logits.shape))
    assert torch.allclose(parts.criterion(outputs, targets), expected, atol=1e-5)
    with pytest.raises(Inapplicable, match="no cross-entropy"):
        stripped(SIGMOIDS[head], nn.MSELoss(), targets, "fused_cross_entropy", labels)


def test_outputs_of_another_pass_are_told_apart(stripped):
    parts = stripped(HEADS["F.softmax"])
    first, second = parts.model(torch.randn(4, 6)), parts.model(torch.randn(4, 6))
    assert torch.allclose(remembered(first).softmax(1), first)
    assert torch.allclose(remembered(second).softmax(1), second)
    for other in (first * 1, first.detach(), first[:2], torch.rand(4, 4)):
        with pytest.raises(RuntimeError, match="not what the model returned"):
            parts.criterion(other, torch.zeros(len(other), dtype=torch.long))


def test_the_logits_are_gone_with_their_outputs(stripped):
    parts = stripped(HEADS["exp/sum"])
    parts.model(torch.randn(4, 6))
    parts.model.seen.clear()
    outputs = parts.model(torch.randn(4, 6))
    parts.model.seen.clear()
    kept = weakref.ref(remembered(outputs))
    assert kept() is not None
    del outputs
    gc.collect()
    assert kept() is None


@pytest.mark.parametrize("head", ["module", "F.softmax"])
def test_a_copy_of_the_model_remembers_its_own(head, stripped):
    model = stripped(HEADS[head]).model
    model.seen.clear()
    twin = copy.deepcopy(model)
    with torch.no_grad():
        twin.body[-1].bias.add_(torch.arange(4.0))
    outputs = twin(torch.randn(4, 6))
    assert not model.seen
    assert torch.allclose(remembered(outputs).log_softmax(1), twin.seen[-1].log_softmax(1), atol=1e-6)


def test_a_softmax_module_that_is_used_twice_gives_the_last_input():
    softmax = nn.Softmax(dim=1)

    class Attends(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.softmax = nn.Linear(6, 6), nn.Linear(6, 4), softmax

        def forward(self, inputs: Tensor) -> Tensor:
            return self.softmax(self.second(inputs * self.softmax(self.first(inputs))))

    model = Attends()
    inputs = torch.randn(8, 6)
    logits = find(model, inputs, Squash.SOFTMAX)
    assert torch.allclose(logits.read(model(inputs)), model.second(inputs * softmax(model.first(inputs))))


def test_a_forward_pass_that_changes_is_refused_at_run_time():
    class Changes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.layer, self.calls = nn.Linear(6, 6), nn.Linear(6, 4), 1

        def forward(self, inputs: Tensor) -> Tensor:
            for _ in range(self.calls):
                inputs = self.first(inputs)
            return torch.softmax(self.layer(inputs), 1)

    model = Changes()
    find(model, torch.randn(8, 6), Squash.SOFTMAX)
    model(torch.randn(3, 6))
    model.calls = 2
    with pytest.raises(RuntimeError, match=r"3 times, but 2 times on the probe"):
        model(torch.randn(3, 6))


def test_probabilities_of_unknown_origin_are_used_by_their_logarithm(stripped):
    def head(z: Tensor) -> Tensor:
        positive = z.square() + 0.1
        return positive / positive.sum(1, keepdim=True)

    parts = stripped(head)
    assert "logarithm" in parts.receipts[0].text
    outputs = parts.model(torch.randn(8, 6))
    assert torch.allclose(parts.criterion(outputs, torch.arange(8) % 4), naive(outputs, torch.arange(8) % 4), atol=1e-5)
    zero = torch.tensor([[1.0, 0.0]])
    assert torch.isfinite(Squash.SOFTMAX.inverse(zero)).all()
    assert torch.isfinite(Squash.SIGMOID.inverse(zero)).all()


@pytest.mark.parametrize(
    ("head", "loss", "reason"),
    [
        (lambda z: z, nn.CrossEntropyLoss(), "logits already"),
        (lambda z: z, F.cross_entropy, "logits already"),
        (lambda z: z.log_softmax(1), nn.NLLLoss(), "one safe step"),
        (HEADS["module"], lambda p, y: (p - F.one_hot(y, 4)).square().mean(), "no cross-entropy"),
        (lambda z: z.sigmoid(), naive, "no probabilities"),
        (lambda z: torch.softmax(z.detach(), 1) + 0 * z, naive, "no gradient"),
        (lambda z: checkpoint(lambda x: torch.softmax(x + 1, 1), z, use_reentrant=True), naive, "no gradient"),
    ],
)
@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
def test_what_cannot_be_fused_says_why(head, loss, reason, stripped):
    with pytest.raises(Inapplicable, match=reason):
        stripped(head, loss)


def test_a_softmax_whose_logarithm_the_model_returns_goes_too(stripped):
    parts = stripped(lambda z: torch.log(torch.softmax(z, 1)), nn.NLLLoss())
    outputs, targets = parts.model(torch.randn(8, 6)), torch.arange(8) % 4
    assert torch.equal(parts.criterion.read(outputs), parts.model.seen[-1])
    assert torch.allclose(parts.criterion(outputs, targets), F.cross_entropy(parts.model.seen[-1], targets))


def test_a_compiled_part_is_refused():
    model = nn.Sequential(nn.Linear(6, 4), nn.Softmax(1))
    model[0]._compiled_call_impl = model[0].forward  # what `model[0].compile()` sets
    with pytest.raises(Inapplicable, match="compiled"):
        find(model, torch.randn(4, 6), Squash.SOFTMAX)


def test_a_softmax_inside_the_loss_goes(stripped):
    parts = stripped(lambda z: z, softmax_inside)
    outputs = parts.model(torch.randn(8, 6)) * 1000
    loss = parts.criterion(outputs, torch.arange(8) % 4)
    assert torch.isfinite(loss)
    assert isinstance(parts.criterion.loss, CrossEntropy)


def test_weights_smoothing_and_ignored_labels_are_kept(stripped):
    weight = torch.tensor([1.0, 2.0, 3.0, 4.0])
    own = nn.CrossEntropyLoss(weight, ignore_index=3, label_smoothing=0.2)
    parts = stripped(HEADS["module"], own)
    assert parts.criterion.loss is own


def test_one_hot_targets_are_read_as_such(stripped):
    targets = F.one_hot(torch.arange(32) % 4, 4).float()
    parts = stripped(HEADS["module"], keras, targets)
    outputs = parts.model(torch.randn(32, 6))
    assert torch.allclose(parts.criterion(outputs, targets), F.cross_entropy(parts.model.seen[-1], targets), atol=1e-5)


def test_a_summed_loss_stays_a_sum(stripped):
    parts = stripped(HEADS["module"], lambda p, y: F.nll_loss(p.log(), y, reduction="sum"))
    outputs = parts.model(torch.randn(8, 6))
    expected = F.cross_entropy(parts.model.seen[-1], torch.arange(8) % 4, reduction="sum")
    assert torch.allclose(parts.criterion(outputs, torch.arange(8) % 4), expected, rtol=1e-5)


def test_mixed_probabilities_have_no_flat_region(stripped):
    parts = stripped(HEADS["module"], keras, F.one_hot(torch.arange(32) % 4, 4).float(), "mixed_probabilities")
    p = torch.tensor([[1.0, 0.0, 0.0, 0.0]], requires_grad=True)
    loss = parts.criterion(p, torch.tensor([[0.0, 1.0, 0.0, 0.0]]))
    loss.backward()
    assert loss.item() == pytest.approx(-torch.tensor(1e-4).log().item(), rel=1e-3)
    assert p.grad[0, 1].item() < -1
    assert torch.allclose(parts.criterion.read(p).sum(1), torch.ones(1))
