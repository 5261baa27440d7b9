#!/usr/bin/env python3
"""What watching costs: step time of our loop with the probe on and off, and of a plain PyTorch loop, paired in one run.

usage: python benchmarks/overhead.py [--steps N] [--repeats N] [--only NET] [--noise]

Each repeat trains the same net three ways, from the same weights and batches, in turns from one validation to the next;
the ratios are of sums, over the stretches between validations, of each stretch's median over the repeats. All three
validate at the same steps. On a GPU, where there is one, by the wall clock; otherwise on one CPU thread and by that
thread's own time, so that other work on the machine counts less.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import nn
from torch.utils.data import TensorDataset

import remedy
from remedy.spaces.assembly import assemble
from remedy.spaces.batches import split
from remedy.spaces.combination import Combination
from remedy.spaces.metric import tally
from remedy.spaces.objective import TargetKind
from remedy.spaces.parts import Parts
from remedy.spaces.process import reset_process
from remedy.workers import look, loop
from remedy.workers.probe import Probe
from remedy.workers.statistics import read
from remedy.workers.strain import Gauge

BATCH = 64


def mlp(width: int) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(
        nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10)
    )


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.Flatten(), nn.Linear(4096, 10),
    )  # fmt: skip


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(64, 4, 128, dropout=0.0, batch_first=True)
        self.embed, self.body, self.head = nn.Linear(8, 64), nn.TransformerEncoder(layer, 2), nn.Linear(64, 10)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(self.embed(inputs.reshape(-1, 8, 8))).mean(1))  # type: ignore[no-any-return]


NETS: Mapping[str, Callable[[], nn.Module]] = {
    "MLP 64": mlp(64),
    "MLP 1024": mlp(1024),
    "CNN": cnn,
    "transformer": Transformer,
}


def training(model: Callable[[], nn.Module], steps: int, *, noise: bool = False) -> remedy.Training:
    inputs = torch.randn(2048, 64, generator=torch.Generator().manual_seed(0))
    # Something that a few hundred steps learn; or nothing, which looks wrong throughout.
    classes = torch.randint(0, 10, (2048,)) if noise else inputs[:, :10].argmax(1)
    data = TensorDataset(inputs, classes), TensorDataset(inputs[:64], classes[:64])
    return remedy.Training(
        model=model, data=lambda: data, loss=nn.CrossEntropyLoss(), optimizer=lambda p: torch.optim.Adam(p, lr=1e-3),
        batch_size=BATCH, steps=steps, metric="accuracy", goal=0.9,
    )  # fmt: skip


def built(plan: remedy.Training) -> Parts:
    return assemble(plan, Combination(), {}, seed=1, data_seed=0)


def plain(plan: remedy.Training, parts: Parts) -> Iterator[None]:
    """Train without us, with the validations that ours has; yields after each."""
    every, judge = max(1, math.ceil(parts.steps / loop.VALIDATIONS)), parts.original
    step, count = 0, len(parts.epochs)
    for _, batches in parts.epochs.epochs():
        for place, batch in enumerate(batches, start=1):
            inputs, targets = split(batch)
            parts.optimizer.zero_grad(set_to_none=True)
            plan.loss(parts.model(inputs.to(parts.device)), targets.to(parts.device)).backward()  # type: ignore[no-untyped-call]
            parts.optimizer.step()
            step += 1
            if place == count or step % every == 0 or step == parts.steps:
                total = tally(plan.metric, judge, parts.facts.kind, judge.scale)
                parts.model.eval()
                with torch.no_grad():
                    for inputs, targets in parts.validation:
                        total.add(parts.model(inputs.to(parts.device)), targets.to(parts.device))
                parts.model.train()
                total.value()
                yield
            if step == parts.steps:
                return


def ours(plan: remedy.Training, parts: Parts) -> Iterator[None]:
    """Train with our loop; yields after each validation."""
    for seen in loop.train(plan, parts):
        if seen.metric is not None:
            yield


class Blind(Probe):
    """A probe that looks at nothing: what is left is our loop."""

    def gradients(self, *, snapshot: bool = False) -> torch.Tensor:  # noqa: ARG002
        return torch.zeros(1)

    def moved(self) -> torch.Tensor:
        return torch.ones(1)

    def layers(self, *_: Any) -> tuple[tuple[Any, ...], bool]:
        return (), True

    @contextmanager
    def activations(self, into: list[Any]) -> Iterator[None]:  # noqa: ARG002
        yield


class Still(Gauge):
    """A gauge that measures nothing."""

    def figures(self, _outputs: Any, *, closely: bool = True) -> list[torch.Tensor]:  # noqa: ARG002
        return list(torch.full((4, 1), math.nan))

    def attention(self) -> float:
        return math.nan


def off(plan: remedy.Training, parts: Parts) -> Iterator[None]:
    """Train with our loop and nothing looked at."""
    blind = read([1.0, 1.0, 1.0, 1.0], TargetKind.REAL, 1)
    going = ours(plan, parts)
    while True:
        with (
            patch.object(loop, "Probe", Blind),
            patch.object(loop, "Gauge", Still),
            patch.object(loop, "describe", lambda *_: blind),
            patch.object(look, "figures", lambda *_: torch.ones(4)),
        ):
            if next(going, going) is going:
                return
        yield


WAYS = {"plain": plain, "off": off, "on": ours}


def raced(plan: remedy.Training, clock: Callable[[], float]) -> dict[str, list[float]]:
    """Train each way from the same weights, in turns from validation to validation; return the seconds of each."""
    made = {name: built(plan) for name in WAYS}
    going = {name: way(plan, made[name]) for name, way in WAYS.items()}
    took: dict[str, list[float]] = {name: [] for name in WAYS}
    names = list(WAYS)
    while going:
        names = [*names[1:], names[0]]
        for name in names:
            if name in going:
                began = clock()
                if next(going[name], going) is going:
                    del going[name]
                took[name].append(clock() - began)
    return took


def typical(turns: Sequence[Mapping[str, Sequence[float]]]) -> dict[str, float]:
    """Return the seconds of a run of each way: of each stretch between validations the median over the turns.

    A machine that is shared stalls for a while now and then; a whole run is rarely spared, most of its stretches are.
    """
    return {
        name: sum(statistics.median(times) for times in zip(*(turn[name] for turn in turns), strict=True))
        for name in WAYS
    }


def synchronised() -> float:
    torch.cuda.synchronize()
    return time.perf_counter()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--only", metavar="NET", help=f"one of {', '.join(NETS)}")
    parser.add_argument("--noise", action="store_true", help="labels of which nothing can be learnt")
    asked = parser.parse_args()
    reset_process()
    gpu = torch.cuda.is_available()
    clock = synchronised if gpu else time.thread_time
    device = torch.cuda.get_device_name() if gpu else "one CPU thread, its own time"
    print(f"{device}, batch {BATCH}, {asked.steps} steps, {asked.repeats} repeats")
    print(
        f"{'net':<14}{'plain ms/step':>14}{'loop/plain':>12}{'on/off':>8}{'on/plain':>10}  least and most on/off, looks"
    )
    for name, model in NETS.items():
        if asked.only not in (None, name):
            continue
        plan = training(model, asked.steps, noise=asked.noise)
        looks = sum(1 for _ in loop.train(plan, built(plan)))  # and this turn pays for everything that is made once
        turns = [raced(plan, clock) for _ in range(asked.repeats)]
        took = typical(turns)
        pairs = (("off", "plain"), ("on", "off"), ("on", "plain"))
        loops, watched, whole = (took[a] / took[b] for a, b in pairs)
        single = sorted(sum(turn["on"]) / sum(turn["off"]) for turn in turns)
        span = f"{single[0]:.3f} to {single[-1]:.3f}, {looks}"
        base = 1000 * took["plain"] / asked.steps
        print(f"{name:<14}{base:>14.3f}{loops:>12.3f}{watched:>8.3f}{whole:>10.3f}  {span}", flush=True)


if __name__ == "__main__":
    main()
