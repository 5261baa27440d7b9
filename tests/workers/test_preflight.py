"""Pre-flight checks on trainings of many kinds: a finding that cannot be made is left out, never an error."""

import dataclasses
import json

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import Dataset, TensorDataset, default_collate

from remedy.search.defaults import unrehearsed
from remedy.spaces.assembly import assemble
from remedy.spaces.catalogue import REMEDIES
from remedy.spaces.combination import Combination
from remedy.spaces.error import InputError
from remedy.spaces.space import Space
from remedy.spaces.target import Loaded, Source
from remedy.spaces.training import Training
from remedy.workers.loop import train
from remedy.workers.preflight import Preflight, preflight

INPUTS = torch.randn(48, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(48) % 3


def training_of(**own):
    sets = TensorDataset(own.pop("inputs", INPUTS), own.pop("targets", LABELS))
    given = {
        "model": lambda: nn.Linear(4, 3), "data": lambda: (sets, sets), "loss": nn.CrossEntropyLoss(),
        "optimizer": lambda params: torch.optim.SGD(params, lr=0.1), "batch_size": 16, "steps": 6, "goal": 0.9,
        "device": "cpu", **own,
    }  # fmt: skip
    return Training(**given)


def seen(training):
    return preflight(Loaded(Source("t.py", "training", ""), training, ()), training, 1, 0)


def checks(training):
    return {finding.check for finding in seen(training).findings}


def softmax():
    return nn.Sequential(nn.Linear(4, 3), nn.Softmax(dim=1))


def test_it_is_seen_which_remedies_find_nothing_to_change_and_nothing_else_is_asked():
    training = training_of()
    loaded = Loaded(Source("t.py", "training", ""), training, ())
    space = Space(REMEDIES)
    asked = unrehearsed(space)
    assert "range_test" not in asked.names
    found = preflight(loaded, training, 1, 0, tries=asked)
    left = asked.only(asked.names - set(found.refused))
    assert set(found.refused) < asked.names
    assert {receipt.remedy for receipt in assemble(training, left, space.by_name, seed=1).receipts} == left.names
    assert Preflight.from_json(json.loads(json.dumps(dataclasses.asdict(found)))).refused == found.refused
    assert preflight(loaded, training, 1, 0).refused == ()


def test_a_softmax_in_double_precision_is_found():
    training = training_of(model=lambda: softmax().double(), inputs=INPUTS.double())
    assert "softmax_before_loss" in checks(training)


def test_a_loss_that_refuses_a_batch_of_one_is_read_all_the_same():
    def clipped(probabilities, targets):
        assert len(targets) > 1
        return F.nll_loss(probabilities.clamp(1e-7, 1 - 1e-7).log(), targets)

    assert "flat_loss" in checks(training_of(model=softmax, loss=clipped))


def test_a_finding_that_cannot_be_made_is_left_out():
    def fragile(probabilities, targets):
        assert bool((probabilities < 0.999).all()), "too sure"
        return F.nll_loss(probabilities.clamp(1e-7, 1 - 1e-7).log(), targets)

    assert checks(training_of(model=softmax, loss=fragile)) == {"loss_from_probabilities"}


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"targets": INPUTS[:, :1], "model": lambda: nn.Linear(4, 1), "loss": nn.MSELoss()}, "metric is 'accuracy'"),
        ({"metric": "r2"}, "metric is 'r2'"),
        ({"metric": "accuracy", "goal": 0.3}, "met by guessing"),
    ],
)
def test_what_cannot_be_judged_is_refused(own, message):
    with pytest.raises(InputError, match=message):
        seen(training_of(**own))


def test_a_goal_that_guessing_meets_is_refused_for_images_of_labels_too():
    images, labels = torch.randn(8, 2, 4, 4), torch.zeros(8, 4, 4, dtype=torch.long)
    labels[:, 0] = 1
    training = training_of(inputs=images, targets=labels, model=lambda: nn.Conv2d(2, 2, 1), goal=0.7, batch_size=4)
    with pytest.raises(InputError, match=r"reaches 0\.75"):
        seen(training)


class Sentences(Dataset):
    """Sequences of a length of their own for each batch of four."""

    def __len__(self):
        return 24

    def __getitem__(self, place):
        tokens = (torch.arange(5 + place // 4 % 3) + place) % 7
        return tokens[:-1], tokens[1:]


class Language(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(7, 8), nn.Linear(8, 7)

    def forward(self, tokens):
        return self.head(self.embed(tokens)).movedim(-1, 1)


def padded(samples):
    longest = max(len(x) for x, _ in samples)
    return default_collate(
        [(F.pad(x, (0, longest - len(x))), F.pad(y, (0, longest - len(y)), value=-100)) for x, y in samples]
    )


@pytest.mark.parametrize("metric", ["accuracy", "loss"])
def test_batches_of_sequences_of_different_lengths_are_checked_and_trained(metric):
    loaders = [torch.utils.data.DataLoader(Sentences(), 4, collate_fn=padded) for _ in range(2)]
    training = training_of(
        model=Language,
        data=lambda: tuple(loaders),
        batch_size=None,
        metric=metric,
        goal=0.99 if metric != "loss" else 0.1,
    )
    found = seen(training)
    assert found.classes == 7
    assert found.setting.chance == found.setting.chance
    parts = assemble(training, Combination(), {}, seed=1, data_seed=0)
    last = list(train(training, parts))[-1]
    assert last.metric is not None
    assert last.step == 6


@pytest.mark.parametrize("targets", [F.one_hot(LABELS), LABELS[:, None], F.one_hot(LABELS).float()])
def test_one_hot_and_column_targets_are_trained_and_judged(targets):
    def loss(outputs, given):
        return F.cross_entropy(outputs, given.argmax(1) if given.shape[1] > 1 else given.squeeze(1))

    training = training_of(targets=targets, loss=loss)
    assert seen(training).setting.classes == 3
    parts = assemble(training, Combination(), {}, seed=1, data_seed=0)
    last = list(train(training, parts))[-1]
    assert last.metric == pytest.approx(last.validation.accuracy)
