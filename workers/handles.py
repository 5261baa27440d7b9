"""What a script holds in its hands after `remedy.prepare`: parts that do what they did, and tell of it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
from torch import nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from remedy.spaces.logits import UnknownLogitsError
from remedy.spaces.objective import Criterion
from remedy.spaces.parts import Parts


class Ear(Protocol):
    """Who is told."""

    def computed(self, loss: torch.Tensor, outputs: Any, targets: Any) -> None:
        """A loss was computed."""

    def refused(self, why: Exception) -> None:
        """What a remedy made of the loss cannot be computed of what the script gives it."""

    def stepping(self) -> torch.Tensor:
        """A step is about to be made; returns its loss, for a guard."""

    def stepped(self) -> None:
        """It was made."""

    def delivered(self, batch: Any, *, train: bool, last: bool) -> None:
        """A loader gives a batch, the last one of a pass or not."""


class ToldLoss(nn.Module):
    """The script's loss, or what a remedy made of it."""

    def __init__(self, own: Callable[..., Any], criterion: Criterion, ear: Ear) -> None:
        """Compute `criterion` wherever the script calls its `own` loss."""
        super().__init__()
        object.__setattr__(self, "_own", own)  # past torch, which would take a loss for a part of this one
        self._criterion, self._ear = criterion, ear
        # A loss may hold weights, which `to(device)` has to find.
        self._modules |= {str(n): m for n, m in enumerate((own, criterion.loss)) if isinstance(m, nn.Module)}

    def forward(self, *args: Any, **named: Any) -> Any:
        """Return the loss."""
        given = list(args)
        for name in ("input", "target"):
            if len(given) < 2 and name in named:
                given.append(named.pop(name))
        outputs, targets, *rest = given
        loss = self._computed(outputs, targets, *rest, **named)
        if isinstance(loss, torch.Tensor):
            self._ear.computed(loss, outputs, targets)
        return loss

    def _computed(self, outputs: Any, targets: Any, *rest: Any, **named: Any) -> Any:
        if not rest and not named:
            try:
                return self._criterion(outputs, targets)
            except UnknownLogitsError as why:
                self._ear.refused(why)
                raise
        criterion = self._criterion
        return criterion.loss(criterion.read(outputs), criterion.turn(targets), *rest, **named)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__["_own"], name)


def tell_steps(parts: Parts, ear: Ear, optimizer: Optimizer) -> None:
    """Have `optimizer.step()` make the whole step of a run: guard, gradient rule, step, weight constraint.

    Not torch's hooks of a step: those cannot leave a step out.
    """
    own = optimizer.step
    within = False

    @functools.wraps(own)
    def step(*args: Any, **named: Any) -> Any:
        nonlocal within
        if within:  # the step that `update` makes
            return own()
        closure = args[0] if args else named.get("closure")
        result = None
        if closure is not None:
            with torch.enable_grad():
                result = closure()
        loss = ear.stepping()
        within = True
        try:
            parts.update(loss)
        finally:
            within = False
        ear.stepped()
        return result

    # What torch's schedulers look for, those too that the script makes only now.
    step._wrapped_by_lr_sched = True  # type: ignore[attr-defined]  # noqa: SLF001
    optimizer._opt_called = True  # type: ignore[attr-defined]  # noqa: SLF001
    optimizer.step = step  # type: ignore[method-assign]


def tell_batches(
    loader: DataLoader[Any], ear: Ear, *, train: bool, begin: Callable[[int], None] | None = None
) -> DataLoader[Any]:
    """Have the loader tell of each batch; `begin(pass)` is called before each pass over it.

    The same object, of a class of its own: a script may look at its dataset, its length, its type.
    """
    passes = 0

    def batches(given: Iterator[Any]) -> Iterator[Any]:
        for place, batch in enumerate(given, start=1):
            ear.delivered(batch, train=train, last=place == len(loader))
            yield batch

    kind = type(loader)

    class Told(kind):  # type: ignore[misc, valid-type]
        def __iter__(self) -> Any:
            nonlocal passes
            if begin is not None:
                begin(passes)
            passes += 1
            return batches(super().__iter__())

    Told.__name__, Told.__qualname__, Told.__module__ = kind.__name__, kind.__qualname__, kind.__module__
    loader.__class__ = Told
    return loader
