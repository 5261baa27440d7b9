"""`remedies`, `symptoms`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from typing import Any

from remedy.commands.loading import quiet
from remedy.page import Page
from remedy.spaces.catalogue import REMEDIES
from remedy.spaces.error import InputError
from remedy.spaces.process import reset_process
from remedy.spaces.remedy import Remedy
from remedy.spaces.slot import Slot
from remedy.spaces.symptom import Symptom
from remedy.spaces.target import find, load
from remedy.workers.detectors.catalogue import of_symptom
from remedy.workers.detectors.threshold import Threshold, thresholds
from remedy.workers.forecast import ABOUT, NAME, Forecast
from remedy.workers.run import catalogue_of


def remedies(asked: argparse.Namespace) -> int:
    """Print the catalogue of remedies."""
    if asked.slot is not None and asked.slot not in set(Slot):
        msg = f"--slot {asked.slot!r}: no such slot; it may be one of {', '.join(Slot)}"
        raise InputError(msg)
    named = [member.value for member in Symptom]
    if asked.symptom is not None and asked.symptom not in named:
        msg = f"--symptom {asked.symptom!r}: no such symptom; it may be one of {', '.join(named)}"
        raise InputError(msg)
    known = REMEDIES if asked.target is None else _with_own(asked)
    ours = {r.name for r in REMEDIES}
    chosen = [
        r
        for r in known
        if asked.slot in (None, str(r.slot)) and (asked.symptom is None or asked.symptom in {s.value for s in r.treats})
    ]
    order = {slot: place for place, slot in enumerate(Slot)}
    chosen.sort(key=lambda r: order[r.slot])
    if asked.json:
        rows = [
            {
                "remedy": r.name,
                "slot": str(r.slot),
                "treats": [s.value for s in r.treats],
                "invasiveness": r.invasiveness,
                "parameters": {key: str(d) for key, d in r.distributions.items()},
                "first": dict(r.defaults),
                "summary": r.summary,
                "source": r.source,
                "python": r.python is not None,
                "declared_in": None if r.name in ours else r.declared_in,
            }
            for r in chosen
        ]
        sys.stdout.write(json.dumps(rows) + "\n")
        return 0
    page = Page()
    for r in chosen:
        page.line(f"{r.name}   slot {r.slot}, invasiveness {r.invasiveness}", "bold")
        page.line(f"{r.summary}", indent=2)
        for key, distribution in r.distributions.items():
            page.line(f"{key}: {distribution}; first {r.defaults[key]}", indent=2)
        if r.treats:
            page.line(f"treats {', '.join(s.value for s in r.treats)}", indent=2)
        if r.python is not None:
            page.line("exports as Python", indent=2)
        page.line(f"source: {r.source}", indent=2)
        if r.name not in ours:
            page.line(f"declared in {r.declared_in}", indent=2)
    if not chosen:
        page.line("no remedy fits both filters")
    sys.stdout.write(f"{page}\n")
    return 0


def _with_own(asked: argparse.Namespace) -> tuple[Remedy, ...]:
    """Return our remedies and those that a training declares, or its study file names."""
    source = find(asked.target, asked.args or (), asked.remedies or ())
    reset_process()
    with quiet(None):
        return tuple(catalogue_of(load(source)).values())


def _listed(known: Mapping[str, Threshold[Any]]) -> list[dict[str, Any]]:
    return [{"name": name, "value": t.value, "why": t.why, "may_be": t.may_be} for name, t in known.items()]


def symptoms(asked: argparse.Namespace) -> int:
    """Print the symptoms, with what their detectors go by, and the forecast's thresholds."""
    rows: list[dict[str, Any]] = [
        {
            "symptom": s.value,
            "about": s.about,
            "means": s.means,
            "source": s.source,
            "remedies": [r.name for r in REMEDIES if s in r.treats],
            "thresholds": _listed(of_symptom(s.value)),
        }
        for s in Symptom
    ]
    rows.append(
        {
            "symptom": NAME,
            "about": ABOUT,
            "means": "too slow, or at guessing too late, for this budget",
            "source": "docs/detection.md",
            "remedies": [],
            "thresholds": _listed(thresholds(Forecast)),
        }
    )
    if asked.json:
        sys.stdout.write(json.dumps(rows) + "\n")
        return 0
    page = Page()
    for row in rows:
        page.line(row["symptom"], "bold")
        page.line(f"{row['about']}; usually: {row['means']}", indent=2)
        page.line(f"treated by {', '.join(row['remedies']) or 'nothing by itself'}", indent=2)
        page.line(f"source: {row['source']}", indent=2)
        for known in row["thresholds"]:
            page.line(f"{known['name']} {known['value']:g}: {known['why']}", "dim", indent=4)
    page.line()
    page.line(
        "The indented figures are thresholds. A study file sets them, or switches a detector or the forecast off: "
        "`detectors: {chance_plateau: off, exploding_gradient: {factor: 2, patience: {share: 0.4}}}`, `forecast: off`"
    )
    sys.stdout.write(f"{page}\n")
    return 0
