"""The note of a study, and the addresses."""

from __future__ import annotations

import re

import pytest
from markdown_it import MarkdownIt

from remedy.search.links import parent_link, redact, runs_link, view_link, views
from remedy.search.markdown import escape, run_note
from remedy.search.note import NOTE, note
from remedy.spaces.outcome import Outcome
from remedy.spaces.remedy import Receipt
from remedy.spaces.slot import Slot
from remedy.spaces.symptom import Symptom
from remedy.spaces.verdict import Verdict
from remedy.workers.result import RunResult

EVIL = "x | y `c` *b* _i_ [l](http://evil) <script>alert(1)</script> https://evil ![p](q) \n| --- |\n# head \\"
REPORT = {
    "study": "wide-relu", "training": "a/b.py:training", "goal": {"metric": "accuracy", "at_least": 0.9},
    "exit_code": 0,
    "preflight": [{"level": "error", "message": "softmax before the loss"}],
    "baseline": {
        "state": "broken", "runs": 3, "converged": 0, "metric": [0.11, None, 0.1],
        "symptoms": [
            {"symptom": "class_takeover", "runs": 3, "onset_step": [212, 198], "stopped": True, "evidence": "99 %"}
        ],
    },
    "fixes": [
        {
            "remedies": {"learning_rate": "scale", "scale.factor": 0.1}, "minimal": True, "confirmed": True,
            "converged": 5, "runs": 5, "interval": [0.57, 1.0], "metric_mean": 0.97, "invasiveness": 1,
            "ablation": [{"without": "scale", "converged": 0, "runs": 5}],
        }
    ],
    "remedies": [
        {"remedy": "scale", "alone": {"converged": 5, "runs": 5}, "effect": 1.0},
        {"remedy": "clip_norm", "alone": {"converged": 0, "runs": 2}, "effect": None},
        {"remedy": "batch_norm", "alone": None, "effect": None},
    ],
    "runs": {"total": 60, "converged": 20, "lost": 0},
    "cost": {"steps_trained": 10400, "steps_full": 33000, "saved_by_early_stop": 0.68, "saved": {"collapse": 0.5}},
}  # fmt: skip


def html(text):
    return MarkdownIt("commonmark", {"html": True}).enable("table").render(text)


def test_a_note_says_what_was_wrong_what_fixes_it_and_how_to_apply_it():
    text = note(REPORT)
    for said in (
        "## 1 fix confirmed on fresh seeds", "accuracy ≥ 0.9", "**broken**: 0 of 3 runs converged", "0.11, none, 0.1",
        "| class\\_takeover | 3 | 212, 198 | yes | 99 % |", "softmax before the loss",
        "| 1 | `scale(factor=0.1)` | 5 of 5 | 57 % to 100 % | 0.97 | yes | 1 | without `scale`: 0 of 5 |",
        "`clip_norm` (0 of 2)", "Nothing to change in this training: `batch_norm`", "60 runs: 20 converged.",
        "10,400 of 33,000 steps", "**68 %** (collapse 50 %)", "    remedy export wide-relu --out fix.yaml",
        "    remedy run a/b.py:training --fix fix.yaml --seed 7",
    ):  # fmt: skip
        assert said in text
    assert html(text).count("<table>") == 2


@pytest.mark.parametrize(
    ("changes", "said", "unsaid"),
    [
        ({"fixes": [], "reason": "budget", "exit_code": 3}, "No fix confirmed (ended: budget)", "How to apply"),
        (
            {"fixes": [], "baseline": {"state": "healthy", "runs": 3, "converged": 3}},
            "Nothing to repair",
            "What fixes it",
        ),
        ({"fixes": [], "exit_code": 2}, "The training could not be run", "How to apply"),
        ({"goal": {"metric": "loss", "at_most": 0.1}}, "loss ≤ 0.1", "≥"),
        (
            {"baseline": {"state": "broken", "runs": 3, "converged": 0, "deterministic": True}},
            "identical",
            "since step",
        ),
        ({"fixes": [{**REPORT["fixes"][0], "confirmed": False, "minimal": False}]}, "(not confirmed)", "How to apply"),
    ],
)
def test_a_note_of_other_endings(changes, said, unsaid):
    text = note({**REPORT, **changes})
    assert said in text
    assert unsaid not in text


def test_a_note_of_a_report_without_anything():
    assert note({}).startswith("## No fix confirmed")


def test_what_users_write_cannot_become_markup():
    report = {
        **REPORT,
        "study": EVIL,
        "training": EVIL,
        "preflight": [{"level": "error", "message": EVIL}],
        "baseline": {**REPORT["baseline"], "symptoms": [{"symptom": EVIL, "runs": 1, "evidence": EVIL}]},
        "fixes": [{**REPORT["fixes"][0], "label": EVIL}],
    }
    page = html(note(report))
    for tag in ("<script", "<a ", "<img", "<em>", "<h1", "<hr"):
        assert tag not in page
    assert [row.count("<td") for row in re.findall("<tr>.*?</tr>", page, re.DOTALL)] == [0, 5, 0, 8]
    assert "alert(1)" in page


def test_escaped_text_reads_as_it_was_written():
    assert html(escape("a|b <c> & *d* _e_ `f` [g] {h} #i ~j~ $k$")) == (
        "<p>a|b &lt;c&gt; &amp; *d* _e_ `f` [g] {h} #i ~j~ $k$</p>\n"
    )


def test_a_note_fits_in_a_tag_and_keeps_how_to_apply_it():
    many = {**REPORT, "preflight": [{"level": "error", "message": "m" * 5000}] * 50, "fixes": REPORT["fixes"] * 50}
    text = note(many, NOTE)
    assert len(text) < 8000
    assert "The rest is in the study's report." in text
    assert text.endswith(".apply(training())\n")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            "postgresql+psycopg://me:p@ss@db:5432/x?sslpassword=q&a=1",
            "postgresql+psycopg://***@db:5432/x?sslpassword=***&a=1",
        ),
        (
            "no host http://token@h/p and https://h/p?token=abc here",
            "no host http://***@h/p and https://h/p?token=*** here",
        ),
        ("sqlite:////tmp/a@b/m.db", "sqlite:////tmp/a@b/m.db"),
    ],
)
def test_addresses_are_shown_without_secrets(text, shown):
    assert redact(text) == shown


def test_addresses_open_the_face_for_trainings():
    links = [runs_link("1", "abc", converged=True), view_link("1", "abc"), parent_link("1", "abc")]
    assert all(
        link.startswith("/#/experiments/1/runs") and link.endswith("workflowType=machine_learning") for link in links
    )
    assert "tags.remedy.outcome%20%3D%20%27converged%27" in links[0]
    assert list(views("abc")) == ["mlflow.sharedViewState.abc", "mlflow.sharedViewState.abc-converged"]
    assert '"orderByAsc": true' in views("abc", ascending=True)["mlflow.sharedViewState.abc"]


def test_a_run_says_how_it_ended_and_what_was_changed():
    verdict = Verdict(Symptom.CLASS_TAKEOVER, 210, 180, "99 % go to class 3")
    noted = Verdict(Symptom.CHANCE_PLATEAU, 90, 30, "loss stays at ln 10", stops=False)
    receipts = (Receipt("clip_norm", Slot.GRADIENT, EVIL),)
    ended = RunResult(
        1, Outcome.COLLAPSED, verdict=verdict, notes=(noted,), steps=210, steps_full=600, receipts=receipts
    )
    text = run_note(ended)
    assert text.startswith(
        "**collapsed** at step 210 of 600 (class\\_takeover, seen since step 180): 99 % go to class 3"
    )
    assert "Noted since step 30, chance\\_plateau: loss stays at ln 10" in text
    assert html(text).count("<li>") == 1
    assert "<script" not in html(text)


def test_a_traceback_is_a_block_that_ends_with_its_last_line():
    trace = "x\n" * 9000 + "```\n<script>\nValueError: shapes"
    page = html(run_note(RunResult(1, Outcome.FAILED, "raised ValueError", trace=trace)))
    assert page.endswith("```\n&lt;script&gt;\nValueError: shapes\n</code></pre>\n")
    assert run_note(RunResult(1, Outcome.CONVERGED, steps=600)) == "**converged** at step 600\n"
