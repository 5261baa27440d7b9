"""Results of runs on disk: each (training, combination, seed) is trained once, to its end, for all methods and repeats.

While it is trained, two watches look on as in a study: one as in the search (it may end the run on a verdict, on
success, or as too slow), one as in proofs (a verdict only). Neither stops it; where each would have, its result is kept
beside the whole curve. Runs are deterministic, so what a method's own rule ends early is replayed on the curve.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import sqlite3
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from broken_trainings import ROOT, Case

from remedy.spaces.combination import Combination
from remedy.spaces.outcome import Outcome
from remedy.spaces.parts import Parts
from remedy.spaces.remedy import Receipt
from remedy.spaces.target import Source, find
from remedy.workers.ending import ended
from remedy.workers.observation import Observation, Setting
from remedy.workers.order import Phase, WorkOrder
from remedy.workers.result import RunResult
from remedy.workers.run import stream
from remedy.workers.watch import Watch

KEPT = ("metric",)
"""Curves that are kept; what the report draws beside is not needed here."""


@dataclass(frozen=True)
class Results:
    """One run: as it went to its end, and as it ends in a study's search and in its proofs."""

    whole: RunResult
    search: RunResult
    proof: RunResult

    def of(self, phase: Phase) -> RunResult:
        """Return what a study would get."""
        return self.search if phase is Phase.SEARCH else self.proof


@dataclass(frozen=True)
class _Known:
    """What a result says of the parts that were trained."""

    steps: int
    receipts: tuple[Receipt, ...]


class RunCache:
    """Trains, or remembers. One SQLite file; what is interrupted goes on where it was."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._database = sqlite3.connect(folder / "runs.sqlite", isolation_level=None)
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=NORMAL")
        self._database.execute("CREATE TABLE IF NOT EXISTS run (key TEXT PRIMARY KEY, result TEXT NOT NULL)")
        self._version = _code()
        self.trained = self.remembered = 0
        self._sources: dict[str, Source] = {}

    def source(self, case: Case) -> Source:
        """Return where a training comes from."""
        if case.name not in self._sources:
            path, _, function = case.target.rpartition(":")
            self._sources[case.name] = find(f"{ROOT / path}:{function}")
        return self._sources[case.name]

    def run(self, case: Case, combination: Combination, seed: int) -> Results:
        """Return a run of a training."""
        source = self.source(case)
        key = f"{self._version}/{source.sha256[:16]}:{source.function}/{combination.key}/{seed}"
        row = self._database.execute("SELECT result FROM run WHERE key = ?", (key,)).fetchone()
        if row is not None:
            self.remembered += 1
            return Results(**{name: RunResult.from_json(result) for name, result in json.loads(row[0]).items()})
        self.trained += 1
        made = train(source, combination, seed)
        slim = {field.name: _slim(getattr(made, field.name)).to_json() for field in dataclasses.fields(made)}
        self._database.execute("INSERT OR REPLACE INTO run VALUES (?, ?)", (key, json.dumps(slim)))
        return Results(**{name: RunResult.from_json(result) for name, result in slim.items()})

    def known(self, key: str, make: Callable[[], Any] | None) -> Any:
        """Return what is known under a key, which `make` finds out where it is not; None without it."""
        key = f"{self._version}/{key}"
        row = self._database.execute("SELECT result FROM run WHERE key = ?", (key,)).fetchone()
        if row is not None:
            return json.loads(row[0])
        if make is None:
            return None
        made = make()
        self._database.execute("INSERT OR REPLACE INTO run VALUES (?, ?)", (key, json.dumps(made)))
        return json.loads(json.dumps(made))

    def close(self) -> None:
        """Close the file."""
        self._database.close()


def train(source: Source, combination: Combination, seed: int) -> Results:
    """Train a run to its end, and say how it would have ended earlier."""
    orders = {
        phase: WorkOrder(0, source, combination.params, seed, 0, phase) for phase in (Phase.SEARCH, Phase.CONFIRM)
    }
    watches: dict[Phase, Watch] = {}
    over: set[Phase] = set()
    losses: list[float] = []

    def look(seen: Observation, setting: Setting) -> None:
        losses.append(seen.loss)
        for phase, order in orders.items():
            watch = watches.setdefault(phase, Watch.of(order, setting))
            if phase not in over and not watch.see(seen):
                over.add(phase)

    (whole,) = (item for item in stream(orders[Phase.CONFIRM], look=look, watched=False) if isinstance(item, RunResult))
    early = dict.fromkeys(orders, whole)
    known = cast("Parts", _Known(whole.steps_full, whole.receipts))
    for phase, watch in watches.items():
        if phase in over or whole.outcome in (Outcome.CONVERGED, Outcome.MISSED):
            early[phase] = ended(orders[phase], watch, known, tuple(losses[:8]), whole.seconds)
    return Results(whole, early[Phase.SEARCH], early[Phase.CONFIRM])


def _slim(result: RunResult) -> RunResult:
    curves = {name: curve for name, curve in result.curves.items() if name in KEPT}
    return dataclasses.replace(result, curves=curves, trace="", seconds=0.0)


def _code() -> str:
    """Return a hash of what decides a run: our files, and the versions of torch and Python."""
    import torch  # noqa: PLC0415

    sha = hashlib.sha256(f"{sys.version_info[:3]} {torch.__version__}".encode())
    files = [path for folder in ("spaces", "examples") for path in (ROOT / folder).rglob("*.py")]
    for path in sorted([*files, *trained_by(), ROOT / "tests" / "workers" / "broken_model.py"]):
        sha.update(path.read_bytes())
    return sha.hexdigest()[:12]


def trained_by() -> set[Path]:
    """Return the files of workers/ that a run here goes through: what pre-flight tries, say, is none of them."""
    found: set[Path] = set()
    left = [ROOT / "workers" / f"{name}.py" for name in ("run", "ending", "watch", "order", "result", "observation")]
    while left:
        path = left.pop()
        if path.exists() and path not in found:
            found.add(path)
            named = re.findall(
                r"^\s*from remedy\.(workers[\w.]*) import ([\w, ]+)", path.read_text("utf-8"), re.MULTILINE
            )
            modules = [f"{module}.{name.strip()}" for module, names in named for name in names.split(",")]
            left += [ROOT / f"{module.replace('.', '/')}.py" for module in [*modules, *(module for module, _ in named)]]
    return found


def looked_at_by() -> str:
    """Return a hash of what decides what pre-flight finds: all of workers/."""
    sha = hashlib.sha256()
    for path in sorted((ROOT / "workers").rglob("*.py")):
        sha.update(path.read_bytes())
    return sha.hexdigest()[:12]
