"""What is exported as Python, run as it is on a plain training, trains as the remedy does: the same losses."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau

from remedy.spaces.assembly import assemble
from remedy.spaces.batches import Epochs
from remedy.spaces.catalogue import REMEDIES
from remedy.spaces.combination import Combination
from remedy.spaces.distribution import Float
from remedy.spaces.fix import python_text
from remedy.spaces.python import Python
from remedy.spaces.remedy import Change, Inapplicable, remedy
from remedy.spaces.seeding import derive, seed_all
from remedy.spaces.training import Training

SEED, EPOCHS = 3, 4
CATALOGUE = {known.name: known for known in REMEDIES}
CLAIMED = [known.name for known in REMEDIES if known.python is not None]


class Own:
    """What stands in a script where the exported one says `yours`."""

    def __init__(self, training: Training) -> None:
        self.training, self.losses = training, []

    def names(self) -> dict[str, Any]:
        names = ("build_data", "build_loader", "build_model", "build_loss", "build_optimizer", "build_scheduler")
        return {name: getattr(self, name) for name in (*names, "clip", "validate")}

    def build_data(self) -> tuple[Any, int, int, Any]:
        seed_all(derive(0, "data"))
        train, self.validation = self.training.data()
        seed_all(derive(SEED, "model"))
        sampler = self.training.sampler(train) if self.training.sampler is not None else None
        return train, self.training.batch_size, self.training.epochs, sampler

    def build_loader(self, train_set: Any, batch_size: int, sampler: Any) -> Loader:
        return Loader(Epochs(train_set, batch_size, sampler, None, derive(SEED, "order")))

    def build_model(self) -> Any:
        self.model = self.training.model()
        return self.model

    def build_loss(self) -> Any:
        return self.training.loss

    def build_optimizer(self, parameters: Any) -> Any:
        return self.training.optimizer(parameters)

    def build_scheduler(self, optimizer: Any) -> Any:
        return self.training.schedule(optimizer) if self.training.schedule is not None else None

    def clip(self, parameters: Any) -> None:
        if self.training.clip is not None:
            self.training.clip(parameters)

    def validate(self, model: Any) -> float:
        self.losses.append(judged(model, self.validation))
        return self.losses[-1]


class Loader:
    """The batches of a run of ours, epoch after epoch."""

    def __init__(self, epochs: Epochs) -> None:
        self.epochs, self.epoch = epochs, 0

    def __len__(self) -> int:
        return len(self.epochs)

    def __iter__(self) -> Any:
        if self.epoch == 0:
            seed_all(derive(SEED, "training"))
        self.epochs.begin(self.epoch)
        self.epoch += 1
        return iter(self.epochs.loader)


def judged(model: Any, validation: Any) -> float:
    model.eval()
    with torch.no_grad():
        outputs = model(validation.tensors[0])
    model.train()
    return float(outputs.float().square().mean())


def ours(training: Training, combination: Combination, catalogue: Any, losses: list[float]) -> Any:
    parts = assemble(training, combination, catalogue, seed=SEED, data_seed=0)
    seen = []
    done = 0
    for _, batches in parts.epochs.epochs():
        for inputs, targets in batches:
            parts.optimizer.zero_grad()
            loss = parts.criterion(parts.model(inputs), targets)
            loss.backward()
            parts.update(loss)
            done += 1
            if parts.scheduler is not None and parts.schedule.interval == "step":
                parts.scheduler.step()
        with parts.judged():
            seen.append(judged(parts.model, parts.train))
        if parts.scheduler is not None and parts.schedule.interval == "epoch":
            parts.scheduler.step(*((seen[-1],) if isinstance(parts.scheduler, ReduceLROnPlateau) else ()))
        if done >= parts.steps:
            break
    losses[:] = [*losses, *seen]
    return parts.receipts


@pytest.fixture
def recorded(monkeypatch):
    """Every loss that a backward pass begins at."""
    losses: list[float] = []
    backward = torch.Tensor.backward

    def record(self, *args, **kwargs):
        losses.append(float(self.detach()))
        backward(self, *args, **kwargs)

    monkeypatch.setattr(torch.Tensor, "backward", record)
    return losses


def both(training, combination, catalogue, recorded):
    """Return the losses of ours and of the exported script; None where the change cannot be said without us."""
    recorded.clear()
    receipts = ours(training, combination, catalogue, recorded)
    text = python_text(combination, catalogue, receipts, ["A fix."])
    if "NOT IN HERE" in text:
        return None
    first = list(recorded)
    recorded.clear()
    own = Own(training)
    exec(compile(text, "exported.py", "exec"), own.names())
    return first, [*recorded, *own.losses]


def trainings(problems, training_of):
    for name in problems:
        if name != "loaders":
            training = training_of(name)
            waits = training.schedule is ReduceLROnPlateau
            yield (
                name,
                replace(
                    training,
                    steps=None,
                    epochs=EPOCHS,
                    precision="float32",
                    schedule=None if waits else training.schedule,
                ),
            )


@pytest.mark.parametrize("name", CLAIMED)
def test_the_exported_script_trains_as_the_remedy_does(name, problems, training_of, recorded):
    combination, said = Combination.of(CATALOGUE[name].first()), []
    for problem, training in trainings(problems, training_of):
        try:
            found = both(training, combination, CATALOGUE, recorded)
        except Inapplicable:
            continue
        if found is None:
            continue
        first, second = found
        assert len(first) == len(second) > EPOCHS, problem
        if any(map(math.isfinite, first)):
            assert second == pytest.approx(first, rel=1e-4, abs=1e-6, nan_ok=True), problem
            said.append(problem)
    assert said, "claimed, and said in no training"


def pairs_and_more():
    """Combinations of remedies of several slots, the same ones each time."""
    draw = random.Random(11)
    for place in range(48):
        slots = {}
        for name in draw.sample(CLAIMED, 4):
            slots.setdefault(CATALOGUE[name].slot, name)
        yield pytest.param(place, tuple(slots.values()), id="-".join(slots.values()))


@pytest.mark.parametrize(("place", "names"), list(pairs_and_more()))
def test_an_exported_script_with_several_remedies_trains_as_they_do(place, names, problems, training_of, recorded):
    combination = Combination.of({key: value for name in names for key, value in CATALOGUE[name].first().items()})
    for problem, training in trainings(problems, training_of):
        try:
            found = both(training, combination, CATALOGUE, recorded)
        except Inapplicable:
            continue
        if found is not None and any(map(math.isfinite, found[0])):
            assert found[1] == pytest.approx(found[0], rel=1e-3, abs=1e-5, nan_ok=True), problem


def text_of(training, catalogue, *names):
    combination = Combination.of({key: value for name in names for key, value in catalogue[name].first().items()})
    parts = assemble(training, combination, catalogue, seed=SEED)
    return python_text(combination, catalogue, parts.receipts, ["Evil\nimport os", "A fix."])


def test_what_cannot_be_said_without_us_is_named_and_the_rest_is_there(training_of):
    text = text_of(training_of("mlp"), CATALOGUE, "lsuv", "clip_norm")
    assert "# NOT IN HERE: lsuv is not expressible without remedy: use fix.yaml\n" in text
    assert "clip_grad_norm_(parameters, 1.0)" in text
    compile(text, "fix.py", "exec")


def test_a_change_inside_a_forward_pass_is_not_said_as_code(training_of):
    """Its activations are calls of functions: no module could be exchanged."""
    assert "NOT IN HERE: leaky_relu" in text_of(training_of("cnn"), CATALOGUE, "leaky_relu")
    assert "NOT IN HERE: leaky_relu" not in text_of(training_of("mlp"), CATALOGUE, "leaky_relu")


def test_what_stands_above_a_script_stays_a_comment(training_of):
    head = text_of(training_of("mlp"), CATALOGUE, "clip_norm").partition("from __future__")[0]
    assert "Evil import os" in head
    assert all(line.startswith("#") for line in head.splitlines() if line)


def test_an_own_remedy_says_its_code_like_ours(training_of, recorded):
    @remedy(
        "gradient",
        treats=["exploding_gradient"],
        invasiveness=1,
        source="our team",
        python=Python(gradient="nn.utils.clip_grad_norm_(parameters[-$count:], $limit)"),
        limit=Float(0.001, 10.0),
    )
    def last_only(rule, *, limit: float = 0.01):
        """Clip the gradient of the last parameters only."""
        clip = torch.nn.utils.clip_grad_norm_
        return Change(lambda parameters: clip(parameters[-2:], limit), "the last two clipped", {"count": 2})

    training = replace(training_of("regression"), steps=None, epochs=EPOCHS, schedule=None)
    catalogue = {last_only.name: last_only}
    first, second = both(training, Combination.of(last_only.first()), catalogue, recorded)
    assert second == pytest.approx(first, rel=1e-5)
    assert first != both(training, Combination(), catalogue, recorded)[0]


def test_most_of_the_catalogue_says_its_code():
    assert len(CLAIMED) >= 105
