"""Loads and checks the user's training in this process, with its output kept off the terminal."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from remedy.commands.script import surveyed
from remedy.search.spec import Spec
from remedy.spaces.combination import Combination
from remedy.spaces.error import TimeLimit, UserCodeError, raised
from remedy.spaces.metric import parse_goal
from remedy.spaces.process import reset_process
from remedy.spaces.remedy import Remedy
from remedy.spaces.script import Goal, Script
from remedy.spaces.target import Loaded, code_now, find, found_again, load
from remedy.spaces.training import Training
from remedy.workers.door import FIX
from remedy.workers.executor import time_limit
from remedy.workers.preflight import Preflight, preflight
from remedy.workers.run import catalogue_of


@dataclasses.dataclass(frozen=True)
class Checked:
    """A training that can run, with what pre-flight found."""

    loaded: Loaded
    training: Training | Script
    """With the goal that was asked for."""
    found: Preflight
    remedies: tuple[Remedy, ...]
    survey_seconds: float = 0.0
    """What the one run took that shows a script's full length; 0 for a function."""

    @property
    def survey_steps(self) -> int:
        """The optimizer steps of that run."""
        return self.training.steps if isinstance(self.training, Script) else 0


def checked(
    target: str,
    args: Sequence[str],
    goal: str | None,
    seed: int,
    limit: float | None,
    log: Path | None,
    *,
    thorough: bool = False,
    share: float = 1.0,
    remedies: Sequence[str] = (),
    tries: Combination | None = None,
) -> Checked:
    """Find, load and check a training; a script is run once.

    `thorough` checks train for some hundred steps, at most a `share` of the training's own. Of functions that are built
    quickly it is seen which of the remedies of `tries` find nothing to change. `limit` is in seconds; `log` takes what
    the user's code prints, and its traceback where it raises (None: nothing is kept).

    Raises:
        InputError: it cannot be found, loaded, run or judged.
    """
    source = find(target, args, remedies)
    if os.environ.get(FIX):
        sys.stderr.write(f"remedy: {FIX} is set and ignored: what is looked at here is the untouched training\n")
    if source.script is not None:
        Goal.read(goal)  # said before anything is run
    reset_process()
    doing = f"loading and checking {source.name}"
    if source.script is not None:
        doing = f"running {Path(source.path).name} once, untouched and to its end, to learn its full length"
        sys.stderr.write(f"remedy: {doing}\n")
    with _said(doing), quiet(log) as kept:
        try:
            with time_limit(limit):
                loaded = load(source)
                known = tuple(catalogue_of(loaded).values())
                if source.script is not None:
                    seen = surveyed(source, goal, seed, kept, thorough=thorough)
                    with_own = dataclasses.replace(seen.loaded, remedies=loaded.remedies)
                    return Checked(with_own, seen.script, seen.found, known, seen.seconds)
                training = loaded.builders
                if goal is not None:
                    training = dataclasses.replace(training, goal=parse_goal(goal, training.metric))
                found = preflight(loaded, training, seed, seed, thorough=thorough, share=share, tries=tries)
        except UserCodeError as error:
            kept.write(error.trace)
            if log is not None and error.trace:
                error.args = (f"{error.args[0]}; traceback in {log}",)
            raise
        except SystemExit as error:
            told = raised(source.name, error)
            kept.write(told.trace)
            raise told from None
        except TimeLimit as error:
            msg = f"loading and checking {source.name} {error}"
            raise TimeLimit(msg) from None
    return Checked(loaded, training, found, known)


def imported(spec: Spec, log: Path) -> Loaded:
    """Import a study's training as it is now, without the checks that it passed at submit.

    Raises:
        InputError: it cannot be found or loaded any more.
    """
    source = found_again(spec.source)
    reset_process()
    with _said(f"loading {source.name}"), quiet(log) as kept:
        try:
            with time_limit(spec.run_timeout):
                loaded = load(source)
                return (
                    loaded if source.script is None else dataclasses.replace(loaded, code=code_now(source, spec.code))
                )
        except UserCodeError as error:
            kept.write(error.trace)
            error.args = (f"{error.args[0]}; traceback in {log}",)
            raise
        except TimeLimit as error:
            raise TimeLimit(f"loading {source.name} {error}") from None


@contextlib.contextmanager
def _said(text: str) -> Iterator[None]:
    """Say what is waited for, where somebody sees it, for as long as it takes."""
    if not sys.stderr.isatty():
        yield
        return
    sys.stderr.write(f"{text} ...")
    sys.stderr.flush()
    try:
        yield
    finally:
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()


@contextlib.contextmanager
def quiet(log: Path | None) -> Iterator[io.TextIOBase]:
    """Send what the user's code and its children print to a file, or nowhere.

    The file is only made when something was printed.
    """
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as kept:
        try:
            with _away(kept), contextlib.redirect_stdout(kept), contextlib.redirect_stderr(kept):
                yield kept
        finally:
            kept.seek(0)
            text = kept.read()
            if log is not None and text:
                log.parent.mkdir(parents=True, exist_ok=True)
                with log.open("a", encoding="utf-8") as file:
                    file.write(text)


@contextlib.contextmanager
def apart(log: Path) -> Iterator[IO[str]]:
    """Yield standard error for us alone; whatever else is printed there or on standard output goes to the file."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        err: IO[str] = sys.stderr
        if _descriptors():
            err = stack.enter_context(os.fdopen(os.dup(2), "w", encoding="utf-8", errors="replace"))
        kept = stack.enter_context(log.open("a", encoding="utf-8", errors="replace"))
        stack.enter_context(_away(kept))
        stack.enter_context(contextlib.redirect_stdout(kept))
        stack.enter_context(contextlib.redirect_stderr(kept))
        yield err


@contextlib.contextmanager
def _away(kept: IO[str]) -> Iterator[None]:
    """Let what is printed past Python's own streams, by C code and by children, go to an open file too."""
    if not _descriptors():
        yield
        return
    before = [os.dup(1), os.dup(2)]
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.dup2(kept.fileno(), 1)
        os.dup2(kept.fileno(), 2)
        yield
    finally:
        kept.flush()
        for number, old in enumerate(before, start=1):
            os.dup2(old, number)
            os.close(old)


def _descriptors() -> bool:
    try:
        return (sys.stdout.fileno(), sys.stderr.fileno()) == (1, 2)
    except (OSError, ValueError, AttributeError):
        return False
