"""What is written is true: README's commands exist, its code runs, and every command is in its table."""

import re
import shlex
from pathlib import Path

import pytest

from remedy.cli import main, parser, read

REPOSITORY = Path(__file__).parents[2]
README = (REPOSITORY / "README.md").read_text()
DOCUMENTS = {name: (REPOSITORY / name).read_text() for name in ("README.md", "CONTRIBUTING.md")}
BLOCK = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = [(name, *match) for name, text in DOCUMENTS.items() for match in BLOCK.findall(text)]
TARGETS = set(re.findall(r"^([a-z]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))


def lines(language):
    return [
        (name, re.sub(r"\s+#.*", "", line).strip())
        for name, kind, _, block in BLOCKS
        if kind == language
        for line in block.splitlines()
        if line.strip() and not line.startswith("#")
    ]


def inline():
    """The commands that stand in the running text and in tables."""
    return [
        (name, said.strip("`"))
        for name, text in DOCUMENTS.items()
        for said in re.findall(r"`(?:remedy|make) [^`]+`", BLOCK.sub("", text))
    ]


COMMANDS = sorted({found for found in lines("bash") + inline() if found[1].split()[0] == "remedy"})
MAKES = sorted({found for found in lines("bash") + inline() if found[1].split()[0] == "make"})


@pytest.mark.parametrize(("document", "line"), COMMANDS)
def test_every_command_that_is_written_can_be_typed(document, line):
    read(shlex.split(line)[1:])


@pytest.mark.parametrize(("document", "line"), MAKES)
def test_every_target_that_is_written_is_in_the_makefile(document, line):
    names = [word for word in line.split()[1:] if "=" not in word]
    assert names
    assert set(names) <= TARGETS


def commands():
    (choices,) = [action.choices for action in parser()._actions if action.choices]
    return choices


@pytest.mark.parametrize("command", sorted(commands()))
def test_every_command_is_in_the_readmes_table(command):
    table = "\n".join(line for line in README.splitlines() if line.startswith("| `remedy "))
    assert re.search(rf"`remedy {command}\b", table)


def test_every_option_that_is_written_exists():
    nights = commands()["nightly"]._subparsers._group_actions[0].choices
    known = {option for own in (*commands().values(), *nights.values()) for option in own._option_string_actions}
    done, _, _ = README.partition("## Limits of this version")  # what is to come may be named there
    others = ("pip ", "make ", "python train.py")  # whose options are not ours
    text = "\n".join(line.partition(" -- ")[0] for line in done.splitlines() if not any(o in line for o in others))
    written = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text))
    assert written <= known | {"--help"}


def test_every_exit_code_of_the_contract_is_in_the_readme():
    (said,) = re.findall(r"Exit codes: ([^.]*)\.", README)
    assert set(map(int, re.findall(r"\d+", said))) == {0, 2, 3, 4, 5, 130}


def test_what_readme_names_in_the_repository_is_there():
    for place in re.findall(r"\]\(([^)#]+)\)", README):
        assert place.startswith("https://") or (REPOSITORY / place).exists(), place


@pytest.fixture(scope="module")
def names():
    """The names that README's code defines, block after block."""
    found = {"__name__": "readme"}
    for document, kind, told, block in BLOCKS:
        if document == "README.md" and kind == "python" and "no-run" not in told:
            exec(compile(block, "README.md", "exec"), found)
    return found


def test_the_code_in_readme_runs(names):
    from remedy.spaces.remedy import Remedy
    from remedy.spaces.training import Training

    assert isinstance(names["training"](), Training)
    assert any(isinstance(value, Remedy) for value in names.values())


def test_the_training_in_readme_can_be_checked_and_planned(tmp_path, monkeypatch, capsys):
    own = [block for document, kind, told, block in BLOCKS if kind == "python" and "no-run" not in told]
    (tmp_path / "train.py").write_text("\n\n".join(own))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REMEDY_HOME", str(tmp_path / "home"))
    assert main(["check", "train.py"]) == 0
    said = capsys.readouterr().out
    assert said.count("\n") > 10
    assert "converged: accuracy" not in said, "README's training is there to be repaired"
    assert main(["plan", "train.py"]) == 0
    assert "clip_output_layer" in capsys.readouterr().out, "a remedy of one's own is searched with the others"


def test_the_code_that_is_not_run_is_python(names):
    for document, kind, told, block in BLOCKS:
        if kind == "python" and "no-run" in told:
            compile(block, document, "exec")


@pytest.mark.parametrize("name", ["remedies.md", "symptoms.md"])
def test_the_pages_of_the_catalogue_are_the_catalogue(name):
    from remedy.commands.pages import pages

    assert (REPOSITORY / "docs" / name).read_text(encoding="utf-8") == pages()[name], "`make docs` writes it anew"


def test_the_pages_hold_every_remedy_and_symptom_once():
    from remedy.commands.pages import pages
    from remedy.spaces.catalogue import REMEDIES
    from remedy.spaces.symptom import Symptom

    found = pages()
    for remedy in REMEDIES:
        (row,) = [line for line in found["remedies.md"].splitlines() if line.startswith(f"| `{remedy.name}` ")]
        assert remedy.summary in row
        assert remedy.source in row
        assert row.replace("\\|", "").count("|") == 8
    assert set(re.findall(r"^## (\w+)$", found["symptoms.md"], re.MULTILINE)) == {s.value for s in Symptom}


def test_the_pages_link_to_what_is_there():
    from remedy.commands.pages import pages

    for text in pages().values():
        for place in re.findall(r"\]\(([^)]+)\)", text):
            if place.startswith(("https://", "../")):
                assert place.startswith("https://") or (REPOSITORY / "docs" / place).exists(), place
                continue
            name, _, heading = place.partition("#")
            there = pages()[name or "remedies.md"]
            assert not heading or f"\n## {heading}\n" in there, place


def test_the_pages_are_written_where_they_are_asked_for(tmp_path):
    from remedy.commands.pages import main, pages

    assert main([str(tmp_path / "docs")]) == 0
    assert {path.name: path.read_text() for path in (tmp_path / "docs").iterdir()} == pages()
