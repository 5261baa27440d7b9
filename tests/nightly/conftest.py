"""Sweeps of quick trainings, and nights that are played through the command line."""

import dataclasses
import json
import os
import subprocess
import textwrap
from pathlib import Path
from typing import Any

import pytest
import yaml

from remedy.cli import main
from tests.conftest import OURS

TRAINING = """
    import torch
    from torch import nn
    from torch.utils.data import TensorDataset

    import remedy

    {before}


    def data():
        x = torch.randn(400, 4, generator=torch.Generator().manual_seed(0))
        y = x[:, :3].argmax(1)
        return TensorDataset(x[:320], y[:320]), TensorDataset(x[320:], y[320:])


    def training():
        said = dict(
            model=lambda: nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3)),
            data=data,
            loss=nn.CrossEntropyLoss(),
            optimizer=lambda parameters: torch.optim.SGD(parameters, lr={rate}),
            batch_size=32,
            steps=100,
            metric="accuracy",
            goal=0.85,
        )
        return remedy.Training(**{{**said, **dict({change})}})
"""
HEALTHY, BROKEN = 0.3, 0.01
"""Learning rates: with the second the budget ends long before the goal."""


@dataclasses.dataclass
class Nights:
    """A sweep in a folder, its home, and what each command said."""

    place: Path
    home: Path
    capture: Any = None

    def write(self, name: str, rate: float = HEALTHY, change: str = "", before: str = "") -> Path:
        """Write a training: healthy, or with a rate too small for its budget."""
        path = self.place / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            textwrap.dedent(TRAINING).format(rate=rate, change=change, before=textwrap.dedent(before).strip())
        )
        return path

    def sweep(self, *trainings: dict[str, Any], **keys: Any) -> Path:
        """Write the sweep file; small as tests want it."""
        content = {"sweep": "team", "trainings": list(trainings), "budget": 20, "fixes": 1, "workers": 0, **keys}
        path = self.place / "sweep.yaml"
        path.write_text(yaml.safe_dump(content))
        return path

    def commit(self, text: str) -> None:
        """Commit all files, as a team does."""
        for command in (["init", "-q"], ["add", "-A"], ["commit", "-q", "--allow-empty", "-m", text]):
            who = {"GIT_AUTHOR_NAME": "t", "GIT_AUTHOR_EMAIL": "t@t", "GIT_COMMITTER_NAME": "t",
                   "GIT_COMMITTER_EMAIL": "t@t", "GIT_CONFIG_GLOBAL": os.devnull}  # fmt: skip
            subprocess.run(["git", *command], cwd=self.place, check=True, env={**os.environ, **who})

    def call(self, *arguments: str) -> int:
        """Run a `nightly` command in this process."""
        return main(["nightly", *arguments, "--home", str(self.home)])

    def run(self, night: str, code: int = 0, *options: str) -> None:
        """Play a night."""
        assert self.call("run", str(self.place / "sweep.yaml"), "--night", night, *options) == code

    def report(self, night: str, code: int) -> dict[str, Any]:
        """Return the morning report, with its exit code checked."""
        out = self.home / f"{night}.json"
        assert (
            self.call("report", str(self.place / "sweep.yaml"), "--night", night, "--format=json", f"--out={out}")
            == code
        )
        return json.loads(out.read_text(), parse_constant=_refuse)

    def text(self, night: str, style: str) -> str:
        """Return the morning report in another format."""
        out = self.home / f"{night}.{style}"
        self.call("report", str(self.place / "sweep.yaml"), "--night", night, f"--format={style}", f"--out={out}")
        return out.read_text()


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is not JSON")


def row(found: dict[str, Any], name: str) -> dict[str, Any]:
    """Return one training of a report."""
    return next(row for row in found["trainings"] if row["name"] == name)


def strip(found: dict[str, Any], name: str) -> list[str | None]:
    """Return how one training stood, night by night, without the nights before the first."""
    statuses = [night["status"] for night in row(found, name)["strip"]]
    return statuses[next(place for place, status in enumerate(statuses) if status is not None) :]


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of this machine's own settings; and no waiting for the disk at each of a thousand lines."""
    for name in [name for name in os.environ if name.startswith(OURS)]:  # a Ray of an earlier test leaves its token
        monkeypatch.delenv(name)
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def nights(tmp_path: Path) -> Nights:
    """A sweep's folder and home, with nothing there yet."""
    (tmp_path / "work").mkdir()
    return Nights(tmp_path / "work", tmp_path / "home")
