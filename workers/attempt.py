"""Attempts to learn a few samples by heart, within a number of steps and a time."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.optim import Optimizer

from remedy.spaces.error import TimeLimit, sentence
from remedy.spaces.metric import decide
from remedy.spaces.objective import TargetKind
from remedy.spaces.parts import Parts
from remedy.workers.double import Double, steady
from remedy.workers.effort import Effort

Plan = tuple[tuple[float | None, int], ...]
OWN: Plan = ((None, 300),)
"""With the training's own optimizer; (Adam's learning rate, most steps) otherwise."""
WITH_ADAM: Plan = (*OWN, (1e-3, 200), (1e-2, 200), (1e-4, 100))
_WINDOW, _BETTER = 75, 0.999
_WRONG, _WRONG_PLACES, _UNEXPLAINED = 0.05, 0.2, 0.1
_STILL = 5
_ASIDE = 0.1


class OutOfTimeError(Exception):
    """The checks have taken the time, or the steps, that they may take."""


@dataclass(frozen=True)
class Attempt:
    """One attempt to learn a few samples by heart; `learnt` is the step after which it was done, or None."""

    optimizer: str
    steps: int
    learnt: int | None


@dataclass
class Bench:
    """Counts the steps that are tried, and ends what takes too long.

    `most` are the steps that may be tried in all: what they find out must not cost more than it saves.
    """

    parts: Parts
    seconds: float
    most: int
    steps: int = 0
    left_out: list[str] = field(default_factory=list)
    effort: Effort = field(default_factory=Effort)
    over: str = ""
    """Why nothing more is tried."""

    def allow(self, steps: int) -> None:
        """Refuse what cannot be finished before it is begun.

        Raises:
            OutOfTimeError: so many steps are more than what is left.
        """
        if self.effort.seconds > self.seconds:
            raise OutOfTimeError("its steps take too long here")
        if self.steps + steps > self.most:
            raise OutOfTimeError(f"it would take more than the {self.most} steps that may be tried here")

    def step(self, double: Double, loss: torch.Tensor, optimizer: Optimizer | None = None) -> None:
        """Make one step.

        Raises:
            OutOfTimeError: there is no time for it, or no step left.
        """
        self.allow(1)
        double.step(loss, optimizer)
        self.steps += 1

    def made(self, name: str, check: Callable[[], Any], otherwise: Any) -> Any:
        """Return what a check gives, or `otherwise` where it cannot be made."""
        if self.over:
            self.left_out.append(f"{name} ({self.over})")
            return otherwise
        try:
            return check()
        except OutOfTimeError as error:
            self.left_out.append(f"{name} ({error})")
        except TimeLimit as error:  # what hangs in a try hangs in a run, whose end says so
            self.over = f"trying {error}"
            self.left_out.append(f"{name} ({self.over})")
        except (Exception, SystemExit) as error:  # noqa: BLE001  (a check must not break what it looks at)
            self.left_out.append(f"{name} ({sentence(error)})")
        return otherwise


def attempts(bench: Bench, batch: tuple[torch.Tensor, torch.Tensor], made: list[Attempt], plan: Plan) -> None:
    """Try with the training's own optimizer, and with Adam, until an attempt is successful."""
    if len(batch[0]) < 2:
        raise ValueError(f"{len(batch[0])} samples are too few")
    if _aims_elsewhere(bench.parts, batch[1]):
        raise ValueError("the loss is not least where the outputs are the targets: what it takes for right is unknown")
    for rate, most in plan:
        double = Double.of(bench.parts).without_dropout()
        learning = [p for p in double.model.parameters() if p.requires_grad]
        adam = None if rate is None else torch.optim.Adam(learning, rate)
        name = _named(double.optimizer) if rate is None else f"Adam ({rate:g})"
        before = bench.steps
        learnt = _learn(bench, double, batch, adam, most)
        made.append(Attempt(name, bench.steps - before, learnt))
        if learnt is not None:
            return


def _named(optimizer: Optimizer) -> str:
    rate = max(float(group.get("initial_lr", group["lr"])) for group in optimizer.param_groups)
    return f"{type(optimizer).__name__} ({rate:g})"


def _learn(
    bench: Bench, double: Double, batch: tuple[torch.Tensor, torch.Tensor], optimizer: Optimizer | None, most: int
) -> int | None:
    still, best, before, first = 0, math.inf, math.inf, math.inf
    with steady():
        for step in range(most + 1):
            outputs, loss = double.loss(*batch)
            now = float(loss.detach())
            # Right by luck before the first step, as two classes may be, shows nothing.
            if now < first and step and _fits(bench.parts, outputs, batch[1]):
                return step
            first = now if step == 0 else first
            if step == most or not math.isfinite(now):
                return None
            best = min(best, now)
            if step and step % _WINDOW == 0:
                if best > before - (1 - _BETTER) * abs(before):
                    return None  # it has stopped falling
                before = best
            bench.step(double, loss, optimizer)
            moving = any(p.grad is not None and bool(p.grad.any()) for p in double.model.parameters())
            still = 0 if moving else still + 1
            if still == _STILL:  # an exact zero for every weight: nothing will move any more
                return None
    return None


@torch.no_grad()
def _aims_elsewhere(parts: Parts, targets: torch.Tensor) -> bool:
    """Whether a loss of numbers is least beside the targets: of their logarithms, say."""
    if parts.facts.kind is not TargetKind.REAL:
        return False
    aside = _ASIDE * float(targets.float().std())
    try:
        loss = copy.deepcopy(parts.original)
        below, at, above = (float(loss(targets + shift, targets)) for shift in (-aside, 0.0, aside))
    except Exception:  # noqa: BLE001  (a user's loss may refuse its targets as outputs in any way)
        return False
    return (below < at) != (above < at)


def _fits(parts: Parts, outputs: torch.Tensor, targets: torch.Tensor) -> bool:
    kind = parts.facts.kind
    if kind is TargetKind.REAL:
        return amiss(parts, outputs, targets) <= _UNEXPLAINED
    # The first words of a sequence cannot tell what follows.
    places = kind is TargetKind.CLASS_INDEX and targets[0].numel() > 1
    return amiss(parts, outputs, targets) <= (_WRONG_PLACES if places else _WRONG)


def amiss(parts: Parts, outputs: torch.Tensor, targets: torch.Tensor) -> float:
    """Return the share of wrong decisions, or of variance that is not explained; infinite where nothing is known."""
    kind, outputs = parts.facts.kind, outputs.detach().float()
    if not bool(torch.isfinite(outputs).all()):
        return math.inf
    if kind is TargetKind.REAL:
        aims = parts.criterion.turn(targets).float().reshape(outputs.shape)
        spread = float(aims.var())
        return float((outputs - aims).square().mean()) / spread if spread > 0 else math.inf
    predicted, truth = decide(outputs, targets, kind, parts.original.scale, parts.original.ignored)
    return float((predicted != truth).float().mean()) if len(truth) else math.inf
