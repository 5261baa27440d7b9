"""Small trainings of many kinds, and what can be compared of a run before and after a remedy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import settings
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import ReduceLROnPlateau, StepLR
from torch.utils.data import DataLoader, SequentialSampler, TensorDataset, WeightedRandomSampler

from remedy.spaces.assembly import assemble
from remedy.spaces.catalogue import REMEDIES
from remedy.spaces.combination import Combination
from remedy.spaces.parts import Parts
from remedy.spaces.training import Training

settings.register_profile("laws", deadline=None, max_examples=60)  # a busy machine is no failure
settings.load_profile("laws")
CATALOGUE = {remedy.name: remedy for remedy in REMEDIES}
SAMPLES, STEPS = 64, 10


def clipped(probabilities: Tensor, targets: Tensor) -> Tensor:
    return F.nll_loss(probabilities.clamp(1e-7, 1 - 1e-7).log(), targets)


class Cnn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 8, 3)
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear(8 * 36, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = F.relu(self.norm(self.first(inputs)))
        hidden = torch.relu(self.second(hidden)).flatten(1)
        return self.head(self.drop(hidden))


class Rnn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(4, 8, batch_first=True)
        self.hidden = nn.Linear(8, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        last = self.rnn(inputs)[0][:, -1]
        return F.softmax(self.head(torch.tanh(self.hidden(last))), dim=1)


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.1, batch_first=True)
        self.head = nn.Linear(4, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.body(inputs).mean(1))


def _made(shape: tuple[int, ...], targets: Callable[[Tensor], Tensor], shift: float = 0.0) -> tuple[Any, Any]:
    inputs = torch.randn(SAMPLES, *shape) * (1 + shift) + shift
    data = TensorDataset(inputs, targets(inputs))
    return data, data


def _rare(inputs: Tensor) -> Tensor:
    labels = torch.arange(len(inputs)) % 8
    return torch.where(labels < 5, 0, torch.where(labels < 7, 1, 2))


def _oversampled(train: TensorDataset) -> WeightedRandomSampler:
    labels = train.tensors[1]
    return WeightedRandomSampler((1 / labels.bincount()[labels]).tolist(), len(labels))


def _with_a_hole(inputs: Tensor) -> Tensor:
    targets = inputs.sum(1, keepdim=True)
    inputs[3, 1] = torch.nan
    return targets


def _training(**own: Any) -> Training:
    given = {
        "loss": nn.CrossEntropyLoss(), "optimizer": lambda params: torch.optim.Adam(params, lr=1e-2), "batch_size": 32,
        "steps": STEPS, "metric": "loss", "goal": 0.01, "device": "cpu", **own,
    }  # fmt: skip
    return Training(**given)


def _stack(*last: nn.Module, outputs: int = 3, activation: type[nn.Module] = nn.ReLU) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        hidden = [module for _ in range(2) for module in (nn.Linear(16, 16), activation())]
        return nn.Sequential(nn.Linear(8, 16), activation(), *hidden, nn.Linear(16, outputs), *last)

    return build


def _mlp() -> Training:
    return _training(model=_stack(nn.Softmax(dim=1)), data=lambda: _made((8,), _rare, shift=5.0), loss=clipped)


def _cnn() -> Training:
    return _training(
        model=Cnn, data=lambda: _made((1, 8, 8), _rare), sampler=_oversampled,
        optimizer=lambda params: torch.optim.SGD(params, lr=0.1, momentum=0.9, weight_decay=1e-4),
        schedule=lambda optimizer: StepLR(optimizer, 2), clip=lambda params: nn.utils.clip_grad_norm_(params, 5.0),
    )  # fmt: skip


def _rnn() -> Training:
    return _training(model=Rnn, data=lambda: _made((5, 4), _rare), loss=clipped)


def _transformer() -> Training:
    return _training(model=Transformer, data=lambda: _made((5, 4), _rare), metric="accuracy", goal=0.99)


def _regression() -> Training:
    return _training(
        model=_stack(outputs=1, activation=nn.Sigmoid), data=lambda: _made((8,), lambda x: x.sum(1, keepdim=True)),
        loss=nn.MSELoss(), schedule=ReduceLROnPlateau,
        optimizer=lambda params: torch.optim.SGD(params, lr=1e-3),
    )  # fmt: skip


def _binary() -> Training:
    return _training(
        model=_stack(nn.Sigmoid(), outputs=1), data=lambda: _made((8,), lambda x: (x[:, :1] > 0).float()),
        loss=nn.BCELoss(),
        optimizer=lambda params: torch.optim.RMSprop(params, lr=1e-3),
    )  # fmt: skip


def _holes() -> Training:
    return _training(model=_stack(outputs=1), data=lambda: _made((8,), _with_a_hole), loss=nn.MSELoss())


def _loaders() -> Training:
    def data() -> tuple[Any, Any]:
        train = _made((8,), _rare)[0]
        return DataLoader(train, 32, sampler=_oversampled(train)), DataLoader(train, 32)

    return _training(model=_stack(), data=data, batch_size=None)


def _part() -> Training:
    """Build one whose optimizer was given the last layer only, with a large epsilon."""
    return _training(
        model=_stack(), data=lambda: _made((8,), _rare),
        optimizer=lambda params: torch.optim.Adam(list(params)[-2:], lr=1e-2, eps=1e-3),
    )  # fmt: skip


def _half() -> Training:
    """Build one in half precision, on words, whose loss sums, in a fixed order, with a frozen layer."""

    def model() -> nn.Module:
        made = nn.Sequential(nn.Embedding(9, 8), nn.Flatten(), nn.Linear(40, 16), nn.ReLU(), nn.Linear(16, 3))
        made[2].weight.requires_grad_(False)
        return made

    def data() -> tuple[Any, Any]:
        words = torch.randint(0, 9, (SAMPLES, 5))
        return (TensorDataset(words, _rare(words)),) * 2

    return _training(
        model=model, data=data, precision="float16", sampler=SequentialSampler,
        loss=nn.CrossEntropyLoss(reduction="sum"), optimizer=lambda params: torch.optim.SGD(params, lr=1e-3),
    )  # fmt: skip


def _mismatch() -> Training:
    """Build one that ends in a ReLU before its cross-entropy, on inputs with outliers and targets with a graph."""

    def data() -> tuple[Any, Any]:
        inputs = torch.randn(SAMPLES, 8).exp()
        inputs[5] *= 1000
        return (TensorDataset(inputs, _rare(inputs).float().requires_grad_()),) * 2

    return _training(model=_stack(nn.ReLU()), data=data, loss=lambda o, t: F.cross_entropy(o, t.long()))


PROBLEMS = {
    "mlp": _mlp, "cnn": _cnn, "rnn": _rnn, "transformer": _transformer, "regression": _regression, "binary": _binary,
    "loaders": _loaders, "holes": _holes,
}  # fmt: skip
# Trainings with a fault that no other one has: a remedy for it has to apply here, the others are not tried on them.
FAULTS = {"part": _part, "half": _half, "mismatch": _mismatch}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "any_remedy" in metafunc.fixturenames:
        metafunc.parametrize("any_remedy", list(CATALOGUE))
    if "problem" in metafunc.fixturenames:
        metafunc.parametrize("problem", list(PROBLEMS))


@pytest.fixture
def problems() -> list[str]:
    """Return the names of all problems."""
    return [*PROBLEMS, *FAULTS]


@pytest.fixture
def training_of() -> Callable[..., Training]:
    """Return a training by the name of its problem, or one like the MLP with other parts."""
    return lambda problem=None, **own: {**PROBLEMS, **FAULTS}[problem]() if problem else _training(**own)


@pytest.fixture
def built() -> Callable[..., Parts]:
    """Assemble a training with remedies by name; parameters of theirs as a dict."""

    def build(training: Training, *names: str, **parameters: Any) -> Parts:
        params = {key: value for name in names for key, value in CATALOGUE[name].first().items()}
        params.update({key.replace("__", "."): value for key, value in parameters.items()})
        return assemble(training, Combination.of(params), CATALOGUE, seed=1, data_seed=0)

    return build


@pytest.fixture
def steps() -> Callable[..., list[float]]:
    """Train for real, in the order of the worker's loop; returns the losses."""

    def run(parts: Parts, count: int = STEPS) -> list[float]:
        losses: list[float] = []
        for _epoch, batches in parts.epochs.epochs():
            for inputs, targets in batches:
                parts.optimizer.zero_grad()
                with parts.precision.autocast(parts.device):
                    loss = parts.criterion(parts.model(inputs), targets)
                loss.backward()
                parts.update(loss)
                if parts.scheduler is not None and parts.schedule.interval == "step":
                    parts.scheduler.step()
                losses.append(float(loss.detach()))
                if len(losses) == count:
                    return losses
            if parts.scheduler is not None and parts.schedule.interval == "epoch":
                metric = (losses[-1],) if isinstance(parts.scheduler, ReduceLROnPlateau) else ()
                parts.scheduler.step(*metric)
        raise AssertionError

    return run


@pytest.fixture
def applied_to(training_of, built):
    """Apply remedies to a model on made data of a shape; returns the parts."""

    def apply(build, *names, shape=(6,), loss=None, classes=3, **parameters):
        def data():
            train = TensorDataset(torch.randn(24, *shape), torch.arange(24) % classes)
            return train, train

        training = training_of(model=build, data=data, loss=loss or nn.CrossEntropyLoss(), batch_size=8)
        return built(training, *names, **parameters)

    return apply
