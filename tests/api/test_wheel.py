"""An ordinary installation works, with the clone as the current folder too."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
FLOORS = {"api": "remedy", "search": "remedy/search", "workers": "remedy/workers", "spaces": "remedy/spaces"}
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy: a build leaves folders where it is made."""
    place = tmp_path_factory.mktemp("wheel")
    copied = [*FLOORS, "pyproject.toml", "README.md", "LICENSE"]
    for name in copied:
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(source, place / "clone" / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, place / "clone" / name)
    subprocess.run(
        [*PIP, "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", place, place / "clone"],
        check=True,
    )
    (built,) = place.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The folder it was installed to."""
    target = tmp_path_factory.mktemp("site")
    subprocess.run([*PIP, "install", "--quiet", "--no-deps", "--target", target, wheel], check=True)
    return target


def test_the_wheel_holds_every_file_of_every_floor(wheel):
    inside = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    wanted = {
        f"{package}/{path.relative_to(REPOSITORY / folder)}"
        for folder, package in FLOORS.items()
        for path in (REPOSITORY / folder).rglob("*")
        if path.suffix == ".py" or path.name == "py.typed"
    }
    assert inside == wanted, "a new package has to be added to the list in pyproject.toml"


@pytest.mark.parametrize("folder", [REPOSITORY, REPOSITORY / "api", REPOSITORY / "examples", Path("/")])
def test_everything_imports_from_the_installation(folder, installed):
    code = (
        "import remedy.spaces.training, remedy.workers.run, remedy.search.report, remedy.commands.views, remedy\n"
        "import sys\n"
        "print(*(m.__file__ for n, m in sys.modules.items() if n.split('.')[0] == 'remedy'), sep='\\n')\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    places = [Path(line) for line in done.stdout.splitlines()]
    assert len(places) > 20
    assert all(place.is_relative_to(installed) for place in places)


def test_the_command_is_installed_and_knows_its_version(installed):
    script = installed / "bin" / "remedy"
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    done = subprocess.run(
        [script, "--version"], cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("remedy ")
