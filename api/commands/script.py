"""Learns what nobody can read off a script: by one run of it, untouched, which nobody stops."""

from __future__ import annotations

import dataclasses
import io
from dataclasses import dataclass

from remedy.spaces.error import InfrastructureError, InputError, UserCodeError
from remedy.spaces.outcome import Outcome
from remedy.spaces.script import Goal, Script
from remedy.spaces.target import Loaded, Source
from remedy.workers.apart import Learned, learn
from remedy.workers.order import Phase, WorkOrder
from remedy.workers.preflight import Preflight


@dataclass(frozen=True)
class Surveyed:
    """A script that can be studied."""

    loaded: Loaded
    script: Script
    found: Preflight
    seconds: float
    """What the run took."""


def surveyed(source: Source, goal: str | None, seed: int, kept: io.TextIOBase, *, thorough: bool = False) -> Surveyed:
    """Run the script once to its end; `kept` takes what it prints, `thorough` checks train for some hundred steps.

    Raises:
        InputError: it cannot be run or judged, or no goal was asked for.
    """
    assert source.script is not None  # noqa: S101  (only scripts come here)
    asked = Goal.read(goal)
    script = dataclasses.replace(source.script, metric=asked.name, mode=asked.mode or "max", goal=asked.value)
    order = WorkOrder(0, dataclasses.replace(source, script=script), {}, seed, seed, Phase.BASELINE, thorough=thorough)
    ended = next(item for item in learn(order, kept) if isinstance(item, Learned))
    result, told = ended.result, ended.told
    if result.outcome is Outcome.LOST:
        raise InfrastructureError(f"{source.name} could not be run once to its end: {result.reason}")
    if result.outcome is Outcome.FAILED:
        if told.get("bad_input", not result.trace):
            raise InputError(f"{source.name}: {result.reason}")
        raise UserCodeError(f"{source.name} raised {result.reason}", result.trace)
    script = Script.from_json(told["script"])
    loaded = Loaded(dataclasses.replace(source, script=script), None, (), told["code"])
    return Surveyed(loaded, script, Preflight.from_json(told["found"]), result.seconds)
