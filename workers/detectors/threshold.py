"""A threshold of a detector: its value, and why it is that."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from remedy.workers.detectors.streak import Patience

T = TypeVar("T", int, float, Patience)
_OF_A_PATIENCE: Mapping[str, tuple[float, float, str]] = {
    "share": (0, 1, "share of the budget"),
    "steps": (0, math.inf, "steps at least"),
    "samples": (1, math.inf, "samples at least"),
}


@dataclass(frozen=True)
class Threshold(Generic[T]):
    """One field of a detector that a study file may set.

    On the detector, and on its instances, the field reads as its value; `least` and `most` bound what it may be set to.
    """

    value: T
    why: str
    least: float = 0.0
    most: float = math.inf

    def __get__(self, _instance: object, _owner: type | None = None) -> T:
        """Return the value."""
        return self.value

    @property
    def may_be(self) -> str:
        """What it may be set to, for people."""
        kind = "a whole number" if isinstance(self.value, int) else "a number"
        if self.most < math.inf:
            return f"{kind} from {self.least:g} to {self.most:g}"
        return f"{kind}, {self.least:g} or more"

    def permits(self, value: Any) -> bool:
        """Whether it may be set to that."""
        kinds = int if isinstance(self.value, int) else (int, float)
        return (
            isinstance(value, kinds)
            and not isinstance(value, bool)
            and math.isfinite(value)
            and self.least <= value <= self.most
        )


def thresholds(detector: type) -> dict[str, Threshold[Any]]:
    """Return the thresholds of a kind of detector by name; those of a patience one by one, as `patience.steps`."""
    found: dict[str, Threshold[Any]] = {}
    for kind in reversed(detector.__mro__):
        for name, known in vars(kind).items():
            if isinstance(known, Threshold):
                found |= _parts(name, known) if isinstance(known.value, Patience) else {name: known}
    return found


def _parts(name: str, patience: Threshold[Any]) -> dict[str, Threshold[Any]]:
    return {
        f"{name}.{part}": Threshold(getattr(patience.value, part), f"{about}: {patience.why}", least, most)
        for part, (least, most, about) in _OF_A_PATIENCE.items()
    }


def with_values(detector: type, values: Mapping[str, float]) -> type:
    """Return the same kind of detector with other values of some of its thresholds."""
    if not values:
        return detector
    own: dict[str, Any] = {}
    for name, value in values.items():
        field, _, part = name.partition(".")
        if not part:
            own[field] = value
            continue
        changed: dict[str, Any] = {part: value}
        own[field] = replace(own.get(field, getattr(detector, field)), **changed)
    return type(detector.__name__, (detector,), own)
