"""Errors a user can cause: one clear sentence each, never a traceback."""

from __future__ import annotations

import traceback
from pathlib import Path

from remedy.spaces.printable import printable


class _Said(Exception):  # noqa: N818  (no error by itself)
    """One line for a terminal, whatever is named in it: a file, a user's text, a server's answer."""

    def __str__(self) -> str:
        return printable(super().__str__())


class InputError(_Said):
    """Bad input: the message names the thing, the value it has and what it may be. Exit code 2."""


class UserCodeError(InputError):
    """The user's own code raised; `trace` is its traceback, for the log and `show --run`, not for the terminal."""

    def __init__(self, message: str, trace: str = "") -> None:
        """Keep the sentence for the terminal and the traceback for the log apart."""
        super().__init__(message)
        self.trace = trace


class TimeLimit(BaseException):
    """A run, or the loading of the user's code, took longer than `--run-timeout` allows.

    No `Exception`, so that code which catches all of those, ours or the user's, does not swallow it.
    """


class InfrastructureError(_Said):
    """What runs are executed on does not work: one sentence that says what, and what may help. Exit code 5."""


def sentence(error: BaseException) -> str:
    """Say in one sentence what the user's code raised, and in which line of it."""
    said = str(error).strip().split("\n")[0][:300]
    place = ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        name = str(frame.f_globals.get("__name__", ""))
        if "site-packages" not in frame.f_code.co_filename and not name.startswith(("remedy.", "torch.")):
            place = f" ({Path(frame.f_code.co_filename).name}, line {line})"
    return printable(f"{type(error).__name__}{f': {said}' if said else ''}{place}")


def raised(where: str, error: BaseException) -> UserCodeError:
    """Return the error that says so, with the traceback kept apart."""
    return UserCodeError(f"{where} raised {sentence(error)}", "".join(traceback.format_exception(error)))
