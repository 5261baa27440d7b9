"""Detectors chosen in a study file, and the audit of early stops, as a user has them."""

import json

import pytest
import yaml

pytestmark = pytest.mark.timeout(1500)

# It ends whatever does not learn within a few steps: a wrong stop, on purpose.
HASTY = {"exploding_gradient": {"factor": 0.5, "chance": 1, "grace": 0,
                                "patience": {"share": 0, "steps": 4, "samples": 1}}}  # fmt: skip
HEALTHY = "optimizer=lambda p: torch.optim.SGD(p, lr=0.1)"


def study(remedy, **keys):
    remedy.write("train", HEALTHY)
    path = remedy.place / "study.yaml"
    path.write_text(yaml.safe_dump({"target": "train.py", "workers": 0, "name": "own", "detectors": HASTY, **keys}))
    return path


def test_an_audit_says_how_many_early_stops_were_wrong(remedy, contract):
    path = study(remedy, audit=1.0)
    report = remedy("submit", path, "--json", code=4).json
    contract(report, 4)
    audit = report["audit"]
    assert (audit["stops"], audit["audited"], audit["converged"]) == (4, 4, 4), "the control and the baseline"
    assert audit["interval"][0] < 1 == audit["interval"][1]
    assert audit["symptoms"] == [{"symptom": "exploding_gradient", "audited": 4, "converged": 4}]
    # They count for what they were: full runs that converged.
    told = {name: number for name, number in report["runs"].items() if number}
    assert told == {"total": 5, "converged": 5}  # with the known-good defaults, which explode nowhere
    assert report["cost"]["by_phase"]["baseline"] == 300
    assert report["baseline"]["symptoms"][0]["symptom"] == "exploding_gradient"
    assert report["baseline"]["symptoms"][0]["stopped"] is False
    for style in ("text", "md", "html"):
        said = " ".join(remedy("report", "own", "--format", style).out.replace("\\", "").split())
        assert "Audit of early stops: 4 of 4 that ran on to the end would have converged" in said, style
    shown = " ".join(remedy("show", "own", "--run", 1).out.split())
    assert "audited: exploding_gradient since step" in shown

    from mlflow import MlflowClient

    store = MlflowClient(f"sqlite:///{remedy.home}/mlflow.db")
    parent = store.get_run(report["mlflow"]["parent_run_id"])
    assert parent.data.params["audit"] == "1"
    assert "exploding_gradient.factor 0.5" in parent.data.params["detectors"]
    assert (parent.data.metrics["audit_audited"], parent.data.metrics["audit_converged"]) == (4, 4)
    child = store.search_runs([parent.info.experiment_id], "tags.`remedy.run` = '1'")[0]
    assert child.data.tags["remedy.audit"].endswith("let run on: converged")


def test_without_an_audit_the_same_study_finds_a_broken_training(remedy):
    report = remedy("submit", study(remedy, runs=3), "--json", code=3).json
    assert report["audit"] is None
    assert report["runs"]["collapsed"] == 3
    assert report["cost"]["steps_trained"] < 100


def test_check_and_run_watch_as_the_study_file_says(remedy):
    path = study(remedy)
    for command in ("check", "run"):
        assert remedy(command, path, "--json").json["verdict"]["symptom"] == "exploding_gradient"
        assert remedy(command, remedy.place / "train.py", "--json").json["outcome"] == "converged"


def test_a_study_does_not_go_on_under_other_thresholds_unasked(remedy):
    remedy("submit", study(remedy, runs=3), code=3)
    kept = remedy.home / "studies" / "own" / "study.json"
    spec = json.loads(kept.read_text())
    assert spec["detectors"]["exploding_gradient.factor"] == 0.5
    assert spec["thresholds"]["exploding_gradient.growth"] == 10
    spec["thresholds"]["exploding_gradient.growth"] = 12.5  # as a remedy of another version has it
    kept.write_text(json.dumps(spec))
    said = remedy("resume", "own", "--runs", 4, "--workers", 0, code=2).err
    assert "the detectors' exploding_gradient.growth is 10, not 12.5" in said
    assert "--accept-changes" in said
    report = remedy("resume", "own", "--runs", 4, "--workers", 0, "--accept-changes", "--json", code=3).json
    assert any(found["check"] == "changed_since_submit" for found in report["preflight"])


@pytest.mark.parametrize(
    ("detectors", "said"),
    [
        ({"dead_unit": False}, "detectors: 'dead_unit' is none; it may be non_finite, "),
        ({"dead_units": {"dead": 3}}, "detectors: dead_units: dead is 3; it may be a number from 0 to 1"),
    ],
)
def test_a_study_file_with_a_wrong_detector_is_refused_in_a_sentence(remedy, detectors, said):
    answer = remedy("submit", study(remedy, detectors=detectors), code=2)
    assert said in answer.err
    assert answer.err.count("\n") == 1
    assert not remedy.home.exists() or not list(remedy.home.glob("studies/*"))


def test_a_study_file_sets_the_forecast_and_the_audit_has_a_line_for_it(remedy):
    broken = "optimizer=lambda p: torch.optim.SGD(p, lr=1e-5)"
    remedy.write("train", broken)
    path = remedy.place / "study.yaml"
    keys = {"target": "train.py", "workers": 0, "runs": 8, "audit": 1.0}
    path.write_text(yaml.safe_dump({**keys, "name": "set", "forecast": {"travel": 100, "travel_from": 0}}))
    report = remedy("submit", path, "--json", code=None).json
    found = report["audit"]["forecast"]
    assert found["stops"] == found["audited"] > 0
    spec = json.loads((remedy.home / "studies" / "set" / "study.json").read_text())
    assert (spec["detectors"]["forecast.travel"], spec["thresholds"]["forecast.travel"]) == (100, 100)
    for style in ("text", "md", "html"):
        said = " ".join(remedy("report", "set", "--format", style).out.replace("\\", "").split())
        assert f"Audit of the forecast: {found['converged']} of {found['audited']} that ran on to the end" in said, (
            style
        )
    path.write_text(yaml.safe_dump({**keys, "name": "off", "forecast": False}))
    report = remedy("submit", path, "--json", code=None).json
    assert report["audit"]["forecast"]["stops"] == 0


def test_a_study_file_with_a_wrong_forecast_is_refused_in_a_sentence(remedy):
    answer = remedy("submit", study(remedy, forecast={"late": 3}), code=2)
    assert "study.yaml': forecast: late is 3; it may be a number from 0 to 1" in answer.err
    assert answer.err.count("\n") == 1


def test_a_share_that_is_none_is_refused(remedy):
    assert (
        "--audit is 2; it may be a share of the early stops, 0 to 1"
        in remedy("submit", remedy.write("train"), "--audit", 2, code=2).err
    )


def test_symptoms_are_listed_with_their_thresholds_and_why(remedy):
    rows = {row["symptom"]: row["thresholds"] for row in remedy("symptoms", "--json").json}
    known = {row["name"]: row for row in rows["exploding_gradient"]}
    assert known["patience.share"]["may_be"] == "a number from 0 to 1"
    assert all(row["why"] for mine in rows.values() for row in mine)
    said = " ".join(remedy("symptoms").out.split())
    assert "detectors: {chance_plateau: off" in said
    assert "patience.share" in said
    assert {row["name"] for row in rows["forecast"]} >= {"late", "slow", "travel"}
    assert "forecast: off" in said
