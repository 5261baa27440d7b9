"""What is read from files is data: it runs no code, leads nowhere else, and does not fill the memory."""

from __future__ import annotations

import ast
import base64
import io
import json
import pickle
import shutil
import socket
import stat
import subprocess
import tempfile
import zipfile
from pathlib import Path

import pytest
import torch

from remedy.cli import main
from remedy.search.home import StudyFolder, scratch
from remedy.search.parcel import LARGEST, pack, unpack
from remedy.spaces.error import InfrastructureError
from remedy.workers.checkpoint import Checkpoint
from tests.conftest import REPOSITORY, CommandLine
from tests.security.looking import Trap

BOMB = "\n".join(
    ["a0: &a0 [x, x, x, x, x, x, x, x, x]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
)
MERGED = "\n".join(
    ["m0: &m0 {k: v}"] + [f"m{n}: &m{n} {{<<: [{', '.join([f'*m{n - 1}'] * 9)}]}}" for n in range(1, 12)]
)
EVIL = {
    "a tag that calls": "{key}: !!python/object/apply:os.mkdir [{trap}]",
    "a tag that makes": "{key}: !!python/object/new:pathlib.Path [x]",
    "a tag that imports": "{key}: !!python/name:os.system",
    "a tag of nobody": "{key}: !run [x]",
    "a bomb of lists": BOMB + "\n{key}: *a11",
    "a bomb of merged keys": MERGED + "\n{key}: *m11",
    "a list in itself": "{key}: &a [*a]",
    "a depth": "{key}: " + "[" * 3_000,
    "a number without end": "{key}: " + "9" * 10_000,
    "a day that is none": "{key}: 2026-13-45",
    "control characters": "{key}: \x00\x07",
}


@pytest.fixture(scope="module")
def study(shared_remedy: CommandLine) -> CommandLine:
    """A home with one study, `s`, of a few runs."""
    path = shared_remedy.write("train")
    shared_remedy("submit", path, "--workers", "0", "--runs", "4", "--name", "s", code=None)
    assert len(shared_remedy.runs("s")) == 4
    return shared_remedy


def said(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, str]:
    """Run a command in this process; return its exit code, and what it said on standard error."""
    code = main([str(arg) for arg in args])
    return code, capsys.readouterr().err


# ---------------------------------------------------------------- YAML


@pytest.mark.timeout(60)  # a bomb would take hours
@pytest.mark.parametrize("what", EVIL)
def test_a_study_file_that_is_more_than_data_is_refused_in_a_sentence(remedy, capsys, what):
    trap = remedy.place / "trap"
    path = remedy.place / "study.yaml"
    for key in ("target", "name", "runs", "only", "unheard-of"):
        path.write_text(("" if key == "target" else "target: train.py\n") + EVIL[what].replace("{key}", key)
                        .replace("{trap}", str(trap)))  # fmt: skip
        code, error = said(capsys, "plan", path, "--home", remedy.home)
        assert (code, error.count("\n")) == (2, 1), error
        assert error.startswith(f"remedy: study file '{path}'")
        assert len(error) < 1000
    assert not trap.exists()


@pytest.mark.timeout(60)
@pytest.mark.parametrize("what", EVIL)
def test_a_fix_file_that_is_more_than_data_is_refused_in_a_sentence(remedy, capsys, what):
    trap = remedy.place / "trap"
    train = remedy.write("train")
    path = remedy.place / "fix.yaml"
    for start, key in (("remedies: {}", "schema"), ("schema: 1", "remedies"), ("schema: 1\nremedies:", "  x")):
        evil = EVIL[what] if key.strip() == key or "\n" not in EVIL[what] else "{key}: " + f"!!python/name:x {what}"
        path.write_text(f"{start}\n{evil.replace('{key}', key).replace('{trap}', str(trap))}\n")
        code, error = said(capsys, "run", train, "--fix", path, "--home", remedy.home)
        assert (code, error.count("\n")) == (2, 1), error
        assert len(error) < 1000
    assert not trap.exists()


@pytest.mark.timeout(60)
@pytest.mark.parametrize("what", EVIL)
def test_a_sweep_file_that_is_more_than_data_is_refused_in_a_sentence(remedy, capsys, what):
    trap = remedy.place / "trap"
    path = remedy.place / "sweep.yaml"
    for key in ("sweep", "budget", "unheard-of"):
        evil = EVIL[what].replace("{key}", key).replace("{trap}", str(trap))
        path.write_text(f"trainings: [{{target: train.py}}]\n{evil}\n")
        code, error = said(capsys, "nightly", "run", path, "--home", remedy.home)
        assert (code, error.count("\n")) == (2, 1), error
        assert error.startswith(f"remedy: sweep file '{path}'")
        assert len(error) < 1000
    assert not trap.exists()


def test_unknown_keys_and_values_of_another_kind_are_named(remedy, capsys):
    path = remedy.place / "study.yaml"
    for line, named in {
        "rnus: 5": "key 'rnus' is unknown; it may be target, goal",
        "__class__: x": "key '__class__' is unknown",
        "runs: many": "runs is 'many'; it may be a whole number",
        "runs: true": "runs is True",
        "only: scale_down": "only is 'scale_down'; it may be a list of names",
        "only: [[scale_down]]": "only is",
        "without: [{a: b}]": "without is",
        "name: [a]": "name is",
    }.items():
        path.write_text(f"target: train.py\n{line}\n")
        code, error = said(capsys, "plan", path, "--home", remedy.home)
        assert (code, named in error) == (2, True), error


def test_the_evidence_of_a_fix_may_name_the_same_list_twice():
    from remedy.spaces.fix import fix_text

    seeds = [1, 2, 3]
    text = fix_text({}, {"seeds": seeds, "ablation": [{"seeds": seeds}]})
    assert "*" not in text.partition("\n")[2]
    assert "&" not in text


# ---------------------------------------------------------------- pickles


def test_the_code_loads_no_pickles_and_evaluates_no_text():
    forbidden = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    unsafe = {f"yaml.{name}" for name in ("unsafe_load", "full_load", "safe_load", "load_all", "safe_load_all")}
    for path in [
        path for floor in ("api", "search", "workers", "spaces") for path in (REPOSITORY / floor).rglob("*.py")
    ]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                modules = {alias.name.split(".")[0] for alias in node.names} | {str(getattr(node, "module", ""))}
                assert not modules & forbidden, f"{path}:{node.lineno}"
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            options = {option.arg: ast.unparse(option.value) for option in node.keywords}
            if called == "torch.load":
                assert options.get("weights_only") == "True", f"{path}:{node.lineno}"
            assert called not in ("eval", "exec"), f"{path}:{node.lineno}"
            if called == "yaml.load":
                assert ast.unparse(node.args[1]) == "_Reader", f"{path}:{node.lineno}"
            assert called not in unsafe, f"{path}:{node.lineno}: {called}"
            assert options.get("allow_pickle", "False") == "False", f"{path}:{node.lineno}"
            assert options.get("shell", "False") == "False", f"{path}:{node.lineno}"


def test_a_checkpoint_that_holds_objects_is_not_loaded_and_the_run_begins_anew(tmp_path):
    trap, path = tmp_path / "trap", tmp_path / "state.pt"
    kept = {"step": 1, "epoch": 0, "place": 1, "metric": 0.5, "every": 0, "seen": []}
    for content in ("pickle", "torch", "old torch", "missing", "another kind"):
        if content == "pickle":
            path.write_bytes(pickle.dumps(Trap(trap)))
        elif content in ("torch", "old torch"):
            state = {**kept, "model": Trap(trap)}
            torch.save(state, path, _use_new_zipfile_serialization=content == "torch")
        elif content == "missing":
            torch.save({"step": 1}, path)
        else:
            torch.save([1, 2], path)
        assert Checkpoint.open(path).step == 0, content
        assert not trap.exists()
    torch.save({**kept, "model": {}}, path)
    assert Checkpoint.open(path).step == 1
    with path.open("wb") as handle:
        pickle.dump(Trap(trap), handle)
    pickle.loads(path.read_bytes())
    assert trap.exists(), "the trap is one"


def test_nothing_in_a_home_is_unpickled_whatever_command_reads_it(study, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # what is told of a damaged home is of no interest
    trap = tmp_path / "trap"
    bait = pickle.dumps(Trap(trap), protocol=0)
    commands = [("list",), ("show", "s"), ("show", "s", "--run", "0"), ("logs", "s"), ("report", "s"),
                ("report", "s", "--format", "html"), ("export", "s", "--out", str(tmp_path / "fix.yaml")),
                ("resume", "s", "--workers", "0", "--runs", "5"), ("plan", "study.yaml")]  # fmt: skip
    for spared in (None, "study.json"):
        home = tmp_path / f"home-{spared}"
        shutil.copytree(study.home, home)
        for path in [path for path in home.rglob("*") if path.is_file() and path.name != spared]:
            path.write_bytes(bait)
        for name in ("fix-1.yaml", "unrecorded.jsonl", "state.json", "job.json", "progress.json"):
            (home / "studies" / "s" / name).write_bytes(bait)
        place = CommandLine(study.place, home)
        (study.place / "study.yaml").write_bytes(bait)
        for command in commands:
            if command[0] in ("resume", "plan"):
                place(*command, code=None, TMPDIR=str(tmp_path))
            else:
                said(capsys, *command, "--home", home)
            assert not trap.exists(), command
    pickle.loads(bait)
    assert trap.exists(), "the trap is one"


# ---------------------------------------------------------------- parcels


def parcel(files: dict[str, bytes], mode: int = 0o644) -> str:
    """A parcel as nobody packs it."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name)
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, mode << 16
            archive.writestr(entry, content)
    return base64.b64encode(packed.getvalue()).decode()


def test_a_parcel_of_code_leads_nowhere_else(tmp_path):
    inside, outside = tmp_path / "in" / "side", tmp_path / "outside"
    inside.mkdir(parents=True)
    outside.mkdir()
    unpack(parcel({"../../outside/a": b"x", str(outside / "b"): b"x", "c/../../../outside/d": b"x"}), inside)
    unpack(parcel({"link": str(outside).encode()}, stat.S_IFLNK | 0o777), inside)
    unpack(parcel({"link2/e": b"x"}), inside)
    assert list(outside.iterdir()) == []
    assert [path for path in tmp_path.rglob("*") if path.is_symlink()] == []
    assert {path.relative_to(tmp_path).parts[:2] for path in tmp_path.rglob("*") if path.is_file()} == {("in", "side")}


def test_a_parcel_that_grows_or_is_damaged_is_refused(tmp_path):
    bomb = parcel({f"{place}": bytes(LARGEST // 8) for place in range(9)})
    assert len(bomb) < LARGEST / 500
    said_small = bytearray(base64.b64decode(parcel({"a": bytes(100_000)})))
    for sign, place in ((b"PK\1\2", 24), (b"PK\3\4", 22)):  # the size that it says to have
        at = said_small.index(sign) + place
        said_small[at : at + 4] = (10).to_bytes(4, "little")
    torn = base64.b64encode(base64.b64decode(parcel({"a": b"x" * 1000}))[:-30]).decode()
    for text in (bomb, base64.b64encode(said_small).decode(), torn, "no zip", "", "\0" * 8):
        with pytest.raises(InfrastructureError, match="parcel of code"):
            unpack(text, tmp_path)
    assert sum(path.stat().st_size for path in tmp_path.rglob("*")) <= 10


def test_keys_and_passwords_of_a_folder_are_not_sent(tmp_path):
    kept = {"train.py", "data/x.csv"}
    for name in (*kept, ".env", ".env.local", ".netrc", ".git-credentials", "id_rsa", "id_ed25519.pub", "a/server.key",
                 "server.pem", ".ssh/config", ".aws/credentials", ".remedy/studies/s/study.json"):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    with zipfile.ZipFile(io.BytesIO(base64.b64decode(pack(tmp_path)))) as archive:
        assert set(archive.namelist()) == kept


# ---------------------------------------------------------------- names


@pytest.mark.parametrize(
    "name", ["..", ".", "../s", "a/b", "/etc", "a\\b/../..", "", "s\n", "-rf", ".hidden", "a" * 101, "\uff53", "s/../s"]
)
def test_a_study_cannot_leave_its_home_by_its_name(study, capsys, name, tmp_path):
    before = sorted(study.place.parent.rglob("*"))
    for command in ("show", "logs", "report", "export", "resume", "stop", "delete"):
        if name == "-rf":  # an option, and none that there is
            with pytest.raises(SystemExit, match="2"):
                main([command, name, "--home", str(study.home)])
            capsys.readouterr()
            continue
        code, error = said(capsys, command, name, "--home", study.home)
        assert (code, error.count("\n")) == (2, 1), error
        assert "may hold letters, digits" in error
    code, error = said(capsys, "submit", study.place / "train.py", f"--name={name}", "--home", study.home)
    assert (code, "may hold letters, digits" in error) == (2, True), error
    path = tmp_path / "study.yaml"
    path.write_text(json.dumps({"target": str(study.place / "train.py"), "name": name}))
    code, error = said(capsys, "submit", path, "--home", study.home)
    assert (code, "may hold letters, digits" in error) == (2, True), error
    assert sorted(study.place.parent.rglob("*")) == before


def test_a_name_with_a_nul_is_refused(study, capsys):
    code, error = said(capsys, "show", "s\0", "--home", study.home)
    assert (code, "may hold letters, digits" in error) == (2, True), error


def test_deleting_a_study_follows_no_link(study, capsys, tmp_path):
    keep = tmp_path / "keep"
    keep.mkdir()
    (keep / "thesis").write_text("all my work")
    home = tmp_path / "home"
    shutil.copytree(study.home, home)
    shutil.rmtree(home / "studies" / "s" / "runs")
    (home / "studies" / "s" / "runs").symlink_to(keep)
    said(capsys, "delete", "s", "--home", home)
    assert (keep / "thesis").read_text() == "all my work"
    assert Path(keep).is_dir()


def test_a_study_that_names_another_process_does_not_have_it_ended(study, capsys, tmp_path):
    shutil.copytree(study.home / "studies" / "s", tmp_path / "studies" / "s")
    folder = StudyFolder.at(tmp_path / "studies" / "s")
    with subprocess.Popen(["sleep", "300"]) as victim:
        try:
            folder.save_state({"state": "running", "host": socket.gethostname(), "pid": victim.pid})
            with folder.lease():
                code, error = said(capsys, "stop", "s", "--now", "--home", tmp_path)
            assert (code, "another one works on it" in error) == (2, True), error
            assert victim.poll() is None
        finally:
            victim.kill()


def test_what_is_kept_in_the_machines_common_folder_is_ours_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = scratch("s")
    folder.mkdir(parents=True, exist_ok=True)
    (ours,) = tmp_path.iterdir()
    assert stat.S_IMODE(ours.stat().st_mode) & 0o077 == 0
    shutil.rmtree(ours)
    (tmp_path / "elsewhere").mkdir()
    ours.symlink_to(tmp_path / "elsewhere")  # somebody else was here first, and has us write where he likes
    with pytest.raises(InfrastructureError, match="belongs to"):
        scratch("s")
