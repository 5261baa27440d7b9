"""The study file: a YAML file that says the same things as the command line."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import yaml

from remedy.spaces.error import InputError

DEFAULTS: dict[str, Any] = {
    "seed": 0,
    "runs": 150,
    "seeds": 3,
    "confirm_seeds": 5,
    "fixes": 3,
    "only": [],
    "without": [],
    "args": [],
    "remedies": [],
    "detectors": {},
    "audit": 0.0,
    "knowledge": True,
    "isolate": False,
}
_TYPES: dict[str, type | tuple[type, ...]] = {
    "goal": (str, int, float),
    "seed": int,
    "run_timeout": (int, float),
    "runs": int,
    "budget": (int, float),
    "timeout": (int, float),
    "seeds": int,
    "confirm_seeds": int,
    "fixes": int,
    "only": list,
    "without": list,
    "name": str,
    "workers": int,
    "gpus": (int, float),
    "address": str,
    "resource": list,
    "args": list,
    "remedies": list,
    "detectors": dict,
    "forecast": dict,
    "audit": (int, float),
    "knowledge": bool,
    "isolate": bool,
}


def complete(asked: argparse.Namespace) -> None:
    """Fill in what the command line leaves open: from the study file, where the target is one, then the defaults.

    Raises:
        InputError: the file cannot be read, or holds an unknown key or a value of another kind.
    """
    content = _read(Path(asked.target)) if asked.target.endswith((".yaml", ".yml")) else {}
    asked.remedies = asked.detectors = None  # said by a study file alone
    for key in _TYPES:
        if hasattr(asked, key) and getattr(asked, key) is None:
            value = content.get(key, DEFAULTS.get(key))
            setattr(asked, key, str(value) if key == "goal" and value is not None else value)
    limit = getattr(asked, "run_timeout", None)
    if limit is not None and not 0 < limit < math.inf:
        msg = f"--run-timeout is {limit:g}; it may be a number of seconds above 0"
        raise InputError(msg)
    if content:
        asked.target = content["target"]


def _read(path: Path) -> dict[str, Any]:
    from remedy.spaces.fix import read_yaml

    try:
        content = read_yaml(path.read_text())
    except OSError as error:
        msg = f"study file {str(path)!r} cannot be read: {error.strerror}"
        raise InputError(msg) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        line = getattr(getattr(error, "problem_mark", None), "line", None)
        msg = f"study file {str(path)!r} is no YAML" + (f" (line {line + 1})" if line is not None else "")
        raise InputError(msg) from None
    if not isinstance(content, dict) or not isinstance(content.get("target"), str):
        msg = f"study file {str(path)!r} has no key target; it may be such as target: train.py:training"
        raise InputError(msg)
    for key, value in content.items():
        if key == "target":
            continue
        name = str(key).replace("-", "_")
        if name not in _TYPES:
            msg = f"study file {str(path)!r}: key {key!r} is unknown; it may be target, {', '.join(_TYPES)}"
            raise InputError(msg)
        if name in ("detectors", "forecast"):
            continue  # read below, where its own words are known
        kinds = (str, int, float) if name == "args" else str
        names = not isinstance(value, list) or all(isinstance(one, kinds) for one in value)
        wrong = not isinstance(value, _TYPES[name]) or isinstance(value, bool) != (_TYPES[name] is bool)
        if wrong or not names:
            msg = f"study file {str(path)!r}: {key} is {value!r}; it may be {_kinds(_TYPES[name])}"
            raise InputError(msg)
    found = {str(key).replace("-", "_"): value for key, value in content.items()}
    if "args" in found:
        found["args"] = [str(one) for one in found["args"]]
    if "detectors" in found or "forecast" in found:
        from remedy.workers.detectors.choice import read, read_forecast

        where = f"study file {str(path)!r}"
        asked = read(found.get("detectors", {}), where)
        found["detectors"] = {**asked, **read_forecast(found.pop("forecast", {}), where)}
    found["target"] = _beside(path, found["target"])
    found["remedies"] = [_beside(path, own) for own in found.get("remedies", [])]
    return found


def _beside(path: Path, named: str) -> str:
    """Name a file from where the study file lies, so that they can be moved and submitted from anywhere."""
    file, colon, function = named.partition(":")
    if file.endswith(".py") and not Path(file).is_absolute():
        return f"{path.parent / file}{colon}{function}"
    return named


def _kinds(kinds: type | tuple[type, ...]) -> str:
    names = {str: "text", int: "a whole number", float: "a number", list: "a list of names", bool: "true or false"}
    return " or ".join(dict.fromkeys(names[kind] for kind in (kinds if isinstance(kinds, tuple) else (kinds,))))
