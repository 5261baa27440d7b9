"""One run of the untouched script that nobody stops: what it says of its length, its metrics and its open slots."""

from __future__ import annotations

import copy
import dataclasses
import sys
import time
from typing import Any, NoReturn

import torch
from torch.amp import GradScaler

from remedy.spaces.combination import Combination
from remedy.spaces.error import InputError
from remedy.spaces.facade import closed
from remedy.spaces.given import Given
from remedy.spaces.metric import MODES
from remedy.spaces.outcome import Outcome
from remedy.spaces.parts import Parts
from remedy.spaces.schedule import Interval
from remedy.spaces.script import Goal, Script, metric_of
from remedy.spaces.seeding import derive, seed_all
from remedy.spaces.target import code_of
from remedy.spaces.training import Training
from remedy.workers.ending import broken
from remedy.workers.finding import errors_first
from remedy.workers.fitting import fit, handed
from remedy.workers.live import leave, number
from remedy.workers.mailbox import Mailbox
from remedy.workers.order import WorkOrder
from remedy.workers.preflight import Preflight, examined, refuse_guessing, tried
from remedy.workers.probation import MOST
from remedy.workers.result import RunResult
from remedy.workers.routine import Routine, tell_clipping
from remedy.workers.run import PROGRESS_SECONDS, setting_of
from remedy.workers.untended import Untended

_MOST_REPORTS = 200


class Survey:
    """Counts what the script does; its parts are looked at once, when they are prepared."""

    def __init__(self, order: WorkOrder, box: Mailbox) -> None:
        """Wait for the script to prepare."""
        assert order.source.script is not None  # noqa: S101  (only scripts are run so)
        self._order, self._box = order, box
        self._script: Script = order.source.script
        self._began = self._told = time.monotonic()
        self._given: Given | None = None
        self._parts: Parts | None = None
        self._training: Training | None = None
        self._found: Preflight | None = None
        self._steps = self._losses = self._batches = self._scheduled = 0
        self._routine: Routine | None = None
        self._untended: Untended | None = None
        tell_clipping(self._clipping)
        self._reported: dict[str, float] = {}
        self._reports: list[int] = []

    def prepare(self, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        """Look at the parts, and hand them back untouched."""
        try:
            return self._prepared(arguments)
        except Exception as error:  # noqa: BLE001  (the script might swallow it)
            self.end(error)
            leave()

    def report(self, metrics: dict[str, Any]) -> None:
        """Take note of names and places."""
        try:
            self._note(metrics)
        except InputError as error:
            self.end(error)
            leave()
        if self._steps and self._reports[-1:] != [self._steps]:
            self._reports.append(self._steps)

    def end(self, error: BaseException | None) -> None:
        """Say what was learned, or why nothing could be."""
        learned: dict[str, Any] = {}
        if error is None:
            try:
                learned = self._learned()
            except InputError as found:
                error = found
        if error is None:
            result = RunResult(self._order.number, Outcome.MISSED, steps=self._steps, seconds=self._seconds)
        else:
            result = broken(self._order, error, None, self._steps, 0, self._seconds)
            learned["bad_input"] = isinstance(error, InputError)
            sys.stderr.write(result.trace)
        self._box.put_result(result, learned)

    # ---------------------------------------------------------------- what the handles tell

    def computed(self, loss: torch.Tensor, outputs: Any, targets: Any) -> None:
        """Count the losses of training."""
        if loss.requires_grad:
            loss.register_hook(self._trained_on)  # type: ignore[no-untyped-call]
            if self._routine is not None:
                self._routine.computed(outputs, targets)

    def refused(self, why: Exception) -> NoReturn:
        """Never called: nothing is remedied here."""
        raise why

    def stepping(self) -> torch.Tensor:
        """Say how far the run is, about twice a second."""
        if self._routine is not None:
            self._routine.stepping()
        if time.monotonic() - self._told > PROGRESS_SECONDS:
            self._told = time.monotonic()
            self._box.put_progress(self._steps, None)
        return torch.zeros(())

    def stepped(self) -> None:
        """Count the step."""
        self._steps += 1

    def delivered(self, batch: Any, *, train: bool, last: bool) -> None:  # noqa: ARG002  (as all ears)
        """Count the batches trained on."""
        self._batches += train
        if train and self._routine is not None:
            self._routine.delivered(batch)

    # ---------------------------------------------------------------- inside

    def _routine_of(self, given: Given, parts: Parts) -> Routine:
        scaler = next((part for part in given.arguments if isinstance(part, GradScaler)), None)
        return Routine(parts.model, parts.optimizer, scaler)

    def _clipping(self) -> None:
        if self._routine is not None:
            self._routine.clipping()

    def _trained_on(self, _gradient: torch.Tensor) -> None:
        self._losses += 1
        if self._routine is not None:
            self._routine.backward()

    @property
    def _seconds(self) -> float:
        return time.monotonic() - self._began

    def _note(self, metrics: dict[str, Any]) -> None:
        if self._given is None:
            raise InputError("remedy.report is called before remedy.prepare")
        self._reported |= {name: value for name in metrics if (value := number(metrics, name)) is not None}

    def _prepared(self, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        if self._given is not None:
            raise InputError("remedy.prepare is called a second time; one call takes all parts")
        order, given = self._order, Given.of(arguments)
        self._given = given
        self._training, parts = fit(given, self._script, Combination(), seed=order.seed, data_seed=order.data_seed)
        kept = copy.deepcopy(parts.model.state_dict())
        self._found = examined(order.source.name, self._training, parts)
        if order.thorough:
            # How many steps the script makes is known at its end only.
            self._found = tried(self._found, parts, None, most=MOST)
        parts.model.load_state_dict(kept)
        parts.model.train()
        seed_all(derive(order.seed, "training"))
        self._parts, self._routine = parts, self._routine_of(given, parts)
        self._untended = Untended.of(parts.model, parts.optimizer)
        new = handed(given, parts, self, ordered=True)
        for old, part in zip(given.arguments, new, strict=True):
            if old is not None and old is given.scheduler:
                self._count_steps_of(part)
        return new

    def _count_steps_of(self, scheduler: Any) -> None:
        own = scheduler.step

        def step(*args: Any, **named: Any) -> Any:
            self._scheduled += 1
            return own(*args, **named)

        scheduler.step = step

    def _learned(self) -> dict[str, Any]:
        given, parts, training, found = self._given, self._parts, self._training, self._found
        if given is None or parts is None or training is None or found is None:
            raise InputError("the script never called remedy.prepare; it needs the line to be watched and changed")
        if not self._steps:
            raise InputError("the script made no optimizer step with what remedy.prepare returned")
        if self._untended is not None:
            self._untended.refuse_trained()
        if not self._losses:
            raise InputError("the script never called the loss that remedy.prepare returned; it may use that one")
        if not self._reports:
            raise InputError("the script never called remedy.report after a step; it needs to say how good it is")
        asked = self._script
        name, mode = Goal(asked.metric, asked.mode if asked.metric else None, asked.goal).among(self._reported)
        interval: Interval = "step" if 2 * self._scheduled > self._steps else "epoch"
        hidden = given.scheduler is None and any("initial_lr" in group for group in parts.optimizer.param_groups)
        shut = closed(given, hidden_scheduler=hidden, accumulates=2 * self._batches > 3 * self._steps)
        training = dataclasses.replace(
            training,
            metric=metric_of(name),
            mode=MODES.get(name, mode),
            steps=self._steps,
            schedule_interval=interval,
        )
        parts.steps, parts.schedule = self._steps, dataclasses.replace(parts.schedule, interval=interval)
        setting = setting_of(training, parts)
        refuse_guessing(setting)
        script = dataclasses.replace(
            self._script,
            metric=name,
            mode=mode,
            steps=self._steps,
            interval=interval,
            reports=tuple(self._reports) if len(self._reports) <= _MOST_REPORTS else (),
            closed=shut,
        )
        seen = self._routine.findings({finding.check for finding in found.findings}) if self._routine else []
        findings = errors_first([*found.findings, *seen])
        found = dataclasses.replace(found, findings=findings, setting=setting, closed=tuple(shut))
        return {
            "script": dataclasses.asdict(script),
            "found": dataclasses.asdict(found),
            "code": code_of(self._order.source),
        }
