"""The work order: what the controller asks of a worker. Plain data, unchanged on its way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from remedy.spaces.distribution import Scalar
from remedy.spaces.target import Source


class Phase(StrEnum):
    """Why a run is made."""

    BASELINE = "baseline"
    SEARCH = "search"
    CONFIRM = "confirm"
    MINIMISE = "minimise"


@dataclass(frozen=True)
class WorkOrder:
    """One run: which training, with which remedies, from which seed.

    `number` is the run's number in its study, from 0. `timeout` is in seconds, None without limit. `goal` replaces the
    training's own where it is not None. `log` is the file that takes what the user's code prints, empty for none;
    `checkpoint` the file that keeps a long run's state, empty for none. `returns_log` has what is printed come back
    with the result, from workers that share no files with the controller. `thorough` has a script's parts tried for
    some hundred steps when they are prepared, where it is run to learn of it. `detectors` is what was chosen of them
    (see workers/detectors/choice.py); an `audited` run goes on to its end whatever they find.
    """

    number: int
    source: Source
    params: Mapping[str, Scalar]
    seed: int
    data_seed: int
    phase: Phase
    goal: float | None = None
    timeout: float | None = None
    log: str = ""
    checkpoint: str = ""
    returns_log: bool = False
    thorough: bool = False
    detectors: Mapping[str, bool | float] = field(default_factory=dict)
    audited: bool = False

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> WorkOrder:
        """Read what `dataclasses.asdict` made of it."""
        return cls(**{**data, "source": Source.from_json(data["source"]), "phase": Phase(data["phase"])})

    @property
    def may_succeed_early(self) -> bool:
        """Whether success may end the run before its budget: in the search phase only, and provisionally."""
        return self.phase is Phase.SEARCH

    @property
    def may_be_given_up(self) -> bool:
        """Whether the forecast may end the run before its budget: in the search phase only, since it proves nothing."""
        return self.phase is Phase.SEARCH
