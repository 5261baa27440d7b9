"""What tests of several floors share: the command line as a user has it, and trainings in files of their own."""

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

REPOSITORY = Path(__file__).parents[1]
OURS = ("REMEDY_", "MLFLOW_", "OPTUNA_", "RAY_")

WHOLE = """
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
            optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.01),
            batch_size=32,
            steps=100,
            metric="accuracy",
            goal=0.85,
        )
        return remedy.Training(**{{**said, **dict({change})}})
"""


@dataclasses.dataclass(frozen=True)
class Answer:
    """How a process ended, and what it said."""

    code: int
    out: str
    err: str
    seconds: float

    @property
    def json(self) -> Any:
        """Standard output as one JSON document: nothing before it, nothing after it, every number finite."""
        assert self.out.endswith("\n")
        return json.loads(self.out, parse_constant=_refuse)


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is not JSON")


@dataclasses.dataclass(frozen=True)
class CommandLine:
    """`remedy ...`, in a process of its own, in a working directory and a home of its own."""

    place: Path
    home: Path

    def __call__(self, *args: object, code: int | None = 0, timeout: float = 240, **environment: str) -> Answer:
        """Run a command to its end; `code` is the exit code it must have, None for any."""
        began = time.monotonic()
        process = self.start(*args, **environment)
        try:
            out, err = process.communicate(timeout=timeout)
        except BaseException:
            end(process)
            raise
        answer = Answer(process.returncode, out, err, time.monotonic() - began)
        assert code is None or answer.code == code, f"remedy {args} gave {answer}"
        return answer

    def start(self, *args: object, stderr: int = subprocess.PIPE, **environment: str) -> subprocess.Popen[str]:
        """Start a command, in a process group of its own, as a shell does."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
        return subprocess.Popen(
            [sys.executable, "-m", "remedy", *map(str, args)],
            cwd=self.place,
            env={**clean, "REMEDY_HOME": str(self.home), **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            start_new_session=True,
        )

    def write(self, name: str, change: str = "", before: str = "") -> Path:
        """Write a quick training, changed; as it is it is too slow for its budget, and momentum repairs it."""
        path = self.place / f"{name}.py"
        text = textwrap.dedent(WHOLE).format(change=change, before=textwrap.dedent(before).strip())
        path.write_text(text)
        return path

    def runs(self, study: str) -> list[Path]:
        """The results written so far."""
        return sorted((self.home / "studies" / study / "runs").glob("*.json"))


def end(process: subprocess.Popen[str]) -> None:
    """End a process that a test started, and all it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


@pytest.fixture
def remedy(tmp_path: Path) -> CommandLine:
    """The command line, with nothing there yet."""
    (tmp_path / "work").mkdir()
    return CommandLine(tmp_path / "work", tmp_path / "home")


@pytest.fixture(scope="module")
def shared_remedy(tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    """The command line, the same for all tests of a file."""
    place = tmp_path_factory.mktemp("shared")
    (place / "work").mkdir()
    return CommandLine(place / "work", place / "home")


@pytest.fixture
def started() -> Iterator[Callable[[subprocess.Popen[str]], subprocess.Popen[str]]]:
    """Hands back the process it is given, and ends it after the test, whatever happened."""
    mine: list[subprocess.Popen[str]] = []

    def keep(process: subprocess.Popen[str]) -> subprocess.Popen[str]:
        mine.append(process)
        return process

    yield keep
    for process in mine:
        end(process)


@pytest.fixture(autouse=True)
def _numbers_as_they_were() -> Iterator[None]:
    """A run in this process flushes denormal numbers to zero; Hypothesis wants them back."""
    yield
    torch.set_flush_denormal(False)


if (
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN
):  # a shell's background job; what tests start would never be interrupted
    signal.signal(signal.SIGINT, signal.default_int_handler)
