"""Pre-flight checks that train: can the code learn at all? A few hundred small steps on doubles of the parts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from remedy.spaces.batches import split, to_device
from remedy.spaces.parts import Parts
from remedy.workers.attempt import OWN, WITH_ADAM, Attempt, Bench, attempts
from remedy.workers.double import Double, steady, unmoved
from remedy.workers.easy import easy
from remedy.workers.finding import Finding
from remedy.workers.held_out import known_data, signal

SECONDS = 20.0
MOST = 1600
SHARE = 0.25
"""Of the training's own steps, before a study: what is found out then must not put off the first remedy by much."""
_SAMPLES = 16
_FEWEST = 16
"""Steps of an attempt to learn them, at least: most nets that can need no more (1 to 13 in benchmarks/search.py)."""
_HUGE_UPDATE, _TINY_UPDATE = 1.0, 1e-7
_MODE_STEPS, _MODE_FACTOR, _MODE_SHARE = 20, 2.0, 0.25
_LOSSES, _SAME = 10, 1e-3


@dataclass(frozen=True)
class Probation:
    """What a few hundred steps have shown.

    Attributes:
        samples: how many of the training's own samples were to be learnt by heart, `own` the attempts at that: with the
            training's own optimizer, then with Adam.
        classes: how many easy inputs, one to one to the classes; `easy` the attempts.
        findings: what is wrong whatever the run shows; `doubts` what is worth saying of a run that does not converge.
        left_out: checks that could not be made, with the reason.
        steps: optimizer steps trained in all.
    """

    samples: int = 0
    classes: int = 0
    own: tuple[Attempt, ...] = ()
    easy: tuple[Attempt, ...] = ()
    findings: tuple[Finding, ...] = ()
    doubts: tuple[Finding, ...] = ()
    left_out: tuple[str, ...] = ()
    steps: int = 0

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Probation:
        """Read what `dataclasses.asdict` made of it."""
        tried = {name: tuple(Attempt(**made) for made in data[name]) for name in ("own", "easy")}
        said = {
            name: tuple(Finding(**{**found, "suggests": tuple(found["suggests"])}) for found in data[name])
            for name in ("findings", "doubts")
        }
        return cls(**{**data, **tried, **said, "left_out": tuple(data["left_out"])})


def probation(
    parts: Parts, again: Callable[[], Parts] | None = None, seconds: float = SECONDS, most: int | None = None
) -> Probation:
    """Train doubles of the untouched parts for a few hundred small steps at most.

    `again` builds the run once more, from the same seed. All checks together take at most as many steps as the training
    itself (or `most`): one more run of a short training shows more than they do. What that leaves undecided is said to
    be left out.
    """
    facts, device = parts.facts, parts.device
    if not all(bool(torch.isfinite(given).all()) for given in (facts.inputs, facts.targets)):
        return Probation(left_out=("probation (the samples hold NaN or infinite values)",))
    bench = Bench(parts, seconds, min(MOST, parts.steps) if most is None else most)
    own: list[Attempt] = []
    simple: list[Attempt] = []
    with unmoved(parts):
        inputs, targets = (given[_places(facts.inputs)] for given in (facts.inputs, facts.targets.detach()))
        batch = inputs.to(device), targets.to(device)
        findings = [
            *bench.made("first_update", lambda: first_update(bench), []),
            *bench.made("modes", lambda: modes(bench), []),
            *(bench.made("determinism", lambda: determinism(bench, again), []) if again is not None else []),
        ]
        bench.made("one_batch", lambda: _by_heart(bench, batch, own), None)
        learns = any(attempt.learnt is not None for attempt in own)
        whole = learns or not any(told.startswith("one_batch") for told in bench.left_out)
        # Beside samples of which nothing is known, easy data would decide nothing.
        count = bench.made("easy_data", lambda: _easily(bench, simple, thorough=not learns), 0) if whole else 0
        doubts = bench.made("signal", lambda: signal(bench), []) if learns else []
        if any(doubt.check == "signal" for doubt in doubts):
            doubts = [*doubts, *bench.made("known_data", lambda: known_data(bench), [])]
    return Probation(
        samples=len(inputs),
        classes=count,
        own=tuple(own) if whole else (),
        easy=tuple(simple) if count else (),
        findings=tuple(findings),
        doubts=tuple(doubts),
        left_out=tuple(bench.left_out),
        steps=bench.steps,
    )


def _places(inputs: torch.Tensor) -> list[int]:
    count = min(_SAMPLES, len(inputs))
    return [place * (len(inputs) - 1) // max(1, count - 1) for place in range(count)]


def _by_heart(bench: Bench, batch: tuple[torch.Tensor, torch.Tensor], made: list[Attempt]) -> None:
    """Try to learn the samples with half of all steps at most: without the other half nothing would be decided.

    Not where hardly any may be made: an attempt that is cut off tells nothing, and has cost them.
    """
    bench.allow(2 * _FEWEST)
    every = bench.most
    bench.most = min(every, bench.steps + every // 2)
    try:
        attempts(bench, batch, made, WITH_ADAM)
    finally:
        bench.most = every


def _easily(bench: Bench, made: list[Attempt], *, thorough: bool) -> int:
    """Try to learn easy data; inputs of the training's own scale where those of a plain one are not learnt."""
    plan, count = (*OWN, (1e-2, 200)) if thorough else OWN, 0
    for own_scale in (False, True):
        batch = easy(bench.parts.facts, own_scale=own_scale)
        count = len(batch[0])
        attempts(bench, (batch[0].to(bench.parts.device), batch[1].to(bench.parts.device)), made, plan)
        if any(attempt.learnt is not None for attempt in made):
            return count
        if not batch[0].is_floating_point():
            break
        plan = ((None, 150),)
    return count


# ---------------------------------------------------------------- one step, twenty steps


def first_update(bench: Bench) -> list[Finding]:
    """Make one step of the training's own: where to, and how far?"""
    double = Double.of(bench.parts).without_dropout()
    facts, device = bench.parts.facts, bench.parts.device
    size = max(2, facts.batch_size)
    inputs, targets = facts.inputs[:size].to(device), facts.targets[:size].detach().to(device)
    named = [(name, p) for name, p in double.model.named_parameters() if p.requires_grad]
    before = [p.detach().clone() for _, p in named]
    with steady():
        _, loss = double.loss(inputs, targets)
        slopes = torch.autograd.grad(loss, [p for _, p in named], retain_graph=True, allow_unused=True)
        bench.step(double, loss)
    moves = [p.detach() - old for (_, p), old in zip(named, before, strict=True)]
    along = sum(float((g.float() * m.float()).sum()) for g, m in zip(slopes, moves, strict=True) if g is not None)
    if along > 0:
        message = "the optimizer's first step goes up the loss: its sign, or `maximize`, or the clipping turns it round"
        return [Finding("direction", "error", message)]
    held = {p for group in double.optimizer.param_groups for p in group["params"]}
    ratios = {
        name: float(move.norm()) / float(old.norm())
        for (name, p), move, old in zip(named, moves, before, strict=True)
        if p in held and p.dim() > 1 and float(old.norm()) > 0
    }
    if not ratios:
        return []
    name, most = max(ratios.items(), key=lambda item: item[1])
    if not math.isfinite(most) or most > _HUGE_UPDATE:
        message = f"the first step changes {name} by {most:.2g} times its own size"
        return [Finding("first_update", "warning", message, ("scale_down", "warmup", "clip_norm", "adam"))]
    rising = bench.parts.scheduler is not None and bench.parts.schedule.interval == "step"
    if most < _TINY_UPDATE and not rising:  # a warm-up may begin at 0
        message = f"the first step changes no weight by more than {most:.1g} of its size"
        return [Finding("first_update", "warning", message, ("scale_up", "adam", "range_test"))]
    return []


def modes(bench: Bench) -> list[Finding]:
    """Train some steps, and compare the loss of the same samples in training mode and in evaluation mode."""
    double, facts, device = Double.of(bench.parts), bench.parts.facts, bench.parts.device
    if not any(
        isinstance(m, nn.modules.batchnorm._BatchNorm | nn.modules.dropout._DropoutNd)  # noqa: SLF001
        for m in double.model.modules()
    ):
        return []
    size = max(2, min(facts.batch_size, len(facts.inputs)))
    chunks = list(zip(torch.split(facts.inputs, size), torch.split(facts.targets.detach(), size), strict=True))
    chunks = [chunk for chunk in chunks if len(chunk[0]) > 1]
    first = math.nan
    for step in range(_MODE_STEPS):
        inputs, targets = (part.to(device) for part in chunks[step % len(chunks)])
        _, loss = double.loss(inputs, targets)
        first = float(loss.detach()) if step == 0 else first
        bench.step(double, loss)
    inputs, targets = (part.to(device) for part in chunks[0])
    with torch.no_grad():
        training = float(double.loss(inputs, targets)[1])
        double.model.eval()
        evaluation = float(double.loss(inputs, targets)[1])
    if not evaluation > max(_MODE_FACTOR * training, training + _MODE_SHARE * abs(first)):
        return []
    message = (
        f"after {_MODE_STEPS} steps the same samples have a loss of {training:.3g} in training mode and of "
        f"{evaluation:.3g} in evaluation mode: batch norm or dropout makes two different nets"
    )
    return [Finding("modes", "warning", message, ("group_norm", "batch_norm_off", "dropout_lower"))]


def determinism(bench: Bench, again: Callable[[], Parts]) -> list[Finding]:
    """Begin the run twice from the same seed: the losses must be the same."""
    first, second = _losses(bench, again()), _losses(bench, again())
    for step, (one, other) in enumerate(zip(first, second, strict=True), start=1):
        if math.isfinite(one) and math.isfinite(other) and abs(one - other) > _SAME * max(abs(one), abs(other)):
            message = f"the same seed gives other losses: {one:.5g} and {other:.5g} at step {step}"
            return [Finding("determinism", "warning", message)]
    return []


def _losses(bench: Bench, parts: Parts) -> list[float]:
    double, losses = Double(parts, parts.model.train(), parts.criterion, parts.optimizer, parts.scheduler), []
    for _, batches in parts.epochs.epochs():
        for batch in batches:
            inputs, targets = split(batch)
            _, loss = double.loss(to_device(inputs, parts.device), targets.detach().to(parts.device))
            losses.append(float(loss.detach()))
            bench.step(double, loss)
            if len(losses) == min(_LOSSES, parts.steps):
                return losses
    return losses
