"""What held-out samples show of a training: whether its inputs tell anything, and if it is the data or the code."""

from __future__ import annotations

import math

import torch

from remedy.spaces.batches import split
from remedy.spaces.facts import Facts
from remedy.spaces.objective import TargetKind
from remedy.workers.attempt import Bench, amiss
from remedy.workers.double import Double, steady
from remedy.workers.easy import known
from remedy.workers.finding import Finding

_SIGNAL_STEPS, _LOOKS, _NO_BETTER = 100, 10, 0.9
_SEEN, _FEW, _MOSTLY = 256, 64, 0.8
_AGREED = 0.7
_COPIES, _KNOWN = 16, 0.25


def signal(bench: Bench) -> list[Finding]:
    """Train with the inputs as they are, with zeroed ones, and with permuted targets; compare on held-out samples."""
    facts, device = bench.parts.facts, bench.parts.device
    given, aims = facts.inputs, facts.targets.detach()
    if len(facts.every_input) == len(facts.every_target) > len(given):
        places = [place * (len(facts.every_input) - 1) // (_SEEN - 1) for place in range(_SEEN)]
        given, aims = facts.every_input[places], facts.every_target.detach()[places]
    if len(given) < _FEW or max(facts.counts, default=0) > _MOSTLY * sum(facts.counts):
        return []  # they would say nothing: so few samples, or one class nearly everywhere
    inputs, targets = split(next(iter(bench.parts.validation)))
    held = inputs[:_SEEN].to(device), targets[:_SEEN].to(device)
    given, aims = given.to(device), aims.to(device)
    bench.allow(3 * _SIGNAL_STEPS)
    order = torch.randperm(len(aims), generator=torch.Generator().manual_seed(0)).to(device)
    real, predicted = _held_out(bench, given, aims, held)
    if told := _renamed(predicted, held[1], facts):
        return [Finding("renamed_classes", "error", told)]
    blind, _ = _held_out(bench, torch.zeros_like(given), aims, (torch.zeros_like(held[0]), held[1]))
    mixed, _ = _held_out(bench, given, aims[order], held)
    if not all(map(math.isfinite, (real, blind, mixed))) or real < _NO_BETTER * min(blind, mixed):
        return []
    what = "with its inputs zeroed" if blind <= mixed else "with its targets permuted"
    shares = "of the variance unexplained" if facts.kind is TargetKind.REAL else "wrong"
    message = (
        f"trained {_SIGNAL_STEPS} steps with Adam, the model does no better on held-out samples ({real:.0%} {shares}) "
        f"than {what} ({min(blind, mixed):.0%}): wrong or shuffled targets, or inputs that do not tell?"
    )
    return [Finding("signal", "warning", message)]


def known_data(bench: Bench) -> list[Finding]:
    """Put known data of the same shape in the place of the training's own: is it the data, or the code?"""
    bench.allow(_SIGNAL_STEPS)
    inputs, targets = (part.to(bench.parts.device) for part in known(bench.parts.facts, _COPIES))
    seen = len(inputs) // 2
    wrong, _ = _held_out(bench, inputs[:seen], targets[:seen], (inputs[seen:], targets[seen:]))
    if not math.isfinite(wrong):
        return []
    share = "of the variance unexplained" if bench.parts.facts.kind is TargetKind.REAL else "wrong"
    told = f"known data of the same shape, noisy copies of easy inputs ({wrong:.0%} {share} on held-out ones)"
    if wrong <= _KNOWN:
        message = f"it learns {told}: look for the fault in the data, not in the code"
        return [Finding("known_data", "warning", message)]
    message = f"it does not learn {told} either: look for the fault in the code, above all in what validation does"
    return [Finding("known_data", "warning", message)]


def _held_out(
    bench: Bench, inputs: torch.Tensor, targets: torch.Tensor, held: tuple[torch.Tensor, torch.Tensor]
) -> tuple[float, torch.Tensor]:
    """Return how much is amiss at best on the held-out samples, while a double learns the others; and its outputs."""
    double, best, outputs = Double.of(bench.parts), math.inf, held[1]
    adam = torch.optim.Adam([p for p in double.model.parameters() if p.requires_grad], 3e-3)
    for step in range(1, _SIGNAL_STEPS + 1):
        with steady():
            bench.step(double, double.loss(inputs, targets)[1], adam)
        if step % _LOOKS == 0:
            double.model.eval()
            with torch.no_grad():
                outputs = double.model(held[0])
                best = min(best, amiss(bench.parts, outputs, held[1]))
            double.model.train()
    return best, outputs


def _renamed(outputs: torch.Tensor, targets: torch.Tensor, facts: Facts) -> str:
    """Say which class the held-out samples call by another's name, where the model tells them apart all the same."""
    if facts.kind is not TargetKind.CLASS_INDEX or outputs.dim() != 2 or targets.dim() != 1:
        return ""
    names = {label: int(outputs[targets == label].argmax(1).mode().values) for label in set(targets.tolist())}
    other = {label: name for label, name in names.items() if label != name}
    agreed = sum(int((outputs[targets == label].argmax(1) == name).sum()) for label, name in names.items())
    if len(set(names.values())) < len(names) or 2 * len(other) < len(names) or agreed < _AGREED * len(targets):
        return ""
    label, name = next(iter(other.items()))
    return (
        f"what is class {name} among the training samples is called {label} among those for validation, and so for "
        f"{len(other)} of {len(names)} classes: their labels are shifted, or numbered otherwise"
    )
