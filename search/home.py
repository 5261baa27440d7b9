"""Where state lies: all file names in one place."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from remedy.spaces.error import InputError
from remedy.workers.result import RunResult

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class StudyFolder:
    """The files of one study."""

    path: Path

    @property
    def spec(self) -> Path:
        """What was asked."""
        return self.path / "study.json"

    @property
    def journal(self) -> Path:
        """Optuna's storage."""
        return self.path / "optuna.journal"

    @property
    def report(self) -> Path:
        """The findings."""
        return self.path / "report.json"

    @property
    def stop(self) -> Path:
        """Its existence asks the controller to stop."""
        return self.path / "stop"

    @property
    def log(self) -> Path:
        """What the user's code printed while it was loaded and checked."""
        return self.path / "logs" / "load.log"

    def run(self, number: int) -> Path:
        """Return the file of one run's result."""
        return self.path / "runs" / f"{number:05d}.json"

    def run_log(self, number: int) -> Path:
        """Return the file that takes what the user's code prints in one run."""
        return self.path / "logs" / f"run-{number:05d}.log"

    def note_item(self, number: int, item: Mapping[str, Any]) -> None:
        """Write down what a run is to be, so that views need no storage of the sampler's."""
        # A line that a killed controller left torn must not swallow the next one.
        torn = self.items.is_file() and not self.items.read_bytes().endswith(b"\n")
        with self.items.open("a") as handle:
            handle.write("\n" * torn + json.dumps({"run": number, **item}) + "\n")

    @property
    def items(self) -> Path:
        """What each run was to be: a line each."""
        return self.path / "items.jsonl"

    def noted(self) -> dict[int, dict[str, Any]]:
        """Return what each run was to be, by its number; a torn line is passed over."""
        found = {}
        for line in self.items.read_text().splitlines() if self.items.is_file() else ():
            with contextlib.suppress(ValueError):
                item = json.loads(line)
                found[int(item["run"])] = item
        return found

    def fix(self, place: int) -> Path:
        """Return the file of the n-th fix, from 1."""
        return self.path / f"fix-{place}.yaml"

    def checkpoint(self, combination: str, seed: int) -> Path:
        """Return the file that keeps a long run's state, by what is run: a repeated attempt goes on from it."""
        return self.path / "checkpoints" / f"{combination}-{seed}.pt"

    def save_run(self, result: RunResult) -> None:
        """Save a result, whole or not at all."""
        write_json(self.run(result.number), result.to_json())

    def has_run(self, number: int) -> bool:
        """Whether a run's result was saved."""
        return self.run(number).is_file()

    def load_run(self, number: int) -> RunResult:
        """Read a run's result."""
        return RunResult.from_json(json.loads(self.run(number).read_text()))

    def numbers(self) -> list[int]:
        """Return the numbers of all saved runs, in order."""
        return sorted(int(path.stem) for path in (self.path / "runs").glob("*.json"))

    @contextmanager
    def lease(self) -> Iterator[None]:
        """Hold the study for one controller.

        Raises:
            InputError: another process holds it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / "lease").open("a") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                msg = f"study {self.path.name!r} is being worked on by another process; wait for it, or stop it"
                raise InputError(msg) from None
            yield


@dataclass(frozen=True)
class Home:
    """The folder that holds all state (`--home`, `REMEDY_HOME`, `.remedy`)."""

    path: Path

    @classmethod
    def of(cls, asked: str | None) -> Home:
        """Find the home: the option, the environment, or `.remedy` in the working directory."""
        return cls(Path(asked or os.environ.get("REMEDY_HOME") or ".remedy").resolve())

    def study(self, name: str) -> StudyFolder:
        """Return the folder of a study by name, whether it exists or not.

        Raises:
            InputError: a name that cannot be a folder's.
        """
        if not _NAME.fullmatch(name):
            msg = f"study name {name!r} may hold letters, digits, dots, dashes and underscores, at most 100"
            raise InputError(msg)
        return StudyFolder(self.path / "studies" / name)

    def existing(self, name: str) -> StudyFolder:
        """Return the folder of a study that exists.

        Raises:
            InputError: there is none of this name.
        """
        folder = self.study(name)
        if not folder.spec.is_file():
            known = ", ".join(self.names()[-5:]) or "there is none yet"
            msg = f"no study {name!r} in {self.path}; the latest are: {known}"
            raise InputError(msg)
        return folder

    def names(self) -> list[str]:
        """Return the names of all studies, oldest first."""
        found = (self.path / "studies").glob("*/study.json")
        return [path.parent.name for path in sorted(found, key=lambda path: path.stat().st_ctime)]


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a file that is whole or absent; numbers that are not finite are refused."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".part")
    with beside.open("w", encoding="utf-8") as handle:
        handle.write(json.dumps(content, indent=1, allow_nan=False) + "\n")
        handle.flush()
        os.fsync(handle.fileno())
    beside.replace(path)
