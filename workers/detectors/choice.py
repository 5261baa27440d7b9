"""Which detectors watch a study's runs, and with which thresholds, where others than ours are asked for; the forecast.

A choice is one flat dict, as it travels: `{"chance_plateau": False, "exploding_gradient.factor": 2.0, "forecast.late":
0.8}`. What it does not name is as it is in the catalogue; `True` is what is on, whatever a sweep has off.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from remedy.spaces.error import InputError
from remedy.workers.detectors.catalogue import DETECTORS, name_of
from remedy.workers.detectors.threshold import Threshold, thresholds
from remedy.workers.forecast import NAME, Forecast

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
            chosen[name] = bool(_word(asked))
        else:
            chosen |= _set(name, thresholds(kinds[name]), asked, f"{where}: detectors")
    return chosen


def read_forecast(raw: Any, where: str) -> dict[str, bool | float]:
    """Read what a study file or a sweep file says under `forecast`: on, off, or its thresholds.

    Raises:
        InputError: it names no threshold of the forecast, or a value that this may not have.
    """
    word = _word(raw)
    return {NAME: word} if word is not None else _set(NAME, thresholds(Forecast), raw, where)


def _set(name: str, known: Mapping[str, Threshold[Any]], asked: Any, where: str) -> dict[str, bool | float]:
    if not isinstance(asked, dict):
        such = f"{{{next(iter(known))}: {next(iter(known.values())).value:g}}}"
        raise InputError(f"{where}: {name} is {asked!r}; it may be on, off, or its thresholds: {such}")
    chosen: dict[str, bool | float] = {name: True} if asked else {}
    for threshold, value in _flat(asked).items():
        if threshold not in known:
            raise InputError(f"{where}: {name} has no threshold {threshold!r}; it may be {', '.join(known)}")
        if not known[threshold].permits(value):
            raise InputError(f"{where}: {name}: {threshold} is {value!r}; it may be {known[threshold].may_be}")
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
    """Return every detector's thresholds as they are with a choice: all of them, by name; False for one that is off.

    The forecast's are among them.
    """
    found: dict[str, bool | float] = {}
    for make in (*DETECTORS, Forecast):
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
    told = ((name, value) for name, value in choice.items() if value is not True)
    return ", ".join(f"{name} off" if value is False else f"{name} {value:g}" for name, value in told)


def changes(before: Choice, now: Choice) -> list[str]:
    """Say in what the thresholds in force differ; nothing where it is not known what they were."""
    if not before:
        return []
    if not any(map(_foretells, before)):  # a study from before the forecast's were kept
        now = {name: value for name, value in now.items() if not _foretells(name)}
    told = [f"{_whose(name)} is {now[name]:g}, not {before[name]:g}"
            for name in now if name in before and now[name] != before[name]]  # fmt: skip
    told += [f"the detectors have {name}, which they had not" for name in now if name not in before]
    return told + [f"the detectors have no {name} any more" for name in before if name not in now]


def detecting(in_force: Choice) -> Choice:
    """Return of the thresholds in force those of the detectors alone, by which untouched runs are judged."""
    return {name: value for name, value in in_force.items() if not _foretells(name)}


def _foretells(name: str) -> bool:
    return name.partition(".")[0] == NAME


def _whose(name: str) -> str:
    return f"the {name}" if _foretells(name) else f"the detectors' {name}"
