"""A sweep: many trainings that are run night by night, as its file (YAML) says."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from remedy.search.evidence import LEAST_RUNS, MOST_RUNS
from remedy.search.spec import SEED_LIMIT
from remedy.spaces.error import InputError
from remedy.spaces.fix import read_yaml
from remedy.workers.detectors.choice import read, read_forecast

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")
_A_NAME = "text of letters, digits, dots, dashes and underscores, at most 40"
Rule = tuple[Callable[[Any], bool], str]


@dataclass(frozen=True)
class Entry:
    """One training of a sweep.

    Attributes:
        name: what it is called, night by night.
        target: file.py:function or package.module:function.
        goal: replaces the training's own.
        seed: the one seed; all others derive from it.
        only, without: names of remedies that explorers try / leave out.
        remedies: files and modules that declare remedies beside the training's own.
        weight: its share of the explorers' budget, relative to the others'.
        run_timeout: most seconds of loading it, and of one run.
        detectors: what is asked of the detectors and of the forecast, as a choice (see workers/detectors/choice.py).
    """

    name: str
    target: str
    goal: str | None = None
    seed: int = 0
    only: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    remedies: tuple[str, ...] = ()
    weight: float = 1.0
    run_timeout: float | None = None
    detectors: Mapping[str, bool | float] = field(default_factory=dict)


@dataclass(frozen=True)
class Sweep:
    """What is asked of each night.

    Attributes:
        name: of the sweep.
        trainings: in the order of the file.
        path: the file.
        budget: full-run equivalents for each training and night; what one does not use goes to the others.
        timeout: most seconds of a night; None without limit.
        seeds: baseline runs of each training and night, on the same seeds every night.
        confirm_seeds: fresh seeds a fix is confirmed on.
        fixes: minimal fixes wanted of each training.
        workers, gpus, address, resource, isolate: as the options of `remedy submit`.
        audit: share of the early stops that are let run on to the end, to see how many of them were wrong.
        stale_after: hours after the beginning of a night from which on the next one counts as not run.
    """

    name: str
    trainings: tuple[Entry, ...]
    path: Path = Path("sweep.yaml")
    budget: float = 60.0
    timeout: float | None = None
    seeds: int = 3
    confirm_seeds: int = 5
    fixes: int = 3
    workers: int | None = None
    gpus: float | None = None
    address: str | None = None
    resource: tuple[str, ...] = ()
    isolate: bool = False
    audit: float = 0.05
    stale_after: float = 26.0

    def to_json(self) -> dict[str, Any]:
        """Return what a report needs to know of the sweep, where its file is out of reach."""
        trainings = [{"name": entry.name, "target": entry.target} for entry in self.trainings]
        return {"schema": 1, "sweep": self.name, "path": str(self.path), "trainings": trainings,
                "budget": self.budget, "stale_after": self.stale_after}  # fmt: skip


def _text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _named(value: Any) -> bool:
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _positive(value: Any) -> bool:
    return _number(value) and value > 0


def _names(value: Any) -> bool:
    return isinstance(value, list) and all(_text(item) for item in value)


def _whole(low: int, high: float) -> Rule:
    span = f"{low} to {high:g}" if high < math.inf else f"{low} or more"
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and low <= value <= high, (
        f"a whole number, {span}"
    )


_ABOVE_0: Rule = (_positive, "a number above 0")
_TRAINING: Mapping[str, Rule] = {
    "target": (_text, "file.py:function or package.module:function"),
    "name": (_named, _A_NAME),
    "goal": (lambda value: _text(value) or _number(value), "a number, or text such as 'loss<=0.1'"),
    "seed": _whole(0, SEED_LIMIT - 1),
    "only": (_names, "a list of remedies' names"),
    "without": (_names, "a list of remedies' names"),
    "remedies": (_names, "a list of files and modules that declare remedies"),
    "weight": _ABOVE_0,
    "run_timeout": (_positive, "seconds above 0"),
    "detectors": (lambda _value: True, ""),  # it says itself what is wrong
    "forecast": (lambda _value: True, ""),
}
_SWEEP: Mapping[str, Rule] = {
    "sweep": (_named, _A_NAME),
    "trainings": (lambda value: isinstance(value, list) and bool(value), "a list of trainings, each with its target"),
    "budget": _ABOVE_0,
    "timeout": (_positive, "seconds above 0"),
    "seeds": _whole(3, 100),
    "confirm_seeds": _whole(LEAST_RUNS, MOST_RUNS),
    "fixes": _whole(1, math.inf),
    "run_timeout": (_positive, "seconds above 0"),
    "detectors": (lambda _value: True, ""),
    "forecast": (lambda _value: True, ""),
    "audit": (lambda value: _number(value) and 0 <= value <= 1, "a share of the early stops, 0 to 1"),
    "workers": _whole(0, math.inf),
    "gpus": (lambda value: _number(value) and value >= 0, "a share of a GPU, 0 or more"),
    "address": (_text, "http://HEAD:8265 or HOST:6379"),
    "resource": (_names, "a list of NAME=AMOUNT"),
    "isolate": (lambda value: isinstance(value, bool), "true or false"),
    "stale_after": (_positive, "hours above 0"),
}


def read_sweep(path: Path) -> Sweep:
    """Read and check a sweep file.

    Raises:
        InputError: it cannot be read, or a key is unknown, missing, or has a value that it may not have.
    """
    where = f"sweep file {str(path)!r}"
    content = _loaded(path, where)
    if not isinstance(content, dict):
        raise InputError(f"{where} holds {type(content).__name__}; it may hold the keys {', '.join(_SWEEP)}")
    found = _checked(content, _SWEEP, ("sweep", "trainings"), where)
    common: dict[str, Any] = {"run_timeout": found.pop("run_timeout")} if "run_timeout" in found else {}
    common["detectors"] = _chosen(found, where)
    entries = tuple(
        _entry(raw, common, path.parent, f"{where}: training {place}")
        for place, raw in enumerate(found.pop("trainings"), start=1)
    )
    for place, entry in enumerate(entries):
        if entry.name in [other.name for other in entries[:place]]:
            raise InputError(f"{where}: two trainings are called {entry.name!r}; give one of them another name: NAME")
    if "resource" in found:
        found["resource"] = tuple(found["resource"])
    # Not resolved: Kubernetes mounts files as links into hidden folders, which nobody sends to a cluster.
    return Sweep(name=found.pop("sweep"), trainings=entries, path=path.absolute(), **found)


def _loaded(path: Path, where: str) -> Any:
    try:
        return read_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{where} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        line = getattr(getattr(error, "problem_mark", None), "line", None)
        raise InputError(f"{where} is no YAML" + (f" (line {line + 1})" if line is not None else "")) from None


def _checked(raw: Mapping[Any, Any], rules: Mapping[str, Rule], needed: tuple[str, ...], where: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in raw.items():
        name = str(key).replace("-", "_")
        if name not in rules:
            raise InputError(f"{where}: key {key!r} is unknown; it may be {', '.join(rules)}")
        fits, may_be = rules[name]
        if not fits(value):
            raise InputError(f"{where}: {name} is {_short(value)}; it may be {may_be}")
        found[name] = value
    for name in needed:
        if name not in found:
            raise InputError(f"{where} has no key {name}; it may be {rules[name][1]}")
    return found


def _entry(raw: Any, common: Mapping[str, Any], folder: Path, where: str) -> Entry:
    if not isinstance(raw, dict):
        raise InputError(f"{where} is {_short(raw)}; it may be such as {{target: train.py:training}}")
    found = _checked(raw, _TRAINING, ("target",), where)
    found["detectors"] = {**common["detectors"], **_chosen(found, where)}
    found = {**common, **found}
    file, _, function = found["target"].partition(":")
    found["target"] = _from(folder, found["target"])
    found["remedies"] = tuple(_from(folder, own) for own in found.get("remedies", ()))
    name = found.pop("name", None) or _derived(file, function)
    goal = found.pop("goal", None)
    only, without = (tuple(found.pop(key, ())) for key in ("only", "without"))
    return Entry(name=name, goal=None if goal is None else str(goal), only=only, without=without, **found)


def _chosen(found: dict[str, Any], where: str) -> dict[str, bool | float]:
    """Take out of what a file says what it asks of the detectors, and of the forecast."""
    return {**read(found.pop("detectors", {}), where), **read_forecast(found.pop("forecast", {}), where)}


def _from(folder: Path, named: str) -> str:
    """Name a file from where the sweep file lies, so that both can be moved and run from anywhere."""
    file, colon, function = named.partition(":")
    if file.endswith(".py") and not Path(file).is_absolute():
        return f"{(folder / file).resolve()}{colon}{function}"
    return named


def _derived(file: str, function: str) -> str:
    stem = Path(file).stem if file.endswith(".py") else file.rpartition(".")[2]
    said = stem if function in ("", "training") else f"{stem}-{function}"
    clean = re.sub(r"[^A-Za-z0-9._-]+", "-", said).strip("-._")[:40]
    return clean or "training"


def _short(value: Any) -> str:
    said = repr(value)
    return said if len(said) <= 80 else f"{said[:77]}..."
