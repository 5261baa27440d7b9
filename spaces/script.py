"""Door B: what is known of a script that trains by a loop of its own."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from remedy.spaces.error import InputError
from remedy.spaces.metric import MODES, Mode, check_goal

_GOAL = re.compile(r"\s*(?:([A-Za-z_]\w*)\s*)?(>=|<=)?\s*([-+.\w]+)\s*")
_SIGNS: dict[str, Mode] = {">=": "max", "<=": "min"}


@dataclass(frozen=True)
class Script:
    """What travels with a script's source. The first two are asked for, the others are learned from one run of it.

    Attributes:
        args: what follows `--` on the command line.
        cwd: the folder it is run in; empty for the one the worker is in.
        metric: the name under which it reports what the goal is about.
        mode: "max" or "min".
        goal: the value that counts as converged.
        steps: optimizer steps of one run that nobody stops.
        interval: how often its loop steps its scheduler.
        reports: the steps after which it reports, where those are not too many to look at each.
        closed: slot -> why no remedy can fill it.
    """

    args: tuple[str, ...] = ()
    cwd: str = ""
    metric: str = "metric"
    mode: Mode = "max"
    goal: float = 0.0
    steps: int = 0
    interval: Literal["epoch", "step"] = "epoch"
    reports: tuple[int, ...] = ()
    closed: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Script:
        """Read what `dataclasses.asdict` made of it, or what `kept` left of that."""
        lists = {name: tuple(data.get(name, ())) for name in ("args", "reports")}
        return cls(**{**data, **lists, "closed": dict(data.get("closed", {}))})

    def kept(self) -> dict[str, Any]:
        """Return what a fix file says of the script, for whoever applies the fix to it."""
        return {name: getattr(self, name) for name in ("metric", "mode", "goal", "steps", "interval")}


@dataclass(frozen=True)
class Goal:
    """A goal as it was asked for. `name` is empty where it goes without saying, `mode` None likewise."""

    name: str
    mode: Mode | None
    value: float

    @classmethod
    def read(cls, text: str | None) -> Goal:
        """Read `'accuracy>=0.9'`, `'loss<=0.1'`, `0.9`.

        Raises:
            InputError: it is none of these, or missing.
        """
        if text is None:
            msg = "--goal is missing: a script needs one, such as --goal 'accuracy>=0.9' (what remedy.report is given)"
            raise InputError(msg)
        found = _GOAL.fullmatch(text)
        try:
            value = float(found[3]) if found else math.nan
        except ValueError:
            value = math.nan
        if found is None or not math.isfinite(value) or bool(found[1]) != bool(found[2]):
            raise InputError(f"--goal is {text!r}; it may be such as 'accuracy>=0.9', 'loss<=0.1', or a number")
        goal = cls(found[1] or "", _SIGNS.get(found[2] or ""), value)
        if goal.name in MODES:
            goal._check(goal.name)
        return goal

    def among(self, reported: Iterable[str]) -> tuple[str, Mode]:
        """Return the metric that is meant, of those the script reports, and which way it is better.

        Raises:
            InputError: the script reports no such metric, or several where none is named.
        """
        names = sorted(reported)
        said = ", ".join(names)
        if self.name and self.name not in names:
            raise InputError(f"--goal names {self.name!r}, and the script reports {said}; it may name one of these")
        if not self.name and len(names) > 1:
            raise InputError(
                f"--goal is {self.value:g}, and the script reports {said}; say which, as '{names[0]}>=0.9'"
            )
        name = self.name or names[0]
        self._check(name)
        return name, self.mode or MODES.get(name, "max")

    def _check(self, name: str) -> None:
        if self.mode is not None and MODES.get(name, self.mode) != self.mode:
            better = "larger" if MODES[name] == "max" else "smaller"
            raise InputError(f"--goal has the wrong sign: {name} is better when {better}")
        check_goal(name, self.value)


@dataclass(frozen=True)
class Reported:
    """Stands where a training has its metric: the script computes it, and what guessing reaches is not known."""

    name: str

    @property
    def __name__(self) -> str:
        """The name it is reported under."""
        return self.name

    def __call__(self, _outputs: Any, _targets: Any) -> float:
        """Return what is not known."""
        return math.nan


def metric_of(name: str) -> str | Reported:
    """Return the metric of that name: one of ours where it is one, so that the level of guessing is known."""
    return name if name in MODES else Reported(name)
