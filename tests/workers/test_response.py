"""What one look at data, model and loss shows before a run: each fault is said, sound trainings are left in peace."""

import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, SequentialSampler, TensorDataset, WeightedRandomSampler

from remedy.spaces.assembly import assemble
from remedy.spaces.catalogue import REMEDIES
from remedy.spaces.combination import Combination
from remedy.spaces.target import Loaded, Source
from remedy.workers import response
from remedy.workers.loop import train
from remedy.workers.preflight import Preflight, preflight
from tests.workers import broken
from tests.workers import broken_model as b

NAMES = {remedy.name for remedy in REMEDIES}


def looked(training):
    return preflight(Loaded(Source("t.py", "training", ""), training, ()), training, 1, 0)


def turned():
    return b.training(loss=lambda outputs, targets: -F.cross_entropy(outputs, targets))


def turned_numbers():
    return b.numbers(loss=lambda outputs, targets: -F.mse_loss(outputs, targets))


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(_ctx, x):
        return x.tanh()

    @staticmethod
    def backward(_ctx, gradient):
        return 2 * gradient


class Handmade(nn.Module):
    def forward(self, x):
        return Doubled.apply(x)


def hand_written():
    return b.training(model=b.stack(activation=Handmade))


class Cut(nn.Module):
    """A layer whose output is taken out of the graph."""

    def __init__(self):
        super().__init__()
        self.below, self.head = nn.Linear(8, 16), nn.Linear(16, 4)

    def forward(self, x):
        return self.head(self.below(x).relu().detach())


class Mixing(nn.Module):
    """Takes the batch for the time: a batch of rows goes to a recurrent net that expects (time, batch, features)."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.GRU(8, 16), nn.Linear(16, 4)

    def forward(self, x):
        return self.head(self.body(x[:, None])[0][:, 0])


class Shrinking(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = b.stack()()

    def forward(self, x):
        return self.body(x / 255)


def blocks():
    inputs, labels = b.blobs()
    order = labels.argsort()
    train = TensorDataset(inputs[order], labels[order])
    return b.replace(b.training(), data=lambda: (train, TensorDataset(inputs[:100], labels[:100].clone())),
                     sampler=SequentialSampler)  # fmt: skip


def blocks_of_a_loader():
    inputs, labels = b.blobs()
    order = labels.argsort().tolist()
    batches = [order[first : first + 32] for first in range(0, len(order), 32)]
    train = DataLoader(TensorDataset(inputs, labels), batch_sampler=batches)
    held = DataLoader(TensorDataset(inputs[:100] + 1, labels[:100]), 50)
    return b.replace(b.training(), data=lambda: (train, held), batch_size=None)


def leaking():
    inputs, labels = b.blobs()
    train, held = TensorDataset(inputs[:300], labels[:300]), TensorDataset(inputs[250:], labels[250:])
    return b.replace(b.training(), data=lambda: (train, held))


class Shifting(Dataset):
    """Gives a sample another label each time it is read."""

    count = itertools.count()

    def __len__(self):
        return 64

    def __getitem__(self, place):
        return torch.full((8,), place / 64), next(self.count) % 3 + place % 2


def padded():
    words = torch.randint(1, 7, (96, 10), generator=b.drawn())
    words[:, 4:] = 0
    return b.training((words, words.roll(-1, 1) * (words > 0)), model=Tokens, metric="accuracy", goal=0.99)


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(12, 8), nn.Linear(8, 7)

    def forward(self, tokens):
        return self.head(self.embed(tokens)).movedim(-1, 1)


def rows_alike():
    return b.training(model=b.changed(b.stack(), lambda m: b.linears(m)[0].weight.copy_(torch.randn(8).expand(24, 8))))


def negative():
    return b.training(model=b.changed(b.stack(), lambda m: b.linears(m)[1].weight.abs_().neg_()))


def normed(batch_size=4):
    model = lambda: nn.Sequential(nn.Linear(8, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Linear(24, 4))  # noqa: E731
    return b.training(model=model, batch_size=batch_size)


def binary_broadcast():
    inputs, labels = b.rings()
    return b.training((inputs, labels.float()), model=b.stack(nn.Sigmoid(), inputs=2, outputs=1),
                      loss=lambda outputs, targets: (outputs - targets).square().mean())  # fmt: skip


def linear_pair():
    return nn.Sequential(nn.Linear(8, 16), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4))


def loud_bias():
    return b.training(model=b.changed(b.stack(), lambda m: nn.init.constant_(b.linears(m)[-1].bias, 40.0)))


def targets_with_holes():
    inputs, targets = b.curve()
    targets = targets.clone()
    targets[3] = torch.nan
    return b.numbers((inputs, targets), metric="loss", goal=0.1)


def scheduled(rate, interval="step"):
    return b.training(
        schedule=lambda optimizer: torch.optim.lr_scheduler.LambdaLR(optimizer, rate), schedule_interval=interval
    )


def all_zero_inputs():
    return b.training((torch.zeros(384, 8), b.blobs()[1]))


def a_hole_that_no_probe_sees():
    inputs, labels = b.blobs(samples=1200)
    inputs[1, 3] = torch.inf
    return b.training((inputs, labels))


class Bytes(nn.Module):
    """Takes bytes as they are, or divided."""

    def __init__(self, divided=1.0, centre=0.0):
        super().__init__()
        self.body, self.divided, self.centre = b.stack()(), divided, centre

    def forward(self, x):
        return self.body((x.float() - self.centre) / self.divided)


def grey_values():
    inputs, labels = b.blobs()
    return (inputs * 30 + 128).clamp(0, 255).to(torch.uint8), labels


def logarithm_of_softmax(outputs, targets):
    return F.nll_loss(outputs.softmax(1).log(), targets)


def clipped_binary(outputs, targets):
    kept = outputs.clamp(1e-7, 1 - 1e-7)
    return -(targets * kept.log() + (1 - targets) * (1 - kept).log()).mean()


def labelled(change, **own):
    inputs, labels = b.blobs()
    return b.training((inputs, change(labels)), **own)


def hardly_any_target(share=23):
    return labelled(lambda labels: labels.where(torch.arange(len(labels)) % share == 0, -100), batch_size=8)


def sequences(targets):
    words = (torch.rand(96, 10, generator=b.drawn()) ** 3 * 7).long()
    return b.training((words, targets(words)), model=Tokens, metric="accuracy", goal=0.99)


class Moody(nn.Module):
    """Sets its own mode in its forward pass, or heeds none."""

    def __init__(self, own=None, heeds=True):
        super().__init__()
        self.body, self.own, self.heeds = nn.Sequential(nn.Linear(8, 24), nn.BatchNorm1d(24), nn.ReLU()), own, heeds
        self.head = nn.Linear(24, 4)

    def forward(self, x):
        if self.own is not None:
            self.body.train(self.own)
        return self.head(F.dropout(self.body(x), 0.3, training=self.training if self.heeds else True))


def frozen_part(head, *, stepped):
    def build():
        model = b.stack()()
        (model[4] if head else model[0]).requires_grad_(False)
        return model

    own = b.adam(0.01)
    given = own if stepped else lambda params: own([p for p in params if p.requires_grad])
    return b.training(model=build, optimizer=given)


def rare(**own):
    inputs, labels = b.blobs()
    kept = (labels > 0) | (torch.arange(len(labels)) % 80 == 0)
    return b.training((inputs[kept], labels[kept]), **own)


class Loud(nn.Module):
    def forward(self, x):
        return 30 * x


FAULTS = {
    "a rare class": (rare, "class_imbalance", "the largest class has"),
    "a first loss far above guessing's": (
        lambda: b.training(model=b.stack(Loud())), "first_loss", "guessing gives 1.39, so the start is far off"
    ),
    "inputs that are all zero": (all_zero_inputs, "same_inputs", "are all 0"),
    "a hole beyond the probe": (a_hole_that_no_probe_sees, "non_finite_inputs", "1 of 6400 input values"),
    "bytes as they are": (lambda: b.training(grey_values(), model=Bytes), "input_scale", "reaches the first layer"),
    "a logarithm of a softmax": (lambda: b.training(loss=logarithm_of_softmax), "flat_loss", "(logits 100 apart)"),
    "a clipped sigmoid": (
        lambda: b.binary(nn.Sigmoid(), loss=clipped_binary), "flat_loss", "with gradient 0: it cannot learn"
    ),
    "labels counted from one": (
        lambda: labelled(lambda y: y + 1, model=b.stack(outputs=5)), "labels", "are the labels counted from 1?"
    ),
    "more outputs than classes": (
        lambda: labelled(lambda y: y, model=b.stack(outputs=9)), "labels", "9 outputs, but no target is above 3"
    ),
    "targets that are left out": (hardly_any_target, "ignored_targets", "95% of the samples have no target but -100"),
    "targets that are the inputs": (lambda: sequences(torch.clone), "copied_targets", "its own input"),
    "asleep in training": (lambda: b.training(model=lambda: Moody(False)), "mode", "body.1 into evaluation mode"),
    "awake in evaluation": (lambda: b.training(model=lambda: Moody(True)), "mode", "body.1 into training mode"),
    "dropout without a mode": (
        lambda: b.training(model=lambda: Moody(heeds=False)), "mode", "other outputs at each pass"
    ),
    "a frozen layer": (lambda: frozen_part(False, stepped=True), "frozen", "0.weight, 0.bias"),
    "a frozen head": (lambda: frozen_part(True, stepped=False), "frozen", "4.weight, 4.bias"),
    "loss of the wrong sign": (turned, "loss_sign", "its sign is turned"),
    "loss of numbers of the wrong sign": (turned_numbers, "loss_sign", "its sign is turned"),
    "a wrong backward pass": (hand_written, "hand_written_gradient", "Doubled"),
    "a graph that is cut": (lambda: b.training(model=Cut), "no_gradient", "below.weight"),
    "layers that are dead": (b.asleep, "zero_gradient", "exactly 0"),
    "units that are dead": (b.asleep, "dead_units", "100% of the units"),
    "a signal that fades": (b.too_deep, "even_signal", "hardly differs"),
    "deep sigmoids": (lambda: b.training(model=b.stack(depth=12, activation=nn.Sigmoid)), "vanishing_gradient", "0."),
    "a signal that grows": (lambda: b.training((b.blobs()[0] * 1e4, b.blobs()[1])), "input_scale", "mean"),
    "batch taken for time": (lambda: b.training(model=Mixing), "mixed_samples", "other samples of its batch"),
    "scaled by data and model": (lambda: b.training(model=Shrinking), "scaled_twice", "scaled twice"),
    "logits large and alike": (loud_bias, "outputs", "large and alike"),
    "classes in blocks": (blocks, "batch_labels", "come in blocks"),
    "classes in blocks of a loader": (blocks_of_a_loader, "batch_labels", "come in blocks"),
    "validation in the train set": (leaking, "leakage", "in the train set, too"),
    "labels that change": (
        lambda: b.replace(b.training(), data=lambda: (Shifting(), Shifting())), "alignment", "at the next"
    ),
    "padding that is learnt": (padded, "padding", "tokens are 0"),
    "targets that are no numbers": (targets_with_holes, "non_finite_targets", "NaN"),
    "a column against a row": (binary_broadcast, "broadcast", "each with each"),
    "units that begin alike": (rows_alike, "equal_weights", "learns the same"),
    "weights below zero": (negative, "weight_sign", "negative"),
    "a parameter left out": (broken.untrained, "optimizer", "the optimizer steps"),
    "a learning rate too large": (lambda: b.training(optimizer=b.adam(0.1)), "learning_rate", "reaches 0.1"),
    "a learning rate too small": (lambda: b.training(optimizer=b.sgd(1e-9)), "learning_rate", "hardly anything"),
    "a learning rate of nothing": (lambda: b.training(optimizer=b.sgd(0.0)), "optimizer", "is 0"),
    "a warm-up without end": (lambda: scheduled(lambda step: (step + 1) / 500), "schedule", "still rises"),
    "a schedule stepped too often": (lambda: scheduled(lambda step: 0.5**step), "schedule", "has fallen"),
    "batch norm over a few": (normed, "small_batches", "batches of 4"),
    "two linear layers in a row": (
        lambda: b.training(model=linear_pair), "linear_pair", "without an activation"
    ),
    "a loss in half precision": (b.exponential_in_half, "half_loss", "float16"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.filterwarnings("ignore:Using a target size:UserWarning")
def test_a_fault_is_said(name):
    build, check, told = FAULTS[name]
    shown = looked(build())
    found = {finding.check: finding for finding in shown.findings}
    assert check in found, (found, shown.left_out)
    assert told in found[check].message
    assert set(found[check].suggests) <= NAMES


class Residual(nn.Module):
    """A zero-initialised branch beside the identity: what comes before its last weights gets no gradient at first."""

    def __init__(self):
        super().__init__()
        self.inner, self.outer = nn.Linear(24, 24), nn.Linear(24, 24)
        nn.init.zeros_(self.outer.weight)

    def forward(self, x):
        return x + self.outer(F.relu(self.inner(x)))


def images():
    labels = torch.arange(192) % 4
    pictures = torch.randn(192, 1, 8, 8, generator=b.drawn()) + labels[:, None, None, None] / 2 - 0.75
    return pictures, labels


def picture_net():
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3, padding=1),
        nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(16, 4),
    )  # fmt: skip


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.body, self.head = nn.Embedding(12, 8), nn.LSTM(8, 16, batch_first=True), nn.Linear(16, 4)

    def forward(self, words):
        return self.head(self.body(self.embed(words))[0][:, -1])


def long_sentences():
    words, labels = b.sentences()
    return torch.cat([words, torch.randint(4, 12, (384, 4), generator=b.drawn(20)), words[:, :1]], 1), labels


def balanced(train):
    labels = train.tensors[1]
    return WeightedRandomSampler((1 / torch.bincount(labels))[labels], len(labels))


SOUND = {
    "rows": b.training,
    "a rare class with its weight": lambda: rare(loss=nn.CrossEntropyLoss(weight=torch.tensor([20.0, 1.0, 1.0, 1.0]))),
    "a rare class drawn more often": lambda: rare(sampler=balanced),
    "bytes that the model scales": lambda: b.training(grey_values(), model=lambda: Bytes(30.0, 128.0)),
    "large inputs, normalised first": lambda: b.training(
        (b.blobs()[0] * 50 + 100, b.blobs()[1]), model=lambda: nn.Sequential(nn.BatchNorm1d(8), *b.stack()())
    ),
    "a body that is not trained": lambda: frozen_part(False, stepped=False),
    "dropout that heeds the mode": lambda: b.training(model=Moody),
    "a few targets left out": lambda: labelled(lambda y: y.where(torch.arange(len(y)) % 9 > 0, -100)),
    "rows, momentum": broken.training,
    "numbers": b.numbers,
    "one column": lambda: b.binary(loss=nn.BCEWithLogitsLoss()),
    "pictures": lambda: b.training(images(), model=picture_net),
    "words, recurrent": lambda: b.training(long_sentences(), model=Recurrent),
    "words, attention": lambda: b.training(long_sentences(), model=lambda: b.Transformer(2), optimizer=b.adam(0.003)),
    "zero-initialised branch": lambda: b.training(
        model=lambda: nn.Sequential(nn.Linear(8, 24), Residual(), nn.ReLU(), nn.Linear(24, 4))
    ),
    "batch norm": lambda: normed(32),
    "label smoothing": lambda: b.training(loss=nn.CrossEntropyLoss(label_smoothing=0.1)),
    "warm-up and decay": lambda: scheduled(lambda step: min(1.0, (step + 1) / 20) * 0.98**step),
}


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_training_is_left_in_peace(name):
    shown = looked(SOUND[name]())
    assert shown.findings == ()
    assert shown.left_out == ()


def test_words_of_a_text_are_never_balanced_and_need_no_warning():
    shown = looked(sequences(lambda words: (words + 1) % 7))
    assert shown.findings == ()


def test_a_loss_that_hangs_on_no_output_is_said_and_nothing_is_left_out():
    shown = looked(b.training(loss=lambda outputs, _: outputs.argmax(1).float().mean().requires_grad_()))
    assert [finding.check for finding in shown.findings] == ["no_gradient"]
    assert shown.left_out == ()


def test_one_cause_is_said_once():
    """Unscaled inputs make the first loss large, and equal ones leave the signal even: the cause is said."""
    causes = {"same_inputs": all_zero_inputs, "input_scale": lambda: b.training(grey_values(), model=Bytes)}
    for cause, build in causes.items():
        assert [finding.check for finding in looked(build()).findings] == [cause]


def test_a_check_that_raises_is_named_and_left_out():
    class Unwilling(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = b.stack()()

        def forward(self, x):
            return self.body(x)

        def __deepcopy__(self, _memo):
            raise RuntimeError("there is only one of me")

    shown = looked(b.training(model=Unwilling))
    assert shown.findings == ()
    assert len(shown.left_out) == 1
    assert shown.left_out[0].startswith("response (RuntimeError: there is only one of me")


def test_findings_come_back_from_json():
    import dataclasses
    import json

    shown = looked(turned())
    assert Preflight.from_json(json.loads(json.dumps(dataclasses.asdict(shown)))) == shown


def test_looking_leaves_parts_generators_and_records_alone():
    def records(look):
        training = b.training(images(), model=picture_net, steps=30)
        parts = assemble(training, Combination(), {}, seed=3, data_seed=0)
        if look:
            from remedy.workers.preflight import examined

            state = torch.get_rng_state()
            kept = {name: value.clone() for name, value in parts.model.state_dict().items()}
            examined("t.py", training, parts)
            parts.model.load_state_dict(kept)
            torch.set_rng_state(state)
        return [(seen.step, seen.loss, seen.metric) for seen in train(training, parts)]

    assert records(look=True) == records(look=False)


def test_each_check_says_what_it_is():
    assert all(check.__doc__ for check in response.CHECKS)
