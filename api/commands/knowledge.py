"""`knowledge`, and what a new study takes of it."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from pathlib import Path

from remedy.page import Page
from remedy.search.home import Home
from remedy.search.knowledge import NO_SYMPTOM, Known, Row, known, rows
from remedy.search.links import redact
from remedy.search.outbox import sentence
from remedy.search.store import lessons
from remedy.spaces.error import InfrastructureError, InputError
from remedy.spaces.symptom import Symptom


def knowledge(asked: argparse.Namespace) -> int:
    """Print what past studies taught: symptom x remedy -> converged k of n."""
    named = [*(member.value for member in Symptom), NO_SYMPTOM]
    if asked.symptom is not None and asked.symptom not in named:
        raise InputError(f"--symptom {asked.symptom!r}: no such symptom; it may be one of {', '.join(named)}")
    found = [row for row in _rows(Home.of(asked.home).path) if asked.symptom in (None, row.symptom)]
    if asked.json:
        told = [{**dataclasses.asdict(row), "expected": row.expected} for row in found]
        sys.stdout.write(json.dumps(told) + "\n")
        return 0
    page = Page()
    for symptom in dict.fromkeys(row.symptom for row in found):
        own = [row for row in found if row.symptom == symptom]
        page.line(symptom, "bold")
        cells = [
            (row.remedy, f"{row.converged} of {row.runs}", str(row.trainings), f"{row.expected:.2f}") for row in own
        ]
        page.table(("remedy alone", "converged", "trainings", "expected"), cells)
        page.line()
    if found:
        page.line(
            "Expected: the chance that the remedy alone restores the next training with this symptom, the mean of a "
            "Beta posterior in which each training counts once. New studies weigh it when they put remedies in order."
        )
    else:
        page.line("No study with a broken baseline has ended here yet; `remedy submit TARGET` makes one.")
    sys.stdout.write(f"{page}\n")
    return 0


def taken(asked: argparse.Namespace, home: Home) -> Known:
    """Return what a study that begins now takes of the team's record; nothing where it is not wanted or not to be had.

    A record that is away is said on standard error, and stops nothing.
    """
    if not asked.knowledge:
        return {}
    try:
        found = _rows(home.path)
    except InfrastructureError as error:
        sys.stderr.write(f"remedy: {error}; the study begins without what past ones taught\n")
        return {}
    return known(found)


def _rows(home: Path) -> list[Row]:
    uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{home.resolve()}/mlflow.db"
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).is_file():
        return []
    try:
        return rows(lessons(uri))
    except Exception as error:  # noqa: BLE001  (a store raises what it likes)
        raise InfrastructureError(f"MLflow at {redact(uri)} cannot be read: {sentence(error)}") from None
