"""The record, on real MLflow stores."""

from __future__ import annotations

import math
import subprocess
import sys
import uuid

import pytest

from remedy.search import points
from remedy.search.outbox import SPOOL
from remedy.search.record import Record
from remedy.spaces.outcome import Outcome
from remedy.spaces.remedy import Receipt
from remedy.spaces.slot import Slot
from remedy.workers.order import Phase
from tests.search.recording import REPORT, SLOTS, VERDICT, children, open_record, order, result, written


@pytest.fixture(scope="module")
def uri(tmp_path_factory):
    return f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"  # made once: that takes a second


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture
def client(uri):
    from mlflow import MlflowClient

    return MlflowClient(uri)


def test_a_study_is_a_parent_and_its_runs_are_children(uri, client, tmp_path):
    source = tmp_path / "train.py"
    source.write_text("training = 1\n")
    folder = tmp_path / "plots"
    folder.mkdir()
    (folder / "loss.svg").write_text("<svg/>")
    (tmp_path / "report.json").write_text("{}")
    secret = {"storage": "postgresql://me:hunter2@db/optuna", "space": "x" * 9000}
    record = open_record(uri, tmp_path, source=source, params=secret)
    for number in range(3):
        record.run(order(number), result(number), SLOTS, None)
    record.finish(REPORT, "## Verdict", [tmp_path / "report.json", folder, tmp_path / "absent"])
    written(record)
    assert record.recorded == {0, 1, 2}
    assert [run.info.run_name for run in children(client, record)] == [f"00{n} baseline seed 10{n}" for n in range(3)]
    parent = client.get_run(record.parent_run_id)
    assert (parent.info.run_name, parent.info.status) == ("wide-relu", "FINISHED")
    assert parent.data.params["goal"] == "accuracy >= 0.9"
    assert parent.data.params["storage"] == "postgresql://***@db/optuna"
    assert len(parent.data.params["space"]) == 6000
    assert parent.data.tags["mlflow.note.content"] == "## Verdict"
    assert parent.data.tags["remedy.best_fix"] == "clip_norm"
    assert parent.data.tags["team"] == "vision"
    expected = {
        "fixes_confirmed": 1,
        "runs_converged": 2,
        "saved_by_early_stop": 0.68,
        "saved_by_collapse": 0.5,
        "runs_lost": 0,
    }
    assert expected.items() <= parent.data.metrics.items()
    assert parent.info.artifact_uri.startswith((tmp_path / "artifacts").as_uri())
    names = {a.path for path in (None, "source", "plots") for a in client.list_artifacts(record.parent_run_id, path)}
    assert names == {"source", "source/train.py", "report.json", "plots", "plots/loss.svg"}
    tags = client.get_experiment(record.experiment_id).tags
    assert f"mlflow.sharedViewState.{record.parent_run_id}-converged" in tags
    assert not list(tmp_path.rglob(SPOOL))


@pytest.mark.parametrize("outcome", Outcome)
def test_what_a_run_of_each_outcome_looks_like(outcome, uri, client, tmp_path):
    collapsed = outcome is Outcome.COLLAPSED
    record = open_record(uri, tmp_path)
    ended = result(
        7,
        outcome,
        reason="said so",
        verdict=VERDICT if collapsed else None,
        receipts=(Receipt("clip_norm", Slot.GRADIENT, "clips at 1"),),
    )
    record.run(
        order(7, Phase.CONFIRM, gradient="clip_norm", **{"clip_norm.max_norm": 1.0}),
        ended,
        SLOTS,
        "clip_norm(max_norm=1)",
    )
    written(record)
    (run,) = children(client, record)
    assert run.info.run_name == "007 clip_norm(max_norm=1) seed 107"
    killed, failed = {Outcome.COLLAPSED, Outcome.STOPPED}, {Outcome.FAILED, Outcome.LOST}
    assert run.info.status == ("KILLED" if outcome in killed else "FAILED" if outcome in failed else "FINISHED")
    assert run.info.end_time - run.info.start_time == 1500
    expected = {
        "remedy.outcome": str(outcome), "remedy.phase": "confirm", "remedy.seed": "107", "remedy.run": "7",
        "remedy.study": "wide-relu", "remedy.fix": "clip_norm(max_norm=1)", "remedy.receipts": "clip_norm: clips at 1",
        "remedy.evidence": VERDICT.evidence if collapsed else "said so",
    }  # fmt: skip
    assert expected.items() <= run.data.tags.items()
    assert run.data.tags.get("remedy.symptom") == ("class_takeover" if collapsed else None)
    assert run.data.params == {**dict.fromkeys(SLOTS, "keep"), "gradient": "clip_norm", "clip_norm.max_norm": "1.0"}
    assert run.data.metrics == {
        "loss": 0.5,
        "metric": 0.97,
        "final_metric": 0.97,
        "steps": 2,
        "steps_full": 4,
        "seconds": 1.5,
    }
    assert [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, "loss")] == [(1, 2.3), (2, 0.5)]


def test_what_is_not_finite_is_left_out_and_said(uri, client, tmp_path):
    record = open_record(uri, tmp_path)
    curves = {"loss": ((1, 1.0), (2, math.inf), (3, math.nan)), "a//b?": ((1, 0.0),), "metric": ((1, math.nan),)}
    record.run(order(0), result(0, Outcome.COLLAPSED, curves=curves, metric=math.nan, verdict=VERDICT), SLOTS, None)
    written(record)
    (run,) = children(client, record)
    assert run.data.metrics == {"loss": 1.0, "a/b_": 0.0, "steps": 2, "steps_full": 4, "seconds": 1.5}
    assert run.data.tags["remedy.nonfinite"] == (
        "loss: 2 of 3 points from step 2 on (inf/nan); metric: 1 of 1 points from step 1 on (nan); final_metric: nan"
    )


def test_a_long_curve_is_thinned_and_keeps_its_spike(uri, client, tmp_path):
    record = open_record(uri, tmp_path)
    curve = tuple((step, 9.0 if step == 4321 else 1 / step) for step in range(1, 10001))
    record.run(order(0), result(0, curves={"loss": curve, "other": curve[:150]}), SLOTS, None)
    written(record)
    (run,) = children(client, record)
    history = [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, "loss")]
    assert len(history) <= points.POINTS
    assert history == sorted(history)
    assert {curve[0], curve[-1], (4321, 9.0)} <= set(history)
    assert len(client.get_metric_history(run.info.run_id, "other")) == 150


def test_more_than_a_batch_is_written_whole(uri, client, tmp_path):
    record = open_record(uri, tmp_path)
    curves = {f"c{n:03d}": tuple((step, float(step % 7)) for step in range(30)) for n in range(80)}
    record.run(order(0, **{f"p{n}": "x" for n in range(150)}), result(0, curves=curves), SLOTS, None)
    written(record)
    (run,) = children(client, record)
    assert len(run.data.params) == 150 + len(SLOTS)
    assert len(client.get_metric_history(run.info.run_id, "c079")) == 20


def test_nothing_is_written_twice_and_what_was_cut_short_is_completed(uri, client, tmp_path, monkeypatch):
    first = open_record(uri, tmp_path, params={"runs": "10"})
    first.run(order(0), result(0), SLOTS, None)
    written(first)
    client.create_run(  # a session that was killed between the first call and the last
        first.experiment_id,
        tags={"mlflow.parentRunId": first.parent_run_id, "remedy.run": "1", "remedy.outcome": "missed"},
    )
    again = open_record(uri, tmp_path, resume=first.parent_run_id, params={"runs": "20"})
    for number in (0, 1, 2, 2):
        again.run(order(number), result(number, Outcome.MISSED if number == 1 else Outcome.CONVERGED), SLOTS, None)
    written(again)
    assert again.parent_run_id == first.parent_run_id
    assert again.recorded == {0, 1, 2}
    runs = children(client, again)
    assert [(run.data.tags["remedy.run"], run.info.status) for run in runs] == [(str(n), "FINISHED") for n in range(3)]
    assert runs[1].data.metrics["final_metric"] == 0.97
    parent = client.get_run(again.parent_run_id)
    assert (parent.data.params["runs"], parent.data.tags["remedy.resumed.runs"]) == ("10", "20")
    assert parent.info.status == "RUNNING"


def test_a_lost_run_does_not_hide_the_one_that_replaces_it(uri, client, tmp_path):
    record = open_record(uri, tmp_path)
    record.run(order(3), result(3, Outcome.LOST), SLOTS, None)
    record.run(order(3), result(3), SLOTS, None)
    written(record)
    assert {run.data.tags["remedy.outcome"] for run in children(client, record)} == {"lost", "converged"}


def test_an_experiment_and_a_study_that_were_deleted_stay_deleted(uri, client, tmp_path):
    name = f"e-{uuid.uuid4().hex}"
    first = open_record(uri, tmp_path, experiment=name)
    written(first)
    client.delete_experiment(first.experiment_id)
    second = open_record(uri, tmp_path, experiment=name, resume=first.parent_run_id)
    second.run(order(0), result(0), SLOTS, None)
    written(second)
    assert second.parent_run_id != first.parent_run_id
    assert client.get_experiment(second.experiment_id).name == f"{name} (2)"
    assert len(children(client, second)) == 1


def test_a_run_before_the_beginning_is_a_mistake_of_ours(tmp_path):
    with pytest.raises(RuntimeError, match="begin"):
        Record("sqlite://", tmp_path, "e").run(order(0), result(0), SLOTS, None)


def test_without_any_setting_it_writes_to_the_home_and_says_nothing(tmp_path):
    code = """
import sys, pathlib
from remedy.search.record import Record
assert "mlflow" not in sys.modules
record = Record(None, pathlib.Path("home"), "e")
record.begin("s", {}, {}, None, None)
assert record.close(60), record.failures
assert pathlib.Path("home/mlflow.db").is_file()
assert record.tracking_uri == f"sqlite:///{pathlib.Path.cwd()}/home/mlflow.db", record.tracking_uri
assert [path.name for path in pathlib.Path().iterdir()] == ["home"], list(pathlib.Path().iterdir())
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=200
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
