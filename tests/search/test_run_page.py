"""The curves of one run with its verdict marked: as characters, as a page, and among the artifacts in MLflow."""

import dataclasses
import math
import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from remedy.chart import chart
from remedy.search import rows
from remedy.search.child import child
from remedy.search.home import StudyFolder
from remedy.search.mark import Mark, mark_of
from remedy.search.points import at
from remedy.search.record import Record
from remedy.spaces.outcome import Outcome
from remedy.spaces.symptom import Symptom
from remedy.spaces.verdict import Verdict
from remedy.workers.order import Phase, WorkOrder
from remedy.workers.result import RunResult
from tests.search.scripted import SOURCE

VERDICT = Verdict(Symptom.CLASS_TAKEOVER, 60, 40, "class 3 <script> gets 99% of the predictions")
NOTE = Verdict(Symptom.CHANCE_PLATEAU, 30, 10, "2.30 from step 10 to 30", stops=False)
STEPS = range(2, 61, 2)
COLLAPSED = RunResult(
    3, Outcome.COLLAPSED, VERDICT.evidence, 0.1, 60, 100, 2.0, verdict=VERDICT, notes=(NOTE,), saved_by="collapse",
    curves={
        "loss": tuple((step, math.inf if step == 50 else 0.5 + step / 10) for step in STEPS),
        "gradient_norm": tuple((step, 0.0 if step > 40 else 10 ** (step / 10)) for step in STEPS),
        "metric": ((20, 0.8), (40, 0.5), (60, 0.1)),
    },
    setting={"goal": 0.9, "mode": "max", "chance": 0.1},
)  # fmt: skip
ORDER = WorkOrder(3, SOURCE, {"activation": "tanh<b>"}, 7, 0, Phase.SEARCH)


def marked(result: RunResult) -> tuple[str, int, int, str]:
    mark = mark_of(result)
    assert mark is not None
    return mark.symptom, mark.onset, mark.step, mark.kind


def test_the_verdict_is_marked_before_a_note_and_an_audited_one_as_such():
    assert marked(COLLAPSED) == ("class_takeover", 40, 60, "ended the run")
    missed = dataclasses.replace(COLLAPSED, outcome=Outcome.MISSED, verdict=None)
    assert marked(missed) == ("chance_plateau", 10, 30, "was noted")
    spared = dataclasses.replace(missed, outcome=Outcome.CONVERGED, spared=VERDICT)
    assert marked(spared) == ("class_takeover", 40, 60, "did not end the run, which was audited")
    assert mark_of(dataclasses.replace(missed, notes=())) is None


def test_a_curve_is_read_at_a_step_or_before_it():
    curve = ((4, 1.0), (8, 2.0))
    assert [at(curve, step) for step in (3, 4, 7, 8, 99)] == [None, 1.0, 1.0, 2.0, 2.0]


def test_a_chart_shows_the_course_and_marks_the_steps():
    mark = Mark("class_takeover", 40, 60, "ended the run", "99%")
    lines = chart([(step, step / 10) for step in range(1, 61)], 60, 60, 4, mark)
    assert [line[11:].count("█") for line in lines[:4]] == sorted(line[11:].count("█") for line in lines[:4])
    assert (lines[0].split()[0], lines[3].split()[0]) == ("6", "0.1")
    axis = lines[4][11:]
    assert axis.index("▲") == 40
    assert axis.index("✗") == 59
    assert lines[5].strip() == "▲ holds since step 40: 4   ✗ ended the run, step 60: 6"


def test_a_chart_says_what_is_not_finite_and_draws_zeros_as_nothing():
    lines = chart(COLLAPSED.curves["loss"], 60, 60, 4)
    assert lines[0][11 + 50] == "!"
    drawn = chart(COLLAPSED.curves["gradient_norm"], 60, 60, 4)
    assert "log" in "".join(drawn)
    assert not any(line[11 + 42 : 11 + 60].strip() for line in drawn[:4])
    nothing = chart([(2, math.nan), (4, math.inf)], 4, 10, 4)
    assert "!" in nothing[0]
    assert chart([(1, 0.1234561), (2, 0.1234569)], 2, 10, 4)[0].strip().startswith("0.123457 ")


def test_the_page_is_well_formed_escaped_and_says_the_figures_the_verdict_saw():
    page = child("s", ORDER, COLLAPSED, [], None).page()
    assert "<script" not in page
    assert "tanh<b>" not in page
    assert "class 3 &lt;script&gt; gets 99%" in page
    figures = re.findall(r"<svg.*?</svg>", page)
    assert len(figures) == 3
    said = [" ".join(ET.fromstring(figure).itertext()) for figure in figures]
    assert "holds since step 40: 4.5; ended the run, step 60: 6.5" in said[0]
    assert "holds since step 40: 1e+04; ended the run, step 60: 0" in said[1].replace("10,000", "1e+04")
    assert "holds since step 40: 0.5; ended the run, step 60: 0.1" in said[2]
    assert "goal >= 0.9" in said[2]


def test_a_run_without_a_finding_has_no_page_of_its_own():
    sound = dataclasses.replace(COLLAPSED, outcome=Outcome.CONVERGED, verdict=None, notes=(), reason="")
    assert child("s", ORDER, sound, [], None).page() == ""


@pytest.mark.parametrize("waits", [False, True])
def test_the_run_in_mlflow_has_its_curves_with_the_verdict(tmp_path, waits):
    from mlflow import MlflowClient

    folder = StudyFolder.at(tmp_path / "studies" / "s")
    record = Record(None, tmp_path, "training", folder.files)
    record.begin("s", {"goal": "accuracy >= 0.9"}, {}, None, None)
    row = child("s", ORDER, COLLAPSED, [], None)
    if waits:  # a row that lay in the spool while the store was away
        again = rows.from_line(rows.to_line(row))
        assert again.page() == row.page()
    record.run(ORDER, COLLAPSED, [], None)
    record.finish({"runs": {}, "cost": {}}, "note", [])
    assert record.close()
    client = MlflowClient(f"sqlite:///{tmp_path.resolve()}/mlflow.db")
    experiment = client.get_experiment_by_name("training")
    (run,) = client.search_runs([experiment.experiment_id], "tags.`remedy.run` = '3'")
    page = client.download_artifacts(run.info.run_id, "curves.html", str(tmp_path))
    assert Path(page).read_text(encoding="utf-8") == row.page()
    assert "curves.html" in run.data.tags["mlflow.note.content"]
