"""The record: a study and its runs in MLflow.

Everything is written by one background thread, each run when it is whole, so that a study starts at once. A store that
is away never stops a study: what could not be written waits, is tried again, and lies at the end in `unrecorded.jsonl`
among the study's files, from where the next session writes it.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from remedy.search import outbox, rows
from remedy.search.child import child
from remedy.search.files import Files, FolderFiles
from remedy.search.links import redact
from remedy.search.store import Store
from remedy.workers.order import WorkOrder
from remedy.workers.result import RunResult

_REFUSED = {"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "MALFORMED_REQUEST", "INVALID_STATE", "RESOURCE_DOES_NOT_EXIST"}
_STARTED = "mlflow-start"


class Record:
    """Writes one study to MLflow.

    `tracking_uri` None means `MLFLOW_TRACKING_URI`, and without that a SQLite store in the home. `begin`, `run` and
    `finish` only queue, and never raise because of the store; `failures` says what is wrong with it.
    """

    def __init__(self, tracking_uri: str | None, home: Path, experiment: str, files: Files | None = None) -> None:
        """Choose the store; nothing is opened yet. `files` takes what waits: those of the study, if nothing is said."""
        self._home = home.resolve()
        self._files = files
        self._uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{self._home}/mlflow.db"
        self.experiment = experiment
        self._study = ""
        self._outbox: outbox.Outbox | None = None
        self._store: Store | None = None

    @property
    def tracking_uri(self) -> str:
        """Where it is written, without user name and password."""
        return redact(self._uri)

    @property
    def parent_run_id(self) -> str | None:
        """The study's run; None until the store has taken it."""
        return self._store.parent_run_id if self._store else None

    @property
    def experiment_id(self) -> str | None:
        """The experiment; None until the store has taken the study."""
        return self._store.experiment_id if self._store else None

    @property
    def recorded(self) -> frozenset[int]:
        """The numbers of the runs known to be in the store, whole."""
        known = dict(self._store.known) if self._store else {}
        return frozenset(int(key.split()[0]) for key, (_, status) in known.items() if status != "RUNNING")

    @property
    def waiting(self) -> int:
        """How many rows (runs, the study's beginning and end) the store has not taken yet."""
        return self._outbox.waiting if self._outbox else 0

    @property
    def failures(self) -> str | None:
        """What is wrong with the store, in one sentence; None where nothing waits because of an error."""
        waiting = self.waiting
        if self._outbox is None or not self._outbox.error or not waiting:
            return None
        return f"MLflow at {self.tracking_uri} did not take {waiting} of the study's records yet: {self._outbox.error}"

    def begin(
        self,
        study: str,
        params: Mapping[str, str],
        tags: Mapping[str, str],
        source_file: Path | None,
        resume_run_id: str | None,
    ) -> None:
        """Open the study's run, or re-open `resume_run_id`; what an earlier session could not write comes next."""
        parent = rows.parent(self.experiment, study, params, tags, str(source_file.resolve()) if source_file else "")
        earlier = outbox.read(self._waits(study))
        before = next((row for row in earlier if isinstance(row, rows.Parent)), None)
        if resume_run_id:
            parent = dataclasses.replace(parent, run_id=resume_run_id)
        elif before is not None:
            parent = dataclasses.replace(parent, run_id=before.run_id, start=before.start)
        # By its start the study's run is found again, where whoever made it ended before it could say so.
        parent = dataclasses.replace(parent, start=self._started(study, parent.start))
        # An end that waited is left out: this session ends the study.
        self._start(parent, [row for row in earlier if isinstance(row, rows.Child)])

    def _started(self, study: str, now: int) -> int:
        kept = self._waits(study).read(_STARTED)
        if kept is None:
            self._waits(study).write(_STARTED, str(now))
        return int(kept or now)

    def run(self, order: WorkOrder, result: RunResult, space_slots: Iterable[str], fix: str | None) -> None:
        """Queue one run that ended."""
        self._queue().add(child(self._study, order, result, space_slots, fix))

    def finish(self, report: Mapping[str, Any], note_markdown: str, artifacts: Iterable[Path]) -> None:
        """Queue the end of the study: summary, note, artifacts, status."""
        self._queue().add(rows.finish(report, note_markdown, [str(path.resolve()) for path in artifacts]))

    def deliver(self, study: str) -> bool:
        """Instead of `begin`: queue all that an earlier session of a study could not write, its end too.

        Returns False where there is nothing of the kind. `close` follows.
        """
        earlier = outbox.read(self._waits(study))
        parent = next((row for row in earlier if isinstance(row, rows.Parent)), None)
        if parent is not None:
            self._start(parent, [row for row in earlier if row is not parent])
        return parent is not None

    def close(self, timeout: float = 20.0) -> bool:
        """Write what waits, as long as the store takes a row in `timeout` seconds, and return whether all is in.

        The rest stays in the spool.
        """
        if self._outbox is not None:
            self._outbox.close(timeout)
        return self.waiting == 0

    def _start(self, parent: rows.Parent, queued: Iterable[rows.Row]) -> None:
        self._study = parent.study
        self._outbox = outbox.Outbox(self._waits(parent.study), self._write)
        self._outbox.start(parent, queued)

    def _queue(self) -> outbox.Outbox:
        if self._outbox is None:
            raise RuntimeError("the record takes runs only after `begin`")
        return self._outbox

    def _waits(self, study: str) -> Files:
        return self._files or FolderFiles(self._home / "studies" / study)

    def _write(self, row: rows.Row) -> rows.Row:
        """Write one row, in the background thread."""
        if self._store is None:
            self._store = Store(self._uri, self._home / "artifacts")
        if isinstance(row, rows.Parent):
            return dataclasses.replace(row, run_id=self._store.open(row))
        try:
            if isinstance(row, rows.Child):
                self._store.write(row)
            else:
                self._store.finish(row)
        except Exception as error:
            if getattr(error, "error_code", None) in _REFUSED or isinstance(error, TypeError | ValueError):
                raise outbox.Refused(outbox.sentence(error)) from error
            raise
        return row
