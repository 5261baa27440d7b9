"""Runs as they would come, and what MLflow has of them."""

from __future__ import annotations

import uuid

from remedy.search.record import Record
from remedy.spaces.outcome import Outcome
from remedy.spaces.slot import Slot
from remedy.spaces.symptom import Symptom
from remedy.spaces.target import Source
from remedy.spaces.verdict import Verdict
from remedy.workers.order import Phase, WorkOrder
from remedy.workers.result import RunResult

SOURCE = Source("/somewhere/train.py", "training", "0" * 64)
SLOTS = [str(slot) for slot in Slot]
VERDICT = Verdict(Symptom.CLASS_TAKEOVER, 210, 180, "99.8 % of inputs go to class 3")
REPORT = {
    "exit_code": 0,
    "reason": None,
    "baseline": {"state": "broken", "runs": 3, "converged": 0, "symptoms": [{"symptom": "class_takeover"}]},
    "fixes": [{"confirmed": True, "minimal": True, "remedies": {"gradient": "clip_norm"}, "converged": 5, "runs": 5}],
    "runs": {"total": 4, "converged": 2, "lost": 0},
    "cost": {"steps_trained": 10, "saved_by_early_stop": 0.68, "saved": {"collapse": 0.5}, "steps_to_first_fix": None},
}


def order(number, phase=Phase.SEARCH, **params):
    return WorkOrder(number, SOURCE, params, 100 + number, 0, phase)


def result(number, outcome=Outcome.CONVERGED, **fields):
    curves = {"loss": ((1, 2.3), (2, 0.5)), "metric": ((2, 0.97),)}
    return RunResult(
        number, outcome, **{"metric": 0.97, "steps": 2, "steps_full": 4, "seconds": 1.5, "curves": curves, **fields}
    )


def open_record(uri, home, study="wide-relu", resume=None, source=None, experiment=None, params=None):
    record = Record(uri, home, experiment or f"e-{uuid.uuid4().hex}")
    record.begin(study, {"goal": "accuracy >= 0.9", **(params or {})}, {"team": "vision"}, source, resume)
    return record


def children(client, record):
    found = client.search_runs([record.experiment_id], f"tags.mlflow.parentRunId = '{record.parent_run_id}'")
    return sorted(found, key=lambda run: int(run.data.tags["remedy.run"]))


def written(record):
    assert record.close(60), record.failures
    assert record.failures is None
