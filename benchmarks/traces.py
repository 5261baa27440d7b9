#!/usr/bin/env python3
"""Records the trainings whose observations tests/workers/test_detectors.py replays to the detectors, one file each.

usage: python benchmarks/traces.py [--out DIR] [--only NAME]

Every training runs on its own seed, on the CPU, without detectors, so that a doomed one goes on to its end. What is
seen of it is rounded and packed: the setting and the names once, then one row an observation. The same torch on the
same kind of processor writes the same files; another may write others, and the tests say whether they will still do.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import remedy
from remedy.spaces.assembly import assemble
from remedy.spaces.combination import Combination
from remedy.spaces.process import reset_process
from remedy.spaces.symptom import Symptom
from remedy.spaces.target import find, load
from remedy.workers.loop import train
from remedy.workers.observation import Layer, Observation, Outputs, Setting
from remedy.workers.run import setting_of

HOUSE = Path(__file__).resolve().parents[1]
TRACES = HOUSE / "tests" / "workers" / "traces"

# ---------------------------------------------------------------- trainings


def example(name: str) -> remedy.Training:
    return load(find(f"{HOUSE / 'examples' / name}.py:training")).training


def mlp(
    sizes: Sequence[int],
    activation: Callable[[], nn.Module] = nn.ReLU,
    start: Callable[[Tensor], Tensor] | None = None,
    last: Callable[[], nn.Module] | None = None,
) -> Callable[[], nn.Module]:
    """Return the builder of a plain net; `start` initialises its weights, with biases of 0, and `last` ends it."""

    def model() -> nn.Module:
        layers: list[nn.Module] = []
        for fan_in, fan_out in pairwise(sizes):
            layer = nn.Linear(fan_in, fan_out)
            if start is not None:
                start(layer.weight)
                nn.init.zeros_(layer.bias)
            layers += [layer, activation()]
        return nn.Sequential(*layers[:-1], *([last()] if last is not None else []))

    return model


def adam(rate: float) -> Callable[[Any], torch.optim.Optimizer]:
    return lambda params: torch.optim.Adam(params, lr=rate)


class NaiveSoftmax(nn.Module):
    def forward(self, scores: Tensor) -> Tensor:
        powers = scores.exp()
        return powers / powers.sum(dim=1, keepdim=True)


def naive_cross_entropy(probabilities: Tensor, targets: Tensor) -> Tensor:
    return -probabilities.gather(1, targets[:, None]).log().mean()


def logarithm_of_zero() -> remedy.Training:
    """Build the wide softmax with nothing clipped or shifted: an exponential overflows, and all weights are NaN."""
    model = mlp((64, 1024, 10), last=NaiveSoftmax)
    return dataclasses.replace(example("wide_softmax"), model=model, loss=naive_cross_entropy)


def softmax_into_cross_entropy_hot() -> remedy.Training:
    model = mlp((64, 128, 128, 128, 128, 10), last=lambda: nn.Softmax(dim=1))
    return dataclasses.replace(example("stuck_at_ln_n"), model=model, optimizer=adam(0.03))


def deep_sigmoid() -> remedy.Training:
    model = mlp((64, *[64] * 12, 10), nn.Sigmoid, nn.init.xavier_normal_)
    return dataclasses.replace(example("healthy"), model=model)


def healthy_noisy() -> remedy.Training:
    """Build a training that a large rate and small batches shake, and that arrives."""
    model = mlp((64, 512, 512, 10))
    return dataclasses.replace(example("healthy"), model=model, optimizer=adam(0.03), batch_size=16, goal=0.8)


def healthy_late_tanh() -> remedy.Training:
    """Build a training that guesses for long, its first weights being next to nothing, and then learns."""
    return dataclasses.replace(
        example("healthy"),
        model=mlp((64, 64, 64, 64, 10), nn.Tanh, lambda weight: nn.init.normal_(weight, std=0.01)),
        optimizer=lambda params: torch.optim.SGD(params, lr=0.1, momentum=0.9),
        steps=900,
    )


def parity() -> tuple[TensorDataset, TensorDataset]:
    """Return signs, 30 a sample, and whether the product of the first three is positive."""
    signs = (torch.rand(21000, 30, generator=torch.Generator().manual_seed(0)) > 0.5).float() * 2 - 1
    positive = (signs[:, :3].prod(dim=1) > 0).long()
    return TensorDataset(signs[1000:], positive[1000:]), TensorDataset(signs[:1000], positive[:1000])


def healthy_late_parity() -> remedy.Training:
    """Build a training that sees no better than chance until it has found the three signs that count."""
    return remedy.Training(
        model=mlp((30, 128, 2)), data=parity, loss=nn.CrossEntropyLoss(), optimizer=adam(0.001),
        batch_size=64, steps=1500, metric="accuracy", goal=0.9,
    )  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A training to record, and the symptom that stops it or is noted; neither where it is healthy.

    On another seed, deep_leaky may be stopped as a saturated softmax and softmax_into_cross_entropy_hot as a takeover.
    """

    training: Callable[[], remedy.Training]
    stop: Symptom | None = None
    note: Symptom | None = None
    seed: int = 1000

    @property
    def expected(self) -> dict[str, str]:
        return {kind: str(name) for kind, name in (("stop", self.stop), ("note", self.note)) if name is not None}


CASES: Mapping[str, Case] = {
    "clipped_softmax_wide": Case(lambda: example("wide_softmax"), stop=Symptom.SATURATED_SOFTMAX),
    "dead_relu": Case(lambda: example("dead_relu"), stop=Symptom.DEAD_UNITS),
    "deep_leaky": Case(lambda: example("deep_takeover"), stop=Symptom.ACCURACY_COLLAPSE),
    "deep_sigmoid": Case(deep_sigmoid, stop=Symptom.VANISHING_GRADIENT),
    "healthy_late_parity": Case(healthy_late_parity),
    "healthy_late_tanh": Case(healthy_late_tanh),
    "healthy_noisy": Case(healthy_noisy),
    "logarithm_of_zero": Case(logarithm_of_zero, stop=Symptom.NON_FINITE),
    "softmax_into_cross_entropy_hot": Case(softmax_into_cross_entropy_hot, stop=Symptom.SATURATED_SOFTMAX),
    "softmax_into_cross_entropy_slow": Case(lambda: example("stuck_at_ln_n"), note=Symptom.CHANCE_PLATEAU),
}

# ---------------------------------------------------------------- recording and packing


def record(case: Case) -> tuple[Setting, list[Observation]]:
    reset_process()
    training = dataclasses.replace(case.training(), device="cpu")
    parts = assemble(training, Combination(), {}, seed=case.seed, data_seed=0)
    setting = setting_of(training, parts)
    return setting, list(train(training, parts))


def rounded(value: Any, digits: int = 4) -> Any:
    """Return a float as JSON has it in the fewest characters; what JSON has no number for becomes a string."""
    if not isinstance(value, float):
        return value
    if not math.isfinite(value):
        return str(value)
    short = float(f"{value:.{digits}g}")
    return int(short) if short.is_integer() and abs(short) < 1e15 else short


def zero_share(layer: Layer) -> float:
    """Return the share in two digits, never rounded up to 1: all of a gradient being 0 means something of its own."""
    return rounded(layer.zero_share if layer.zero_share >= 1 else min(layer.zero_share, 0.99), 2)  # type: ignore[no-any-return]


def outputs(seen: Outputs | None) -> list[Any] | None:
    return None if seen is None else [rounded(value) for value in dataclasses.astuple(seen)]


def row(seen: Observation) -> list[Any]:
    """Pack an observation, without what no detector reads: the ratios of the updates."""
    return [
        seen.step, rounded(seen.loss), rounded(seen.mean_loss), rounded(seen.gradient_norm, 3), seen.finite_parameters,
        rounded(seen.learning_rate, 3),
        [rounded(layer.gradient_norm, 2) for layer in seen.layers], [zero_share(layer) for layer in seen.layers],
        outputs(seen.batch), rounded(seen.metric), outputs(seen.validation),
        [rounded(activation.dead_share, 3) for activation in seen.activations] or None,
    ]  # fmt: skip


def packed(case: Case, setting: Setting, seen: Sequence[Observation]) -> str:
    head = {
        "expected": case.expected,
        "setting": {name: rounded(value, 6) for name, value in dataclasses.asdict(setting).items()},
        "layers": [layer.name for layer in seen[0].layers],
        "activations": next(([unit.name for unit in look.activations] for look in seen if look.activations), []),
    }
    rows = ",\n".join(json.dumps(row(look), separators=(",", ":"), allow_nan=False) for look in seen)
    return f'{json.dumps(head, allow_nan=False)[:-1]}, "rows": [\n{rows}\n]}}\n'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=TRACES, metavar="DIR", help="default: %(default)s")
    parser.add_argument("--only", choices=CASES, metavar="NAME", help=f"one of {', '.join(CASES)}")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    for name, case in CASES.items():
        if asked.only in (None, name):
            setting, seen = record(case)
            text = packed(case, setting, seen)
            (asked.out / f"{name}.json").write_text(text, encoding="utf-8")
            print(f"{name:<33}seed {case.seed}{len(seen):>5} observations{len(text):>7} bytes", flush=True)


if __name__ == "__main__":
    main()
