"""Data of many kinds: what the targets are, what the loss takes, what guessing reaches, what a metric makes of it."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import BatchSampler, DataLoader, Dataset, SequentialSampler, TensorDataset

from remedy.spaces import gather
from remedy.spaces.assembly import outputs_of
from remedy.spaces.batches import Epochs, batches_in
from remedy.spaces.chance import chance, held_classes
from remedy.spaces.cross_entropy import reading
from remedy.spaces.error import InputError
from remedy.spaces.metric import check_kind, decide, tally
from remedy.spaces.objective import IGNORED, Criterion, Scale, TargetKind

INDEX = torch.arange(12) % 3
BITS = (torch.arange(12) % 3 == 0).float()
WEIGHTS = torch.tensor([1.0, 2.0, 5.0])
CLASSES, BINARY = TargetKind.CLASS_INDEX, TargetKind.BINARY


def _squeezed(outputs, targets):
    return F.binary_cross_entropy_with_logits(outputs.squeeze(1), targets)


def _weighted_in_code(outputs, targets):
    return F.cross_entropy(outputs, targets, WEIGHTS)


def _positive_in_code(outputs, targets):
    return F.binary_cross_entropy_with_logits(outputs, targets[:, None], pos_weight=torch.tensor(9.0))


def _of_logarithms(outputs, targets):
    return F.cross_entropy(outputs.log(), targets, WEIGHTS)


_each_class = nn.BCELoss()


@pytest.mark.parametrize(
    ("loss", "kind", "scale", "nats"),
    [
        (nn.BCEWithLogitsLoss(pos_weight=torch.tensor(9.0)), BINARY, Scale.LOGITS, True),
        (_squeezed, BINARY, Scale.LOGITS, True),
        (_positive_in_code, BINARY, Scale.LOGITS, False),
        (nn.BCELoss(), BINARY, Scale.PROBABILITIES, True),
        (nn.CrossEntropyLoss(WEIGHTS), CLASSES, Scale.LOGITS, True),
        (nn.CrossEntropyLoss(label_smoothing=0.2), CLASSES, Scale.LOGITS, True),
        (nn.CrossEntropyLoss(reduction="sum"), CLASSES, Scale.LOGITS, False),
        (_weighted_in_code, CLASSES, Scale.LOGITS, False),
        (nn.NLLLoss(), CLASSES, Scale.VALUES, True),
        (nn.NLLLoss(WEIGHTS), CLASSES, Scale.VALUES, True),
        (lambda o, t: F.nll_loss(o.clamp(1e-6, 1).log(), t), CLASSES, Scale.PROBABILITIES, True),
        (_of_logarithms, CLASSES, Scale.VALUES, False),
        (nn.MultiMarginLoss(), CLASSES, Scale.VALUES, False),
        (_each_class, TargetKind.ONE_HOT, Scale.VALUES, False),
        (nn.MSELoss(), TargetKind.REAL, Scale.VALUES, False),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_loss_is_read_on_the_trainings_own_targets(loss, kind, scale, nats, dtype):
    binary = kind is BINARY
    targets = BITS.to(dtype) if binary else INDEX
    if kind is TargetKind.ONE_HOT:
        targets = F.one_hot(INDEX).to(dtype)
    elif isinstance(loss, nn.BCELoss):
        targets = targets[:, None]
    if loss in (_weighted_in_code, _of_logarithms):
        dtype = torch.float32  # that of the weights written into them
    seen = reading(loss, kind, torch.zeros(12, 1 if binary else 3, dtype=dtype), targets)
    assert (seen.scale, seen.cross_entropy) == (scale, nats)


@pytest.mark.parametrize(
    ("targets", "width", "kind"),
    [
        (INDEX, (3,), CLASSES),
        (INDEX[:, None], (3,), CLASSES),
        (INDEX.float(), (3,), CLASSES),
        (INDEX.double() + 0.5, (3,), TargetKind.REAL),
        (INDEX, (1,), TargetKind.REAL),
        (INDEX[:, None], (1,), TargetKind.REAL),
        (BITS.long(), (), BINARY),
        (BITS, (1,), BINARY),
        (F.one_hot(INDEX), (3,), TargetKind.ONE_HOT),
        (F.one_hot(INDEX.repeat(50)).float(), (3,), TargetKind.ONE_HOT),
        (torch.tensor([[1, 0, 1], [0, 0, 1]]), (3,), TargetKind.MULTI_LABEL),
        (torch.zeros(4, 1, 5, 5), (1, 5, 5), TargetKind.MULTI_LABEL),
        (torch.zeros(4, 5, 5).long(), (1, 5, 5), BINARY),
        (torch.zeros(4, 5, 5).long(), (2, 5, 5), CLASSES),
        (torch.arange(12).reshape(4, 3), (3,), TargetKind.REAL),
        (torch.randn(4, 3), (3,), TargetKind.REAL),
    ],
)
def test_the_kind_of_targets_comes_from_values_and_the_outputs_width(targets, width, kind):
    assert gather.kind_of(targets, torch.zeros(2, *width)) is kind


@pytest.mark.parametrize(
    ("targets", "kind"),
    [
        (F.one_hot(INDEX), TargetKind.ONE_HOT),
        (F.one_hot(INDEX).double(), TargetKind.ONE_HOT),
        (INDEX[:, None], CLASSES),
        (INDEX.float(), CLASSES),
    ],
)
def test_class_targets_of_any_shape_are_judged_by_the_largest_output(targets, kind):
    predicted, truth = decide(F.one_hot(INDEX).float(), targets, kind, Scale.LOGITS)
    assert truth.tolist() == predicted.tolist() == INDEX.tolist()


def test_a_multi_label_batch_whose_rows_each_hold_one_label_is_judged_label_by_label():
    rows = torch.eye(3)
    total = tally("accuracy", nn.BCEWithLogitsLoss(), TargetKind.MULTI_LABEL, Scale.LOGITS)
    total.add(rows.new_ones(3, 3), rows)
    assert total.value() == pytest.approx(1 / 3)


def test_what_the_loss_leaves_out_counts_nowhere():
    loss = nn.CrossEntropyLoss(ignore_index=0)
    total = tally("accuracy", loss, CLASSES, Scale.LOGITS)
    total.add(torch.eye(3)[[1, 1, 2]], torch.tensor([0, 1, 1]))
    assert total.value() == 0.5
    counts, labels = gather.class_counts(torch.tensor([0, 1, 1, 255]), CLASSES, 3, 255)
    assert (counts, labels.tolist()) == ((1, 2, 0), [0, 1, 1, IGNORED])


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_metric_loss_is_the_mean_over_the_samples(reduction):
    outputs, total = torch.randn(12, 3), None
    total = tally("loss", Criterion(nn.CrossEntropyLoss(reduction=reduction)), CLASSES, Scale.LOGITS)
    for part in (slice(0, 5), slice(5, 12)):
        total.add(outputs[part], INDEX[part])
    assert total.value() == pytest.approx(float(F.cross_entropy(outputs, INDEX)))


def test_a_metric_of_the_users_own_is_given_plain_tensors_of_all_positions():
    seen = []
    total = tally(lambda o, t: seen.append((o, t)) or 1.0, F.cross_entropy, CLASSES, Scale.LOGITS)
    for length in (2, 4):
        total.add(torch.zeros(3, 5, length, requires_grad=True), torch.zeros(3, length))
    total.value()
    assert [tuple(part.shape) for part in seen[0]] == [(18, 5), (18,)]
    assert not seen[0][0].requires_grad


@pytest.mark.parametrize(
    ("metric", "kind", "width", "fits"),
    [
        ("accuracy", TargetKind.REAL, 3, False),
        ("balanced_accuracy", TargetKind.REAL, 3, False),
        ("r2", CLASSES, 3, False),
        ("r2", BINARY, 1, True),
        ("r2", TargetKind.REAL, 1, True),
        ("accuracy", CLASSES, 3, True),
        ("loss", CLASSES, 3, True),
        (lambda o, t: 0.0, TargetKind.REAL, 3, True),
    ],
)
def test_a_metric_that_means_nothing_for_the_targets_is_refused(metric, kind, width, fits):
    if fits:
        check_kind(metric, kind, torch.zeros(4, width), torch.zeros(4))
        return
    with pytest.raises(InputError, match=f"metric is '{metric}', but"):
        check_kind(metric, kind, torch.zeros(4, width), torch.zeros(4))


class _Rows(Dataset):
    def __init__(self, make, samples=10):
        self.make, self.samples, self.read = make, samples, 0

    def __len__(self):
        return self.samples

    def __getitem__(self, place):
        self.read += 1
        return self.make(place)


def _padded(samples):
    pad = nn.utils.rnn.pad_sequence
    return (
        pad([s["x"] for s in samples], batch_first=True),
        pad([s["y"] for s in samples], batch_first=True, padding_value=IGNORED),
    )


def _sentence(place):
    length = 2 + place % 3 if place < 300 else 7
    return {"x": torch.ones(length), "y": torch.arange(length)}


@pytest.mark.parametrize("loader", [False, True])
def test_samples_of_any_form_are_read_as_the_collate_function_makes_them(loader):
    rows = _Rows(_sentence, 600)
    train = DataLoader(rows, 4, collate_fn=_padded) if loader else rows
    inputs, targets = gather.probe_batch(train, None if loader else _padded)
    assert len(inputs) == len(targets) == (4 if loader else 256)
    every = gather.targets_of(train, None if loader else _padded)
    assert every.dim() == 1
    assert every[every != IGNORED].unique().tolist() == list(range(7))


def test_targets_of_a_loader_without_collation_come_from_its_batches():
    rows = _Rows(lambda places: (torch.zeros(len(places), 2), torch.tensor(places) % 3), 9)
    train = DataLoader(rows, sampler=BatchSampler(SequentialSampler(rows), 4, drop_last=False), batch_size=None)
    assert gather.targets_of(train).tolist() == [place % 3 for place in range(9)]


def test_of_a_large_set_2000_samples_are_read_spread_evenly():
    rows = _Rows(lambda place: (torch.zeros(2), place), 39_999)
    targets = gather.targets_of(rows)
    assert (len(targets), rows.read) == (2000, 2000)
    assert (int(targets[0]), int(targets[-1])) == (0, 39_998)


def test_targets_in_memory_are_taken_whole_unless_collation_changes_them():
    train = TensorDataset(torch.randn(3000, 2), torch.arange(3000) % 3)
    default = torch.utils.data.default_collate
    assert len(gather.targets_of(train)) == 3000
    assert len(gather.targets_of(train, lambda samples: default(list(samples)))) == 3000
    changed = gather.targets_of(train, lambda samples: (default(samples)[0], default(samples)[1] + 1))
    assert (len(changed), int(changed.max())) == (2000, 3)


@pytest.mark.parametrize("inputs", [{"x": torch.zeros(2)}, (torch.zeros(2), torch.zeros(3))])
def test_inputs_that_are_no_tensor_are_refused_in_one_sentence(inputs):
    with pytest.raises(InputError, match="the inputs of a batch are a"):
        gather.probe_batch(_Rows(lambda _place: (inputs, 0)))


class _Positions(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Conv1d(2, 3, 1)

    def forward(self, inputs):
        return self.layer(inputs)


def _most(place):
    length = 4 + place % 2
    labels = torch.zeros(length, dtype=torch.long)
    labels[0], labels[1], labels[2] = 1 + place % 2, IGNORED, IGNORED
    return torch.randn(2, length), labels


def test_guessing_at_every_position_reaches_the_share_of_the_largest_class(training_of, built):
    def data():
        loaders = [DataLoader(_Rows(_most), batch_sampler=[[0, 2, 4, 6], [1, 3, 5]]) for _ in range(2)]
        return loaders[0], loaders[1]

    training = training_of(model=_Positions, data=data, metric="accuracy", goal=0.5, batch_size=None)
    parts = built(training)
    assert parts.facts.kind is CLASSES
    outputs = outputs_of(parts.model, parts.facts.inputs)
    reached = chance(training, parts.facts, parts.original, outputs, (parts.train, parts.validation))
    assert reached == pytest.approx(10 / 17)
    assert held_classes(parts.validation, CLASSES, parts.original.ignored) == 3
    loss = training_of(model=_Positions, data=data, metric="loss", batch_size=None)
    level = chance(loss, parts.facts, parts.original, outputs, (parts.train, parts.validation))
    assert math.isfinite(level)


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("drawn", [None, 17, 16])
def test_a_last_batch_of_one_is_left_out_for_batch_norm_alone_and_counted_so(norm, drawn):
    train = TensorDataset(torch.zeros(9, 2), torch.zeros(9))
    model = nn.Sequential(nn.BatchNorm1d(2)) if norm else nn.Linear(2, 1)
    sampler = None if drawn is None else SequentialSampler(range(drawn))
    epochs = Epochs(train, 4, sampler, None, 0, model)
    assert len(epochs) == batches_in(train, 4, sampler, model)
    assert len(epochs) == {None: 3 - norm, 17: 5 - norm, 16: 4}[drawn]
