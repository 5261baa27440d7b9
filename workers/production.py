"""A fix in production: `REMEDY_FIX=fix.yaml python train.py` applies it, and watches nothing."""

from __future__ import annotations

import math
import sys
from typing import Any

import torch
from torch.utils.data import DataLoader

from remedy.spaces.error import InputError
from remedy.spaces.facade import closed
from remedy.spaces.fix import Fix, load_fix
from remedy.spaces.given import Given
from remedy.spaces.parts import Parts
from remedy.spaces.remedy import Remedy
from remedy.spaces.script import Script
from remedy.spaces.seeding import Generators
from remedy.spaces.slot import Slot
from remedy.workers.fitting import advance, fit, handed, waits_for_metric
from remedy.workers.live import number


class Production:
    """Applies a fix to what the script prepares, and steps the schedule that comes with it."""

    def __init__(self, path: str) -> None:
        """Read the fix.

        Raises:
            InputError: there is none, or none that can be read.
        """
        # The script may declare remedies of its own, or import them, before it calls `prepare`.
        main = vars(sys.modules["__main__"]).values()
        self._own = tuple(value for value in main if isinstance(value, Remedy))
        self._fix: Fix = load_fix(path, self._own)
        self._path = path
        self._parts: Parts | None = None
        self._script = _script(self._fix)
        self._step = 0
        self._end_of_epoch = False
        self._losses: list[torch.Tensor] = []

    def prepare(self, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        """Apply the fix; random numbers go on as they would have without it."""
        if self._parts is not None:
            raise InputError("remedy.prepare is called a second time; one call takes all parts")
        given = Given.of(arguments)
        train = given.loaders[0]
        hidden = given.scheduler is None and any("initial_lr" in group for group in given.optimizer.param_groups)
        for slot, why in closed(given, hidden_scheduler=hidden, accumulates=False).items():
            if slot in self._fix.combination.remedies:
                raise InputError(
                    f"fix file {self._path!r} fills the slot {slot}, which this script has not open: {why}"
                )
        if not self._script.steps and Slot.SCHEDULE in self._fix.combination.remedies:
            raise InputError(
                f"fix file {self._path!r} does not say how many steps its schedule is for (evidence: steps)"
            )
        mode, generators, order = given.model.training, Generators.now(), _orders(train)
        seed = torch.initial_seed() % (1 << 31)
        _, self._parts = fit(given, self._script, self._fix.combination, seed=seed, data_seed=seed, own=self._own)
        generators.put()
        for owner, generator in order:
            owner.generator = generator
        self._parts.model.train(mode)
        return handed(given, self._parts, self, ordered=False)

    def report(self, metrics: dict[str, Any]) -> None:
        """Step a schedule that waits for the metric."""
        if self._parts is not None and waits_for_metric(self._parts):
            value = number(metrics, self._script.metric)
            if value is not None:
                self._parts.scheduler.step(value)

    def computed(self, loss: torch.Tensor, _outputs: Any, _targets: Any) -> None:
        """Keep the losses of a step for a guard."""
        if loss.requires_grad and self._parts is not None and self._parts.guard is not None:
            self._losses.append(loss.detach().float().mean())

    def refused(self, why: Exception) -> None:
        """Leave it to the script: it is raised where the loss is computed."""

    def stepping(self) -> torch.Tensor:
        losses, self._losses = self._losses, []
        return torch.stack(losses).mean() if losses else torch.tensor(math.nan)

    def stepped(self) -> None:
        """Step the schedule of a remedy."""
        self._step += 1
        assert self._parts is not None  # noqa: S101  (handles exist only after `prepare`)
        advance(self._parts, self._step, end_of_epoch=self._end_of_epoch)
        self._end_of_epoch = False

    def delivered(self, _batch: Any, *, train: bool, last: bool) -> None:
        """Take note of the end of an epoch."""
        self._end_of_epoch = last if train else self._end_of_epoch


def _script(fix: Fix) -> Script:
    """Return what the study knew of the script, as far as the fix file says it."""
    said = fix.evidence.get("script")
    steps = fix.evidence.get("steps", 0)
    try:
        return Script.from_json(said) if isinstance(said, dict) else Script(steps=int(steps))
    except (TypeError, ValueError, KeyError) as error:
        raise InputError(f"a fix file's evidence of its script cannot be read: {error}") from None


def _orders(loader: DataLoader[Any]) -> list[tuple[Any, Any]]:
    """Return whoever holds a generator for the order of the batches, with it."""
    return [(owner, owner.generator) for owner in (loader, loader.sampler) if hasattr(owner, "generator")]
