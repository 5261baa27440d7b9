"""Where state lies: all names of files in one place."""

from __future__ import annotations

import contextlib
import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from remedy.search.files import Files, FolderFiles, private
from remedy.spaces.error import InfrastructureError, InputError
from remedy.workers.result import RunResult

if TYPE_CHECKING:
    from remedy.search.database import Database

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
SPEC, REPORT, STATE, PROGRESS, JOB = "study.json", "report.json", "state.json", "progress.json", "job.json"
STOP, ITEMS, LOAD_LOG = "stop", "items.jsonl", "logs/load.log"


@dataclass(frozen=True)
class StudyFolder:
    """All that is kept of one study, in a folder or in a database."""

    files: Files
    scratch: Path
    """A folder of this machine for what may be lost: checkpoints, logs under way."""
    storage: Path | str
    """What holds Optuna's trials: a journal file, or the address of a database."""

    @classmethod
    def at(cls, path: Path) -> StudyFolder:
        """Return the study in a folder."""
        return cls(FolderFiles(path), path, path / "optuna.journal")

    @property
    def name(self) -> str:
        """The study's name."""
        return self.files.name

    # ---------------------------------------------------------------- what was asked, and what came of it

    def exists(self) -> bool:
        """Whether a study of this name was begun."""
        return self.files.read(SPEC) is not None

    def spec(self) -> dict[str, Any]:
        """What was asked."""
        return self._json(SPEC) or {}

    def save_spec(self, spec: Mapping[str, Any]) -> None:
        """Write down what is asked; from then on the study exists."""
        self.files.write(SPEC, _text(spec))

    def report(self) -> dict[str, Any] | None:
        """Return the findings, or None where no run has ended yet."""
        return self._json(REPORT)

    def save_report(self, found: Mapping[str, Any]) -> None:
        """Save the findings, whole or not at all."""
        self.files.write(REPORT, _text(found))

    def fix(self, place: int) -> str | None:
        """Return the text of the n-th fix file, from 1."""
        return self.files.read(f"fix-{place}.yaml")

    def save_fix(self, place: int, text: str) -> None:
        """Save the n-th fix file."""
        self.files.write(f"fix-{place}.yaml", text)

    def python(self, place: int) -> str | None:
        """Return the n-th fix as Python code."""
        return self.files.read(f"fix-{place}.py")

    def save_python(self, place: int, text: str) -> None:
        """Save the n-th fix as Python code."""
        self.files.write(f"fix-{place}.py", text)

    def fix_file(self, place: int) -> str | None:
        """Return the path of the n-th fix file, where it is a file of this machine."""
        return str(self.files.folder / f"fix-{place}.yaml") if self.files.folder else None

    def save_run(self, result: RunResult) -> None:
        """Save a result, whole or not at all."""
        self.files.write(f"runs/{result.number:05d}.json", _text(result.to_json()))

    def has_run(self, number: int) -> bool:
        """Whether a run's result was saved."""
        return self.files.read(f"runs/{number:05d}.json") is not None

    def load_run(self, number: int) -> RunResult:
        """Read a run's result."""
        return RunResult.from_json(self._json(f"runs/{number:05d}.json") or {})

    def runs(self) -> dict[int, RunResult]:
        """Return all results by number, in order."""
        return {_number(key): RunResult.from_json(json.loads(t)) for key, t in self.files.read_all("runs/").items()}

    def numbers(self) -> list[int]:
        """Return the numbers of all saved runs, in order."""
        return [_number(key) for key in self.files.keys("runs/")]

    def note_item(self, number: int, item: Mapping[str, Any]) -> None:
        """Write down what a run is to be, so that views need no storage of the sampler's."""
        self.files.append(ITEMS, json.dumps({"run": number, **item}))

    def noted(self) -> dict[int, dict[str, Any]]:
        """Return what each run was to be, by its number; a torn line is passed over."""
        found = {}
        for line in (self.files.read(ITEMS) or "").splitlines():
            with contextlib.suppress(ValueError):
                item = json.loads(line)
                found[int(item["run"])] = item
        return found

    # ---------------------------------------------------------------- how it goes

    def state(self) -> dict[str, Any]:
        """Return who works on it, or worked on it last, and what came of that; empty where nobody ever did."""
        return self._json(STATE) or {}

    def save_state(self, state: Mapping[str, Any]) -> None:
        """Write down who works on it."""
        self.files.write(STATE, _text(state))

    def progress(self) -> dict[str, Any]:
        """Return how far it is, as its controller last said."""
        return self._json(PROGRESS) or {}

    def save_progress(self, progress: Mapping[str, Any]) -> None:
        """Say how far it is."""
        self.files.write(PROGRESS, _text(progress))

    def job(self) -> dict[str, Any]:
        """Return the Ray job that works on it; empty where it is worked on by a command."""
        return self._json(JOB) or {}

    def save_job(self, job: Mapping[str, Any]) -> None:
        """Write down which Ray job works on it."""
        self.files.write(JOB, _text(job))

    def asks_stop(self) -> bool:
        """Whether somebody asked its controller to stop."""
        return self.files.read(STOP) is not None

    def ask_stop(self) -> None:
        """Ask its controller to stop."""
        self.files.write(STOP, "")

    def clear_stop(self) -> None:
        """Take note that it was asked."""
        self.files.remove(STOP)

    @contextmanager
    def lease(self) -> Iterator[None]:
        """Hold the study for one controller.

        Raises:
            InputError: another process holds it.
        """
        with self.files.lease():
            yield

    def held(self) -> bool:
        """Whether somebody works on it."""
        return self.files.held()

    # ---------------------------------------------------------------- logs and what may be lost

    @property
    def log(self) -> Path:
        """The file that takes what the user's code prints while it is loaded and checked."""
        return self.scratch / LOAD_LOG

    def run_log(self, number: int) -> Path:
        """Return the file that takes what the user's code prints in one run, where workers share this machine."""
        return self.scratch / "logs" / f"run-{number:05d}.log"

    def save_run_log(self, number: int, text: str) -> None:
        """Keep what a worker elsewhere sent of what was printed in a run."""
        self.files.write(f"logs/run-{number:05d}.log", text)

    def logs(self) -> dict[str, str]:
        """Return what the user's code printed: by `load` and by the number of a run."""
        return {Path(key).stem.removeprefix("run-"): text for key, text in self.files.read_all("logs/").items() if text}

    def checkpoint(self, combination: str, seed: int) -> Path:
        """Return the file that keeps a long run's state, by what is run: a repeated attempt goes on from it."""
        return self.scratch / "checkpoints" / f"{combination}-{seed}.pt"

    def _json(self, key: str) -> dict[str, Any] | None:
        text = self.files.read(key)
        if text is None:
            return None
        try:
            return dict(json.loads(text))
        except ValueError:
            raise InfrastructureError(f"{key} of study {self.name!r} in {self.files.where} is damaged") from None


@dataclass(frozen=True)
class Home:
    """What holds all state: a folder (`--home`, `REMEDY_HOME`, `.remedy`), or a database (`REMEDY_STORAGE`).

    With a database the folder is for what belongs to this machine alone.
    """

    path: Path
    database: Database | None = field(default=None, compare=False)

    @classmethod
    def of(cls, asked: str | None, patience: float = 0.0) -> Home:
        """Find the home: the option, the environment, or `.remedy` in the working directory.

        Raises:
            InputError: `REMEDY_STORAGE` is no database that can be used.
        """
        path = Path(asked or os.environ.get("REMEDY_HOME") or ".remedy").resolve()
        storage = os.environ.get("REMEDY_STORAGE")
        if not storage:
            return cls(path)
        from remedy.search.database import Database  # noqa: PLC0415  (laptops need none of it)

        return cls(path, Database(storage, patience))

    @property
    def where(self) -> str:
        """Where studies lie, for people; without secrets."""
        return self.database.where if self.database else str(self.path)

    def study(self, name: str) -> StudyFolder:
        """Return a study by name, whether it exists or not.

        Raises:
            InputError: a name that cannot be a folder's.
        """
        self._check("study", name)
        if self.database is None:
            return StudyFolder.at(self.path / "studies" / name)
        return StudyFolder(self.database.files(name), scratch(name), self.database.url)

    def sweep(self, name: str) -> Files:
        """Return what is kept of a nightly sweep.

        Raises:
            InputError: a name that cannot be a folder's.
        """
        self._check("sweep", name)
        return self.database.files(f"sweep/{name}") if self.database else FolderFiles(self.path / "sweeps" / name)

    def existing(self, name: str) -> StudyFolder:
        """Return a study that exists.

        Raises:
            InputError: there is none of this name.
        """
        folder = self.study(name)
        if not folder.exists():
            known = ", ".join(self.names()[-5:]) or "there is none yet"
            raise InputError(f"no study {name!r} in {self.where}; the latest are: {known}")
        return folder

    def names(self) -> list[str]:
        """Return the names of all studies, oldest first."""
        if self.database is not None:
            return self.database.names(SPEC)
        found = (self.path / "studies").glob(f"*/{SPEC}")
        return [path.parent.name for path in sorted(found, key=lambda path: path.stat().st_ctime)]

    @staticmethod
    def _check(what: str, name: str) -> None:
        if not _NAME.fullmatch(name):
            raise InputError(
                f"{what} name {name!r} may hold letters, digits, dots, dashes and underscores, at most 100"
            )


def scratch(study: str) -> Path:
    """Return the folder for what may be lost of a study, on a machine that has nothing else of it."""
    return private(Path(tempfile.gettempdir()) / f"remedy-{os.getuid()}") / study


def _text(content: Mapping[str, Any]) -> str:
    """Return JSON; numbers that are not finite are refused."""
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def _number(key: str) -> int:
    return int(Path(key).stem)
