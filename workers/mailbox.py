"""The folder over which a worker and the process of a script talk: small files, each whole or absent."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from remedy.workers.order import WorkOrder
from remedy.workers.result import RunResult, plain

_ORDER, _PROGRESS, _STOP, _RESULT = "order.json", "progress.json", "stop", "result.json"


@dataclass(frozen=True)
class Mailbox:
    """One run's. The worker puts in the order and a wish to stop, the process its progress and at last its result."""

    folder: Path

    @property
    def order_file(self) -> Path:
        """Where the order lies."""
        return self.folder / _ORDER

    def put_order(self, order: WorkOrder, **said: Any) -> None:
        """Say what is to be run, and how."""
        self._put(_ORDER, {"order": dataclasses.asdict(order), **said})

    def order(self) -> tuple[WorkOrder, dict[str, Any]]:
        """Return what is to be run, and how."""
        said = self._read(_ORDER) or {}
        return WorkOrder.from_json(said.pop("order")), said

    def put_progress(self, step: int, metric: float | None) -> None:
        """Say how far the run is."""
        self._put(_PROGRESS, [step, metric])

    def progress(self) -> tuple[int, float | None] | None:
        """Return how far the run is, as it last said."""
        said = self._read(_PROGRESS)
        return (int(said[0]), None if said[1] is None else float(said[1])) if said else None

    def ask_stop(self) -> None:
        """Have the run end at its next observation."""
        self._put(_STOP, True)

    def asks_stop(self) -> bool:
        """Whether the run is to end."""
        return (self.folder / _STOP).exists()

    def put_result(self, result: RunResult, learned: dict[str, Any] | None = None) -> None:
        """Say how the run ended, and what was learned of the script."""
        self._put(_RESULT, {"result": result.to_json(), "learned": learned})

    def result(self) -> tuple[RunResult, dict[str, Any]] | None:
        """Return how the run ended, and what was learned of the script; None while it goes on."""
        said = self._read(_RESULT)
        return (RunResult.from_json(said["result"]), said["learned"] or {}) if said else None

    def _put(self, name: str, content: Any) -> None:
        beside = self.folder / f"{name}.{os.getpid()}.part"
        with contextlib.suppress(FileNotFoundError):  # the worker has gone, and taken the folder along
            beside.write_text(json.dumps(plain(content), allow_nan=False), encoding="utf-8")
            beside.replace(self.folder / name)

    def _read(self, name: str) -> Any:
        try:
            return json.loads((self.folder / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
