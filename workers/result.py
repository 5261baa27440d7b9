"""The result of a run: plain data, on its way back."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from remedy.spaces.outcome import Outcome
from remedy.spaces.remedy import Receipt
from remedy.spaces.slot import Slot
from remedy.spaces.symptom import Symptom
from remedy.spaces.verdict import Verdict

OUT_OF_MEMORY = "ran out of memory"


@dataclass(frozen=True)
class RunResult:
    """How a run ended.

    Attributes:
        number: the run's number in its study.
        outcome: one of the seven.
        reason: one sentence: the verdict's evidence, what was raised, why it was inapplicable or stopped; empty where
            the outcome says it all.
        metric: the mean of the last three validation values (NaN where there is none).
        steps: optimizer steps trained.
        steps_full: this run's own full budget (0 where it never came so far).
        seconds: wall time.
        verdict: why it was stopped, for collapsed runs.
        spared: the verdict that would have stopped it, had the run not been audited; what came of it is the outcome:
            converged all the same, or collapsed with that verdict.
        foretold: why the forecast would have given the run up, had it not been audited; empty where it would not.
        foretold_step: at which step.
        notes: what detectors noted without stopping the run.
        receipts: proof of what each remedy changed.
        refused: the remedies that found nothing to change, where the run is inapplicable.
        curves: name -> [(step, value), ...]; `metric` holds the validation metric. Values may be NaN or infinite.
        trace: the user's traceback, for failed runs.
        goal_step: first step from which on the metric stayed at the goal (None where it did not).
        first_losses: the first batch losses, to recognise trainings without randomness.
        saved_by: "collapse", "success", "controller" or "" for a full run.
        log: the end of what the user's code printed, where the order asked for it.
        node: the machine it was trained on, where there are several.
        setting: what the run knew of itself (chance, prior, entropy, ...), for the record.
    """

    number: int
    outcome: Outcome
    reason: str = ""
    metric: float = math.nan
    steps: int = 0
    steps_full: int = 0
    seconds: float = 0.0
    verdict: Verdict | None = None
    spared: Verdict | None = None
    foretold: str = ""
    foretold_step: int = 0
    notes: tuple[Verdict, ...] = ()
    receipts: tuple[Receipt, ...] = ()
    refused: tuple[str, ...] = ()
    curves: Mapping[str, tuple[tuple[int, float], ...]] = field(default_factory=dict)
    trace: str = ""
    goal_step: int | None = None
    first_losses: tuple[float, ...] = ()
    saved_by: str = ""
    log: str = ""
    node: str = ""
    setting: Mapping[str, Any] = field(default_factory=dict)

    @property
    def audit_decided(self) -> bool:
        """Whether the run was audited, and came to an end that shows what the verdict was worth."""
        return self.spared is not None and self._came_to_an_end

    @property
    def forecast_decided(self) -> bool:
        """Whether it was audited, and came to an end that shows what the forecast was worth."""
        return bool(self.foretold) and self._came_to_an_end

    @property
    def _came_to_an_end(self) -> bool:
        return self.outcome is Outcome.CONVERGED or self.steps >= self.steps_full or bool(self.trace)

    @property
    def starved(self) -> bool:
        """Whether the run ended for want of memory."""
        return OUT_OF_MEMORY in self.reason

    def to_json(self) -> dict[str, Any]:
        """Return JSON-able data; numbers that are not finite become the texts "nan", "inf", "-inf"."""
        return plain(dataclasses.asdict(self))  # type: ignore[no-any-return]

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> RunResult:
        """Read what `to_json` wrote."""
        known = {f.name for f in dataclasses.fields(cls)}
        raw = {key: value for key, value in data.items() if key in known}
        return cls(
            **{
                **raw,
                "outcome": Outcome(raw["outcome"]),
                "metric": float(raw["metric"]),
                "verdict": _verdict(raw["verdict"]) if raw.get("verdict") else None,
                "spared": _verdict(raw["spared"]) if raw.get("spared") else None,
                "notes": tuple(_verdict(note) for note in raw.get("notes", ())),
                "receipts": tuple(
                    Receipt(r["remedy"], Slot(r["slot"]), r["text"], r.get("told", {})) for r in raw.get("receipts", ())
                ),
                "refused": tuple(raw.get("refused", ())),
                "curves": {
                    name: tuple((int(step), float(value)) for step, value in curve)
                    for name, curve in raw.get("curves", {}).items()
                },
                "setting": {name: _number(value) for name, value in raw.get("setting", {}).items()},
                "first_losses": tuple(float(loss) for loss in raw.get("first_losses", ())),
            }
        )


def to_line(item: RunResult | tuple[int, float | None] | None) -> str:
    """Write what a worker tells of a run: null where it begins, its progress, its result."""
    return json.dumps(item.to_json() if isinstance(item, RunResult) else item)


def from_line(line: str) -> Any:
    """Read what `to_line` wrote."""
    item = json.loads(line)
    return RunResult.from_json(item) if isinstance(item, dict) else item


def _verdict(data: Mapping[str, Any]) -> Verdict:
    symptom = next(member for member in Symptom if member.value == data["symptom"])
    return Verdict(symptom, int(data["step"]), int(data["onset_step"]), data["evidence"], bool(data["stops"]))


def _number(value: Any) -> Any:
    return float(value) if value in ("nan", "inf", "-inf") else value


def plain(value: Any) -> Any:
    """Return JSON-able data; numbers that are not finite become texts."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return str(value) if isinstance(value, Symptom | Outcome | Slot) else value
