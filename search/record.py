"""The record: a study and its runs in MLflow. The one file that imports mlflow.

Everything is written by one background thread, in batches, each run when it is whole; mlflow is imported there too, so
that a study starts at once. A store that is away never stops a study: what could not be written waits, is tried again,
and lies at the end in `unrecorded.jsonl` among the study's files, from where the next session writes it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import logging
import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from remedy.search import outbox, rows
from remedy.search.files import Files, FolderFiles
from remedy.search.links import redact, views
from remedy.workers.order import WorkOrder
from remedy.workers.result import RunResult

_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # the patience is ours, and the end of a study must not wait for MLflow's
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}
_REFUSED = {"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "MALFORMED_REQUEST", "INVALID_STATE", "RESOURCE_DOES_NOT_EXIST"}
_BATCH, _BATCH_TEXTS = 1000, 100
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
        self._store: _Store | None = None

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
        self._queue().add(rows.child(self._study, order, result, space_slots, fix))

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
        """Write what waits, at most `timeout` seconds long; the rest stays in the spool. Return whether all is in."""
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
            self._store = _Store(self._uri, self._home / "artifacts")
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


class _Store:
    """MLflow, seen from the one thread that writes."""

    def __init__(self, uri: str, artifacts: Path) -> None:
        for name, value in _SETTINGS.items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient, entities  # noqa: PLC0415  (1 s; a study must not wait for it)

        for name in ("mlflow", "alembic", "urllib3.connectionpool"):  # errors reach the user as our sentences
            logging.getLogger(name).setLevel(logging.CRITICAL)
        artifacts.mkdir(parents=True, exist_ok=True)
        self._client = MlflowClient(tracking_uri=uri)
        self._entities = entities
        # A server knows where artifacts go; without one MLflow would put them below the working directory.
        self._artifacts = None if uri.startswith(("http://", "https://", "databricks")) else artifacts.as_uri()
        self.experiment_id: str | None = None
        self.parent_run_id: str | None = None
        self.known: dict[str, tuple[str, str]] = {}
        self._sure = False

    def open(self, row: rows.Parent) -> str:
        """Make or re-open the study's run; return its id."""
        found = self._existing(row)
        if found is None:
            tags = {"mlflow.runName": row.study, **row.tags}
            found = self._client.create_run(self.experiment_id or "", row.start, tags, row.study)
        run_id = str(found.info.run_id)
        had = found.data.params
        changed = {
            f"remedy.resumed.{name}": value for name, value in row.params.items() if had.get(name, value) != value
        }
        self._client.update_run(run_id, status="RUNNING")
        self._log(
            run_id, (), {name: value for name, value in row.params.items() if name not in had}, {**row.tags, **changed}
        )
        for name, view in views(run_id, ascending=row.ascending).items():
            self._client.set_experiment_tag(self.experiment_id or "", name, view)
        self.parent_run_id = run_id
        if row.source and Path(row.source).is_file():
            self._client.log_artifact(run_id, row.source, "source")
        return run_id

    def _existing(self, row: rows.Parent) -> Any:
        from mlflow.exceptions import MlflowException  # noqa: PLC0415

        if row.run_id:
            try:
                run = self._client.get_run(row.run_id)
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
            else:
                if run.info.lifecycle_stage == "active":
                    self.experiment_id = run.info.experiment_id
                    return run
        self.experiment_id = self._open_experiment(row.experiment)
        # A store that went away may have taken the study and not said so; its start tells it from an older namesake.
        quoted = row.study.replace("'", "")
        same = f"tags.remedy.kind = 'study' and tags.remedy.study = '{quoted}' and attributes.start_time = {row.start}"
        return next(iter(self._client.search_runs([self.experiment_id], same, max_results=1)), None)

    def _open_experiment(self, name: str) -> str:
        for count in itertools.count(1):
            # One that was deleted keeps its name: bringing it back is not ours to decide.
            full = name if count == 1 else f"{name} ({count})"
            found = self._client.get_experiment_by_name(full)
            if found is None:
                kind = {"mlflow.experimentKind": "custom_model_development"}
                return str(self._client.create_experiment(full, self._artifacts, kind))
            if found.lifecycle_stage == "active":
                return str(found.experiment_id)
        raise AssertionError

    def write(self, row: rows.Child) -> None:
        """Write one run, whole, unless it is there already; one that was cut short is completed."""
        if not self._sure:
            self.known = dict(self._children())
            self._sure = True
        run_id, status = self.known.get(row.key, ("", ""))
        if status and status != "RUNNING":
            return
        try:
            if not run_id:
                tags = {"mlflow.parentRunId": self.parent_run_id or "", **row.tags}
                run_id = self._client.create_run(self.experiment_id or "", row.start, tags, row.name).info.run_id
                self.known[row.key] = (run_id, "RUNNING")
            self._log(run_id, [self._entities.Metric(*metric) for metric in row.metrics], row.params, {})
            if page := row.page():
                with contextlib.suppress(Exception):  # where no artifacts are taken, the run is recorded all the same
                    self._client.log_text(run_id, page, "curves.html")
            self._client.set_terminated(run_id, row.status, row.end)
        except Exception:
            self._sure = False  # what the store has taken of it is asked before it is tried again
            raise
        self.known[row.key] = (run_id, row.status)

    def _children(self) -> Iterator[tuple[str, tuple[str, str]]]:
        mine, token = f"tags.mlflow.parentRunId = '{self.parent_run_id}'", None
        while True:
            page = self._client.search_runs([self.experiment_id or ""], mine, max_results=500, page_token=token)
            for run in page:
                if "remedy.run" in run.data.tags:
                    yield rows.key(run.data.tags), (run.info.run_id, run.info.status)
            token = page.token
            if not token:
                return

    def finish(self, row: rows.Finish) -> None:
        """Write the end of the study."""
        run_id = self.parent_run_id or ""
        metrics = [self._entities.Metric(name, value, row.end, 0) for name, value in row.metrics.items()]
        self._log(run_id, metrics, {}, row.tags)
        self._client.set_terminated(run_id, row.status, row.end)
        for path in map(Path, row.artifacts):
            if path.is_dir():
                self._client.log_artifacts(run_id, str(path), path.name)
            elif path.is_file():
                self._client.log_artifact(run_id, str(path))

    def _log(self, run_id: str, metrics: Iterable[Any], params: Mapping[str, str], tags: Mapping[str, str]) -> None:
        """Write in batches that any store takes."""
        numbers = deque(metrics)
        texts = deque(self._entities.Param(name, value) for name, value in params.items())
        labels = deque(self._entities.RunTag(name, value) for name, value in tags.items())
        while numbers or texts or labels:
            some_texts = _take(texts, _BATCH_TEXTS)
            some_labels = _take(labels, _BATCH_TEXTS)
            some = _take(numbers, _BATCH - len(some_texts) - len(some_labels))
            self._client.log_batch(run_id, some, some_texts, some_labels)


def _take(source: deque[Any], most: int) -> list[Any]:
    return [source.popleft() for _ in range(min(most, len(source)))]
