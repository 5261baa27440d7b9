"""What past studies taught: how often a remedy alone restored trainings with a symptom."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

NO_SYMPTOM = "none"
"""Stands for a training that misses its goal without a symptom."""
_STRENGTH = 2.0

Known = Mapping[str, Mapping[str, tuple[float, int]]]
"""Symptom -> remedy -> (sum over trainings of the share of runs that converged, number of trainings)."""
Taught = tuple[str, str, Mapping[str, Any]]
"""Training, study, lesson."""


@dataclass(frozen=True)
class Row:
    """One remedy against one symptom: `converged` of `runs` runs with it alone, in so many trainings.

    `shares` is the sum over the trainings of the share of their runs that converged: a training counts once, however
    many seeds and studies it had.
    """

    symptom: str
    remedy: str
    converged: int
    runs: int
    trainings: int
    shares: float

    @property
    def expected(self) -> float:
        """The mean of the posterior, from a prior that knows nothing."""
        return posterior(0.5, (self.shares, self.trainings))


def lesson(report: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what a study taught, as plain data; None where it taught nothing.

    Only a baseline that never converges teaches: what now and then converges by itself would be put down to a remedy.
    """
    baseline = report.get("baseline") or {}
    alone = {
        row["remedy"]: [row["alone"]["converged"], row["alone"]["runs"]]
        for row in report.get("remedies") or ()
        if row.get("alone") and row["alone"]["runs"]
    }
    if baseline.get("state") != "broken" or not alone:
        return None
    symptoms = dict.fromkeys(str(found["symptom"]) for found in baseline.get("symptoms") or ())
    return {"symptoms": list(symptoms) or [NO_SYMPTOM], "alone": alone}


def lesson_text(report: Mapping[str, Any], most: int) -> str:
    """Return it as one line; nothing where that has more than so many characters, for it could not be read cut off."""
    taught = lesson(report)
    text = json.dumps(taught, separators=(",", ":")) if taught else ""
    return text if len(text) <= most else ""


def rows(taught: Iterable[Taught]) -> list[Row]:
    """Return what all lessons come to, by symptom, the best remedies first.

    A lesson that has another shape is left out.
    """
    counts: dict[tuple[str, str], dict[str, list[int]]] = {}
    for training, _, said in taught:
        for symptom, remedy, converged, runs in _read(said):
            mine = counts.setdefault((symptom, remedy), {}).setdefault(training, [0, 0])
            mine[0] += converged
            mine[1] += runs
    found = [
        Row(
            symptom,
            remedy,
            sum(converged for converged, _ in mine.values()),
            sum(runs for _, runs in mine.values()),
            len(mine),
            sum(converged / runs for converged, runs in mine.values()),
        )
        for (symptom, remedy), mine in counts.items()
    ]
    return sorted(found, key=lambda row: (row.symptom, -row.expected, -row.runs, row.remedy))


def _read(said: Mapping[str, Any]) -> list[tuple[str, str, int, int]]:
    try:
        return [
            (str(symptom), str(remedy), int(converged), int(runs))
            for symptom in said["symptoms"]
            for remedy, (converged, runs) in said["alone"].items()
            if 0 <= int(converged) <= int(runs) != 0
        ]
    except (KeyError, TypeError, ValueError, AttributeError):
        return []


def known(found: Iterable[Row]) -> dict[str, dict[str, tuple[float, int]]]:
    """Return what the order of a search needs of it."""
    told: dict[str, dict[str, tuple[float, int]]] = {}
    for row in found:
        told.setdefault(row.symptom, {})[row.remedy] = (row.shares, row.trainings)
    return told


def posterior(prior: float, seen: tuple[float, int]) -> float:
    """Return the mean of the Beta posterior of the chance that a remedy restores a training.

    `prior` is the mean of a prior that weighs as much as two trainings; `seen` as in `Known`.
    """
    shares, trainings = seen
    return (_STRENGTH * prior + shares) / (_STRENGTH + trainings)
