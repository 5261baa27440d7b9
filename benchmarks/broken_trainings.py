"""The trainings of the search benchmark: broken in one way, in two at once, beyond repair, by luck, or not at all.

A full run takes tenths of a second on one core, two for the deepest. Beside those below there are the examples
(own_loop.py is wide_softmax.py once more, as a script, and left out); two are trainings of the tests.

`benchmarks/search.py --pairs` proves what they are: that the untouched training converges on at most one of five seeds,
that single remedies of the catalogue, as they are tried first, repair it, or that none does and two do together.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from remedy.spaces.training import Training

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "workers"))

import broken_model  # noqa: E402  (found by the line before)
from broken_model import blobs, curve, drawn, halves, rings  # noqa: E402


class Kind(StrEnum):
    """What is right to say of a training."""

    BROKEN = "broken"
    PAIR = "needs two"
    HEALTHY = "healthy"
    HOPELESS = "beyond repair"
    LUCK = "unstable by luck"


@dataclass(frozen=True)
class Case:
    """A training of the benchmark. `together` are two remedies, as tried first, that only jointly repair it."""

    name: str
    target: str
    kind: Kind = Kind.BROKEN
    together: tuple[str, str] | None = None

    @property
    def repairable(self) -> bool:
        """Whether there is something to repair, and something that repairs it."""
        return self.kind in (Kind.BROKEN, Kind.PAIR)


def net(
    sizes: tuple[int, ...], *last: nn.Module, activation: type[nn.Module] = nn.ReLU, zero: bool = False
) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(sizes[:-1]):
            layers += [nn.Linear(before, after), activation()]
        model = nn.Sequential(*layers, nn.Linear(*sizes[-2:]), *last)
        if zero:
            for parameter in model.parameters():
                nn.init.zeros_(parameter)
        return model

    return build


def sgd(lr: float, momentum: float = 0.0) -> Callable[[Any], torch.optim.Optimizer]:
    return lambda parameters: torch.optim.SGD(parameters, lr=lr, momentum=momentum)


def adam(lr: float) -> Callable[[Any], torch.optim.Optimizer]:
    return lambda parameters: torch.optim.Adam(parameters, lr=lr)


def training(data: tuple[Tensor, Tensor], **own: Any) -> Training:
    sets = halves(*data)
    usual = {
        "data": lambda: sets, "loss": nn.CrossEntropyLoss(), "optimizer": adam(0.01), "batch_size": 32, "steps": 80,
        "goal": 0.9, "device": "cpu",
    }  # fmt: skip
    return Training(**{**usual, **own})


def clipped_binary(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.binary_cross_entropy(outputs.clamp(1e-7, 1 - 1e-7), targets)


# ---------------------------------------------------------------- one fault


def far_inputs() -> Training:
    return broken_model.far_inputs()


def softmax_over_one_unit() -> Training:
    return broken_model.softmax_over_one_unit()


def deep_sigmoids() -> Training:
    """Eight layers of sigmoids pass hardly any gradient on."""
    return training(blobs(), model=net((8, *[24] * 8, 4), activation=nn.Sigmoid), optimizer=adam(0.003), steps=150)


def too_slow() -> Training:
    """The right direction, far too slowly."""
    return training(blobs(), model=net((8, 24, 24, 4)), optimizer=sgd(3e-4), steps=150)


def adam_too_fast() -> Training:
    """Steps far too long for five layers."""
    return training(blobs(), model=net((8, 32, 32, 32, 32, 32, 4)), optimizer=adam(0.3), steps=150)


def decayed() -> Training:
    """A weight decay stronger than what there is to learn."""
    return training(
        blobs(), model=net((8, 24, 24, 4)), steps=150,
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1, weight_decay=0.5),
    )  # fmt: skip


def fading() -> Training:
    """A learning rate that is gone before anything is learnt."""
    return training(
        blobs(), model=net((8, 24, 24, 4)), optimizer=sgd(0.05), steps=150, schedule_interval="step",
        schedule=lambda optimizer: torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.7),
    )  # fmt: skip


def overclipped() -> Training:
    """Clipping that leaves hardly anything of the gradient."""
    return training(
        blobs(), model=net((8, 24, 24, 4)), optimizer=sgd(0.1), steps=150,
        clip=lambda parameters: nn.utils.clip_grad_norm_(parameters, 1e-3),
    )  # fmt: skip


# ---------------------------------------------------------------- two faults at once


def constant_and_far() -> Training:
    """A softmax over one unit is always 1; and with a sigmoid there, inputs around 3,000 keep the net from learning."""
    inputs, labels = rings()
    return training(
        (inputs * 300 + 3000, labels[:, None].float()), model=net((2, 24, 24, 1), nn.Softmax(dim=1)),
        loss=clipped_binary, optimizer=adam(0.02), steps=150,
    )  # fmt: skip


def zero_and_slow() -> Training:
    """All weights are zero, so that only a bias moves; and with others the learning rate is far too small."""
    return training(blobs(), model=net((8, 24, 24, 4), zero=True), optimizer=sgd(0.0005), steps=150)


def sigmoid_and_far() -> Training:
    """Numbers around 2,000 of a sigmoid: too far for its range, and when they are scaled half of them are below 0."""
    inputs, targets = curve()
    return training(
        (inputs, 2000 + 300 * targets), model=net((4, 24, 24, 1), nn.Sigmoid(), activation=nn.Tanh),
        loss=nn.MSELoss(), metric="r2", goal=0.85, steps=120,
    )  # fmt: skip


# ---------------------------------------------------------------- controls


def sound_rings() -> Training:
    return training(rings(), model=net((2, 24, 24, 2)), optimizer=adam(0.02), steps=150)


def destroyed_labels() -> Training:
    """Labels that have nothing to do with the inputs, here and in validation: there is nothing to learn."""
    inputs, _ = blobs()
    return training((inputs, torch.randint(0, 4, (len(inputs),), generator=drawn(20))), model=net((8, 24, 24, 4)))


def lucky() -> Training:
    """Three units suffice for a ring within a ring, if they start well."""
    return training(rings(), model=net((2, 3, 2)), optimizer=adam(0.03), steps=200, goal=0.96)


EXAMPLES = ("wide_softmax", "deep_takeover", "stuck_at_ln_n", "dead_relu")
HERE = "benchmarks/broken_trainings.py"
SINGLE = (
    "too_slow", "adam_too_fast", "decayed", "fading", "overclipped", "far_inputs", "deep_sigmoids",
    "softmax_over_one_unit",
)  # fmt: skip
CASES: tuple[Case, ...] = (
    *(Case(name, f"examples/{name}.py:training") for name in EXAMPLES),
    *(Case(name, f"{HERE}:{name}") for name in SINGLE),
    Case("constant_and_far", f"{HERE}:constant_and_far", Kind.PAIR, ("standardise", "match_objective")),
    Case("zero_and_slow", f"{HERE}:zero_and_slow", Kind.PAIR, ("he", "scale_up")),
    Case("sigmoid_and_far", f"{HERE}:sigmoid_and_far", Kind.PAIR, ("standardise_targets", "match_objective")),
    Case("healthy", "examples/healthy.py:training", Kind.HEALTHY),
    Case("sound_rings", f"{HERE}:sound_rings", Kind.HEALTHY),
    Case("destroyed_labels", f"{HERE}:destroyed_labels", Kind.HOPELESS),
    Case("lucky", f"{HERE}:lucky", Kind.LUCK),
)
