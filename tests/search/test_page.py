"""The page of a report, from real folders with real results."""

import csv
import io
import json
import math
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import pytest

from remedy.search.drawing import drawings
from remedy.search.findings import Findings
from remedy.search.home import StudyFolder
from remedy.search.page import report_html
from remedy.search.plots.svg import alone
from remedy.search.tables import tables
from remedy.spaces.combination import Combination
from remedy.spaces.outcome import Outcome
from remedy.spaces.symptom import Symptom
from remedy.spaces.verdict import Verdict
from remedy.workers.result import RunResult
from tests.search.wide import conducted, train


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    return conducted(tmp_path_factory.mktemp("studies"))


def page_of(found, folder):
    return report_html(Findings.of(found, folder))


def plot_data(found, folder):
    return tables(Findings.of(found, folder))


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
    page = page_of(*found)
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
        for receipt in fix["receipts"]:
            assert receipt["changed"] in walk.text
    marks = [row for row in walk.rows if len(row) == 6 and row[0].startswith("fix ")]
    assert [(row[1], row[2]) for row in marks] == [
        (f["label"], f"{f['converged']} of {f['runs']}") for f in found["fixes"]
    ]
    assert all(
        row[3].count("\N{BLACK CIRCLE}") == fix["converged"] for row, fix in zip(marks, found["fixes"], strict=True)
    )
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
        assert set(series) == {"untouched training", *(f"with {fix['label']}" for fix in found["fixes"])}
        assert len(series["untouched training"]) == 8
        assert {int(row["seed"]) for row in rows if row["series"] == f"with {best['label']}"} == set(best["seeds"])
        run = folder.load_run(min(series["untouched training"]))
        mine = [row for row in rows if int(row["run"]) == run.number]
        assert [(int(row["step"]), float(row[name])) for row in mine if row[name]] == list(run.curves[name])
        assert [(int(row["step"]), row["verdict"]) for row in mine if row["verdict"]] == [
            (run.verdict.step, "class_takeover")
        ]


def test_effects_are_the_contrasts_that_were_run(wide):
    found, _ = wide
    rows = {(row["remedy"], row["contrast"]): row for row in numbers(plot_data(*wide)["effects"])}
    contrasts = [(row["remedy"], told) for row in found["remedies"] for told in row["contrasts"]]
    assert len(rows) == sum(told["kind"] == "alone" for _, told in contrasts), "all of these fixes are of one remedy"
    for (name, group), row in rows.items():
        told = next(told for known, told in contrasts if known == name and told["kind"] == "alone")
        assert told["fresh"] == ("fresh seeds" in group)
        assert (int(row["converged_with"]), int(row["runs_with"])) == tuple(told["with"].values())
        assert (int(row["converged_without"]), int(row["runs_without"])) == tuple(told["without"].values())
        assert (row["low"] != "") == (told["interval"] is not None) == (len(told["seeds"]) >= 4)
    assert page_of(*wide).count('class="reach" x1') == sum(row["low"] != "" for row in rows.values())
    assert "the optimizer does not decay the weights" in read(wide).text


def test_every_figure_has_a_text_alternative_and_its_numbers(wide):
    walk = read(wide)
    drawn = ["recipes", "metric", "loss", "effects", "combinations", "timeline"]
    assert walk.tags.count("svg") == walk.tags.count("desc") == len(drawn)
    assert [value for name, value in walk.attributes if name == "download"] == [
        f"wide-{name}.csv" for name in ("ablation", *drawn)
    ]
    assert list(drawings(Findings.of(*wide))) == ["metric", "loss", "recipes", "effects", "combinations", "timeline"]
    assert set(drawings(Findings.of(*wide))) < set(plot_data(*wide))


@pytest.mark.parametrize("name", ["metric", "loss", "recipes", "effects", "combinations", "timeline"])
def test_a_figure_is_a_file_of_its_own(wide, name):
    text = alone(drawings(Findings.of(*wide))[name].svg)
    root = ET.fromstring(text)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    left, top, width, _ = map(float, root.get("viewBox").split())
    assert (left, top) == (-16, -16)
    places = [float(e.get(a)) for e in root.iter() for a in ("x", "x1", "x2", "cx") if e.get(a) and e.get(a) != "100%"]
    assert all(left <= place <= left + width for place in places)
    assert "prefers-color-scheme" not in text, "MLflow shows it on white"
    assert text.count("http") == 1, "nothing but the name of the format"


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
        page = page_of(told, where)
        assert "<script" not in page
        assert "<img" not in page
        assert "alert(1)" in read((told, where)).text


def test_causal_words_need_a_contrast_that_was_run(wide, tmp_path):
    found, _ = wide
    assert "restores" in page_of(*wide)
    assert "restores" not in page_of(found, StudyFolder.at(tmp_path / "nothing"))


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
    assert "No run of the baseline ended" in read(nothing).text
    one = conducted(tmp_path, runs=1, study="one")
    assert "No fix was confirmed" in read(one).text
    assert sorted(plot_data(*one)) == ["timeline"]
    some = conducted(tmp_path, runs=5, study="some")
    assert set(plot_data(*some)) > {"loss", "metric", "timeline"}


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
