#!/usr/bin/env python3
"""What watching costs: step time of our loop, watched and not, over a plain PyTorch loop, paired in one run.

usage: python benchmarks/overhead.py [--steps N] [--repeats N]

Each repeat trains the same net three ways, in turns, from the same weights and batches; the ratios are medians over
the repeats of times taken in the same turn. On a GPU, where there is one, and on one CPU thread otherwise.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn
from torch.utils.data import TensorDataset

import remedy
from remedy.spaces.assembly import assemble
from remedy.spaces.batches import split
from remedy.spaces.combination import Combination
from remedy.spaces.parts import Parts
from remedy.spaces.process import reset_process
from remedy.workers import loop

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


def training(model: Callable[[], nn.Module], steps: int) -> remedy.Training:
    inputs, classes = torch.randn(2048, 64), torch.randint(0, 10, (2048,))
    data = TensorDataset(inputs, classes), TensorDataset(inputs[:64], classes[:64])
    return remedy.Training(
        model=model, data=lambda: data, loss=nn.CrossEntropyLoss(), optimizer=lambda p: torch.optim.Adam(p, lr=1e-3),
        batch_size=BATCH, steps=steps, metric="accuracy", goal=0.9,
    )  # fmt: skip


def built(plan: remedy.Training) -> Parts:
    return assemble(plan, Combination(), {}, seed=1, data_seed=0)


def plain(plan: remedy.Training, parts: Parts) -> None:
    step = 0
    for _, batches in parts.epochs.epochs():
        for batch in batches:
            inputs, targets = split(batch)
            parts.optimizer.zero_grad(set_to_none=True)
            plan.loss(parts.model(inputs.to(parts.device)), targets.to(parts.device)).backward()  # type: ignore[no-untyped-call]
            parts.optimizer.step()
            step += 1
            if step == parts.steps:
                return


def ours(plan: remedy.Training, parts: Parts) -> None:
    for _ in loop.train(plan, parts):
        pass


def unwatched(plan: remedy.Training, parts: Parts) -> None:
    usual, loop.interval = loop.interval, lambda steps: steps
    try:
        ours(plan, parts)
    finally:
        loop.interval = usual


def timed(way: Callable[[remedy.Training, Parts], None], plan: remedy.Training) -> float:
    parts = built(plan)
    if parts.device.type == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    way(plan, parts)
    if parts.device.type == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - began) / parts.steps * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--repeats", type=int, default=7)
    asked = parser.parse_args()
    reset_process()
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "one CPU thread"
    every = loop.interval(asked.steps)
    print(f"{device}, batch {BATCH}, {asked.steps} steps, {asked.repeats} repeats, a sample every {every} steps")
    print(f"{'net':<14}{'plain ms/step':>14}{'loop':>8}{'watched':>9}")
    for name, model in {"MLP 64": mlp(64), "MLP 1024": mlp(1024), "CNN": cnn, "transformer": Transformer}.items():
        plan = training(model, asked.steps)
        timed(ours, plan)  # the first turn pays for everything that is made once
        turns = [(timed(plain, plan), timed(unwatched, plan), timed(ours, plan)) for _ in range(asked.repeats)]
        base = statistics.median(turn[0] for turn in turns)
        ratios = [statistics.median(turn[place] / turn[0] for turn in turns) for place in (1, 2)]
        print(f"{name:<14}{base:>14.3f}{ratios[0]:>8.2f}{ratios[1]:>9.2f}", flush=True)


if __name__ == "__main__":
    main()
