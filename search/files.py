"""Where the texts of a study lie: an interface, and its twin in a folder. The other one is in `database`."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from remedy.spaces.error import InfrastructureError, InputError

_LOOKED_AT = 1.0


class Files(Protocol):
    """Texts by key (`runs/00003.json`), each of them whole or absent, that survive whoever wrote them."""

    @property
    def name(self) -> str:
        """Whose they are."""

    @property
    def where(self) -> str:
        """Where they lie, for people; without secrets."""

    @property
    def folder(self) -> Path | None:
        """The folder they lie in, or None where they are not files of this machine."""

    def read(self, key: str) -> str | None:
        """Return a text, or None."""

    def read_all(self, prefix: str) -> dict[str, str]:
        """Return all texts whose key begins so, in the order of their keys."""

    def keys(self, prefix: str) -> list[str]:
        """Return the keys that begin so, in order."""

    def write(self, key: str, text: str) -> None:
        """Put a text in place of what was there."""

    def append(self, key: str, line: str) -> None:
        """Add a line."""

    def remove(self, key: str) -> None:
        """Remove a text, if it is there."""

    def remove_all(self) -> None:
        """Remove everything."""

    def lease(self) -> AbstractContextManager[None]:
        """Hold them for one writer; raises InputError where another process holds them."""

    def held(self) -> bool:
        """Whether somebody holds them. Changes nothing."""


@dataclass(frozen=True)
class FolderFiles:
    """Files in a folder of this machine; keys are paths in it."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def where(self) -> str:
        return str(self.path)

    @property
    def folder(self) -> Path | None:
        return self.path

    def read(self, key: str) -> str | None:
        try:
            return (self.path / key).read_text(encoding="utf-8", errors="replace")
        except (FileNotFoundError, NotADirectoryError):
            return None

    def read_all(self, prefix: str) -> dict[str, str]:
        return {key: text for key in self.keys(prefix) if (text := self.read(key)) is not None}

    def keys(self, prefix: str) -> list[str]:
        folder = self.path / prefix if prefix.endswith("/") else (self.path / prefix).parent
        found = (str(path.relative_to(self.path)) for path in folder.glob("*") if path.suffix != ".part")
        return sorted(key for key in found if key.startswith(prefix))

    def write(self, key: str, text: str) -> None:
        write_text(self.path / key, text)

    def append(self, key: str, line: str) -> None:
        path = self.path / key
        path.parent.mkdir(parents=True, exist_ok=True)
        # A line that a killed writer left torn must not swallow the next one.
        torn = path.is_file() and not path.read_bytes().endswith(b"\n") and path.stat().st_size
        with path.open("a", encoding="utf-8") as handle:
            handle.write("\n" * bool(torn) + line + "\n")

    def remove(self, key: str) -> None:
        (self.path / key).unlink(missing_ok=True)

    def remove_all(self) -> None:
        shutil.rmtree(self.path)

    @contextmanager
    def lease(self) -> Iterator[None]:
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / "lease").open("a") as handle:
            until = time.monotonic() + _LOOKED_AT
            while not _locked(handle.fileno(), fcntl.LOCK_EX):
                # Somebody who only looks holds it for a moment, too.
                if time.monotonic() > until:
                    msg = f"study {self.name!r} is being worked on by another process; wait for it, or stop it"
                    raise InputError(msg)
                time.sleep(0.05)
            yield

    def held(self) -> bool:
        with contextlib.suppress(OSError), (self.path / "lease").open() as handle:
            return not _locked(handle.fileno(), fcntl.LOCK_SH)
        return False


def _locked(descriptor: int, how: int) -> bool:
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def write_text(path: Path, text: str) -> None:
    """Write a file that is whole or absent, also after the power went."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".part")
    with beside.open("w", encoding="utf-8") as handle:
        handle.write(text)
        handle.flush()
        os.fsync(handle.fileno())
    beside.replace(path)


def private(folder: Path) -> Path:
    """Make sure that a folder in a common one is ours, and open to nobody else.

    Raises:
        InfrastructureError: somebody else was there first, to have us write where he likes.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise InfrastructureError(f"{folder} belongs to somebody else, or is a link; name another place with TMPDIR")
    if found.st_mode & 0o077:
        folder.chmod(0o700)
    return folder
