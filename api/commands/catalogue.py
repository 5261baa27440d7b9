"""`remedies`, `symptoms`, `doctor`."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from remedy.page import Page
from remedy.search.home import Home
from remedy.spaces.catalogue import REMEDIES
from remedy.spaces.error import InputError
from remedy.spaces.slot import Slot
from remedy.spaces.symptom import Symptom


def remedies(asked: argparse.Namespace) -> int:
    """Print the catalogue of remedies."""
    if asked.slot is not None and asked.slot not in set(Slot):
        msg = f"--slot {asked.slot!r}: no such slot; it may be one of {', '.join(Slot)}"
        raise InputError(msg)
    known = [member.value for member in Symptom]
    if asked.symptom is not None and asked.symptom not in known:
        msg = f"--symptom {asked.symptom!r}: no such symptom; it may be one of {', '.join(known)}"
        raise InputError(msg)
    chosen = [
        r
        for r in REMEDIES
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
        page.line(f"source: {r.source}", indent=2)
    if not chosen:
        page.line("no remedy fits both filters")
    sys.stdout.write(f"{page}\n")
    return 0


def symptoms(asked: argparse.Namespace) -> int:
    """Print the symptoms."""
    rows: list[dict[str, Any]] = [
        {
            "symptom": s.value,
            "about": s.about,
            "means": s.means,
            "source": s.source,
            "remedies": [r.name for r in REMEDIES if s in r.treats],
        }
        for s in Symptom
    ]
    if asked.json:
        sys.stdout.write(json.dumps(rows) + "\n")
        return 0
    page = Page()
    for row in rows:
        page.line(row["symptom"], "bold")
        page.line(f"{row['about']}; usually: {row['means']}", indent=2)
        page.line(f"treated by {', '.join(row['remedies']) or 'nothing by itself'}", indent=2)
        page.line(f"source: {row['source']}", indent=2)
    sys.stdout.write(f"{page}\n")
    return 0


def doctor(asked: argparse.Namespace) -> int:
    """Say what this machine has, and what is missing."""
    found: dict[str, Any] = {"python": sys.version.split()[0], "cores": len(os.sched_getaffinity(0))}
    for name in ("remedy", "torch", "optuna", "ray", "mlflow"):
        try:
            importlib.import_module(name)
            found[name] = version(name)
        except (ImportError, PackageNotFoundError) as error:
            found[name] = f"missing: {error}"
    import torch

    found["gpus"] = [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())]
    home = Home.of(asked.home)
    place = home.path if home.path.exists() else home.path.parent
    found["home"] = f"{home.path} ({'writable' if os.access(place, os.W_OK) else 'not writable'})"
    found["free_gib"] = round(shutil.disk_usage(place).free / 2**30, 1)
    found["mlflow_store"] = os.environ.get("MLFLOW_TRACKING_URI", f"sqlite:///{home.path / 'mlflow.db'}").split("@")[-1]
    if asked.json:
        sys.stdout.write(json.dumps(found) + "\n")
    else:
        sys.stdout.write("".join(f"{key:<14} {value}\n" for key, value in found.items()))
    return 0
