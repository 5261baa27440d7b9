"""What a study is asked to do: frozen at submit, saved beside its records."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from remedy.search.evidence import LEAST_RUNS, MOST_RUNS
from remedy.spaces.error import InputError
from remedy.spaces.target import Source

_BLOCK = 1000
_SEARCH = 100
_SEARCH_SEEDS = 10
_CONFIRM = 200
SEED_LIMIT = 2_000_000


@dataclass(frozen=True)
class Spec:
    """The specification of a study.

    Attributes:
        study: its name.
        source: the training.
        seed: the one seed; all others are derived from it.
        metric: name of the validation metric.
        mode: "max" or "min".
        goal: the metric value that counts as converged.
        steps: optimizer steps of the untouched training's full budget.
        seeds: baseline runs.
        confirm_seeds: fresh seeds a fix is confirmed on, at least 5.
        fixes: minimal fixes wanted.
        runs: most runs of every phase, `lost` ones not counted; None without limit.
        budget: most full-run equivalents; None without limit.
        timeout: most seconds of the study; None without limit.
        run_timeout: most seconds of one run; None without limit.
        only, without: names of remedies that are searched / left out.
        suggested: remedies that pre-flight checks propose, most urgent first.
        preflight: the findings, as in the report.
        closed: slots that the training's own data closes.
        refused: known-good defaults of which pre-flight saw that they find nothing to change.
        knowledge: what past studies taught, as it was at submit: symptom -> remedy -> what `Known` says.
        space: slot -> remedies -> distributions, as `Space.describe` says it.
        code: the hash of each file of the user's that the training imports, by its path.
        commit: the git commit of the training's folder, with `+` where it has changes; `none` outside of git.
        audit: share of the runs that a detector or the forecast would stop which go on to the end.
        detectors: what was asked of the detectors and the forecast, as a choice (see workers/detectors/choice.py).
        thresholds: the detectors' thresholds as they were when the study began, all of them.
        preflight_steps: optimizer steps that were trained before the study began: to learn a script's full length, and
            whether the training can learn a few samples by heart.
        probation: what came of the latter, as `Probation` in JSON; None where it was not tried.
    """

    study: str
    source: Source
    seed: int = 0
    metric: str = "accuracy"
    mode: str = "max"
    goal: float = 0.9
    steps: int = 1
    seeds: int = 3
    confirm_seeds: int = 5
    fixes: int = 3
    runs: int | None = None
    budget: float | None = None
    timeout: float | None = None
    run_timeout: float | None = None
    only: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    suggested: tuple[str, ...] = ()
    preflight: tuple[Mapping[str, Any], ...] = ()
    closed: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    knowledge: Mapping[str, Mapping[str, tuple[float, int]]] = field(default_factory=dict)
    space: Mapping[str, Mapping[str, Mapping[str, str]]] = field(default_factory=dict)
    code: Mapping[str, str] = field(default_factory=dict)
    commit: str = "none"
    audit: float = 0.0
    detectors: Mapping[str, bool | float] = field(default_factory=dict)
    thresholds: Mapping[str, bool | float] = field(default_factory=dict)
    preflight_steps: int = 0
    probation: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        """Refuse numbers that cannot be; the message names the option.

        Raises:
            InputError: as said.
        """
        least = {"seeds": 3, "confirm_seeds": LEAST_RUNS, "fixes": 1, "runs": 1}
        most = {"seeds": _SEARCH, "confirm_seeds": MOST_RUNS}
        for name, low in least.items():
            value = getattr(self, name)
            high = most.get(name)
            if value is not None and (value < low or (high is not None and value > high)):
                span = f"{low} to {high}" if high else f"at least {low}"
                msg = f"--{name.replace('_', '-')} is {value}; it may be {span}"
                raise InputError(msg)
        for name in ("budget", "timeout", "run_timeout"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                msg = f"--{name.replace('_', '-')} is {value:g}; it may be a number above 0"
                raise InputError(msg)
        if not 0 <= self.audit <= 1:
            raise InputError(f"--audit is {self.audit:g}; it may be a share of the early stops, 0 to 1")
        if not 0 <= self.seed < SEED_LIMIT:
            msg = f"--seed is {self.seed}; it may be 0 to {SEED_LIMIT - 1}"
            raise InputError(msg)

    @property
    def baseline_seeds(self) -> tuple[int, ...]:
        """Seeds of the baseline runs."""
        return tuple(self.seed * _BLOCK + place for place in range(self.seeds))

    @property
    def search_seeds(self) -> tuple[int, ...]:
        """Seeds to try combinations on: the first serves, unless the untouched training converges on it."""
        return tuple(self.seed * _BLOCK + _SEARCH + place for place in range(_SEARCH_SEEDS))

    def confirm_list(self, count: int) -> tuple[int, ...]:
        """The first so many fresh seeds; one list for all fixes of the study."""
        return tuple(self.seed * _BLOCK + _CONFIRM + place for place in range(count))

    @property
    def data_seed(self) -> int:
        """The seed under which `data()` is called, the same for every run."""
        return self.seed

    def to_json(self) -> dict[str, Any]:
        """Return JSON-able data."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Spec:
        """Read what `to_json` wrote."""
        raw: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in data.items()}
        return cls(**{**raw, "source": Source.from_json(data["source"])})
