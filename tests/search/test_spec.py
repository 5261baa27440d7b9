"""What a study is asked, and where it lies."""

import itertools
import json
import math
from pathlib import Path
from typing import Any

import pytest

from remedy.search.home import Home, StudyFolder
from remedy.search.spec import SEED_LIMIT, Spec
from remedy.spaces.error import InputError
from tests.search.scripted import bench, needs, spec


def test_seeds_of_every_kind_and_study_are_different() -> None:
    asked = [spec(seed=seed, seeds=100) for seed in (0, 1, 2, SEED_LIMIT - 1)]
    kinds = [(*s.baseline_seeds, *s.search_seeds, *s.confirm_list(20)) for s in asked]
    seeds = list(itertools.chain(*kinds))
    assert len(set(seeds)) == len(seeds)
    assert 0 <= min(seeds) <= max(seeds) < 2**31
    assert spec().confirm_list(10)[:5] == spec().confirm_list(5)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"seeds": 2}, "--seeds is 2; it may be 3 to 100"),
        ({"seeds": 101}, "--seeds is 101; it may be 3 to 100"),
        ({"confirm_seeds": 4}, "--confirm-seeds is 4; it may be 5 to 20"),
        ({"confirm_seeds": 21}, "--confirm-seeds is 21; it may be 5 to 20"),
        ({"fixes": 0}, "--fixes is 0; it may be at least 1"),
        ({"runs": 0}, "--runs is 0; it may be at least 1"),
        ({"budget": 0.0}, "--budget is 0; it may be a number above 0"),
        ({"budget": math.inf}, "--budget is inf; it may be a number above 0"),
        ({"timeout": math.nan}, "--timeout is nan; it may be a number above 0"),
        ({"run_timeout": -1.0}, "--run-timeout is -1; it may be a number above 0"),
        ({"seed": -1}, "--seed is -1; it may be 0 to 1999999"),
        ({"seed": SEED_LIMIT}, "--seed is 2000000; it may be 0 to 1999999"),
    ],
)
def test_numbers_that_cannot_be_are_refused_by_the_name_of_the_option(asked: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError) as refused:
        spec(**asked)
    assert str(refused.value) == told


def test_what_was_asked_can_be_saved_and_read() -> None:
    asked = spec(
        runs=7,
        budget=2.5,
        only=("clip",),
        suggested=("clip", "fused"),
        preflight=({"check": "a", "suggests": ["clip"]},),
    )
    assert Spec.from_json(json.loads(json.dumps(asked.to_json()))) == asked


def test_a_file_is_whole_or_absent_and_has_only_finite_numbers(tmp_path: Path) -> None:
    folder = StudyFolder.at(tmp_path / "folder")
    with pytest.raises(ValueError, match="not JSON compliant"):
        folder.save_report({"a": math.nan})
    assert folder.report() is None
    folder.save_report({"a": 1.5})
    assert folder.report() == {"a": 1.5}
    assert [file.name for file in (tmp_path / "folder").iterdir()] == ["report.json"]


@pytest.mark.parametrize("name", ["", "../up", ".hidden", "a/b", "a b", "x" * 101])
def test_a_name_that_cannot_be_a_folder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="may hold letters, digits, dots, dashes and underscores"):
        Home(tmp_path).study(name)


def test_a_study_that_does_not_exist_is_named_with_those_that_do(tmp_path: Path) -> None:
    home = Home(tmp_path)
    with pytest.raises(InputError, match=r"no study 'other' in .*; the latest are: there is none yet"):
        home.existing("other")
    home.study("one").save_spec(spec(study="one").to_json())
    assert home.names() == ["one"]
    assert home.existing("one") == StudyFolder.at(tmp_path / "studies" / "one")
    with pytest.raises(InputError, match="the latest are: one"):
        home.existing("other")


def test_the_home_is_asked_for_or_in_the_environment_or_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("REMEDY_HOME", raising=False)
    assert Home.of(None).path == tmp_path / ".remedy"
    monkeypatch.setenv("REMEDY_HOME", str(tmp_path / "there"))
    assert Home.of(None).path == tmp_path / "there"
    assert Home.of(str(tmp_path / "asked")).path == tmp_path / "asked"


def test_results_come_back_from_the_folder_as_they_were(tmp_path: Path) -> None:
    told = bench(tmp_path, needs("clip"), runs=12).run()
    for entry in told.agenda.ledger.entries:
        assert StudyFolder.at(tmp_path).load_run(entry.result.number) == entry.result
