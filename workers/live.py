"""A run of a script, seen from inside its process: what is observed, and when it ends."""

from __future__ import annotations

import dataclasses
import math
import os
import sys
import time
from contextlib import ExitStack
from functools import partial
from typing import Any, NoReturn

import torch

from remedy.spaces.batches import split
from remedy.spaces.combination import Combination
from remedy.spaces.error import InputError
from remedy.spaces.given import Given
from remedy.spaces.outcome import Outcome
from remedy.spaces.parts import Parts
from remedy.spaces.remedy import Inapplicable
from remedy.spaces.script import Script
from remedy.spaces.target import declared
from remedy.workers.ending import broken, ended, stopped
from remedy.workers.evaluation import Evaluation, described
from remedy.workers.fitting import advance, fit, handed, scheduled, waits_for_metric
from remedy.workers.look import Look
from remedy.workers.loop import VALIDATIONS
from remedy.workers.mailbox import Mailbox
from remedy.workers.observation import Observation
from remedy.workers.order import WorkOrder
from remedy.workers.pace import Pace, Price
from remedy.workers.probe import Probe
from remedy.workers.result import RunResult
from remedy.workers.run import FIRST_LOSSES, PROGRESS_SECONDS, setting_of
from remedy.workers.strain import Gauge
from remedy.workers.watch import Watch


class Live:
    """One run. The script's calls come in; verdicts and results go out, and end the process.

    An observation is held back until the next step begins, since the script may report a metric for it.
    """

    def __init__(self, order: WorkOrder, box: Mailbox) -> None:
        """Wait for the script to prepare."""
        assert order.source.script is not None  # noqa: S101  (only scripts are run so)
        self._order, self._box = order, box
        self._script: Script = order.source.script
        self._began = self._told = time.monotonic()
        self._parts: Parts | None = None
        self._watch: Watch | None = None
        self._step = 0
        self._end_of_epoch = False
        self._pending: list[torch.Tensor] = []  # losses since the last observation
        self._losses: list[torch.Tensor] = []  # of the step that comes next
        self._batch: tuple[Any, Any] = (None, None)
        self._gradients: torch.Tensor | None = None
        self._closely = False
        self._counting = ExitStack()
        self._price: Price | None = None
        self._held: Observation | None = None
        self._last: Observation | None = None
        self._first_losses: list[float] = []

    # ---------------------------------------------------------------- what the script calls

    def prepare(self, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        """Apply the run's remedies and begin to watch."""
        try:
            return self._prepared(arguments)
        except Inapplicable as why:
            number, seconds = self._order.number, self._seconds
            self._finish(RunResult(number, Outcome.INAPPLICABLE, str(why), seconds=seconds, refused=why.remedies))
        except Exception as error:  # noqa: BLE001  (the script might swallow it, and go on untreated)
            self.end(error)
            leave()

    def report(self, metrics: dict[str, Any]) -> None:
        """Attach the validation metric, and what the validation showed, to the latest step."""
        try:
            value = self._reported(metrics)
        except InputError as error:
            self.end(error)
            leave()
        if value is None or self._step == 0 or self._parts is None:
            return
        base = self._held or self._made_up()
        statistics, activations = self._evaluation.statistics()
        if base is not None:
            validation = statistics or base.validation
            activations = activations or base.activations
            self._held = dataclasses.replace(base, metric=value, validation=validation, activations=activations)
        self._evaluation.clear()
        if waits_for_metric(self._parts):
            self._parts.scheduler.step(value)

    def end(self, error: BaseException | None) -> None:
        """Say how the run ended: the script came to its end, or raised."""
        if error is None and self._parts is None:
            error = InputError("the script never called remedy.prepare")
        if error is None and self._step == 0:
            error = InputError("the script made no optimizer step with what remedy.prepare returned")
        if error is not None:
            result = broken(self._order, error, self._watch, self._step, self._script.steps, self._seconds)
            sys.stderr.write(result.trace)
            self._box.put_result(result)
            return
        self._see()
        self._box.put_result(dataclasses.replace(self._ended(), steps=self._step))

    # ---------------------------------------------------------------- what the handles tell

    def computed(self, loss: torch.Tensor, outputs: Any, targets: Any) -> None:
        """Take note of a loss: one of a validation shows its outputs, one of training is told by its backward pass.

        The model's mode alone would not tell them apart: scripts forget `model.train()` after their validation.
        """
        if self._evaluation.under_way:
            self._evaluation.computed(outputs, targets)
        if loss.requires_grad:
            batch = outputs.detach() if isinstance(outputs, torch.Tensor) else outputs, targets
            if self._price is not None:
                self._pace.settle(self._price.of(loss))
                self._price = None
            loss.register_hook(partial(self._trained_on, loss.detach().float().mean(), batch))  # type: ignore[no-untyped-call]

    def refused(self, why: Exception) -> NoReturn:
        """End the run: what a remedy made of the loss cannot be computed of what the script gives it."""
        self._finish(RunResult(self._order.number, Outcome.INAPPLICABLE, str(why), seconds=self._seconds))

    def stepping(self) -> torch.Tensor:
        """See the last observation, now that no metric can come for it; look at the gradients where it is time."""
        self._see()
        self._tell()
        step = self._step + 1
        kept = step % max(1, math.ceil(self._parts_.steps / VALIDATIONS)) == 0
        sampled = kept or step in self._script.reports or self._end_of_epoch or self._pace.due(step)
        self._closely = kept or self._pace.close(step)
        self._gradients = self._probe.gradients(snapshot=self._closely) if sampled else None
        losses, self._losses = self._losses, []
        return torch.stack(losses).mean() if losses else torch.tensor(math.nan)

    def stepped(self) -> None:
        """Step a remedy's schedule, and make the observation."""
        parts = self._parts_
        self._step += 1
        advance(parts, self._step, end_of_epoch=self._end_of_epoch)
        self._end_of_epoch = False
        self._evaluation.clear()
        if self._gradients is None or not self._pending:
            return
        pending, self._pending = self._pending, []
        shown = described(parts, *self._batch)
        worn = self._gauge.figures(self._batch[0], closely=self._closely)
        made = Look.at(parts, self._probe, self._step, pending, self._gradients, worn, None).observation()
        self._held = self._last = dataclasses.replace(made, batch=shown)
        self._pace.see(made)

    def delivered(self, batch: Any, *, train: bool, last: bool) -> None:
        """Take note of where in the data the script is."""
        if train:
            self._end_of_epoch = last
            return
        try:
            self._evaluation.delivered(split(batch)[1])
        except InputError:  # a batch of another shape: its targets are not known
            self._evaluation.delivered(None)

    # ---------------------------------------------------------------- inside

    def _trained_on(self, value: torch.Tensor, batch: tuple[Any, Any], _gradient: torch.Tensor) -> None:
        """Keep a loss that a backward pass began at, until its step."""
        self._pending.append(value)
        self._losses.append(value)
        self._counting.close()
        self._batch = batch

    def _reported(self, metrics: dict[str, Any]) -> float | None:
        if self._parts is None:
            raise InputError("remedy.report is called before remedy.prepare")
        return number(metrics, self._script.metric)

    def _prepared(self, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        if self._parts is not None:
            raise InputError("remedy.prepare is called a second time; one call takes all parts")
        given, order = Given.of(arguments), self._order
        script = dataclasses.replace(self._script, goal=self._script.goal if order.goal is None else order.goal)
        chosen = Combination.of(order.params)
        own = declared(order.source)
        training, parts = fit(given, script, chosen, seed=order.seed, data_seed=order.data_seed, own=own)
        setting = setting_of(training, parts)
        self._watch = Watch.of(order, setting)
        parts.model.train()
        self._probe, self._gauge = Probe(parts), Gauge(parts, given.scaler)
        self._pace = Pace(parts.steps)
        self._price = self._counting.enter_context(Price.counting(parts.model))
        self._evaluation = Evaluation(parts, self._probe, by_loader=len(given.loaders) > 1)
        self._parts = parts
        return handed(given, parts, self, ordered=True)

    @property
    def _parts_(self) -> Parts:
        assert self._parts is not None  # noqa: S101  (handles exist only after `prepare`)
        return self._parts

    @property
    def _seconds(self) -> float:
        return time.monotonic() - self._began

    def _see(self) -> None:
        """Hand the observation on, and end the run where it is enough."""
        seen, self._held = self._held, None
        if seen is None or self._watch is None:
            return
        if self._script.interval == "step" and not scheduled(self._parts_):
            # The script has stepped its scheduler since.
            seen = dataclasses.replace(seen, learning_rate=float(self._parts_.optimizer.param_groups[0]["lr"]))
        self._first_losses += [seen.loss] if len(self._first_losses) < FIRST_LOSSES else []
        if not self._watch.see(seen):
            self._finish(self._ended())

    def _made_up(self) -> Observation | None:
        """Return an observation of the step just made that was not looked at: its loss, and the last known figures."""
        if self._last is None:
            return None
        if self._last.step == self._step:
            return self._last
        losses = [float(loss) for loss in self._pending] or [self._last.loss]
        self._pending = []
        finite = [loss for loss in losses if math.isfinite(loss)]
        self._last = dataclasses.replace(
            self._last,
            step=self._step,
            loss=next((loss for loss in losses if not math.isfinite(loss)), losses[-1]),
            mean_loss=sum(finite) / len(finite) if finite else math.nan,
            batch=described(self._parts_, *self._batch),
            metric=None,
            validation=None,
            activations=(),
        )
        return self._last

    def _tell(self) -> None:
        """Say how far the run is, about twice a second, and look whether it is to end."""
        if time.monotonic() - self._told < PROGRESS_SECONDS or self._watch is None:
            return
        self._told = time.monotonic()
        self._box.put_progress(self._step, self._watch.metrics[-1][1] if self._watch.metrics else None)
        if self._box.asks_stop():
            result = stopped(self._order, self._watch, self._parts_, self._seconds)
            self._finish(dataclasses.replace(result, steps=self._step))

    def _ended(self) -> RunResult:
        assert self._watch is not None  # noqa: S101  (as for the parts)
        return ended(self._order, self._watch, self._parts_, tuple(self._first_losses), self._seconds)

    def _finish(self, result: RunResult) -> NoReturn:
        self._box.put_result(result)
        leave()


def leave() -> NoReturn:
    """End the process at once, so that no code of the user's which catches everything can go on."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def number(metrics: dict[str, Any], name: str) -> float | None:
    """Return the metric of that name as a number; None where it was not reported.

    Raises:
        InputError: it is no number.
    """
    if name not in metrics:
        return None
    try:
        return float(metrics[name])
    except (TypeError, ValueError, RuntimeError):
        kind = type(metrics[name]).__name__
        raise InputError(f"remedy.report was given {name}={kind}; it may be a number") from None
