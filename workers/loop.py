"""The training loop: a generator of observations. Watching is iterating, stopping is not iterating."""

from __future__ import annotations

import math
from collections.abc import Iterator
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
from remedy.workers.observation import Activation, Observation, Outputs
from remedy.workers.probe import Probe, describe

VALIDATIONS = 20
_SAMPLES = 100
_LONGEST = 50
KEPT = 4096


def interval(steps: int) -> int:
    """Return the steps between two sampled observations: a function of the budget alone, so that records repeat."""
    return max(1, min(_LONGEST, steps // _SAMPLES))


def train(training: Training, parts: Parts, checkpoint: Checkpoint | None = None) -> Iterator[Observation]:
    """Train to the end of the budget, and yield what is seen.

    The loop, in words: for each epoch, for each batch: forward, loss, backward, the step with its rules (see
    `Parts.update`), scheduler; every so many steps look at gradients and outputs; at the end of each epoch and every
    budget/20 steps run the validation, with the averaged weights where there are any. With a checkpoint that holds a
    state it goes on from there, and what was seen before is not yielded again.
    """
    live = _Live(training, parts, Probe(parts))
    step, first, passed = (checkpoint.step, checkpoint.epoch, checkpoint.place) if checkpoint else (0, 0, 0)
    if checkpoint is not None:
        checkpoint.restore(parts, live.scaler)
        live.metric = checkpoint.metric
    every, validate_every = interval(parts.steps), max(1, math.ceil(parts.steps / VALIDATIONS))
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
            sampling = validating or step % every == 0 or step == 1
            observation = live.update(batch, step if sampling else None)
            if observation is None:
                continue
            if validating:
                observation = live.validated(observation)
            if end_of_epoch:
                live.advance("epoch")
            yield observation
            if last:
                return
            if checkpoint is not None and validating:
                reached = (step, epoch + 1, 0) if end_of_epoch else (step, epoch, place)
                checkpoint.offer(parts, live.scaler, reached, live.metric)


class _Live:
    """What one step of a run needs, beside its batch."""

    def __init__(self, training: Training, parts: Parts, probe: Probe) -> None:
        self.training, self.parts, self.probe = training, parts, probe
        self.scaler = parts.precision.scaler(parts.device)
        self.pending: list[torch.Tensor] = []
        self.metric: float | None = None

    def update(self, batch: Any, sampled: int | None) -> Observation | None:
        """Make one optimizer step; return what is seen of it where it is a `sampled` one."""
        parts = self.parts
        inputs, targets = split(batch)
        inputs, targets = to_device(inputs, parts.device), targets.to(parts.device)
        parts.optimizer.zero_grad(set_to_none=True)
        with parts.precision.autocast(parts.device):
            outputs = parts.model(inputs)
            loss = parts.criterion(outputs, targets)
        check_loss(loss)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self.pending.append(loss.detach())
        if sampled is not None or parts.gradient is not None or parts.guard is not None:
            self.scaler.unscale_(parts.optimizer)
        seen = self.probe.gradients() if sampled is not None else None
        parts.update(loss, self.scaler)
        self.scaler.update()
        self.advance("step")
        if sampled is None or seen is None:
            return None
        pending, self.pending = self.pending, []
        shown = describe(outputs, targets, parts.facts.kind, parts.original.scale, parts.original.ignored)
        return look(parts, self.probe, sampled, pending, shown, seen)

    def validated(self, observation: Observation) -> Observation:
        """Run the validation and add what it shows."""
        self.metric, statistics, activations = validate(self.training, self.parts, self.probe)
        return replace(observation, metric=self.metric, validation=statistics, activations=activations)

    def advance(self, interval: Interval) -> None:
        """Step the scheduler, where it is one of this interval."""
        scheduler = self.parts.scheduler
        if scheduler is None or self.parts.schedule.interval != interval:
            return
        if not isinstance(scheduler, ReduceLROnPlateau):
            scheduler.step()
        elif self.metric is not None:
            scheduler.step(self.metric)


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


def look(
    parts: Parts,
    probe: Probe,
    step: int,
    pending: list[torch.Tensor],
    batch: Outputs | None,
    seen: tuple[float, list[tuple[float, float]]],
) -> Observation:
    """Return what is seen of a step that was made; `pending` are the losses since the last look."""
    losses = torch.stack([loss.reshape(()).float() for loss in pending]).tolist()
    finite = [value for value in losses if math.isfinite(value)]
    layers, finite_parameters = probe.layers(seen[1])
    # The first loss of the window that is not finite is the one to report.
    shown = next((value for value in losses if not math.isfinite(value)), losses[-1])
    return Observation(
        step=step,
        loss=shown,
        mean_loss=sum(finite) / len(finite) if finite else math.nan,
        batch=batch,
        gradient_norm=seen[0],
        layers=layers,
        finite_parameters=finite_parameters,
        learning_rate=float(parts.optimizer.param_groups[0]["lr"]),
    )


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
