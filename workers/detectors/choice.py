"""Which detectors watch a study's runs, and with which thresholds, where it asks for others than ours.

A choice is one flat dict, as it travels: `{"chance_plateau": False, "exploding_gradient.factor": 2.0}`. What it does
not name is as it is in the catalogue.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from remedy.spaces.error import InputError
from remedy.workers.detectors.catalogue import DETECTORS, name_of
from remedy.workers.detectors.threshold import thresholds

Choice = Mapping[str, bool | float]

_SUCH_AS = "{chance_plateau: off, exploding_gradient: {factor: 2}}, or off for all of them"
_WORDS = {"off": False, "on": True}


def read(raw: Any, where: str) -> dict[str, bool | float]:
    """Read what a study file or a sweep file says under `detectors`.

    Raises:
        InputError: it names no detector or threshold of ours, or a value that this may not have.
    """
    kinds = {name_of(make): make for make in DETECTORS}
    if _word(raw) is False:
        return dict.fromkeys(kinds, False)
    if not isinstance(raw, dict):
        raise InputError(f"{where}: detectors is {raw!r}; it may be such as {_SUCH_AS}")
    chosen: dict[str, bool | float] = {}
    for key, asked in raw.items():
        name = str(key).replace("-", "_")
        if name not in kinds:
            raise InputError(f"{where}: detectors: {key!r} is none; it may be {', '.join(kinds)}")
        if _word(asked) is not None:
            chosen |= {} if _word(asked) else {name: False}
            continue
        known = thresholds(kinds[name])
        if not isinstance(asked, dict):
            such = f"{{{next(iter(known))}: {next(iter(known.values())).value:g}}}"
            raise InputError(f"{where}: detectors: {name} is {asked!r}; it may be on, off, or its thresholds: {such}")
        for threshold, value in _flat(asked).items():
            if threshold not in known:
                said = f"{where}: detectors: {name} has no threshold {threshold!r}; it may be {', '.join(known)}"
                raise InputError(said)
            if not known[threshold].permits(value):
                said = f"{where}: detectors: {name}: {threshold} is {value!r}; it may be {known[threshold].may_be}"
                raise InputError(said)
            chosen[f"{name}.{threshold}"] = value
    return chosen


def _word(asked: Any) -> bool | None:
    if isinstance(asked, bool):  # what YAML makes of on and off
        return asked
    return _WORDS.get(asked.lower()) if isinstance(asked, str) else None


def _flat(asked: Mapping[Any, Any], before: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in asked.items():
        name = before + str(key).replace("-", "_")
        found |= _flat(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return found


def in_force(choice: Choice) -> dict[str, bool | float]:
    """Return every detector's thresholds as they are with a choice: all of them, by name; False for one that is off."""
    found: dict[str, bool | float] = {}
    for make in DETECTORS:
        name = name_of(make)
        if choice.get(name) is False:
            found[name] = False
            continue
        found |= {
            f"{name}.{key}": choice.get(f"{name}.{key}", threshold.value) for key, threshold in thresholds(make).items()
        }
    return found


def said(choice: Choice) -> str:
    """Return a choice for people; empty where it changes nothing."""
    return ", ".join(f"{name} off" if value is False else f"{name} {value:g}" for name, value in choice.items())


def changes(before: Choice, now: Choice) -> list[str]:
    """Say in what the thresholds in force differ; nothing where it is not known what they were."""
    if not before:
        return []
    told = [f"the detectors' {name} is {now[name]:g}, not {before[name]:g}"
            for name in now if name in before and now[name] != before[name]]  # fmt: skip
    told += [f"the detectors have {name}, which they had not" for name in now if name not in before]
    return told + [f"the detectors have no {name} any more" for name in before if name not in now]
