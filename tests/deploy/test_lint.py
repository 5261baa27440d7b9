"""Every file of deploy/ passes the tool that knows its kind, and none is left out."""

from __future__ import annotations

import json
import re
import shutil
from datetime import datetime
from pathlib import Path

import pytest

from tests.deploy.deployed import DEPLOY, KUSTOMIZATIONS, REPOSITORY, program, run

FILES = sorted(path for path in DEPLOY.rglob("*") if path.is_file() and path.name != ".env")
SCRIPTS = [path for path in FILES if path.read_bytes()[:64].startswith(b"#!/usr/bin/env bash")]
DOCKERFILES = [path for path in FILES if path.suffix == ".Dockerfile"]


def names(path: Path) -> str:
    return str(path.relative_to(DEPLOY))


def test_every_file_is_of_a_kind_that_is_checked() -> None:
    kinds = {".yaml", ".Dockerfile", ".dockerignore", ".service", ".timer", ".json", ".md"}
    plain = {".gitignore", "compose.env.example"}
    assert [names(p) for p in FILES if p.suffix not in kinds and p.name not in plain and p not in SCRIPTS] == []


def test_yaml() -> None:
    run(program("yamllint"), "--strict", "--config-file", DEPLOY / ".yamllint.yaml", DEPLOY)


@pytest.mark.parametrize("script", SCRIPTS, ids=names)
def test_scripts(script: Path) -> None:
    run(program("shellcheck"), script)
    assert re.search(r"^set -euo pipefail$", script.read_text(), re.MULTILINE)
    assert script.suffix == ".sbatch" or script.stat().st_mode & 0o111, "is not executable"


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=names)
def test_dockerfiles(dockerfile: Path) -> None:
    run(program("hadolint"), dockerfile)


def test_compose_against_its_specification() -> None:
    run(program("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", DEPLOY / "compose.yaml")


@pytest.mark.parametrize("folder", KUSTOMIZATIONS)
def test_every_kustomization_lists_every_file_beside_it(folder: str) -> None:
    place = DEPLOY / "kubernetes" / folder
    text = (place / "kustomization.yaml").read_text()
    beside = {path.name for path in place.iterdir() if path.is_file()}
    assert [name for name in beside - {"kustomization.yaml", "secrets.example.yaml"} if f"{name}" not in text] == []


def test_all_kustomizations_are_known_here() -> None:
    found = {str(p.parent.relative_to(DEPLOY / "kubernetes")) for p in DEPLOY.rglob("kustomization.yaml")}
    assert found == set(KUSTOMIZATIONS)


# ---------------------------------------------------------------- systemd


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The units, leading to this repository instead of /opt/remedy."""
    for path in (DEPLOY / "systemd").iterdir():
        text = path.read_text()
        for command in re.findall(r"^ExecStart=/opt/remedy/(\S+)", text, re.MULTILINE):
            assert (REPOSITORY / command).exists()
        (tmp_path / path.name).write_text(text.replace("/opt/remedy/deploy", str(DEPLOY)))
    return tmp_path


def test_systemd_units(units: Path) -> None:
    done = run(program("systemd-analyze"), "verify", "--man=no", *sorted(units.iterdir()))
    assert done.stderr == ""
    assert done.stdout == ""


def test_a_night_ends_before_the_next_one_begins() -> None:
    timer = (DEPLOY / "systemd/remedy-nightly.timer").read_text()
    service = (DEPLOY / "systemd/remedy-nightly.service").read_text()
    when = re.search(r"^OnCalendar=(.*)$", timer, re.MULTILINE)[1]
    told = run(program("systemd-analyze"), "calendar", "--iterations=2", when).stdout
    # In UTC where it is said apart, so that a change to summer time in between does not count.
    moments = re.findall(r"\(in UTC\): \w+ (\S+ \S+) UTC", told) or re.findall(
        r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)", told
    )
    first, second = (datetime.fromisoformat(moment) for moment in moments[-2:])
    hours = int(re.search(r"^TimeoutStartSec=(\d+)h$", service, re.MULTILINE)[1])
    assert 0 < hours * 3600 < (second - first).total_seconds()
    assert "Persistent=true" in timer


# ---------------------------------------------------------------- images


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=names)
def test_images_are_pinned_and_not_root(dockerfile: Path) -> None:
    text = re.sub(r"\\\n", " ", dockerfile.read_text())
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    bases = [line.split("=", 1)[1] for line in lines if line.startswith("ARG BASE=")]
    bases += [line.split()[1] for line in lines if line.startswith("FROM ") and "$" not in line]
    assert bases
    for base in bases:
        assert re.fullmatch(r"[\w./-]+:\d+\.\d+\.\d+[\w.-]*", base), f"{base} is not pinned"
    last = text[text.rindex("\nFROM ") :]
    assert re.findall(r"^USER (.*)$", last, re.MULTILINE)[-1] == "1000:1000"
    # Nothing is installed when a container starts.
    assert not re.search(r"^(CMD|ENTRYPOINT).*(pip|apt)", text, re.MULTILINE)
    pinned = (REPOSITORY / "constraints.txt").read_text()
    for line in (line for line in lines if "pip install" in line):
        assert "--constraint" in line or "--no-deps" in line
        for wanted, version in re.findall(r"'([\w-]+)(?:\[\w+\])?==([\w.]+)'", line):
            also = re.search(rf"^{wanted}(?:\[\w+\])?==(.*)$", pinned, re.MULTILINE)
            assert also is None or also[1] == version, f"{wanted} is {version} here and {also[1]} in constraints.txt"
    for line in (line for line in lines if line.startswith("COPY ") and "--from" not in line):
        *sources, _ = line.split()[1:]
        assert all((REPOSITORY / source).exists() for source in sources)


def test_the_context_holds_what_is_copied_and_no_more() -> None:
    for dockerfile in DOCKERFILES:
        ignored = Path(f"{dockerfile}.dockerignore").read_text().splitlines()
        assert "*" in ignored[:2]
        allowed = {line[1:] for line in ignored if line.startswith("!")}
        lines = [line for line in dockerfile.read_text().splitlines() if line.startswith("COPY ")]
        assert {s for line in lines if "--from" not in line for s in line.split()[1:-1]} == allowed


def test_the_image_installs_what_pyproject_asks_for(tmp_path: Path) -> None:
    text = re.sub(r"\\\n\s*", " ", (DEPLOY / "docker/remedy.Dockerfile").read_text())
    code = re.search(r'RUN python -c "(import tomllib.*?)"\s+>', text)[1]
    shutil.copy(REPOSITORY / "pyproject.toml", tmp_path)
    wanted = run(program("python"), "-c", code, cwd=tmp_path).stdout
    for package in ("setuptools", "mlflow", "optuna", "ray", "torch", "scikit-learn"):
        assert re.search(rf"^{package}\W", wanted, re.MULTILINE), f"{package} is not installed"


# ---------------------------------------------------------------- README


def test_the_readme_names_what_is_there() -> None:
    readme = (DEPLOY / "README.md").read_text()
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", readme):
        assert (DEPLOY / link).exists(), link
    for place in re.findall(r"\b(deploy/[\w./-]+\w)", readme):
        assert (REPOSITORY / place).exists(), place
    table = set(re.findall(r"^\| `([\w/]+)` \|", readme, re.MULTILINE))
    assert table == set(KUSTOMIZATIONS)
    for heading in ("Upgrade", "Backup and restore", "Security checklist", "Scale", "Versions tested"):
        assert f"\n## {heading}\n" in readme


def test_the_dashboard_is_json() -> None:
    board = json.loads((DEPLOY / "monitoring/dashboard.json").read_text())
    assert board["uid"] == "remedy"
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
