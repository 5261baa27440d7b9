"""What an attacker, or an auditor, sees of processes: who listens where, command lines, environments."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


class Trap:
    """An object whose pickle makes a file where it is loaded; that it works is shown by loading it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


def family(pid: int) -> list[int]:
    """A process and all below it."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    found, below = [pid], [pid]
    while below:
        below = [child for child, parent in parents.items() if parent in below]
        found += below
    return found


def said_on_start(pid: int) -> str:
    """The command line of a process, as every user of the machine may read it."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
    return ""


def environment(pid: int) -> dict[str, str]:
    """The environment a process was started with."""
    with contextlib.suppress(OSError):
        lines = Path(f"/proc/{pid}/environ").read_text(errors="replace").split("\0")
        return dict(line.split("=", 1) for line in lines if "=" in line)
    return {}


def listening(pids: list[int]) -> set[tuple[str, int]]:
    """The addresses at which processes listen, as /proc/net writes them, with the port."""
    inodes = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            for handle in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    inodes.add(str(handle.readlink()).removeprefix("socket:[").removesuffix("]"))
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *_, inode = line.split()[:10]
            if state == "0A" and inode in inodes:
                address, port = local.split(":")
                found.add((address, int(port, 16)))
    return found
