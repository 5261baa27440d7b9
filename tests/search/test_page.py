"""The page of a report, from real folders with real results."""

import csv
import io
import json
import math
from html.parser import HTMLParser

import pytest

from remedy.search.home import StudyFolder
from remedy.search.page import plot_data, report_html
from remedy.spaces.combination import Combination
from remedy.spaces.outcome import Outcome
from remedy.spaces.symptom import Symptom
from remedy.spaces.verdict import Verdict
from remedy.workers.result import RunResult
from tests.search.wide import conducted, train


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    return conducted(tmp_path_factory.mktemp("studies"))


VOID = {"meta", "br", "hr", "img", "link", "input"}


class Walk(HTMLParser):
    """Reads a page strictly: every element is closed in order, every id is there once; keeps texts and attributes."""

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.attributes, self.rows, self.said = [], [], [], [], []
        self.feed(page)
        self.close()
        assert self.open == []
        ids = [value for name, value in self.attributes if name == "id"]
        assert len(ids) == len(set(ids))
        for name, value in self.attributes:
            if name in ("aria-labelledby", "aria-describedby"):
                assert value in ids

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.said.append(data.replace("\N{NO-BREAK SPACE}", " "))
            if "td" in self.open or "th" in self.open:
                self.rows[-1][-1] += self.said[-1]

    @property
    def text(self):
        return " ".join(self.said)


def read(found):
    page = report_html(*found)
    walk = Walk(page)
    assert page.isascii()
    assert {"script", "iframe", "link", "img", "object", "form"}.isdisjoint(walk.tags)
    for name, value in walk.attributes:
        assert not name.startswith("on")
        if name in ("src", "href", "xlink:href", "action"):
            assert value.startswith("data:text/csv")
    style = page[page.index("<style>") : page.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    assert "nan" not in {value for name, value in walk.attributes if name in ("x", "y", "cx", "cy", "points", "width")}
    return walk


def numbers(data):
    return list(csv.DictReader(io.StringIO(data)))


def test_a_page_says_what_the_report_says(wide):
    found, _ = wide
    walk = read(wide)
    best = found["fixes"][0]
    assert f"{best['label']} restores convergence" in walk.said
    assert f"With it, {best['converged']} of {best['runs']} runs on fresh seeds converged; " in walk.text
    assert "of the untouched training on the same seeds, 0 of 5. The goal is accuracy ≥ 0.9." in walk.text
    rows = {row[1]: row for row in walk.rows if len(row) == 8}
    for fix in found["fixes"]:
        row = rows[fix["label"]]
        assert row[2] == f"{fix['converged']} of {fix['runs']}"
        assert row[3] == f"{100 * fix['interval'][0]:.0f} % to {100 * fix['interval'][1]:.0f} %"
        assert row[4].startswith(f"{fix['metric_mean']:.4g} ± ")
        assert row[5:] == [
            str(fix["steps_to_goal"]),
            str(fix["invasiveness"]),
            "yes" if fix["minimal"] else "not shown",
        ]
        assert fix["fix_file"] in walk.text
        for part in fix["ablation"]:
            assert f"{part['without']} , same seeds: {part['converged']} of {part['runs']} converged" in walk.text
        for receipt in fix["receipts"]:
            assert receipt["changed"] in walk.text
    for symptom in found["baseline"]["symptoms"]:
        row = next(row for row in walk.rows if row and row[0] == symptom["symptom"])
        assert symptom["evidence"] in row[1]
        assert row[2:4] == [f"{symptom['runs']} of 3", ", ".join(map(str, symptom["onset_step"]))]
    assert f"{found['cost']['steps_trained']:,} optimizer steps" in walk.text
    assert f"saved {100 * found['cost']['saved_by_early_stop']:.0f} %" in walk.text
    assert "hunter2" not in walk.text


def test_every_run_is_in_the_table_and_in_the_timeline(wide):
    found, folder = wide
    walk = read(wide)
    runs = [folder.load_run(number) for number in folder.numbers()]
    items = [json.loads(line) for line in (folder.scratch / "items.jsonl").read_text().splitlines()]
    rows = [row for row in walk.rows if len(row) == 8][-len(runs) :]
    bars = numbers(plot_data(*wide)["timeline"])
    assert len(rows) == len(bars) == found["runs"]["total"]
    for row, bar, run, item in zip(rows, bars, runs, items, strict=True):
        assert row[:3] == [bar["run"], bar["phase"], bar["seed"]] == [str(run.number), item["phase"], str(item["seed"])]
        assert row[3] == bar["remedies"] == (Combination.of(item["params"]).label if item["params"] else "untouched")
        assert row[4] == bar["outcome"] == str(run.outcome)
        assert int(bar["steps"]) == run.steps
        assert row[7].startswith(f"{run.steps}")
        if run.verdict:
            assert row[5] == bar["symptom"] == run.verdict.symptom.value


def test_the_curves_are_those_of_the_untouched_training_and_of_the_confirming_runs(wide):
    found, folder = wide
    for name in ("metric", "loss"):
        rows = numbers(plot_data(*wide)[name])
        series = {
            name: {int(row["run"]) for row in rows if row["series"] == name} for name in {row["series"] for row in rows}
        }
        best = found["fixes"][0]
        assert set(series) == {"untouched training", f"with {best['label']}"}
        assert len(series["untouched training"]) == 8
        assert {int(row["seed"]) for row in rows if row["series"].startswith("with")} == set(best["seeds"])
        run = folder.load_run(min(series["untouched training"]))
        mine = [row for row in rows if int(row["run"]) == run.number]
        assert [(int(row["step"]), float(row[name])) for row in mine if row[name]] == list(run.curves[name])
        assert [(int(row["step"]), row["verdict"]) for row in mine if row["verdict"]] == [
            (run.verdict.step, "class_takeover")
        ]


def test_effects_are_the_reports_and_only_measured_ones_have_an_interval(wide):
    found, folder = wide
    found = json.loads(json.dumps(found))
    found["remedies"][1].update(effect=None, interval=None)
    rows = numbers(plot_data(found, folder)["effects"])
    assert [row["remedy"] for row in rows] == [row["remedy"] for row in found["remedies"] if row["alone"]]
    for row, told in zip(rows, found["remedies"], strict=False):
        assert (int(row["converged"]), int(row["runs"])) == (told["alone"]["converged"], told["alone"]["runs"])
        assert row["effect"] == ("" if told["effect"] is None else str(told["effect"]))
    measured = sum(row["effect"] != "" for row in rows)
    assert report_html(found, folder).count('class="reach"') == measured == len(rows) - 1
    assert "the optimizer does not decay the weights" in read((found, folder)).text


def test_every_figure_has_a_text_alternative_and_its_numbers(wide):
    walk = read(wide)
    assert walk.tags.count("svg") == walk.tags.count("desc") == walk.tags.count("figure") == 4
    assert [value for name, value in walk.attributes if name == "download"] == [
        "wide-metric.csv", "wide-loss.csv", "wide-effects.csv", "wide-timeline.csv",
    ]  # fmt: skip


EVIL = "</style></title><script>alert(1)</script>\"' onload=x <img src=http://evil/> \x00\x1b\u202e\ud800"


def poisoned(value):
    if isinstance(value, dict):
        return {key: poisoned(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [poisoned(inner) for inner in value]
    return value + EVIL if isinstance(value, str) else value


def test_no_text_becomes_markup(wide, tmp_path):
    def evil(number, names, seed, search):
        verdict = Verdict(Symptom.NON_FINITE, 5, 5, EVIL)
        return RunResult(
            number, Outcome.FAILED, EVIL, steps=5, verdict=verdict, trace=EVIL, curves={"loss": ((5, 1.0),)}
        )

    found, folder = conducted(tmp_path, evil)
    for told, where in ((found, folder), (poisoned(wide[0]), wide[1]), (poisoned(wide[0]), folder)):
        page = report_html(told, where)
        assert "<script" not in page
        assert "<img" not in page
        assert "alert(1)" in read((told, where)).text


def test_causal_words_need_a_contrast_that_was_run(wide, tmp_path):
    found, _ = wide
    assert "restores" in report_html(*wide)
    assert "restores" not in report_html(found, StudyFolder.at(tmp_path / "nothing"))


def test_a_healthy_training(tmp_path):
    found = conducted(tmp_path, lambda number, names, seed, search: train(number, ["scale_down"], seed, search))
    assert found[0]["exit_code"] == 4
    text = read(found).text
    assert "Nothing to repair" in text
    assert "3 of 3 runs of the untouched training converged" in text
    assert "What fixes it" not in text


def test_no_fix(tmp_path):
    found = conducted(tmp_path, lambda number, names, seed, search: train(number, [], seed, search))
    text = read(found).text
    assert "No fix was confirmed" in text
    assert "How to apply it" not in text
    assert {row["series"] for row in numbers(plot_data(*found)["metric"])} == {"untouched training"}


def test_no_runs_and_one_run(tmp_path):
    nothing = conducted(tmp_path, runs=0, study="none")
    assert plot_data(*nothing) == {}
    assert "No run of the untouched training ended" in read(nothing).text
    one = conducted(tmp_path, runs=1, study="one")
    assert "No fix was confirmed" in read(one).text
    assert sorted(plot_data(*one)) == ["loss", "metric", "timeline"]


def test_curves_that_are_not_finite(tmp_path):
    values = (math.nan, math.inf, -math.inf, 1e308, 0.0, -3.0)

    def broken(number, names, seed, search):
        curve = tuple((step, values[(step + seed) % len(values)]) for step in range(1, 9))
        verdict = Verdict(Symptom.NON_FINITE, 3, 2, "nan") if seed % 2 else None
        curves = {"metric": curve[: seed % 3 * 3], "loss": curve if seed != 2 else ((1, math.nan),)}
        outcome = Outcome.COLLAPSED if verdict else Outcome.MISSED
        return RunResult(number, outcome, steps=8, steps_full=8, verdict=verdict, curves=curves)

    found = conducted(tmp_path, broken, runs=12)
    read(found)
    rows = numbers(plot_data(*found)["loss"])
    assert {"nan", "inf", "-inf"} <= {row["loss"] for row in rows}


def test_a_folder_without_items_or_with_a_torn_last_line(wide, tmp_path):
    found, folder = conducted(tmp_path)
    with (folder.scratch / "items.jsonl").open("a") as handle:
        handle.write('{"run": 99, "pha')
    read((found, folder))
    folder.files.remove("items.jsonl")
    read((found, folder))


def test_a_training_that_cannot_be_run(tmp_path):
    reason = "ValueError: shapes (3,4) and (5,) not aligned"
    found = conducted(tmp_path, lambda number, *_: RunResult(number, Outcome.FAILED, reason))
    assert found[0]["exit_code"] == 2
    walk = read(found)
    assert "The training could not be run" in walk.text
    assert f"Failed: {reason}" in walk.text
    assert "What fixes it" not in walk.text
    assert sorted(plot_data(*found)) == ["timeline"]
