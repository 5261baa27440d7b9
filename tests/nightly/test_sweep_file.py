"""The sweep file: what it may say, and how it is refused."""

from pathlib import Path

import pytest
import yaml

from remedy.cli import main
from remedy.search.nightly.sweep import read_sweep
from remedy.spaces.error import InputError

REPOSITORY = Path(__file__).parents[2]
RIGHT = {"sweep": "team", "trainings": [{"target": "a.py"}]}
WRONG = [
    ({"trainings": [{"target": "a.py"}]}, ["no key sweep", "digits"]),
    ({"sweep": "team"}, ["no key trainings"]),
    ({**RIGHT, "sweep": "a team"}, ["sweep is 'a team'", "dashes"]),
    ({**RIGHT, "trainings": []}, ["trainings is []", "a list"]),
    ({**RIGHT, "budget": 0}, ["budget is 0", "above 0"]),
    ({**RIGHT, "budget": True}, ["budget is True", "above 0"]),
    ({**RIGHT, "budget": float("inf")}, ["budget is inf", "above 0"]),
    ({**RIGHT, "seeds": 2}, ["seeds is 2", "3 to 100"]),
    ({**RIGHT, "workers": -1}, ["workers is -1", "0 or more"]),
    ({**RIGHT, "isolate": 1}, ["isolate is 1", "true or false"]),
    ({**RIGHT, "bugdet": 9}, ["'bugdet' is unknown", "budget"]),
    ({**RIGHT, "trainings": ["a.py"]}, ["training 1 is 'a.py'", "target:"]),
    ({**RIGHT, "trainings": [{"name": "x"}]}, ["training 1 has no key target", "file.py:function"]),
    ({**RIGHT, "trainings": [{"target": "a.py", "weight": 0}]}, ["training 1: weight is 0", "above 0"]),
    ({**RIGHT, "trainings": [{"target": "a.py", "only": "tanh"}]}, ["only is 'tanh'", "a list"]),
    ({**RIGHT, "trainings": [{"target": "a.py", "remedies": "own.py"}]}, ["remedies is 'own.py'", "files and modules"]),
    ({**RIGHT, "trainings": [{"target": "a.py"}, {"target": "b/a.py"}]}, ["two trainings are called 'a'", "name:"]),
    ([1], ["holds list", "sweep, trainings"]),
]


def write(folder, content):
    path = folder / "sweep.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return path


@pytest.mark.parametrize(("content", "said"), WRONG, ids=lambda value: str(value)[:40])
def test_bad_input_is_one_sentence_that_names_key_value_and_what_it_may_be(content, said, tmp_path, capsys):
    path = write(tmp_path, content)
    for command in (["run"], ["report"], ["schedule", "--at=02:00"]):
        assert main(["nightly", command[0], str(path), *command[1:]]) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1
        assert "sweep.yaml" in err
        for part in said:
            assert part in err


@pytest.mark.parametrize("content", ["a: [", "a: !!python/object/apply:os.system ['true']", "\x00"])
def test_what_is_no_safe_yaml_is_refused(content, tmp_path):
    with pytest.raises(InputError, match="is no YAML"):
        read_sweep(write(tmp_path, content))


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be read: No such file"):
        read_sweep(tmp_path / "none.yaml")


def test_targets_are_named_from_the_file_and_trainings_get_names(tmp_path):
    (tmp_path / "deep").mkdir()
    content = {**RIGHT, "trainings": [{"target": "../a.py"}, {"target": "b.py:small"}, {"target": "pkg.mod:training"}]}
    content["trainings"].append({"target": "/abs/c.py:training", "name": "sea", "goal": 0.9, "seed": 7, "weight": 2})
    sweep = read_sweep(write(tmp_path / "deep", content))
    assert [entry.name for entry in sweep.trainings] == ["a", "b-small", "mod", "sea"]
    assert sweep.trainings[0].target == f"{tmp_path}/a.py"
    assert sweep.trainings[1].target == f"{tmp_path}/deep/b.py:small"
    assert sweep.trainings[2].target == "pkg.mod:training"
    assert sweep.trainings[0].remedies == ()
    assert (sweep.trainings[3].goal, sweep.trainings[3].seed, sweep.trainings[3].weight) == ("0.9", 7, 2)


def test_files_of_remedies_are_named_from_the_file(tmp_path):
    entry = {"target": "a.py", "remedies": ["../own.py", "our_team.cures", "/abs/more.py"]}
    (tmp_path / "deep").mkdir()
    sweep = read_sweep(write(tmp_path / "deep", {**RIGHT, "trainings": [entry]}))
    assert sweep.trainings[0].remedies == (f"{tmp_path}/own.py", "our_team.cures", "/abs/more.py")


def test_the_sweep_that_is_deployed_can_be_read():
    sweep = read_sweep(REPOSITORY / "deploy" / "sweep.yaml")
    assert [entry.name for entry in sweep.trainings] == ["wide_softmax", "healthy"]
    assert sweep.budget == 60


def test_wrong_nights_and_unknown_sweeps_are_refused(tmp_path, capsys):
    path = write(tmp_path, RIGHT)
    for night in ("yesterday", "2026-02-30", "20261121", "2026-W47-6"):
        assert main(["nightly", "run", str(path), "--night", night, "--home", str(tmp_path)]) == 2
        assert f"--night is {night!r}; it may be a date" in capsys.readouterr().err
    assert main(["nightly", "report", "nobody", "--home", str(tmp_path)]) == 2
    assert "no sweep 'nobody' was ever run" in capsys.readouterr().err
    assert main(["nightly", "report", "../up", "--home", str(tmp_path)]) == 2
    assert "sweep name '../up'" in capsys.readouterr().err
