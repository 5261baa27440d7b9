"""Distributions of a remedy's hyperparameters, free of any sampler's types."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

Scalar: TypeAlias = float | int | str | bool


class Suggests(Protocol):
    """What a distribution needs of a trial (Optuna's `Trial` and `FixedTrial` have it)."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """Suggest a float in [low, high]."""

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        """Suggest an int in [low, high]."""

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        """Suggest one of the choices, a sequence of scalars."""


@dataclass(frozen=True)
class Float:
    """A real number in [low, high], uniform or log-uniform."""

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        """Refuse an empty or, with `log`, a non-positive range."""
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            msg = f"Float({self.low}, {self.high}): low must be smaller than high, both finite"
            raise ValueError(msg)
        if self.log and self.low <= 0:
            msg = f"Float({self.low}, {self.high}, log=True): low must be positive"
            raise ValueError(msg)

    def suggest(self, trial: Suggests, name: str) -> float:
        """Ask the trial for a value."""
        return trial.suggest_float(name, self.low, self.high, log=self.log)

    def holds(self, value: object) -> bool:
        """Whether the value lies in the distribution."""
        return isinstance(value, int | float) and not isinstance(value, bool) and self.low <= value <= self.high

    def __str__(self) -> str:
        """As the catalogue prints it."""
        return f"{self.low:g} to {self.high:g}{' (log)' if self.log else ''}"


@dataclass(frozen=True)
class Int:
    """A whole number in [low, high], uniform or log-uniform."""

    low: int
    high: int
    log: bool = False

    def __post_init__(self) -> None:
        """Refuse an empty or, with `log`, a non-positive range."""
        if self.low >= self.high or (self.log and self.low < 1):
            msg = f"Int({self.low}, {self.high}): low must be smaller than high, and at least 1 with log"
            raise ValueError(msg)

    def suggest(self, trial: Suggests, name: str) -> int:
        """Ask the trial for a value."""
        return trial.suggest_int(name, self.low, self.high, log=self.log)

    def holds(self, value: object) -> bool:
        """Whether the value lies in the distribution."""
        return isinstance(value, int) and not isinstance(value, bool) and self.low <= value <= self.high

    def __str__(self) -> str:
        """As the catalogue prints it."""
        return f"{self.low} to {self.high}{' (log)' if self.log else ''}"


@dataclass(frozen=True)
class Choice:
    """One of a few values."""

    options: tuple[Scalar, ...]

    def __init__(self, *options: Scalar) -> None:
        """Take the options as arguments; at least two different ones."""
        if len(set(options)) < 2 or len(set(options)) != len(options):
            msg = f"Choice{options}: at least two different options are needed"
            raise ValueError(msg)
        object.__setattr__(self, "options", options)

    def suggest(self, trial: Suggests, name: str) -> Scalar:
        """Ask the trial for a value."""
        chosen: Scalar = trial.suggest_categorical(name, list(self.options))
        return chosen

    def holds(self, value: object) -> bool:
        """Whether the value is one of the options."""
        return any(value == option and type(value) is type(option) for option in self.options)

    def __str__(self) -> str:
        """As the catalogue prints it."""
        return ", ".join(str(option) for option in self.options)


Distribution: TypeAlias = Float | Int | Choice
