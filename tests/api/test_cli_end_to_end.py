"""The whole of it, as a user has it: a training that truly collapses, real Ray, real stores, the command line."""

import html.parser
import shutil
import sqlite3
import subprocess
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

EXAMPLES = Path(__file__).parents[2] / "examples"
TARGET = EXAMPLES / "wide_softmax.py"
NAME = "wide"
NEVER_USED = 987654
KNOWN_TO_HELP = {
    "fused_cross_entropy", "scale_down", "sgd", "sgd_momentum", "batch_norm_on", "layer_norm_on", "scale_width",
    "label_smoothing",
}  # fmt: skip


@pytest.fixture(scope="module")
def study(shared_remedy):
    """One study of the example, with Ray's two workers, for all tests of this file."""
    answer = shared_remedy("submit", TARGET, "--name", NAME, "--workers", 2, "--budget", 40, "--json")
    return SimpleNamespace(remedy=shared_remedy, answer=answer, report=answer.json)


def test_submit_reports_as_the_contract_says(study, contract):
    contract(study.report, 0)
    assert study.answer.out.count("\n") == 1, "one document on standard output, and nothing else"
    assert study.report["study"] == NAME
    assert study.report["goal"] == {"metric": "accuracy", "at_least": 0.87}
    assert study.report["training"] == f"{TARGET}:training"
    assert study.report["cost"]["steps_trained"] <= (40 + 2) * 400, "the budget holds, save for what was under way"


def test_submit_finds_what_is_known_to_help(study):
    best = study.report["fixes"][0]
    assert best["confirmed"]
    assert best["minimal"]
    assert study.report["baseline"]["state"] == "broken"
    assert {found["symptom"] for found in study.report["baseline"]["symptoms"]} & {
        "saturated_softmax", "accuracy_collapse", "class_takeover", "zero_gradient",
    }  # fmt: skip
    names = {str(value) for key, value in best["remedies"].items() if "." not in key}
    assert names & KNOWN_TO_HELP


def test_the_code_is_told_from_the_recipe_before_the_first_run(study):
    assert "the error above, or a bad recipe" in study.report["decision"]
    assert "by heart" in study.report["decision"]
    assert 0 < study.report["cost"]["preflight_steps"] <= 1600
    for style in ("text", "md", "html"):
        assert "of its samples by heart" in " ".join(study.remedy("report", NAME, "--format", style).out.split())


def test_progress_goes_to_standard_error_in_plain_lines(study):
    assert f"{NAME}: starting" in study.answer.err
    assert "\x1b" not in study.answer.err
    assert "Traceback" not in study.answer.err
    assert "Warning" not in study.answer.err


def test_report_says_the_same_again(study):
    assert study.remedy("report", NAME, "--format", "json").json == study.report


def test_report_is_text_for_people(study):
    text = study.remedy("report", NAME).out
    assert "\x1b" not in text
    assert all(line == line.rstrip() for line in text.splitlines())
    best, symptom = study.report["fixes"][0], study.report["baseline"]["symptoms"][0]
    for said in (NAME, symptom["symptom"], best["label"], best["fix_file"], "5 of 5", "remedy export wide", "seeds"):
        assert said in text


def test_report_is_markdown(study):
    text = study.remedy("report", NAME, "--format", "md").out
    assert study.report["baseline"]["symptoms"][0]["symptom"] in text.replace("\\_", "_")
    assert study.report["fixes"][0]["label"] in text


def test_report_is_a_page_that_needs_no_other_machine(study, tmp_path):
    out = tmp_path / "report.html"
    said = study.remedy("report", NAME, "--format", "html", "--out", out).out
    assert str(out) in said
    text = out.read_text()
    loaded = []

    class Reader(html.parser.HTMLParser):
        def handle_starttag(self, tag, attrs):
            names = {"src"} if tag != "link" else {"href"}
            loaded.extend(value for key, value in attrs if key in names)

    Reader().feed(text)
    assert not [place for place in loaded if not str(place).startswith("data:")]
    assert study.report["fixes"][0]["label"] in text


def test_list_names_it(study):
    (row,) = study.remedy("list", "--json").json
    assert row["study"] == NAME
    assert row["runs"] == study.report["runs"]["total"]
    assert row["exit_code"] == 0
    assert NAME in study.remedy("list").out


def test_show_has_every_run(study):
    runs = study.remedy("show", NAME, "--json").json["runs"]
    assert len(runs) == study.report["runs"]["total"]
    assert len({run["run"] for run in runs}) == len(runs)
    for outcome in ("converged", "collapsed", "missed", "stopped", "failed", "inapplicable", "lost"):
        assert sum(run["outcome"] == outcome for run in runs) == study.report["runs"][outcome]
    assert sum(run["steps"] for run in runs) == study.report["cost"]["steps_trained"]
    baseline = [run["seed"] for run in runs if run["phase"] == "baseline"]
    assert sorted(baseline) == sorted(study.report["baseline"]["seeds"])
    searched = {run["seed"] for run in runs if run["phase"] in ("baseline", "search")}
    assert not searched & {seed for fix in study.report["fixes"] for seed in fix["seeds"]}, (
        "fresh: neither has seen them"
    )
    assert all(run["symptom"] for run in runs if run["outcome"] == "collapsed")
    whole = [run for run in runs if run["phase"] != "search" and run["outcome"] == "converged"]
    assert all(run["steps"] == run["steps_full"] for run in whole), "a proof is never ended by success"


def test_show_tells_one_run(study):
    collapsed = next(run for run in study.remedy("show", NAME, "--json").json["runs"] if run["outcome"] == "collapsed")
    told = study.remedy("show", NAME, "--run", collapsed["run"], "--json").json
    assert told["outcome"] == "collapsed"
    assert told["verdict"]["evidence"]
    assert told["verdict"]["onset_step"] <= told["verdict"]["step"] == told["steps"]
    text = study.remedy("show", NAME, "--run", collapsed["run"]).out
    assert told["verdict"]["symptom"] in text
    assert "loss" in text


def test_logs_answer(study):
    assert "Traceback" not in study.remedy("logs", NAME).out


def test_the_fix_file_repairs_a_seed_that_was_never_used(study, tmp_path):
    out = tmp_path / "with space" / "fix.yaml"
    out.parent.mkdir()
    study.remedy("export", NAME, "--out", out)
    assert out.read_bytes() == Path(study.report["fixes"][0]["fix_file"]).read_bytes()
    content = yaml.safe_load(out.read_text())
    assert content["remedies"] == study.report["fixes"][0]["remedies"]
    told = study.remedy("run", TARGET, "--fix", out, "--seed", NEVER_USED, "--json").json
    assert told["outcome"] == "converged"
    assert told["value"] >= 0.87
    assert [receipt["remedy"] for receipt in told["receipts"]] == [
        value for key, value in content["remedies"].items() if "." not in key
    ]


def test_the_fix_as_python_is_a_script_with_the_evidence_above_it(study, tmp_path):
    out = tmp_path / "fix.py"
    best = study.report["fixes"][0]
    said = study.remedy("export", NAME, "--as", "python", "--out", out).out
    assert best["label"] in said
    text = out.read_text()
    compile(text, str(out), "exec")
    for told in (NAME, best["label"], f"{best['converged']} of {best['runs']} runs", best["receipts"][0]["changed"]):
        assert told in text
    assert "NOT IN HERE" not in text
    assert "import remedy" not in text
    refused = study.remedy("export", NAME, "--as", "perl", code=2)
    assert refused.err.count("\n") == 1
    assert "yaml" in refused.err


def test_the_fix_applied_in_python_repairs(study, tmp_path):
    fixed = tmp_path / "fixed.py"
    fixed.write_text(
        f"import sys\nsys.path.insert(0, {str(EXAMPLES)!r})\n"
        "import remedy, wide_softmax\n"
        f"def training():\n"
        f"    return remedy.load_fix({study.report['fixes'][0]['fix_file']!r}).apply(wide_softmax.training())\n"
    )
    told = study.remedy("run", fixed, "--seed", NEVER_USED, "--json").json
    assert told["outcome"] == "converged"


def test_a_second_study_of_the_same_name_is_refused(study):
    answer = study.remedy("submit", TARGET, "--name", NAME, code=2)
    assert "exists" in answer.err
    assert f"remedy resume {NAME}" in answer.err


def test_resume_of_what_is_finished_says_the_same(study, tmp_path):
    home = tmp_path / "home"
    shutil.copytree(study.remedy.home, home)
    again = study.remedy("resume", NAME, "--workers", 0, "--json", "--home", home).json
    for part in ("baseline", "remedies", "runs", "exit_code", "reason"):
        assert again[part] == study.report[part]
    where = {"fix_file"}
    for mine, first in zip(again["fixes"], study.report["fixes"], strict=True):
        assert {k: v for k, v in mine.items() if k not in where} == {k: v for k, v in first.items() if k not in where}
    spent = ("steps_trained", "steps_full", "saved", "saved_by_early_stop", "steps_to_first_fix")
    assert [again["cost"][key] for key in spent] == [study.report["cost"][key] for key in spent]


def test_delete_takes_the_study_and_nothing_else(study, tmp_path):
    home = tmp_path / "home"
    shutil.copytree(study.remedy.home, home)
    study.remedy("delete", NAME, "--home", home)
    assert not (home / "studies" / NAME).exists()
    assert (home / "mlflow.db").is_file()
    assert study.remedy("list", "--json", "--home", home).json == []
    study.remedy("show", NAME, "--home", home, code=2)


def test_mlflow_holds_every_run_with_its_outcome(study):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those that mlflow gives at its import are no matter of ours
        from mlflow import MlflowClient

        store = study.report["mlflow"]
        client = MlflowClient(store["tracking_uri"])
        parent = client.get_run(store["parent_run_id"])
        experiment = client.get_experiment(parent.info.experiment_id)
        children = client.search_runs(
            [experiment.experiment_id], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'", max_results=1000
        )
        healed = client.search_runs([experiment.experiment_id], "tags.remedy.outcome = 'converged'", max_results=1000)
        files = {file.path for at in (None, "plots") for file in client.list_artifacts(parent.info.run_id, at)}
    assert experiment.name == store["experiment"]
    assert len(children) == study.report["runs"]["total"]
    assert len(healed) == study.report["runs"]["converged"]
    status = {"converged": "FINISHED", "missed": "FINISHED", "inapplicable": "FINISHED", "collapsed": "KILLED",
              "stopped": "KILLED", "failed": "FAILED", "lost": "FAILED"}  # fmt: skip
    for child in children:
        tags = child.data.tags
        assert child.info.status == status[tags["remedy.outcome"]]
        assert tags["remedy.phase"] in ("baseline", "search", "confirm", "minimise")
        assert tags["remedy.seed"].isdigit()
        assert (tags["remedy.outcome"] == "collapsed") <= bool(tags.get("remedy.symptom") and tags["remedy.evidence"])
        assert (tags["remedy.phase"] == "confirm") <= bool(tags.get("remedy.fix"))
        if tags["remedy.phase"] == "baseline":
            assert set(child.data.params.values()) == {"keep"}
    assert study.report["fixes"][0]["label"] in parent.data.tags["mlflow.note.content"]
    assert "report.json" in files
    assert any(name.endswith("yaml") for name in files)
    assert any(name.endswith(".html") for name in files)
    drawn = {"metric", "loss", "recipes", "effects", "timeline"}
    assert {f"plots/{name}.{kind}" for name in drawn for kind in ("svg", "csv")} <= files, "each with its numbers"
    assert "plots/ablation.csv" in files


def test_no_foreign_key_of_the_record_dangles(study):
    with sqlite3.connect(study.remedy.home / "mlflow.db") as database:
        assert database.execute("pragma integrity_check").fetchone() == ("ok",)
        assert database.execute("pragma foreign_key_check").fetchall() == []


def test_no_process_is_left_behind(study):
    listed = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True).stdout
    assert str(study.remedy.home) not in listed
