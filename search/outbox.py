"""What waits to be written: a queue with its own thread, patience, and a file for what the store did not take."""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable

from remedy.search import rows
from remedy.search.files import Files
from remedy.search.links import redact
from remedy.spaces.error import InfrastructureError

SPOOL, ASIDE = "unrecorded.jsonl", "unrecorded.unreadable"
_FIRST_DELAY, _LAST_DELAY = 1.0, 60.0
_ROUNDS = 10


class Outbox:
    """Hands rows to `write`, one after the other, in a thread of its own.

    `write` raises `Refused` for a row that the store will never take: it is put aside, the others go on. Any other
    error means that the store is away: the same row is tried again, later and later. At each failure, and at the end,
    what waits is in the study's files; it is gone when nothing does.
    """

    def __init__(self, files: Files, write: Callable[[rows.Row], rows.Row]) -> None:
        """Nothing happens before `start`."""
        self.error = ""
        self._files = files
        self._write = write
        self._head: rows.Parent | None = None
        self._waiting: deque[rows.Row] = deque()
        self._refused: list[rows.Row] = []
        self._changed = threading.Condition()
        self._closing = self._abandoned = False
        self._thread = threading.Thread(target=self._work, name="remedy-record", daemon=True)

    @property
    def waiting(self) -> int:
        """How many rows the store has not taken."""
        with self._changed:
            return len(self._waiting) + len(self._refused)

    def start(self, parent: rows.Parent, queued: Iterable[rows.Row]) -> None:
        """Begin with the study's own row, which every later one needs."""
        self._head = parent
        self._waiting.extend([parent, *queued])
        self._thread.start()

    def add(self, row: rows.Row) -> None:
        """Queue a row."""
        with self._changed:
            self._waiting.append(row)
            self._changed.notify_all()

    def close(self, timeout: float) -> None:
        """Write what waits until the store fails, or takes no row for `timeout` seconds; keep the rest in the file.

        A store that takes rows is given some such times: short runs get ahead of it.
        """
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._head is not None:
            left = -1
            for _ in range(_ROUNDS):
                if not self._thread.is_alive() or self.waiting == left:
                    break
                left = self.waiting
                self._thread.join(timeout)
            self._abandoned = True  # a thread that hangs in the store writes nothing after its present row
            self._save()

    def _work(self) -> None:
        delay = _FIRST_DELAY
        while not self._abandoned:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._waiting) or self._closing)
                if not self._waiting:
                    return
                row = self._waiting[0]
            try:
                written = self._write(row)
            except Refused as error:
                self.error = str(error)
                with self._changed:
                    self._refused.append(self._waiting.popleft())
                self._save()
            except Exception as error:  # noqa: BLE001  (nothing the store does may end the study)
                self.error = sentence(error)
                self._save()
                with self._changed:
                    if self._closing:
                        return
                    self._changed.wait_for(lambda: self._closing, delay)
                delay = min(2 * delay, _LAST_DELAY)
            else:
                delay = _FIRST_DELAY
                with self._changed:
                    self._waiting.popleft()
                    if isinstance(written, rows.Parent):
                        self._head = written

    def _save(self) -> None:
        """Write the file, whole or not at all."""
        with self._changed:
            left = [*self._refused, *self._waiting]
            head = [] if self._head is None else [self._head]
        lines = [
            rows.to_line(row) + "\n" for row in (*head, *(row for row in left if not isinstance(row, rows.Parent)))
        ]
        try:
            if left:
                self._files.write(SPOOL, "".join(lines))
            else:
                self._files.remove(SPOOL)
        except (OSError, InfrastructureError) as error:
            self.error = sentence(error)


class Refused(Exception):  # noqa: N818  (it is the store's answer, more than an error)
    """The store answered, and would answer the same again."""


def sentence(error: Exception) -> str:
    """Return the first line of an error, without secrets."""
    first = next((line for line in str(error).splitlines() if line.strip()), "")
    return redact(f"{type(error).__name__}: {first}")[:300].rstrip(" .:;")


def read(files: Files) -> list[rows.Row]:
    """Read what waits; what cannot be read is put aside, not lost."""
    text = files.read(SPOOL)
    if text is None:
        return []
    try:
        return [rows.from_line(line) for line in text.splitlines() if line.strip()]
    except (ValueError, KeyError, TypeError) as error:
        files.write(ASIDE, text)
        files.remove(SPOOL)
        said = f"{SPOOL} in {files.where} cannot be read ({error}); it was put aside as {ASIDE}"
        print(f"remedy: {said}", file=sys.stderr)  # noqa: T201
        return []
