"""One run, from order to result."""

from __future__ import annotations

import dataclasses
import io
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext, redirect_stderr, redirect_stdout, suppress
from pathlib import Path

import torch

from remedy.spaces.assembly import outputs_of
from remedy.spaces.catalogue import REMEDIES
from remedy.spaces.chance import chance, entropy
from remedy.spaces.combination import Combination
from remedy.spaces.error import InputError, TimeLimit
from remedy.spaces.objective import TargetKind
from remedy.spaces.outcome import Outcome
from remedy.spaces.parts import Parts
from remedy.spaces.process import reset_process
from remedy.spaces.remedy import Inapplicable, Remedy
from remedy.spaces.space import Space
from remedy.spaces.target import Loaded, load
from remedy.spaces.training import Training
from remedy.workers.apart import run_apart
from remedy.workers.checkpoint import Checkpoint
from remedy.workers.ending import broken, ended, stopped
from remedy.workers.loop import train
from remedy.workers.observation import Observation, Setting
from remedy.workers.order import WorkOrder
from remedy.workers.pace import interval
from remedy.workers.result import RunResult
from remedy.workers.watch import Watch

Limit = Callable[[float | None], AbstractContextManager[None]]
Step = tuple[int, float | None]
PROGRESS_SECONDS = 0.5
FIRST_LOSSES = 8
_LOG_CHARACTERS = 100_000


def _unlimited(_seconds: float | None) -> AbstractContextManager[None]:
    return nullcontext()


def perform(
    order: WorkOrder,
    *,
    limit: Limit = _unlimited,
    progress: Callable[[int, float | None], None] | None = None,
) -> RunResult:
    """Train one run to its end and return its result; the user's mistakes become outcomes, never exceptions."""
    began = time.monotonic()
    last: Step = (0, None)
    try:
        with limit(order.timeout):
            for item in stream(order):
                if isinstance(item, RunResult):
                    return item
                last = item
                if progress is not None:
                    progress(*item)
    except TimeLimit as error:
        return RunResult(order.number, Outcome.FAILED, str(error), steps=last[0], seconds=time.monotonic() - began)
    msg = "a stream of a run ends with its result"
    raise AssertionError(msg)


def stream(
    order: WorkOrder,
    *,
    cancelled: Callable[[], bool] | None = None,
    look: Callable[[Observation, Setting], None] | None = None,
    watched: bool = True,
) -> Iterator[Step | RunResult]:
    """Train one run; yield (steps done, validation metric) about twice a second, and last the result.

    `look` sees every observation, for recorders; `watched=False` leaves the detectors out, so that a doomed run goes
    on to its end. A script is run in a process of its own, where neither is possible.
    """
    with _log(order) as log:
        apart = order.source.script is not None
        items = run_apart(order, log, cancelled) if apart else _stream(order, log, cancelled, look, watched=watched)
        for item in items:
            if not isinstance(item, RunResult):
                yield item
                continue
            if order.checkpoint and item.outcome is not Outcome.LOST:
                with suppress(OSError):  # on a machine that the controller may not reach
                    Path(order.checkpoint).unlink()
            printed = log.getvalue()[-_LOG_CHARACTERS:] if order.returns_log and isinstance(log, io.StringIO) else ""
            log.close()
            yield dataclasses.replace(item, log=printed)


def _stream(
    order: WorkOrder,
    log: io.TextIOBase,
    cancelled: Callable[[], bool] | None,
    look: Callable[[Observation, Setting], None] | None,
    *,
    watched: bool,
) -> Iterator[Step | RunResult]:
    began, folder = time.monotonic(), Path.cwd()
    reset_process()
    step = full = 0
    watch: Watch | None = None
    try:
        with ExitStack() as stack:
            stack.enter_context(redirect_stdout(log))
            stack.enter_context(redirect_stderr(log))
            training, parts = _build(order)
            full = parts.steps
            setting = setting_of(training, parts)
            watch = Watch.of(order, setting, watched=watched)
            losses: list[float] = []
            told = began
            checkpoint = Checkpoint.open(Path(order.checkpoint)) if order.checkpoint else None
            for seen in _observations(training, parts, checkpoint):
                step = seen.step
                losses += [seen.loss] if len(losses) < FIRST_LOSSES else []
                if look is not None:
                    look(seen, setting)
                if not watch.see(seen):
                    break
                if cancelled is not None and cancelled():
                    yield stopped(order, watch, parts, time.monotonic() - began)
                    return
                if time.monotonic() - told > PROGRESS_SECONDS:
                    told = time.monotonic()
                    yield seen.step, watch.metrics[-1][1] if watch.metrics else None
            yield ended(order, watch, parts, tuple(losses), time.monotonic() - began)
    except Inapplicable as why:
        seconds = time.monotonic() - began
        yield RunResult(order.number, Outcome.INAPPLICABLE, str(why), seconds=seconds, refused=why.remedies)
    except (Exception, SystemExit) as error:  # noqa: BLE001  (the user's code may raise anything; it fails this run only)
        result = broken(order, error, watch, step, full, time.monotonic() - began)
        log.write(result.trace)
        yield result
    finally:
        os.chdir(folder)


def catalogue_of(loaded: Loaded) -> Mapping[str, Remedy]:
    """Return our remedies and the training's own by name.

    Raises:
        InputError: an own remedy has the name of one of ours, or of another own one.
    """
    known = {remedy.name: remedy for remedy in REMEDIES}
    for remedy in loaded.remedies:
        if remedy.name in known:
            other = known[remedy.name]
            whose = f"that of {other.declared_in}" if other in loaded.remedies else "one in the catalogue"
            msg = f"remedy {remedy.name!r} of {remedy.declared_in} has the name of {whose}; give it another"
            raise InputError(msg)
        known[remedy.name] = remedy
    return known


def prepare(training: Training, order: WorkOrder) -> Training:
    """Return the training with what the study decided: its goal."""
    return training if order.goal is None else dataclasses.replace(training, goal=order.goal)


def _build(order: WorkOrder) -> tuple[Training, Parts]:
    loaded = load(order.source)
    training = prepare(loaded.builders, order)
    space = Space.of(catalogue_of(loaded).values())
    parts = space.apply(training, Combination.of(order.params), seed=order.seed, data_seed=order.data_seed)
    return training, parts


def _observations(training: Training, parts: Parts, checkpoint: Checkpoint | None) -> Iterator[Observation]:
    """Yield what an earlier attempt at this run saw, then what is seen now."""
    if checkpoint is None:
        yield from train(training, parts)
        return
    yield from tuple(checkpoint.seen)
    live = train(training, parts, checkpoint)
    for seen in live:
        checkpoint.seen.append(seen)
        yield seen


def setting_of(training: Training, parts: Parts) -> Setting:
    """Gather what detectors may know of a run before it begins."""
    facts = parts.facts
    total = sum(facts.counts)
    outputs = outputs_of(parts.model, facts.inputs.to(parts.device)).cpu()
    return Setting(
        kind=facts.kind,
        classes=len(facts.counts),
        prior=max(facts.counts) / total if total else 0.0,
        entropy=entropy(facts.counts),
        steps=parts.steps,
        interval=interval(parts.steps),
        warmup=_warmup(parts),
        chance=chance(training, facts, parts.original, outputs, (parts.train, parts.validation)),
        goal=float(training.goal or 0.0),
        mode=training.mode or "max",
        cross_entropy=parts.criterion.cross_entropy
        and facts.kind in (TargetKind.CLASS_INDEX, TargetKind.ONE_HOT, TargetKind.BINARY),
    )


def _warmup(parts: Parts) -> int:
    """Return the steps until the learning rate reaches its largest, read off a copy of the schedule."""
    if parts.schedule.make is None or parts.schedule.interval != "step":
        return 0
    dummy = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0, momentum=0.9)
    try:
        scheduler = parts.schedule.make(dummy)
        rates = []
        for _ in range(min(parts.steps, 1000)):
            rates.append(float(dummy.param_groups[0]["lr"]))
            dummy.step()
            scheduler.step()
    except Exception:  # noqa: BLE001  (a user's scheduler may need more than a dummy; then nothing is known)
        return 0
    return rates.index(max(rates)) if rates else 0


def _log(order: WorkOrder) -> io.TextIOBase:
    if not order.log:
        return io.StringIO()  # sent back, or dropped
    path = Path(order.log)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("a", buffering=1, encoding="utf-8", errors="replace")  # a killed worker loses no line
