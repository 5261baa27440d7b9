"""What a TARGET names, and what its file may do when it is imported."""

import dataclasses
import json
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from remedy.spaces.error import InputError, UserCodeError
from remedy.spaces.process import reset_process
from remedy.spaces.target import Source, find, load

WHOLE = """
    import torch, remedy
    from torch import nn
    from torch.utils.data import TensorDataset
    {before}
    sets = TensorDataset(torch.randn(8, 2), torch.randint(0, 2, (8,)))
    def training():
        return remedy.Training(model=lambda: nn.Linear(2, 2), data=lambda: (sets, sets), loss=nn.CrossEntropyLoss(),
            optimizer=lambda p: torch.optim.SGD(p, lr=0.1), batch_size=4, steps=2, goal=0.9)
"""


def write(path: Path, before: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(WHOLE).format(before=before))
    return path


@pytest.fixture(autouse=True)
def _as_it_was():
    path = list(sys.path)
    yield
    sys.path[:] = path
    reset_process()


def test_what_a_file_sets_when_it_is_imported_holds_for_every_run_and_for_no_other_training(tmp_path):
    double = find(str(write(tmp_path / "double.py", "torch.set_default_dtype(torch.float64)")))
    other = find(str(write(tmp_path / "other.py")))
    seen = []
    for source in (double, other, double, other):
        reset_process()
        load(source)
        seen.append(torch.get_default_dtype())
    assert seen == [torch.float64, torch.float32, torch.float64, torch.float32]


def test_a_module_is_found_without_importing_the_packages_above_it(tmp_path, monkeypatch):
    write(tmp_path / "package_of_mine" / "train.py")
    (tmp_path / "package_of_mine" / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.chdir(tmp_path)
    source = find("package_of_mine.train:training")
    assert source.module == "package_of_mine.train"
    assert Path(source.path) == tmp_path / "package_of_mine" / "train.py"
    with pytest.raises(UserCodeError, match="RuntimeError: imported"):
        load(source)


@pytest.mark.parametrize(
    "target", ["nowhere.py", "no.such.module", "train.py:nothing", ".", "", ":training", "train.py:"]
)
def test_what_cannot_be_found_is_said_in_one_sentence(tmp_path, monkeypatch, target):
    write(tmp_path / "train.py")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as told:
        find(target)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x = 1", "neither defines training"),
        ("import remedy\nremedy.prepare()\ndef training(): ...", "name the function"),
        ("def training(: pass", "does not parse"),
    ],
)
def test_a_target_without_a_function_is_read_and_not_run(tmp_path, text, says):
    path = tmp_path / "some.py"
    path.write_text(f"import sys; sys.exit('run')\n{text}" if "parse" not in says else text)
    with pytest.raises(InputError, match=says):
        find(str(path))


@pytest.mark.parametrize(
    "text",
    [
        "import remedy\nremedy.prepare()",
        "import remedy as doctor\nmodel = doctor.prepare(3)",
        "from remedy import prepare\nif __name__ == '__main__':\n    prepare()",
        "from remedy import prepare as made_ready\nmade_ready()",
    ],
)
def test_a_script_is_known_by_its_call(tmp_path, text):
    path = tmp_path / "some.py"
    path.write_text(f"import sys; sys.exit('run')\n{text}")
    source = find(str(path), ["--lr", "0.1"])
    assert source.script is not None
    assert source.script.args == ("--lr", "0.1")
    assert source.name == f"{path} -- --lr 0.1"
    assert find(str(path)).name == str(path)
    assert Source.from_json(json.loads(json.dumps(dataclasses.asdict(source)))) == source
    assert load(source).training is None


@pytest.mark.parametrize("text", ["prepare()", "import numpy\nnumpy.prepare()", "from other import prepare\nprepare()"])
def test_what_calls_another_prepare_is_no_script(tmp_path, text):
    path = tmp_path / "some.py"
    path.write_text(text)
    with pytest.raises(InputError, match="neither defines training"):
        find(str(path))


def test_a_file_that_changed_is_refused(tmp_path):
    path = write(tmp_path / "train.py")
    source = find(str(path))
    path.write_text(path.read_text() + "\n# changed\n")
    with pytest.raises(InputError, match="has changed"):
        load(source)
