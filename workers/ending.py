"""How a run ends: its result, made of what was watched, or of what was raised."""

from __future__ import annotations

import dataclasses
import math
import traceback

import torch

from remedy.spaces.error import InputError, UserCodeError, sentence
from remedy.spaces.outcome import Outcome
from remedy.spaces.parts import Parts
from remedy.workers.order import WorkOrder
from remedy.workers.result import OUT_OF_MEMORY, RunResult
from remedy.workers.watch import Watch


def ended(order: WorkOrder, watch: Watch, parts: Parts, losses: tuple[float, ...], seconds: float) -> RunResult:
    """Return the result of a run that came to its end, or to a verdict."""
    saved = "collapse" if watch.verdict else "success" if watch.succeeded else "controller" if watch.given_up else ""
    verdict = watch.verdict or (watch.spared if watch.outcome is Outcome.COLLAPSED else None)
    missed = watch.outcome is Outcome.MISSED
    return RunResult(
        number=order.number,
        outcome=watch.outcome,
        reason=verdict.evidence if verdict else watch.given_up or (watch.foretold if missed else ""),
        metric=watch.metric,
        steps=watch.step,
        steps_full=parts.steps,
        seconds=seconds,
        verdict=verdict,
        spared=watch.spared,
        foretold=watch.foretold,
        foretold_step=watch.foretold_step,
        notes=tuple(watch.notes),
        receipts=parts.receipts,
        curves={name: tuple(curve) for name, curve in watch.curves.items()},
        goal_step=watch.goal_step,
        first_losses=losses,
        saved_by=saved if watch.step < parts.steps else "",
        setting={**dataclasses.asdict(watch.setting), "kind": str(watch.setting.kind)},
    )


def stopped(order: WorkOrder, watch: Watch, parts: Parts, seconds: float) -> RunResult:
    """Return the result of a run that the search had no more use for."""
    if watch.spared is not None or watch.foretold:
        # Without the audit it had ended there: cut off, the audit says nothing, and the verdict or forecast stands.
        cut = dataclasses.replace(ended(order, watch, parts, (), seconds), saved_by="controller")
        return _as_found(cut, watch)
    return dataclasses.replace(
        ended(order, watch, parts, (), seconds),
        outcome=Outcome.STOPPED,
        reason="the search had no more use for this run",
        saved_by="controller",
        goal_step=None,
    )


def broken(
    order: WorkOrder, error: BaseException, watch: Watch | None, steps: int, full: int, seconds: float
) -> RunResult:
    """Return the result of a run in which something was raised: `failed`, or `lost` where memory ran out."""
    trace = error.trace if isinstance(error, UserCodeError) else "".join(traceback.format_exception(error))
    known = RunResult(order.number, Outcome.FAILED, steps=steps, steps_full=full, seconds=seconds, trace=trace)
    if _starved(error):
        reason = f"the run {OUT_OF_MEMORY}: {sentence(error)}"
        return dataclasses.replace(known, outcome=Outcome.LOST, reason=reason)
    curves = {name: tuple(curve) for name, curve in watch.curves.items()} if watch else {}
    if watch is not None and (watch.spared is not None or watch.foretold):
        # What an audited run raises after its verdict does not make it the user's failure.
        return _as_found(dataclasses.replace(known, curves=curves, metric=math.nan, notes=tuple(watch.notes)), watch)
    reason = str(error) if isinstance(error, InputError) else sentence(error)
    return dataclasses.replace(known, reason=reason, curves=curves, metric=math.nan)


def _as_found(result: RunResult, watch: Watch) -> RunResult:
    """Return the result of an audited run as it was before it was let go on: collapsed, or missed."""
    spared = watch.spared
    return dataclasses.replace(
        result,
        outcome=Outcome.COLLAPSED if spared is not None else Outcome.MISSED,
        reason=spared.evidence if spared is not None else watch.foretold,
        verdict=spared,
        spared=spared,
        foretold=watch.foretold,
        foretold_step=watch.foretold_step,
        goal_step=None,
    )


def _starved(error: BaseException) -> bool:
    """Whether it is memory that was missing, of the device or of the machine; torch has no one type for it."""
    said = str(error)
    return isinstance(error, MemoryError | torch.cuda.OutOfMemoryError) or "can't allocate memory" in said
