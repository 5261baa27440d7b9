"""Objectives that do not fit: output activation and loss are matched to the targets, and the metric stays honest."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from remedy.spaces.cross_entropy import BinaryCrossEntropy, CrossEntropy
from remedy.spaces.objective import TargetKind
from remedy.spaces.remedies.losses import Generalised, InFloat32, StableMax
from remedy.spaces.remedy import Inapplicable

ROWS = torch.randn(48, 6, generator=torch.Generator().manual_seed(3))
INDEX = torch.arange(48) % 3
ONE_HOT = F.one_hot(INDEX).float()
BITS = (torch.arange(48) % 2).float()[:, None]
LABELS = (ROWS[:, :3] > 0).float()
LABELS[0] = 1


def clipped(probabilities, targets):
    return F.nll_loss(probabilities.clamp(1e-7, 1 - 1e-7).log(), targets)


def clipped_binary(outputs, targets):
    return F.binary_cross_entropy(outputs.clamp(1e-7, 1 - 1e-7), targets)


class Functional(nn.Module):
    """Its output activation is a call, and what comes out has lost a dimension."""

    def __init__(self, outputs, bend, shape=lambda outputs: outputs):
        super().__init__()
        self.hidden, self.head, self.bend, self.shape = nn.Linear(6, 8), nn.Linear(8, outputs), bend, shape

    def forward(self, inputs):
        return self.shape(self.bend(self.head(torch.relu(self.hidden(inputs)))))


@pytest.fixture
def objective(training_of, built):
    """Assemble a small training with these targets, output activation and loss, and a remedy or none."""

    def build(targets, last, loss, name=None, metric="accuracy", goal=0.99, model=None, **own):
        outputs = 3 if targets.dim() == 1 or targets.shape[1] == 3 else 1
        sets = TensorDataset(ROWS, targets)
        make = model or (lambda: nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, outputs), *last))
        training = training_of(
            model=make, data=lambda: (sets, sets), loss=loss, metric=metric, goal=goal, batch_size=16, **own
        )
        return built(training, *([name] if name else []))

    return build


def logits_of(parts, layers=3):
    return parts.model[:layers](ROWS)


CASES = [
    (BITS, [nn.Softmax(dim=1)], clipped_binary, torch.sigmoid, "softmax"),
    (BITS, [nn.ReLU()], clipped_binary, torch.sigmoid, "relu"),
    (BITS, [], clipped_binary, torch.sigmoid, "no activation"),
    (BITS, [nn.Tanh()], clipped_binary, torch.sigmoid, "tanh"),
    (BITS, [nn.Sigmoid()], nn.BCEWithLogitsLoss(), None, "sigmoid"),
    (BITS, [nn.Sigmoid()], nn.MSELoss(), torch.sigmoid, "sigmoid"),
    (BITS, [], nn.CrossEntropyLoss(), torch.sigmoid, "no activation"),
    (INDEX, [nn.ReLU()], nn.CrossEntropyLoss(), None, "relu"),
    (INDEX, [nn.ReLU(), nn.Softmax(dim=1)], clipped, lambda z: z.softmax(1), "relu and softmax"),
    (INDEX, [nn.Sigmoid()], clipped, lambda z: z.softmax(1), "sigmoid"),
    (INDEX, [nn.Sigmoid()], nn.CrossEntropyLoss(), None, "sigmoid"),
    (INDEX, [nn.Softmax(dim=0)], clipped, lambda z: z.softmax(1), "softmax"),
    (INDEX, [], nn.NLLLoss(), lambda z: z.log_softmax(1), "no activation"),
    (INDEX, [nn.Softmax(dim=1)], nn.NLLLoss(), lambda z: z.log_softmax(1), "softmax"),
    (ONE_HOT, [nn.Softmax(dim=1)], nn.MSELoss(), lambda z: z.softmax(1), "softmax"),
    (ONE_HOT, [nn.Sigmoid()], nn.BCELoss(), lambda z: z.softmax(1), "sigmoid"),
    (LABELS, [nn.Softmax(dim=1)], clipped_binary, torch.sigmoid, "softmax"),
    (LABELS, [], nn.CrossEntropyLoss(), torch.sigmoid, "no activation"),
]


@pytest.mark.parametrize(("targets", "last", "loss", "ends", "told"), CASES)
def test_any_wrong_pair_becomes_the_cross_entropy_of_the_logits(targets, last, loss, ends, told, objective, steps):
    parts = objective(targets, last, loss, "match_objective")
    logits, outputs = logits_of(parts), parts.model(ROWS)
    assert torch.allclose(outputs, logits if ends is None else ends(logits), atol=1e-6)
    exclusive = parts.facts.kind in (TargetKind.CLASS_INDEX, TargetKind.ONE_HOT)
    right = F.cross_entropy(logits, targets) if exclusive else F.binary_cross_entropy_with_logits(logits, targets)
    assert torch.allclose(parts.criterion(outputs, targets), right, atol=1e-6)
    assert type(parts.criterion.loss) in (CrossEntropy, BinaryCrossEntropy, nn.CrossEntropyLoss, nn.BCEWithLogitsLoss)
    assert f"in place of {told}" in parts.receipts[0].text
    assert parts.criterion.cross_entropy
    parts.criterion(outputs, targets).backward()
    assert all(float(p.grad.abs().sum()) > 0 for p in parts.model[2].parameters())
    parts.model.eval()
    assert torch.allclose(parts.model(ROWS), outputs, atol=1e-6), "evaluation sees the same outputs"
    losses = steps(parts, 60)
    assert sum(losses[-5:]) < sum(losses[:5])


@pytest.mark.parametrize(
    ("targets", "last", "loss"),
    [
        (INDEX, [], nn.CrossEntropyLoss()),
        (ONE_HOT, [], nn.CrossEntropyLoss()),
        (INDEX, [nn.LogSoftmax(dim=1)], nn.NLLLoss()),
        (INDEX, [nn.Softmax(dim=1)], clipped),
        (INDEX, [nn.Softmax(dim=1)], nn.CrossEntropyLoss()),
        (BITS, [nn.Sigmoid()], nn.BCELoss()),
        (BITS, [], nn.BCEWithLogitsLoss()),
        (LABELS, [nn.Sigmoid()], nn.BCELoss()),
        (LABELS, [], nn.BCEWithLogitsLoss()),
    ],
)
def test_a_pair_that_fits_is_left_alone(targets, last, loss, objective):
    with pytest.raises(Inapplicable):
        objective(targets, last, loss, "match_objective")


@pytest.mark.parametrize("bend", [torch.relu, F.relu, lambda z: z.relu(), torch.tanh, lambda z: z.clamp(0, 1)])
def test_an_output_activation_may_be_a_call_before_a_change_of_shape(bend, objective):
    flat = lambda outputs: outputs.squeeze(1)  # noqa: E731
    parts = objective(BITS[:, 0], [], clipped_binary, "match_objective", model=lambda: Functional(1, bend, flat))
    model = parts.model
    logits = model.head(torch.relu(model.hidden(ROWS)))
    outputs = model(ROWS)
    assert outputs.shape == (48,)
    assert torch.allclose(outputs, logits.squeeze(1).sigmoid(), atol=1e-6)
    right = F.binary_cross_entropy_with_logits(logits, BITS)
    assert torch.allclose(parts.criterion(outputs, BITS[:, 0]), right, atol=1e-6)


def test_the_users_weights_and_ignored_class_are_kept(objective):
    loss = nn.CrossEntropyLoss(torch.tensor([1.0, 2.0, 5.0]), ignore_index=1)
    parts = objective(INDEX, [nn.ReLU()], loss, "match_objective")
    assert parts.criterion.loss is loss
    log = nn.NLLLoss(torch.tensor([1.0, 2.0, 5.0]), ignore_index=1)
    parts = objective(INDEX, [nn.Tanh()], log, "match_objective")
    outputs = parts.model(ROWS)
    assert torch.allclose(parts.criterion(outputs, INDEX), loss(logits_of(parts), INDEX), atol=1e-6)


def test_a_model_of_changing_length_is_not_trained_on_the_wrong_call(objective):
    class Twice(Functional):
        def forward(self, inputs):
            outputs = super().forward(inputs)
            return torch.relu(outputs) if len(inputs) == 16 else outputs

    parts = objective(INDEX, [], nn.CrossEntropyLoss(), "match_objective", model=lambda: Twice(3, torch.relu))
    with pytest.raises(RuntimeError, match="varies"):
        parts.model(ROWS[:16])


TARGETS = ROWS[:, :1] * 3


@pytest.mark.parametrize(
    ("last", "told"),
    [([nn.ReLU()], "relu"), ([nn.Sigmoid()], "sigmoid"), ([nn.Tanh()], "tanh"), ([nn.Softmax(dim=1)], "softmax")],
)
def test_outputs_that_cannot_reach_the_numbers_lose_their_limits(last, told, objective):
    parts = objective(TARGETS, last, nn.MSELoss(), "match_objective", "r2")
    assert torch.allclose(parts.model(ROWS), logits_of(parts))
    assert f"ends in {told}, which cannot reach every target" in parts.receipts[0].text
    assert isinstance(parts.criterion.loss, nn.MSELoss)


def test_limits_that_the_numbers_keep_to_are_left_alone(objective):
    with pytest.raises(Inapplicable, match="can reach every target"):
        objective(TARGETS.abs(), [nn.ReLU()], nn.MSELoss(), "match_objective", "r2")
    with pytest.raises(Inapplicable, match="can reach every target"):
        objective(TARGETS, [], nn.L1Loss(), "match_objective", "r2")


def test_a_flat_target_is_not_compared_with_a_column_of_outputs(objective):
    with pytest.warns(UserWarning, match="broadcasting"):
        parts = objective(
            TARGETS[:, 0], [], nn.MSELoss(), "match_objective", "r2",
            model=lambda: nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 1)),
        )  # fmt: skip
    outputs = parts.model(ROWS)
    assert torch.allclose(parts.criterion(outputs, TARGETS[:, 0]), F.mse_loss(outputs, TARGETS))
    assert "outputs of shape (1,) are compared with targets of shape ()" in parts.receipts[0].text


def test_a_loss_of_classes_on_numbers_becomes_the_square(objective):
    parts = objective(TARGETS, [nn.Sigmoid()], nn.BCELoss(), "match_objective", "r2")
    outputs = parts.model(ROWS)
    assert torch.allclose(parts.criterion(outputs, TARGETS), F.mse_loss(outputs, TARGETS))
    assert "BCELoss is made for classes" in parts.receipts[0].text


@pytest.mark.parametrize(
    "loss", [nn.CrossEntropyLoss(reduction="sum"), lambda o, t: F.cross_entropy(o, t, reduction="sum")]
)
def test_a_sum_becomes_a_mean(loss, objective):
    parts = objective(INDEX, [], loss, "mean_reduction")
    outputs = parts.model(ROWS)
    assert torch.allclose(parts.criterion(outputs, INDEX), F.cross_entropy(outputs, INDEX), atol=1e-6)
    with pytest.raises(Inapplicable, match="mean already"):
        objective(INDEX, [], nn.CrossEntropyLoss(), "mean_reduction")


def test_hubers_loss_is_scaled_by_the_targets(objective):
    far = torch.where(torch.arange(48)[:, None] == 5, torch.tensor(1e6), TARGETS)
    parts = objective(far, [], nn.MSELoss(), "huber", "r2")
    assert isinstance(parts.criterion.loss, nn.HuberLoss)
    assert 1 < parts.criterion.loss.delta < 10, "one far target does not move it"
    with pytest.raises(Inapplicable, match="classes"):
        objective(INDEX, [], nn.CrossEntropyLoss(), "huber")
    with pytest.raises(Inapplicable, match="already"):
        objective(TARGETS, [], nn.SmoothL1Loss(), "huber", "r2")


@pytest.mark.parametrize("last", [[], [nn.Softmax(dim=1)], [nn.LogSoftmax(dim=1)]])
@pytest.mark.parametrize(("name", "kind"), [("generalised_cross_entropy", Generalised), ("stable_max", StableMax)])
def test_bounded_losses_read_the_logits(name, kind, last, objective):
    own = {0: nn.CrossEntropyLoss(), 1: clipped}.get(len(last) if not isinstance(last[:1], nn.LogSoftmax) else 0)
    own = nn.NLLLoss() if last and isinstance(last[0], nn.LogSoftmax) else own
    parts = objective(INDEX, last, own, name)
    assert type(parts.criterion.loss) is kind
    logits, outputs = logits_of(parts), parts.model(ROWS)
    if last and isinstance(last[0], nn.LogSoftmax):
        logits = outputs
    assert torch.allclose(parts.criterion(outputs, INDEX), kind_loss(kind, logits), atol=1e-5)


def kind_loss(kind, logits):
    own = torch.arange(48)
    if kind is Generalised:
        return ((1 - logits.softmax(1)[own, INDEX] ** 0.7) / 0.7).mean()
    sizes = torch.where(logits >= 0, logits + 1, 1 / (1 - logits))
    return -(sizes[own, INDEX] / sizes.sum(1)).log().mean()


def test_bounded_losses_leave_out_what_the_users_loss_left_out():
    logits, labels = torch.randn(6, 3), torch.tensor([0, 1, 2, -100, 1, -100])
    kept = labels >= 0
    for loss in (Generalised(0.7, -100), StableMax(-100)):
        assert torch.allclose(loss(logits, labels), loss(logits[kept], labels[kept]))
        assert torch.allclose(loss(logits[kept], F.one_hot(labels[kept], 3).float()), loss(logits[kept], labels[kept]))


def test_a_loss_in_half_precision_is_computed_in_float32(objective):
    parts = objective(INDEX, [], nn.CrossEntropyLoss(), "loss_in_float32", precision="bfloat16")
    assert type(parts.criterion.loss) is InFloat32
    with parts.precision.autocast(parts.device):
        outputs = parts.model(ROWS)
        loss = parts.criterion(outputs, INDEX)
    assert (outputs.dtype, loss.dtype) == (torch.bfloat16, torch.float32)
    with pytest.raises(Inapplicable, match="float32 already"):
        objective(INDEX, [], nn.CrossEntropyLoss(), "loss_in_float32")
