"""What the corpus' trainings are made of: small data sets, nets and losses."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR
from torch.utils.data import TensorDataset, WeightedRandomSampler

import remedy

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

from digits import IMBALANCED, digits

__all__ = ["IMBALANCED", "digits"]
Pair = tuple[TensorDataset, TensorDataset]

# ---------------------------------------------------------------- data


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def cut(inputs: Tensor, targets: Tensor, held: int) -> Pair:
    return TensorDataset(inputs[held:], targets[held:]), TensorDataset(inputs[:held], targets[:held])


@lru_cache
def clouds(
    classes: int = 8, features: int = 20, noise: float = 1.0, scale: float = 1.0, rare: float = 1.0, of: int = 3000
) -> Pair:
    """Draw Gaussian clouds, two for each class; `rare` thins out all classes but the first."""
    draw = generator(classes * 1000 + features)
    centres = 1.6 * torch.randn(2 * classes, features, generator=draw)
    which = torch.randint(0, 2 * classes, (of,), generator=draw)
    if rare < 1:
        keep = (which % classes == 0) | (torch.rand(of, generator=draw) < rare)
        which = which[keep]
    inputs = centres[which] + noise * torch.randn(len(which), features, generator=draw)
    return cut(scale * inputs, which % classes, 400)


@lru_cache
def spirals() -> Pair:
    draw = generator(3)
    arm = torch.randint(0, 3, (1500,), generator=draw)
    way = torch.rand(1500, generator=draw)
    angle = 2 * math.pi * arm / 3 + 5 * way + 0.15 * torch.randn(1500, generator=draw)
    return cut(torch.stack([way * angle.cos(), way * angle.sin()], 1), arm, 300)


@lru_cache
def parity(bits: int, of: int, samples: int = 20000) -> Pair:
    signs = (torch.rand(samples, bits, generator=generator(bits)) > 0.5).float() * 2 - 1
    return cut(signs, (signs[:, :of].prod(dim=1) > 0).long(), 600)


@lru_cache
def modular(base: int, held: float = 0.3) -> Pair:
    """Return all sums modulo `base`, the two terms one-hot beside each other."""
    a, b = torch.meshgrid(torch.arange(base), torch.arange(base), indexing="ij")
    order = torch.randperm(base * base, generator=generator(base))
    a, b = a.flatten()[order], b.flatten()[order]
    inputs = torch.cat([F.one_hot(a, base), F.one_hot(b, base)], 1).float()
    return cut(inputs, (a + b) % base, int(held * base * base))


@lru_cache
def table(name: str, *, raw: bool = False) -> Pair:
    """Return one of scikit-learn's small tables, standardised unless raw; a regression's targets standardised, too."""
    from sklearn import datasets  # type: ignore[import-untyped]  # noqa: PLC0415  (slow, and few kinds need it)

    features, found = getattr(datasets, f"load_{name}")(return_X_y=True)
    inputs, targets = torch.as_tensor(features, dtype=torch.float32), torch.as_tensor(found)
    order = torch.randperm(len(inputs), generator=generator(1))
    inputs, targets = inputs[order], targets[order]
    if not raw:
        inputs = (inputs - inputs.mean(0)) / inputs.std(0)
    if targets.is_floating_point():
        targets = targets.float()[:, None]
        targets = (targets - targets.mean()) / targets.std()
    return cut(inputs, targets, len(inputs) // 5)


def binary(pair: Pair) -> Pair:
    """Return 0/1 targets as one column of real numbers, as a binary cross-entropy takes them."""
    train, held = (TensorDataset(each.tensors[0], each.tensors[1].float()[:, None]) for each in pair)
    return train, held


def shuffled(pair: Pair) -> Pair:
    """Return the same inputs with labels that tell nothing of them."""
    train, held = pair
    order = torch.randperm(len(train), generator=generator(9))
    return TensorDataset(train.tensors[0], train.tensors[1][order]), held


def scaled_targets(pair: Pair, factor: float, shift: float = 0.0) -> Pair:
    train, held = (TensorDataset(each.tensors[0], factor * each.tensors[1] + shift) for each in pair)
    return train, held


@lru_cache
def waves(frequency: float = 2.0, noise: float = 0.1) -> Pair:
    """Return a sine of the sum of three numbers, with noise."""
    draw = generator(5)
    inputs = torch.rand(2000, 3, generator=draw) * 2 - 1
    targets = (frequency * inputs.sum(1, keepdim=True)).sin() + noise * torch.randn(2000, 1, generator=draw)
    return cut(inputs, targets / targets.std(), 400)


@lru_cache
def plane(features: int = 8) -> Pair:
    """Return a linear function with noise."""
    draw = generator(6)
    inputs = torch.randn(1500, features, generator=draw)
    weight = torch.randn(features, 1, generator=draw)
    targets = inputs @ weight + 0.1 * torch.randn(1500, 1, generator=draw)
    return cut(inputs, targets / targets.std(), 300)


@lru_cache
def remembered(length: int, symbols: int = 4, samples: int = 3000) -> Pair:
    """Return sequences of symbols; the target is the first one."""
    tokens = torch.randint(0, symbols, (samples, length), generator=generator(length))
    return cut(tokens, tokens[:, 0].clone(), 400)


@lru_cache
def counted(length: int, samples: int = 3000) -> Pair:
    """Return sequences of two symbols; the target is which is the more frequent."""
    tokens = torch.randint(0, 2, (samples, length), generator=generator(100 + length))
    return cut(tokens, (tokens.sum(1) * 2 > length).long(), 400)


@lru_cache
def next_symbols(length: int = 16, symbols: int = 8, samples: int = 2000) -> Pair:
    """Return sequences in which each symbol follows from the one before by a fixed rule, with one in ten at random."""
    draw = generator(7)
    rule = torch.randperm(symbols, generator=draw)
    tokens = torch.randint(0, symbols, (samples, length + 1), generator=draw)
    for place in range(1, length + 1):
        follow = torch.rand(samples, generator=draw) < 0.9
        tokens[follow, place] = rule[tokens[follow, place - 1]]
    return cut(tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous(), 300)


@lru_cache
def repeated(length: int = 12, symbols: int = 6, samples: int = 4000) -> Pair:
    """Return a random sequence twice in a row; only what can be known, the second half, is asked for."""
    half = torch.randint(0, symbols, (samples, length), generator=generator(8))
    tokens = torch.cat([half, half], 1)
    targets = tokens[:, 1:].clone()
    targets[:, : length - 1] = -100
    return cut(tokens[:, :-1].contiguous(), targets, 300)


@lru_cache
def labelled(labels: int = 6, features: int = 16) -> Pair:
    """Return several yes/no labels a sample."""
    draw = generator(11)
    inputs = torch.randn(2500, features, generator=draw)
    planes = torch.randn(features, labels, generator=draw)
    return cut(inputs, (inputs @ planes > 0).float(), 400)


def oversampled(train: TensorDataset) -> WeightedRandomSampler:
    """Draw every class equally often."""
    labels = train.tensors[1]
    return WeightedRandomSampler((1 / labels.bincount()[labels]).tolist(), num_samples=len(labels))


# ---------------------------------------------------------------- nets


def mlp(
    sizes: Sequence[int],
    activation: Callable[[], nn.Module] = nn.ReLU,
    start: Callable[[Tensor], Any] | None = None,
    last: Callable[[], nn.Module] | None = None,
    norm: Callable[[int], nn.Module] | None = None,
    bias: float = 0.0,
) -> Callable[[], nn.Module]:
    """Return the builder of a plain net; `start` initialises its weights, `last` ends it."""

    def model() -> nn.Module:
        layers: list[nn.Module] = []
        for place, (fan_in, fan_out) in enumerate(pairwise(sizes)):
            layer = nn.Linear(fan_in, fan_out)
            hidden = place < len(sizes) - 2
            if start is not None:
                start(layer.weight)
                nn.init.constant_(layer.bias, bias if hidden else 0.0)
            layers += [layer, *([norm(fan_out)] if norm and hidden else []), *([activation()] if hidden else [])]
        return nn.Sequential(*layers, *([last()] if last is not None else []))

    return model


def cnn(channels: int = 16, depth: int = 2, *, norm: bool = False, classes: int = 10) -> Callable[[], nn.Module]:
    """Return the builder of a small convolutional net on images of 8 x 8."""

    def model() -> nn.Module:
        layers: list[nn.Module] = [nn.Unflatten(1, (1, 8, 8))]
        for place in range(depth):
            layers += [nn.Conv2d(channels if place else 1, channels, 3, padding=1)]
            layers += [nn.BatchNorm2d(channels)] if norm else []
            layers += [nn.ReLU(), *([nn.MaxPool2d(2)] if place < 2 else [])]
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * 4, classes))

    return model


class Recurrent(nn.Module):
    """An embedding, a recurrent net, a head on its last state; optionally with orthogonal weights times a gain."""

    def __init__(self, cell: type[nn.RNNBase], symbols: int, classes: int, size: int = 32, gain: float = 0.0) -> None:
        super().__init__()
        self.embed = nn.Embedding(symbols, 16)
        self.body = cell(16, size, batch_first=True)
        self.head = nn.Linear(size, classes)
        if gain:
            for name, weight in self.body.named_parameters():
                if "weight_hh" in name:
                    nn.init.orthogonal_(weight, gain)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.body(self.embed(tokens))[0][:, -1])  # type: ignore[no-any-return]


class Transformer(nn.Module):
    """A decoder of a few small layers; gives the last position's scores, or all of them (batch, classes, positions)."""

    def __init__(
        self, symbols: int, classes: int, *, layers: int = 2, size: int = 32, every: bool = False, pre: bool = True
    ) -> None:
        super().__init__()
        self.embed, self.places = nn.Embedding(symbols, size), nn.Embedding(64, size)
        layer = nn.TransformerEncoderLayer(size, 2, 2 * size, dropout=0.0, batch_first=True, norm_first=pre)
        self.body = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = nn.Linear(size, classes)
        self.every = every

    def forward(self, tokens: Tensor) -> Tensor:
        length = tokens.shape[1]
        mask = torch.full((length, length), -math.inf).triu(1)
        states = self.body(self.embed(tokens) + self.places.weight[:length], mask=mask)
        return self.head(states).transpose(1, 2) if self.every else self.head(states[:, -1])  # type: ignore[no-any-return]


class Branch(nn.Module):
    """A layer of which the gradient does not get past its input."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, inputs: Tensor) -> Tensor:
        return self.inner(inputs.detach())  # type: ignore[no-any-return]


class NaiveSoftmax(nn.Module):
    def forward(self, scores: Tensor) -> Tensor:
        powers = scores.exp()
        return powers / powers.sum(dim=1, keepdim=True)


# ---------------------------------------------------------------- losses and recipes


def clipped_cross_entropy(probabilities: Tensor, targets: Tensor) -> Tensor:
    """Keras' cross-entropy: beyond the bounds its gradient is zero."""
    return F.nll_loss(probabilities.clamp(1e-7, 1 - 1e-7).log(), targets)


def clipped_binary(probabilities: Tensor, targets: Tensor) -> Tensor:
    """Keras' binary cross-entropy."""
    return F.binary_cross_entropy(probabilities.clamp(1e-7, 1 - 1e-7), targets)


def naive_cross_entropy(probabilities: Tensor, targets: Tensor) -> Tensor:
    return -probabilities.gather(1, targets[:, None]).log().mean()


def of(model: Callable[[], nn.Module], data: Callable[[], Any], **more: Any) -> remedy.Training:
    """Build a training from what differs."""
    usual = {"loss": nn.CrossEntropyLoss(), "optimizer": adam(1e-3), "batch_size": 64, "steps": 400, "goal": 0.87}
    return remedy.Training(**{**usual, "model": model, "data": data, **more})


def adam(rate: float, **more: Any) -> Callable[[Any], torch.optim.Optimizer]:
    return lambda params: torch.optim.Adam(params, lr=rate, **more)


def adamw(rate: float, decay: float) -> Callable[[Any], torch.optim.Optimizer]:
    return lambda params: torch.optim.AdamW(params, lr=rate, weight_decay=decay)


def sgd(rate: float, momentum: float = 0.0, **more: Any) -> Callable[[Any], torch.optim.Optimizer]:
    return lambda params: torch.optim.SGD(params, lr=rate, momentum=momentum, **more)


def warmup(steps: int) -> Callable[[torch.optim.Optimizer], Any]:
    return lambda optimizer: LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / steps))


def one_cycle(rate: float, steps: int) -> Callable[[torch.optim.Optimizer], Any]:
    return lambda optimizer: OneCycleLR(optimizer, rate, total_steps=steps)


def normal(std: float) -> Callable[[Tensor], Any]:
    return lambda weight: nn.init.normal_(weight, std=std)


def constant(value: float) -> Callable[[Tensor], Any]:
    return lambda weight: nn.init.constant_(weight, value)
