#!/usr/bin/env python3
"""Makes the corpus of traces: real trainings that nothing stops, and what is seen of them at every step.

usage: python benchmarks/corpus.py [--only KIND ...] [--seeds N] [--again] [--list]

Every kind of training (corpus_kinds.py) is trained on ten seeds, or is a search of its own: one random configuration a
seed. What our detectors and the rules of others would be given is kept in benchmarks/corpus/KIND.npz: a row of figures
an observation, cut to 11 bits of mantissa. A run that is there is not made again, so the making can be interrupted.
Whether a run is doomed is found by running it to the end: its metric (mean of the last three validations) misses the
goal. The same torch on the same kind of processor makes the same corpus.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from corpus_kinds import KINDS, Kind, Role
from numpy.typing import NDArray
from torch import nn

from remedy.spaces.assembly import assemble
from remedy.spaces.combination import Combination
from remedy.spaces.metric import meets
from remedy.spaces.objective import TargetKind
from remedy.spaces.parts import Parts
from remedy.spaces.process import reset_process
from remedy.workers import pace
from remedy.workers.detectors.guessing import progress
from remedy.workers.loop import VALIDATIONS, train
from remedy.workers.observation import Activation, Layer, Observation, Outputs, Setting
from remedy.workers.run import setting_of

FOLDER = Path(__file__).parent / "corpus"
FIRST_SEED = 3000
LAST = 3
TENTHS = 10
_OUTPUTS = len(dataclasses.fields(Outputs))
_HEAD = ("step", "loss", "mean_loss", "gradient_norm", "finite", "learning_rate", "validated", "metric", "saturated")
_LAYER = 4
_SATURATING = {nn.Tanh: (-9.4999, 9.4999), nn.Sigmoid: (-23.0, 16.99999)}
Table = NDArray[np.float32]


@dataclass(frozen=True)
class Look:
    """An observation, and beside it what only the rules of others ask for.

    Attributes:
        seen: the observation.
        mean_gradients: mean absolute gradient of each weight.
        saturated: largest share of a tanh or sigmoid layer's inputs beyond SageMaker's bounds; NaN without such layers.
    """

    seen: Observation
    mean_gradients: tuple[float, ...]
    saturated: float


@dataclass(frozen=True, eq=False)
class Trace:
    """One recorded run.

    Attributes:
        kind: the kind of training's name.
        role: whether it calibrates or judges.
        search: whether it belongs to a search, as one of its configurations.
        seed: of the run.
        setting: what a detector knows beforehand.
        looks: what was seen, in order.
    """

    kind: str
    role: Role
    search: bool
    seed: int
    setting: Setting
    looks: tuple[Look, ...]

    @cached_property
    def metrics(self) -> tuple[tuple[int, float], ...]:
        """The validation metric over steps."""
        return tuple((look.seen.step, look.seen.metric) for look in self.looks if look.seen.metric is not None)

    @cached_property
    def metric(self) -> float:
        """The mean of the last three validations."""
        last = [value for _, value in self.metrics[-LAST:]]
        return sum(last) / len(last)

    @cached_property
    def doomed(self) -> bool:
        """Whether the goal was missed at the end of the full budget."""
        return not meets(self.metric, self.setting.goal, self.setting.mode)

    @cached_property
    def reached(self) -> float:
        """How far it got, where guessing is 0 and the goal 1."""
        return progress(self.setting, self.metric)

    @cached_property
    def plateau(self) -> float:
        """The share of the budget until the metric was a quarter of the way to the goal for good."""
        late = [step for step, value in self.metrics if not progress(self.setting, value) >= 0.25]
        return max(late, default=0) / self.setting.steps


def paced(trace: Trace) -> list[Observation]:
    """Return what is seen of a run at the sparsest that its pace permits; the corpus holds every look."""
    setting = trace.setting
    steps = pace.Pace(setting.steps, every=pace._MOST * pace.interval(setting.steps))  # noqa: SLF001  (what it may be at most)
    validating = max(1, math.ceil(setting.steps / VALIDATIONS))
    seen, skipped = [], []
    for look in trace.looks:
        now = look.seen
        if now.metric is None and not steps.due(now.step):
            skipped.append(now)
            continue
        if skipped:
            losses = [each.mean_loss for each in (*skipped, now) if math.isfinite(each.mean_loss)]
            broken = [each.loss for each in (*skipped, now) if not math.isfinite(each.loss)]
            mean = sum(losses) / len(losses) if losses else math.nan
            now = dataclasses.replace(now, mean_loss=mean, loss=broken[0] if broken else now.loss)
            skipped = []
        if now.step % validating:  # updates are measured at validations only
            layers = tuple(dataclasses.replace(layer, update_ratio=math.nan) for layer in now.layers)
            now = dataclasses.replace(now, layers=layers)
        steps.see(now)
        seen.append(now)
    return seen


# ---------------------------------------------------------------- recording


def record(kind: Kind, seed: int) -> Trace:
    """Train one run to its end."""
    reset_process()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        training = dataclasses.replace(kind.training(seed), device="cpu")
        parts = assemble(training, Combination(), {}, seed=seed, data_seed=0)
        setting = setting_of(training, parts)
        peers = _Peers(parts)
        with mock.patch.object(pace, "SHARE", math.inf):  # looked at as often as can be, whatever it costs
            looks = tuple(peers.look(seen) for seen in train(training, parts))
    return Trace(kind.name, kind.role, kind.search, seed, setting, looks)


class _Peers:
    """What only the rules of others ask for."""

    def __init__(self, parts: Parts) -> None:
        self._weights = [p for p in parts.model.parameters() if p.requires_grad and p.dim() >= 2]
        self._all = [p for p in parts.model.parameters() if p.requires_grad]
        self._inputs: dict[int, tuple[torch.Tensor, tuple[float, float]]] = {}
        for place, module in enumerate(parts.model.modules()):
            bounds = _SATURATING.get(type(module))  # type: ignore[arg-type]
            if bounds is not None:
                module.register_forward_hook(self._noting(place, bounds))

    def _noting(self, place: int, bounds: tuple[float, float]) -> Any:
        def note(_module: nn.Module, args: Any, _output: Any) -> None:
            self._inputs[place] = args[0].detach(), bounds

        return note

    def look(self, seen: Observation) -> Look:
        means = [0.0 if p.grad is None else float(p.grad.detach().abs().mean()) for p in self._weights]
        norm = math.sqrt(sum(0.0 if p.grad is None else float(p.grad.detach().square().sum()) for p in self._all))
        # Gradients are read after clipping here, and are wanted from before it.
        factor = seen.gradient_norm / norm if norm > 0 and math.isfinite(seen.gradient_norm / norm) else 1.0
        beyond = [float(((x < low) | (x > high)).float().mean()) for x, (low, high) in self._inputs.values()]
        return Look(seen, tuple(factor * mean for mean in means), max(beyond, default=math.nan))


# ---------------------------------------------------------------- packing


def packed(trace: Trace) -> tuple[dict[str, Any], Table]:
    """Return the head of a run and its table."""
    names = next(([a.name for a in look.seen.activations] for look in trace.looks if look.seen.activations), [])
    head = {
        "seed": trace.seed,
        "setting": dataclasses.asdict(trace.setting),
        "layers": [layer.name for layer in trace.looks[0].seen.layers],
        "activations": names,
    }
    rows = [_row(look, len(names)) for look in trace.looks]
    with np.errstate(over="ignore"):
        return head, short(np.array(rows, dtype=np.float32))


def short(table: Table) -> Table:
    """Round to 11 bits of mantissa, so that it packs well; 0, 1, NaN and infinity stay, and nothing else becomes 1."""
    bits = table.view(np.uint32)
    rounded = ((bits + np.uint32(0x0800)) & np.uint32(0xFFFFF000)).view(np.float32).copy()
    rounded[~np.isfinite(table)] = table[~np.isfinite(table)]
    rounded[(rounded == 1) & (table < 1)] = np.float32(0.9995)
    return rounded


def _row(look: Look, activations: int) -> list[float]:
    seen = look.seen
    nothing = [-1.0] + [math.nan] * (_OUTPUTS - 1)
    row = [
        seen.step, seen.loss, seen.mean_loss, seen.gradient_norm, seen.finite_parameters, seen.learning_rate,
        seen.metric is not None, math.nan if seen.metric is None else seen.metric, look.saturated,
    ]  # fmt: skip
    for outputs in (seen.batch, seen.validation):
        row += nothing if outputs is None else [float(value) for value in dataclasses.astuple(outputs)]
    for layer, mean in zip(seen.layers, look.mean_gradients, strict=True):
        row += [layer.gradient_norm, layer.zero_share, layer.update_ratio, mean]
    shares = [activation.dead_share for activation in seen.activations]
    return [*row, *(shares or [math.nan] * activations)]


def unpacked(kind: Kind, head: dict[str, Any], table: Table) -> Trace:
    """Return a run as it was seen."""
    setting = Setting(**{**head["setting"], "kind": TargetKind(head["setting"]["kind"])})
    names, units = head["layers"], head["activations"]
    looks = tuple(_look(row, names, units) for row in table.astype(float).tolist())
    return Trace(kind.name, kind.role, kind.search, head["seed"], setting, looks)


def _look(row: Sequence[float], names: Sequence[str], units: Sequence[str]) -> Look:
    start = len(_HEAD)
    step, loss, mean_loss, norm, finite, rate, validated, metric, saturated = row[:start]
    outputs = [_outputs(row[start + place : start + place + _OUTPUTS]) for place in (0, _OUTPUTS)]
    start += 2 * _OUTPUTS
    each = [row[start + _LAYER * place : start + _LAYER * (place + 1)] for place in range(len(names))]
    dead = row[start + _LAYER * len(names) :]
    layers = tuple(Layer(name, norm, zero, ratio) for name, (norm, zero, ratio, _) in zip(names, each, strict=True))
    seen = Observation(
        int(step), loss, mean_loss, outputs[0], norm, layers, bool(finite), rate,
        metric if validated else None, outputs[1],
        tuple(Activation(name, share) for name, share in zip(units, dead, strict=True)) if validated else (),
    )  # fmt: skip
    return Look(seen, tuple(mean for *_, mean in each), saturated)


def _outputs(row: Sequence[float]) -> Outputs | None:
    if row[0] < 0:
        return None
    count, accuracy, share, top, entropy, sure, wrong, spread, over, finite = row
    return Outputs(int(count), accuracy, share, int(top), entropy, sure, wrong, spread, over, bool(finite))


def traces(kind: Kind, folder: Path = FOLDER) -> Iterator[Trace]:
    """Read what is recorded of a kind."""
    for head, table in _read(kind, folder):
        yield unpacked(kind, head, table)


def _read(kind: Kind, folder: Path) -> list[tuple[dict[str, Any], Table]]:
    path = folder / f"{kind.name}.npz"
    if not path.exists():
        return []
    with np.load(path) as stored:
        heads = json.loads(str(stored["heads"]))
        return [(head, stored[str(head["seed"])]) for head in heads]


def _write(kind: Kind, runs: Sequence[tuple[dict[str, Any], Table]], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tables: dict[str, Any] = {str(head["seed"]): table for head, table in runs}
    path = folder / f"{kind.name}.npz"
    beside = path.with_suffix(".new.npz")
    np.savez_compressed(beside, heads=json.dumps([head for head, _ in runs]), **tables)
    beside.replace(path)


def described(runs: Sequence[Trace]) -> str:
    """Say in one line how a kind's runs ended."""
    steps = runs[0].setting.steps
    ends = " ".join(f"{run.metric:.2f}" for run in runs[:10])
    late = sorted(run.plateau for run in runs if not run.doomed)
    plateau = f", plateau until {late[len(late) // 2]:.0%}" if late else ""
    healthy = sum(not run.doomed for run in runs)
    return (
        f"{runs[0].kind:<28}{runs[0].role:<10}{steps:>5} steps{healthy:>4} of {len(runs)} reach {runs[0].setting.goal}"
        f" (guessing {runs[0].setting.chance:.2f}): {ends}{plateau}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="KIND", help="kinds whose name begins so")
    parser.add_argument("--seeds", type=int, help="default: 10, and what a search has")
    parser.add_argument("--again", action="store_true", help="make anew what is there")
    parser.add_argument("--list", action="store_true", help="only say what is there")
    parser.add_argument("--out", type=Path, default=FOLDER, metavar="DIR", help="default: %(default)s")
    asked = parser.parse_args()
    kinds = [kind for kind in KINDS if not asked.only or any(kind.name.startswith(name) for name in asked.only)]
    runs = {kind.name: [] if asked.again else _read(kind, asked.out) for kind in kinds}
    # One seed of every kind before the next seed: what is interrupted is a smaller corpus, not half of one.
    for done in range(TENTHS) if not asked.list else ():
        for kind in kinds:
            most = min(asked.seeds or kind.seeds, kind.seeds)
            first, last = most * done // TENTHS, most * (done + 1) // TENTHS
            made = 0
            for seed in range(FIRST_SEED + first, FIRST_SEED + last):
                if all(head["seed"] != seed for head, _ in runs[kind.name]):
                    runs[kind.name].append(packed(record(kind, seed)))
                    made += 1
            if made:
                _write(kind, runs[kind.name], asked.out)
        print(f"{done + 1} of {TENTHS} parts are made", flush=True)
    for kind in kinds:
        if runs[kind.name]:
            print(described([unpacked(kind, *run) for run in runs[kind.name]]))


if __name__ == "__main__":
    main()
