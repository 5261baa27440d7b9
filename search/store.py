"""MLflow: the one file that imports it."""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from remedy.search import rows
from remedy.search.links import views

_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # the patience is ours, and the end of a study must not wait for MLflow's
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}
_BATCH, _BATCH_TEXTS = 1000, 100
_PAGE = 500


def _client(uri: str) -> tuple[Any, Any]:
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient, entities  # noqa: PLC0415  (1 s; a study must not wait for it)

    for name in ("mlflow", "alembic", "urllib3.connectionpool"):  # errors reach the user as our sentences
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return MlflowClient(tracking_uri=uri), entities


def lessons(uri: str) -> list[tuple[str, str, dict[str, Any]]]:
    """Return what every study in a store taught, as (training, study, lesson), in the order in which they ended.

    What cannot be read (written by another version, or by hand) is left out.

    Raises:
        Exception: whatever MLflow raises where the store is away.
    """
    client, _ = _client(uri)
    places = {found.experiment_id: found.name for found in _every(client.search_experiments)}
    taught = []
    for first in range(0, len(places), _PAGE):
        those, with_lesson = list(places)[first : first + _PAGE], f"tags.`{rows.LESSON}` LIKE '{{%'"
        for run in _every(client.search_runs, experiment_ids=those, filter_string=with_lesson):
            tags, training = run.data.tags, places[run.info.experiment_id]
            with contextlib.suppress(ValueError):
                said = json.loads(tags[rows.LESSON])
                taught.append((run.info.end_time or 0, training, tags.get("remedy.study", ""), said))
    return [(training, study, said) for _, training, study, said in sorted(taught, key=lambda one: one[:3])]


def _every(ask: Any, **asked: Any) -> Iterator[Any]:
    """Yield everything that MLflow has to give, page by page."""
    token = None
    while True:
        page = ask(max_results=_PAGE, page_token=token, **asked)
        yield from page
        token = page.token
        if not token:
            return


class Store:
    """MLflow, seen from the one thread that writes."""

    def __init__(self, uri: str, artifacts: Path) -> None:
        self._client, self._entities = _client(uri)
        artifacts.mkdir(parents=True, exist_ok=True)
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
        mine = f"tags.mlflow.parentRunId = '{self.parent_run_id}'"
        for run in _every(self._client.search_runs, experiment_ids=[self.experiment_id or ""], filter_string=mine):
            if "remedy.run" in run.data.tags:
                yield rows.key(run.data.tags), (run.info.run_id, run.info.status)

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
