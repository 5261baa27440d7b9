"""The training loop: a generator of observations. Watching is iterating, stopping is not iterating."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau

from remedy.spaces.batches import split, to_device
from remedy.spaces.error import InputError
from remedy.spaces.metric import tally
from remedy.spaces.parts import Parts
from remedy.spaces.schedule import Interval
from remedy.spaces.training import Training
from remedy.workers.checkpoint import Checkpoint
from remedy.workers.look import Look
from remedy.workers.observation import Activation, Observation, Outputs
from remedy.workers.pace import Pace, Price
from remedy.workers.probe import Probe, describe
from remedy.workers.strain import Gauge

VALIDATIONS = 20
KEPT = 4096


def train(training: Training, parts: Parts, checkpoint: Checkpoint | None = None) -> Iterator[Observation]:
    """Train to the end of the budget, and yield what is seen.

    The loop, in words: for each epoch, for each batch: forward, loss, backward, the step with its rules (see
    `Parts.update`), scheduler; where the pace says so look at gradients and outputs; at the end of each epoch and every
    budget/20 steps run the validation, with the averaged weights where there are any. With a checkpoint that holds a
    state it goes on from there, and what was seen before is not yielded again. On a GPU nothing between two validations
    waits for the device: what a look saw is yielded when the next one has been made.
    """
    pace = Pace(parts.steps, checkpoint.every if checkpoint else 0)
    for seen in checkpoint.seen if checkpoint else ():
        pace.see(seen)
    live = _Live(training, parts, Probe(parts), pace)
    step, first, passed = (checkpoint.step, checkpoint.epoch, checkpoint.place) if checkpoint else (0, 0, 0)
    if checkpoint is not None:
        checkpoint.restore(parts, live.scaler)
        live.metric = checkpoint.metric
    validate_every = max(1, math.ceil(parts.steps / VALIDATIONS))
    count = len(parts.epochs)
    parts.model.train()
    if checkpoint is not None and not passed:
        checkpoint.restore_generators()
    for epoch, batches in parts.epochs.epochs(first):
        for place, batch in enumerate(batches, start=1):
            if passed:
                passed -= 1
                if not passed and checkpoint is not None:
                    checkpoint.restore_generators()
                continue
            step += 1
            last, end_of_epoch = step == parts.steps, place == count
            validating = last or end_of_epoch or step % validate_every == 0
            kept = step % validate_every == 0 or pace.close(step)
            for observation in live.update(batch, step, validating=validating, snapshot=kept):
                pace.see(observation)
                yield observation
            if end_of_epoch:
                live.advance("epoch")
            if last:
                return
            if checkpoint is not None and validating:
                checkpoint.every = pace.every
                reached = (step, epoch + 1, 0) if end_of_epoch else (step, epoch, place)
                checkpoint.offer(parts, live.scaler, reached, live.metric)


class _Live:
    """What one step of a run needs, beside its batch."""

    def __init__(self, training: Training, parts: Parts, probe: Probe, pace: Pace) -> None:
        self.training, self.parts, self.probe, self.pace = training, parts, probe, pace
        self.scaler = parts.precision.scaler(parts.device)
        self.gauge = Gauge(parts, self.scaler)
        self.pending: list[torch.Tensor] = []
        self.metric: float | None = None
        self.held: Look | None = None

    def update(self, batch: Any, step: int, *, validating: bool, snapshot: bool) -> Iterator[Observation]:
        """Make one optimizer step; yield what is known by now of the looks at it and before it."""
        looking = validating or self.pace.due(step)
        outputs, targets, gradients = self._step(batch, looking=looking, snapshot=snapshot)
        if gradients is None:
            return
        pending, self.pending = self.pending, []
        outputs = outputs.detach()
        worn = self.gauge.figures(outputs, closely=snapshot or validating)
        look = Look.at(self.parts, self.probe, step, pending, gradients, worn, (outputs, targets))
        if self.held is not None:
            yield self.held.observation()
        self.held = look
        if validating:
            yield self._validated(look.observation())
        elif waits(self.parts.device):
            return
        else:
            yield look.observation()
        self.held = None

    def _step(
        self, batch: Any, *, looking: bool, snapshot: bool
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        parts = self.parts
        inputs, targets = split(batch)
        inputs, targets = to_device(inputs, parts.device), targets.to(parts.device, non_blocking=True)
        parts.optimizer.zero_grad(set_to_none=True)
        counting = nullcontext() if self.pace.every else Price.counting(parts.model)
        with counting as price, parts.precision.autocast(parts.device):
            outputs = parts.model(inputs)
            loss = parts.criterion(outputs, targets)
        check_loss(loss)
        if price is not None:
            self.pace.settle(price.of(loss))
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self.pending.append(loss.detach())
        if looking or parts.gradient is not None or parts.guard is not None:
            self.scaler.unscale_(parts.optimizer)
        gradients = self.probe.gradients(snapshot=snapshot) if looking else None
        parts.update(loss, self.scaler)
        self.scaler.update()
        self.advance("step")
        return outputs, targets, gradients

    def _validated(self, observation: Observation) -> Observation:
        """Run the validation and add what it shows."""
        self.metric, statistics, activations = validate(self.training, self.parts, self.probe)
        worn = observation.strain
        # A pass of its own is paid for every other time.
        if observation.step % (2 * math.ceil(self.parts.steps / VALIDATIONS)) == 0:
            worn = replace(worn, attention=self.gauge.attention())
        return replace(observation, metric=self.metric, validation=statistics, activations=activations, strain=worn)

    def advance(self, interval: Interval) -> None:
        """Step the scheduler, where it is one of this interval."""
        scheduler = self.parts.scheduler
        if scheduler is None or self.parts.schedule.interval != interval:
            return
        if not isinstance(scheduler, ReduceLROnPlateau):
            scheduler.step()
        elif self.metric is not None:
            scheduler.step(self.metric)


def waits(device: torch.device) -> bool:
    """Whether reading a figure waits for the device."""
    return device.type == "cuda"


def check_loss(loss: Any) -> None:
    """Refuse a loss that cannot be trained on.

    Raises:
        InputError: no tensor, no scalar, or nothing to differentiate.
    """
    if not isinstance(loss, torch.Tensor):
        msg = f"loss returned {type(loss).__name__}; it may return a scalar tensor"
        raise InputError(msg)
    if loss.numel() != 1:
        msg = f"loss returned a tensor of shape {tuple(loss.shape)}; it may return a scalar, such as its mean"
        raise InputError(msg)
    if not loss.requires_grad:
        msg = "loss returned a tensor without a gradient; it may depend on the model's parameters, undetached"
        raise InputError(msg)


@torch.no_grad()
def validate(training: Training, parts: Parts, probe: Probe) -> tuple[float, Outputs, tuple[Activation, ...]]:
    """Return the validation metric, the statistics of the outputs, and the activations."""
    total = tally(training.metric, parts.original, parts.facts.kind, parts.original.scale)
    kept: list[tuple[torch.Tensor, torch.Tensor]] = []
    activations: list[Activation] = []
    parts.model.eval()
    with parts.judged(), probe.activations(activations):
        for batch in parts.validation:
            inputs, targets = split(batch)
            inputs, targets = to_device(inputs, parts.device), targets.to(parts.device)
            with parts.precision.autocast(parts.device):
                outputs = parts.model(inputs)
            total.add(outputs, targets)
            same = not kept or (outputs.shape[1:], targets.shape[1:]) == (kept[0][0].shape[1:], kept[0][1].shape[1:])
            # Sequences of another length cannot lie in one tensor; the metric has seen them all the same.
            if same and len(kept) * len(targets) < KEPT:
                kept.append((outputs, targets))
    parts.model.train()
    outputs, targets = torch.cat([o for o, _ in kept]), torch.cat([t for _, t in kept])
    statistics = describe(outputs, targets, parts.facts.kind, parts.original.scale, parts.original.ignored)
    return total.value(), statistics, tuple(activations)
