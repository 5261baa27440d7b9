"""The third set of kinds, which judges last: written down before any of its runs was made or looked at.

Its families are in neither of the two halves: autoencoders, residual nets with layer norm, convolutions over waves,
bags of words, patches under attention, needles to be found in a sequence, counts, hinge losses, hard tanh, dropout,
restarts and cycles of the learning rate, wrong labels, outliers, a loss turned upside down. As in the halves names say
what a training is meant to show, and whether a run is doomed is decided by its end alone.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any

import corpus_parts as made
import torch
from corpus_parts import Pair, adam, cut, generator, mlp, of, sgd
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts, CyclicLR
from torch.utils.data import TensorDataset

import remedy

# ---------------------------------------------------------------- data


@lru_cache
def copied() -> Pair:
    """Return digits, standardised, as their own targets."""
    train, held = (pair.tensors[0].flatten(1).float() for pair in made.digits())
    mean, std = train.mean(0), train.std(0) + 0.1
    train, held = (train - mean) / std, (held - mean) / std
    return TensorDataset(train, train.clone()), TensorDataset(held, held.clone())


@lru_cache
def tones(classes: int = 6, length: int = 48) -> Pair:
    """Return noisy waves; the target is which of some frequencies they have."""
    draw = generator(21)
    which = torch.randint(0, classes, (2500,), generator=draw)
    phase = 2 * math.pi * torch.rand(2500, 1, generator=draw)
    time = torch.arange(length)[None]
    waves = (2 * math.pi * (which[:, None] + 1) * time / length + phase).sin()
    return cut((waves + 0.5 * torch.randn(2500, length, generator=draw))[:, None], which, 400)


@lru_cache
def bags(topics: int = 6, words: int = 60, length: int = 20) -> Pair:
    """Return bags of words; a word in three is one of the topic's own."""
    draw = generator(22)
    which = torch.randint(0, topics, (3000,), generator=draw)
    own = which[:, None] * (words // topics) + torch.randint(0, words // topics, (3000, length), generator=draw)
    other = torch.randint(0, words, (3000, length), generator=draw)
    return cut(torch.where(torch.rand(3000, length, generator=draw) < 0.33, own, other), which, 400)


@lru_cache
def needles(length: int = 12, symbols: int = 6) -> Pair:
    """Return sequences with one marker; the target is the symbol that follows it."""
    draw = generator(23)
    tokens = torch.randint(0, symbols, (4000, length), generator=draw)
    place = torch.randint(0, length - 1, (4000,), generator=draw)
    rows = torch.arange(4000)
    target = tokens[rows, place + 1].clone()
    tokens[rows, place] = symbols
    return cut(tokens, target, 500)


@lru_cache
def counts() -> Pair:
    """Return how often something happened, at a rate that is the exponential of a plane."""
    draw = generator(24)
    inputs = torch.randn(2000, 6, generator=draw)
    rates = (0.5 * (inputs @ torch.randn(6, 1, generator=draw)) + 1).clamp(max=4).exp()
    return cut(inputs, torch.poisson(rates, generator=draw), 400)


@lru_cache
def product() -> Pair:
    """Return the product of three numbers among six, with a little noise."""
    draw = generator(25)
    inputs = torch.rand(3000, 6, generator=draw) * 2 - 1
    targets = inputs[:, :3].prod(1, keepdim=True) + 0.01 * torch.randn(3000, 1, generator=draw)
    return cut(inputs, targets / targets.std(), 500)


@lru_cache
def outliers() -> Pair:
    """Return a linear function of which one training target in twenty is far off."""
    train, held = made.plane(8)
    inputs, targets = train.tensors
    draw = generator(26)
    far = torch.rand(len(targets), 1, generator=draw) < 0.05
    return TensorDataset(inputs, torch.where(far, 20 * torch.randn(targets.shape, generator=draw), targets)), held


@lru_cache
def mislabelled(share: float) -> Pair:
    """Return digits with a share of the training labels drawn at random."""
    train, held = made.digits()
    inputs, labels = train.tensors
    draw = generator(27)
    wrong = torch.rand(len(labels), generator=draw) < share
    return TensorDataset(inputs, torch.where(wrong, torch.randint(0, 10, labels.shape, generator=draw), labels)), held


@lru_cache
def spoilt() -> Pair:
    """Return clouds of which one training sample is not a number."""
    train, held = made.clouds()
    inputs = train.tensors[0].clone()
    inputs[1234, 3] = math.nan
    return TensorDataset(inputs, train.tensors[1]), held


# ---------------------------------------------------------------- nets


class Residual(nn.Module):
    """Blocks beside a straight path, with a layer norm in front of each."""

    def __init__(self, sizes: Sequence[int], blocks: int, *, norm: bool = True) -> None:
        super().__init__()
        into, width, out = sizes
        self.begin, self.end = nn.Linear(into, width), nn.Linear(width, out)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(width) if norm else nn.Identity(), nn.Linear(width, width), nn.ReLU(),
                nn.Linear(width, width),
            )
            for _ in range(blocks)
        )  # fmt: skip

    def forward(self, inputs: Tensor) -> Tensor:
        state = self.begin(inputs)
        for block in self.blocks:
            state = state + block(state)
        return self.end(state)  # type: ignore[no-any-return]


class Patches(nn.Module):
    """Attention over the rows of a small image, or over symbols; `sharp` multiplies queries and keys at the start."""

    def __init__(self, classes: int, *, symbols: int = 0, size: int = 32, sharp: float = 1.0) -> None:
        super().__init__()
        self.embed: nn.Module = nn.Embedding(symbols, size) if symbols else nn.Linear(8, size)
        self.places = nn.Parameter(0.1 * torch.randn(1, 16, size))
        self.layers = nn.ModuleList(nn.MultiheadAttention(size, 2, batch_first=True) for _ in range(2))
        self.mixes = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(size), nn.Linear(size, 2 * size), nn.GELU(), nn.Linear(2 * size, size))
            for _ in range(2)
        )
        self.head = nn.Linear(size, classes)
        self.symbols = symbols
        with torch.no_grad():
            for layer in self.layers:
                layer.in_proj_weight[: 2 * size] *= sharp  # type: ignore[union-attr, index]

    def forward(self, inputs: Tensor) -> Tensor:
        rows = inputs if self.symbols else inputs.reshape(len(inputs), 8, 8)
        states = self.embed(rows)
        states = states + self.places[:, : states.shape[1]]
        for attend, mix in zip(self.layers, self.mixes, strict=True):
            states = states + attend(states, states, states, need_weights=False)[0]
            states = states + mix(states)
        return self.head(states.mean(1))  # type: ignore[no-any-return]


def bagged(size: int = 24, classes: int = 6) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(nn.EmbeddingBag(60, size), nn.Linear(size, 32), nn.ReLU(), nn.Linear(32, classes))


def listening(width: int = 12, *, start: float = 0.0, activation: Callable[[], nn.Module] = nn.ReLU) -> Any:
    """Return the builder of convolutions over time; `start` is the weights' standard deviation where it is given."""

    def model() -> nn.Module:
        layers: list[nn.Module] = []
        for channels, into in ((width, 1), (width, width), (width, width)):
            layers += [nn.Conv1d(into, channels, 5, padding=2), activation(), nn.AvgPool1d(2)]
        net = nn.Sequential(*layers, nn.Flatten(), nn.Linear(width * 6, 6))
        for weight in net.parameters() if start else ():
            if weight.dim() > 1:
                nn.init.normal_(weight, std=start)
        return net

    return model


def dropping(sizes: Sequence[int], share: float) -> Callable[[], nn.Module]:
    def model() -> nn.Module:
        layers: list[nn.Module] = []
        for into, out in pairwise(sizes[:-1]):
            layers += [nn.Linear(into, out), nn.ReLU(), nn.Dropout(share)]
        return nn.Sequential(*layers, nn.Linear(sizes[-2], sizes[-1]))

    return model


def upside_down(scores: Tensor, targets: Tensor) -> Tensor:
    return -F.cross_entropy(scores, targets)


def restarts(every: int) -> Callable[[torch.optim.Optimizer], Any]:
    return lambda optimizer: CosineAnnealingWarmRestarts(optimizer, every)


def cycles(low: float, high: float, half: int) -> Callable[[torch.optim.Optimizer], Any]:
    return lambda optimizer: CyclicLR(optimizer, low, high, step_size_up=half, cycle_momentum=False)


def digits(model: Callable[[], nn.Module], **more: Any) -> remedy.Training:
    return of(model, made.digits, **more)


def real(model: Callable[[], nn.Module], data: Callable[[], Any], **more: Any) -> remedy.Training:
    return of(model, data, **{"loss": nn.MSELoss(), "metric": "r2", "goal": 0.7, **more})


FINAL: dict[str, Callable[[], remedy.Training]] = {
    # doomed, by and large
    "residual_hot": lambda: digits(lambda: Residual((64, 48, 10), 4), optimizer=sgd(3.0, 0.9)),
    "residual_bare_deep": lambda: digits(lambda: Residual((64, 48, 10), 24, norm=False), optimizer=sgd(0.3)),
    "tones_hot": lambda: of(listening(), tones, optimizer=adam(0.3), steps=300, goal=0.85),
    "tones_faint": lambda: of(
        listening(start=0.005, activation=nn.Tanh), tones, optimizer=sgd(0.01), steps=400, goal=0.85
    ),
    "bags_slow": lambda: of(bagged(), bags, optimizer=sgd(3e-3), goal=0.85),
    "bags_hot": lambda: of(bagged(), bags, optimizer=sgd(60.0, 0.9), goal=0.85),
    "patches_sharp": lambda: digits(lambda: Patches(10, sharp=40.0), optimizer=sgd(0.02), steps=250),
    "patches_hot": lambda: digits(lambda: Patches(10), optimizer=adam(0.3), steps=250),
    "autoencoder_hot": lambda: real(mlp((64, 64, 16, 64, 64)), copied, optimizer=adam(0.3), goal=0.5),
    "autoencoder_clipped": lambda: real(
        mlp((64, 64, 24, 64, 64), nn.ReLU6, last=nn.Sigmoid), copied, optimizer=adam(3e-3), goal=0.5
    ),
    "counts_hot": lambda: real(mlp((6, 48, 48, 1)), counts, loss=nn.PoissonNLLLoss(), optimizer=sgd(0.5, 0.9)),
    "hinge_hot": lambda: digits(mlp((64, 96, 96, 10)), loss=nn.MultiMarginLoss(), optimizer=adam(0.7)),
    "hard_tanh_large": lambda: digits(
        mlp((64, 64, 64, 64, 10), nn.Hardtanh, made.normal(2.0)), optimizer=adam(1e-3), goal=0.87
    ),
    "dropout_heavy": lambda: digits(dropping((64, 64, 64, 64, 10), 0.9)),
    "loss_upside_down": lambda: of(mlp((20, 64, 8)), made.clouds, loss=upside_down, optimizer=sgd(0.1), goal=0.8),
    "one_sample_not_a_number": lambda: of(mlp((20, 64, 64, 8)), spoilt, optimizer=adam(1e-3), goal=0.8),
    "labels_mostly_wrong": lambda: of(mlp((64, 128, 10)), lambda: mislabelled(0.95)),
    "adagrad_small": lambda: digits(mlp((64, 64, 64, 10)), optimizer=lambda p: torch.optim.Adagrad(p, lr=2e-4)),
    # healthy, by and large
    "healthy_residual": lambda: digits(lambda: Residual((64, 48, 10), 4), optimizer=adam(2e-3)),
    "healthy_tones": lambda: of(listening(), tones, optimizer=adam(3e-3), steps=400, goal=0.8),
    "healthy_bags": lambda: of(bagged(), bags, optimizer=adam(1e-2), goal=0.75),
    "healthy_patches": lambda: digits(lambda: Patches(10), optimizer=adam(2e-3), goal=0.8),
    "healthy_autoencoder": lambda: real(mlp((64, 64, 24, 64, 64)), copied, optimizer=adam(5e-3), goal=0.5, steps=500),
    "healthy_counts": lambda: real(mlp((6, 48, 1)), counts, loss=nn.PoissonNLLLoss(), optimizer=adam(5e-3), goal=0.5),
    "healthy_hinge": lambda: digits(mlp((64, 96, 10)), loss=nn.MultiMarginLoss(), optimizer=adam(3e-3)),
    "noisy_labels": lambda: of(mlp((64, 96, 10)), lambda: mislabelled(0.3), optimizer=adam(3e-3), goal=0.8),
    "noisy_outliers": lambda: real(
        mlp((8, 48, 1)), outliers, loss=nn.SmoothL1Loss(), optimizer=sgd(0.05, 0.9), batch_size=16
    ),
    "noisy_cycles": lambda: digits(
        mlp((64, 96, 96, 10)), optimizer=sgd(0.01, 0.9), schedule=cycles(0.005, 0.6, 50), schedule_interval="step",
        goal=0.8,
    ),
    "restarts_warm": lambda: digits(
        mlp((64, 96, 96, 10), nn.SiLU), optimizer=adam(0.01), schedule=restarts(100), schedule_interval="step",
    ),
    "slow_dropout": lambda: digits(dropping((64, 128, 128, 10), 0.5), optimizer=sgd(0.05, 0.9), steps=700, goal=0.85),
    "late_needles": lambda: of(
        lambda: Patches(6, symbols=7), needles, optimizer=adam(1.5e-3), steps=600, batch_size=48, goal=0.75
    ),
    "late_product": lambda: real(mlp((6, 96, 96, 1), nn.SiLU), product, optimizer=adam(2e-3), steps=900, goal=0.6),
    "late_tones": lambda: of(
        listening(start=0.08, activation=nn.Tanh), tones, optimizer=sgd(0.1, 0.9), steps=700, goal=0.75
    ),
    "late_autoencoder": lambda: real(
        mlp((64, 48, 24, 48, 64), nn.Tanh, made.normal(0.03)), copied, optimizer=sgd(0.5, 0.9), steps=700, goal=0.3,
    ),
}  # fmt: skip


def searched(seed: int) -> remedy.Training:
    """Draw what a search over residual nets and convolutions over waves draws; about half of it is no good."""
    draw = random.Random(seed)
    rate, batch = 10 ** draw.uniform(-4.5, 0.7), draw.choice((16, 32, 64))
    width, start = draw.choice((6, 12, 20)), draw.choice((0.0, 0.0, 0.02, 0.6))
    activation = draw.choice((nn.ReLU, nn.ReLU, nn.Tanh, nn.Sigmoid, nn.ReLU6))
    make = draw.choice((adam(rate), adam(rate), sgd(rate), sgd(rate, 0.9)))
    model = listening(width, start=start, activation=activation)
    return of(model, tones, optimizer=make, batch_size=batch, steps=240, goal=0.8)
