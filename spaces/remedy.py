"""What a remedy is: one named change to one slot, declared by a decorator."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from remedy.spaces.distribution import Choice, Distribution, Float, Int, Scalar
from remedy.spaces.python import Python
from remedy.spaces.slot import Slot
from remedy.spaces.symptom import Symptom

KEEP = "keep"
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_LEAST, _MOST = 1, 5


class Inapplicable(Exception):  # noqa: N818  (a finding, not an error: the outcome `inapplicable`)
    """A remedy found nothing to change; the message says why.

    Attributes:
        remedies: the names of all that found nothing, where a whole combination was to be applied.
    """

    def __init__(self, message: str = "", remedies: Iterable[str] = ()) -> None:
        """Say why; a remedy need not say its own name."""
        super().__init__(message)
        self.remedies = tuple(remedies)


@dataclass(frozen=True)
class Change:
    """What a remedy returns: the new value of its slot, and what changed (module paths, counts, old -> new).

    `told` says of the change, as plain data, what its `Python` code needs to know beside the hyperparameters.
    """

    value: Any
    receipt: str
    told: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse a change that does not say what it changed."""
        if not self.receipt.strip():
            msg = "a Change needs a receipt that says what changed, not an empty text"
            raise ValueError(msg)


@dataclass(frozen=True)
class Receipt:
    """Proof that a remedy was applied in a run."""

    remedy: str
    slot: Slot
    text: str
    told: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)


@dataclass(frozen=True)
class Remedy:
    """One named, documented change to one slot.

    `function(value of the slot, *, hyperparameters, facts=Facts)` returns a `Change` or raises `Inapplicable`;
    `facts` is passed only where the function asks for it. `invasiveness` runs from 1 (a number changes) to 5 (the
    architecture changes). The first value tried of a hyperparameter is the function's own default.
    """

    name: str
    slot: Slot
    treats: tuple[Symptom, ...]
    invasiveness: int
    source: str
    summary: str
    function: Callable[..., Change] = field(repr=False, compare=False)
    distributions: Mapping[str, Distribution] = field(default_factory=dict)
    defaults: Mapping[str, Scalar] = field(default_factory=dict)
    wants_facts: bool = False
    python: Python | None = field(default=None, repr=False, compare=False)

    @property
    def declared_in(self) -> str:
        """The file that declares it."""
        code = getattr(inspect.unwrap(self.function), "__code__", None)
        return str(getattr(code, "co_filename", ""))

    def first(self) -> dict[str, Scalar]:
        """Return the flat parameters of this remedy alone, with the values that are tried first."""
        return {str(self.slot): self.name, **{f"{self.name}.{key}": value for key, value in self.defaults.items()}}


def remedy(
    slot: Slot | str,
    *,
    treats: Iterable[Symptom | str] = (),
    invasiveness: int,
    source: str,
    name: str | None = None,
    python: Python | None = None,
    **distributions: Distribution,
) -> Callable[[Callable[..., Change]], Remedy]:
    """Declare a function as a remedy of `slot`.

    Args:
        slot: the slot whose value the function receives and returns.
        treats: the symptoms it is known to treat, most important first; they order the search.
        invasiveness: 1 (a number changes) to 5 (the architecture changes).
        source: paper, post or page that proposes it.
        name: defaults to the function's name.
        python: code that makes the same change without remedy, where there is such code.
        distributions: one for each keyword-only hyperparameter of the function, under the same name; the function's
            default is the value tried first and must lie in the distribution.

    Raises:
        ValueError: the declaration contradicts itself; the message names the remedy and the parameter.
    """

    def declare(function: Callable[..., Change]) -> Remedy:
        label = name or function.__name__
        defaults, wants_facts = _hyperparameters(label, function)
        _compare(label, distributions, defaults)
        if not _NAME.fullmatch(label) or label == KEEP:
            msg = f"remedy {label!r}: a name is lower case letters, digits and underscores, and not {KEEP!r}"
            raise ValueError(msg)
        if invasiveness not in range(_LEAST, _MOST + 1):
            msg = f"remedy {label!r}: invasiveness is {invasiveness!r}, it may be {_LEAST} to {_MOST}"
            raise ValueError(msg)
        summary = (inspect.getdoc(function) or "").split("\n\n")[0].replace("\n", " ").strip()
        if not summary or not source.strip():
            msg = f"remedy {label!r}: needs a docstring of one sentence and a source"
            raise ValueError(msg)
        if python is not None and not (isinstance(python, Python) and python.valid):
            msg = f"remedy {label!r}: python is {python!r:.80}; it may be a remedy.Python whose every $ begins a name"
            raise ValueError(msg)
        return Remedy(
            name=label,
            slot=_slot(label, slot),
            treats=tuple(_symptom(label, symptom) for symptom in treats),
            invasiveness=invasiveness,
            source=source,
            summary=summary,
            function=function,
            distributions=MappingProxyType(dict(distributions)),
            defaults=MappingProxyType(defaults),
            wants_facts=wants_facts,
            python=python,
        )

    return declare


def _slot(label: str, slot: Slot | str) -> Slot:
    try:
        return Slot(slot)
    except ValueError:
        msg = f"remedy {label!r}: slot is {slot!r}, it may be one of {', '.join(Slot)}"
        raise ValueError(msg) from None


def _symptom(label: str, symptom: Symptom | str) -> Symptom:
    known = {str(member): member for member in Symptom}
    if str(symptom) not in known:
        msg = f"remedy {label!r}: treats {symptom!r}, it may be one of {', '.join(known)}"
        raise ValueError(msg)
    return known[str(symptom)]


def _hyperparameters(label: str, function: Callable[..., Change]) -> tuple[dict[str, Scalar], bool]:
    parameters = list(inspect.signature(function).parameters.values())
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    keywords = [p for p in parameters if p.kind is p.KEYWORD_ONLY and p.name != "facts"]
    others = len(parameters) - len(positional) - len(keywords) - any(p.name == "facts" for p in parameters)
    if len(positional) != 1 or others:
        msg = f"remedy {label!r}: takes the slot's value as its one argument, everything else keyword-only"
        raise ValueError(msg)
    for parameter in keywords:
        if parameter.default is parameter.empty:
            msg = f"remedy {label!r}: parameter {parameter.name!r} needs a default, the value tried first"
            raise ValueError(msg)
    return {p.name: p.default for p in keywords}, any(p.name == "facts" for p in parameters)


def _compare(label: str, distributions: Mapping[str, Distribution], defaults: Mapping[str, Scalar]) -> None:
    if set(distributions) != set(defaults):
        odd = ", ".join(sorted(set(distributions) ^ set(defaults)))
        msg = f"remedy {label!r}: each keyword parameter needs one distribution of its name; not so for {odd}"
        raise ValueError(msg)
    for key, distribution in distributions.items():
        if not isinstance(distribution, Float | Int | Choice):
            msg = f"remedy {label!r}: {key} is {distribution!r}, it may be a Float, Int or Choice"
            raise ValueError(msg)  # noqa: TRY004  (one error type for every fault of a declaration)
        if not distribution.holds(defaults[key]):
            msg = f"remedy {label!r}: default {key}={defaults[key]!r} is not in {distribution}"
            raise ValueError(msg)
