"""Combinations of remedies, and the grammar of the one flat dict that carries them.

`{"gradient": "clip_norm", "clip_norm.max_norm": 0.7}`: a key without a dot is a slot and names its remedy (or
`keep`); a key with a dot is a hyperparameter of that remedy. The same dict goes from the sampler to the worker, the
record and the fix file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from remedy.spaces.distribution import Scalar
from remedy.spaces.error import InputError
from remedy.spaces.remedy import KEEP, Remedy
from remedy.spaces.slot import Slot

_ORDER = {str(slot): place for place, slot in enumerate(Slot)}


@dataclass(frozen=True)
class Combination:
    """At most one remedy for each slot. The empty combination is the baseline."""

    items: tuple[tuple[str, Scalar], ...] = ()

    @classmethod
    def of(cls, params: Mapping[str, Scalar]) -> Combination:
        """Build from flat parameters; slots that keep their part are left out."""
        kept = {key: value for key, value in params.items() if "." in key or value != KEEP}
        slots = sorted((key for key in kept if "." not in key), key=lambda key: _ORDER.get(key, len(_ORDER)))
        flat: list[tuple[str, Scalar]] = []
        for slot in slots:
            flat.append((slot, kept[slot]))
            flat += sorted(
                (key, value) for key, value in kept.items() if key.split(".")[0] == kept[slot] and "." in key
            )
        return cls(tuple(flat))

    @property
    def params(self) -> dict[str, Scalar]:
        """The flat parameters, slots in their order, each followed by its remedy's hyperparameters."""
        return dict(self.items)

    @cached_property
    def remedies(self) -> dict[str, str]:
        """Slot -> remedy name, in the order of the slots."""
        return {key: str(value) for key, value in self.items if "." not in key}

    @cached_property
    def names(self) -> frozenset[str]:
        """The names of the remedies; two fixes are distinct if these differ."""
        return frozenset(self.remedies.values())

    def without(self, name: str) -> Combination:
        """Leave the remedy `name` out."""
        return self.only(self.names - {name})

    def only(self, names: Collection[str]) -> Combination:
        """Keep these remedies alone, with their hyperparameters."""
        kept = {slot for slot, chosen in self.remedies.items() if chosen in names}
        return Combination.of({key: value for key, value in self.items if key in kept or key.split(".")[0] in names})

    def plus(self, other: Combination) -> Combination:
        """Join two combinations; where both fill a slot, `other` wins."""
        kept = self
        for slot in other.remedies:
            if slot in kept.remedies:
                kept = kept.without(kept.remedies[slot])
        return Combination.of({**kept.params, **other.params})

    @cached_property
    def key(self) -> str:
        """A stable hash of the content, for finding repeats."""
        return hashlib.sha256(json.dumps(self.items).encode()).hexdigest()[:16]

    @property
    def label(self) -> str:
        """For people: `clip_norm(max_norm=0.7) + adam(lr=0.001)`, or `baseline`."""
        return " + ".join(self._parts()) or "baseline"

    def _parts(self) -> Iterator[str]:
        for name in self.remedies.values():
            own = [f"{key.split('.', 1)[1]}={_short(value)}" for key, value in self.items if key.startswith(f"{name}.")]
            yield f"{name}({', '.join(own)})" if own else name

    def __bool__(self) -> bool:
        """Whether any remedy is in it."""
        return bool(self.items)


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def checked(params: Mapping[str, Any], catalogue: Mapping[str, Remedy]) -> Combination:
    """Check flat parameters that came from outside (a fix file) against the catalogue.

    Raises:
        InputError: an unknown slot, remedy or hyperparameter, or a value outside what it may be.
    """
    for key, value in params.items():
        if "." in key:
            continue
        if key not in set(Slot):
            msg = f"slot {key!r} is unknown; it may be one of {', '.join(Slot)}"
            raise InputError(msg)
        if value == KEEP:
            continue
        if not isinstance(value, str) or value not in catalogue or catalogue[value].slot != key:
            fitting = sorted(name for name, remedy in catalogue.items() if remedy.slot == key)
            msg = f"remedy {value!r} in slot {key!r} is unknown; it may be {', '.join(fitting) or KEEP}"
            raise InputError(msg)
    chosen = {str(value) for key, value in params.items() if "." not in key and value != KEEP}
    complete = dict(params)
    for key, value in params.items():
        if "." not in key:
            continue
        owner, own = key.split(".", 1)
        if owner not in chosen or own not in catalogue[owner].distributions:
            msg = f"parameter {key!r} belongs to no chosen remedy"
            raise InputError(msg)
        distribution = catalogue[owner].distributions[own]
        complete[key] = _as_meant(value, catalogue[owner].defaults[own])
        if not distribution.holds(complete[key]):
            msg = f"{key} is {value!r}; it may be {distribution}"
            raise InputError(msg)
    for name in chosen:
        for own, default in catalogue[name].defaults.items():
            complete.setdefault(f"{name}.{own}", default)
    return Combination.of(complete)


def _as_meant(value: Any, default: Scalar) -> Any:
    """Return a number as the kind of number its hyperparameter has: whoever writes 1 in YAML means 1.0."""
    return float(value) if isinstance(default, float) and type(value) is int else value
