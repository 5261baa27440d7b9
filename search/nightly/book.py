"""What is kept of a sweep: its nights, and tonight's runs as far as they have come."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from remedy.search.files import Files
from remedy.search.ledger import Item
from remedy.spaces.error import InfrastructureError, InputError
from remedy.workers.result import RunResult

SWEEP = "sweep.json"
_NIGHT = re.compile(r"nights/(\d{4}-\d\d-\d\d)\.json")
_BEGUN = re.compile(r"begun/(\d{4}-\d\d-\d\d)\.json")


@dataclass(frozen=True)
class NightBook:
    """The texts of one sweep, by night.

    `nights/NIGHT.json` is there when the night ended, `nights/NIGHT/TRAINING.json` when that training's did;
    `begun/NIGHT.json` from its first moment on, and `runs/NIGHT/TRAINING/...` hold the runs that ended.
    """

    files: Files

    # ---------------------------------------------------------------- the sweep and its nights

    def save_sweep(self, sweep: Mapping[str, Any]) -> None:
        """Write down what the sweep is."""
        self._write(SWEEP, sweep)

    def sweep(self) -> dict[str, Any] | None:
        """Return what the sweep was when it was last run; None where it never was."""
        return self._json(SWEEP)

    def begin(self, night: str, begun: Mapping[str, Any]) -> None:
        """Write down that a night began, and how far it is."""
        self._write(f"begun/{night}.json", begun)

    def begun(self, night: str) -> dict[str, Any] | None:
        """Return what a night knows of itself while it goes on; None where it never began."""
        return self._json(f"begun/{night}.json")

    def end(self, night: str, told: Mapping[str, Any]) -> None:
        """Write down that a night ended."""
        self._write(f"nights/{night}.json", told)

    def reopen(self, night: str) -> None:
        """Let a night that ended be run once more. Its runs stay, and are made anew only for code that has changed."""
        for training, record in self.records(night).items():
            self.save(night, training, {**record, "final": False})
        self.begin(night, {**(self.begun(night) or {}), "seconds": 0.0})
        self.files.remove(f"nights/{night}.json")

    def ended(self, night: str) -> dict[str, Any] | None:
        """Return what was written when a night ended; None where it did not."""
        return self._json(f"nights/{night}.json")

    def nights(self) -> list[str]:
        """Return all nights that began, in order."""
        found = [_BEGUN.fullmatch(key) for key in self.files.keys("begun/")]
        return sorted(match[1] for match in found if match)

    def age(self, night: str) -> timedelta:
        """Return how long ago a night began."""
        return datetime.now(UTC) - datetime.fromisoformat((self.begun(night) or {})["began"])

    # ---------------------------------------------------------------- trainings

    def save(self, night: str, training: str, record: Mapping[str, Any]) -> None:
        """Write down what a night found of a training."""
        self._write(f"nights/{night}/{training}.json", record)

    def record(self, night: str, training: str) -> dict[str, Any] | None:
        """Return what a night found of a training; None where it came to nothing."""
        return self._json(f"nights/{night}/{training}.json")

    def records(self, night: str) -> dict[str, dict[str, Any]]:
        """Return what a night found, by training."""
        prefix = f"nights/{night}/"
        found = self.files.read_all(prefix)
        return {key.removeprefix(prefix).removesuffix(".json"): self._parsed(key, text) for key, text in found.items()}

    def earlier(self, night: str, training: str, *, judged: bool = False) -> dict[str, Any] | None:
        """Return the latest record of a training before a night; with `judged`, one in which its baseline was whole."""
        for before in reversed([known for known in self.nights() if known < night]):
            record = self.record(before, training)
            if record is not None and (not judged or record["judged"]):
                return record
        return None

    # ---------------------------------------------------------------- runs of a night

    def save_run(self, night: str, training: str, mark: str, item: Item, result: RunResult) -> None:
        """Keep a run's result. `mark` tells the code that it ran: other code runs anew."""
        self._write(self._run(night, training, mark, item), result.to_json())

    def run(self, night: str, training: str, mark: str, item: Item) -> RunResult | None:
        """Return what came of a run in an earlier session of the night."""
        found = self._json(self._run(night, training, mark, item))
        return None if found is None else RunResult.from_json(found)

    @staticmethod
    def _run(night: str, training: str, mark: str, item: Item) -> str:
        return f"runs/{night}/{training}/{mark[:12]}-{item.combination.key}-{item.seed}.json"

    # ---------------------------------------------------------------- JSON

    def _write(self, key: str, content: Mapping[str, Any]) -> None:
        self.files.write(key, json.dumps(content, indent=1, allow_nan=False) + "\n")

    def _json(self, key: str) -> dict[str, Any] | None:
        text = self.files.read(key)
        return None if text is None else self._parsed(key, text)

    def _parsed(self, key: str, text: str) -> dict[str, Any]:
        try:
            return dict(json.loads(text))
        except ValueError:
            raise InfrastructureError(f"{key} of the sweep in {self.files.where} is damaged") from None


def nights_up_to(night: str, count: int) -> list[str]:
    """Return so many nights of the calendar, the last of them the one given."""
    last = date.fromisoformat(night)
    return [(last - timedelta(days=back)).isoformat() for back in reversed(range(count))]


def today() -> str:
    """Return the night that begins today."""
    return datetime.now().astimezone().date().isoformat()


def checked(night: str) -> str:
    """Return a night's name as it was given.

    Raises:
        InputError: it is no date of the calendar.
    """
    try:
        if date.fromisoformat(night).isoformat() == night:
            return night
    except ValueError:
        pass
    raise InputError(f"--night is {night!r}; it may be a date such as 2026-11-21")
