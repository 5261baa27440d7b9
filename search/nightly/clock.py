"""How far a night is: when it began, how long it took in all its sessions, and what its explorers have in hand."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from remedy.search.nightly.book import NightBook
from remedy.search.nightly.sweep import Sweep

_SAVED_EVERY = 5.0


@dataclass
class NightClock:
    """The time of one night, kept in the book so that a night that was cut off goes on with what is left of it."""

    sweep: Sweep
    night: str
    book: NightBook
    explorers: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The explorers' states, by training."""
    _begun: dict[str, Any] = field(default_factory=dict)
    _earlier: float = 0.0
    _since: float = field(default_factory=time.monotonic)
    _saved: float = 0.0

    def start(self) -> None:
        """Begin the night, or another session of it."""
        before: Mapping[str, Any] = self.book.begun(self.night) or {}
        self._earlier, self._since = float(before.get("seconds", 0.0)), time.monotonic()
        self.explorers = dict(before.get("explorers", {}))
        self._begun = {
            "night": self.night,
            "began": before.get("began") or _now(),
            "sessions": int(before.get("sessions", 0)) + 1,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "trainings": [entry.name for entry in self.sweep.trainings],
            "budget": self.sweep.budget,
        }
        self.save()

    @property
    def seconds(self) -> float:
        """Wall time of the night, earlier sessions included."""
        return round(self._earlier + time.monotonic() - self._since, 1)

    @property
    def left(self) -> float | None:
        """Seconds that are left of the night; None without limit."""
        return None if self.sweep.timeout is None else self.sweep.timeout - self.seconds

    def over(self) -> bool:
        """Whether the night's time has ended."""
        return self.left is not None and self.left <= 0

    def tick(self) -> None:
        """Save how far it is, now and then."""
        if time.monotonic() - self._saved > _SAVED_EVERY:
            self.save()

    def save(self) -> None:
        """Save how far it is."""
        self._saved = time.monotonic()
        self.book.begin(self.night, {**self._begun, "seconds": self.seconds, "explorers": self.explorers})

    def end(self) -> None:
        """Write down that the night ended."""
        told = {key: self._begun[key] for key in ("night", "began", "trainings", "budget")}
        self.book.end(self.night, {**told, "ended": _now(), "seconds": self.seconds})


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
