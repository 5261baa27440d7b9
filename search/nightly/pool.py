"""The one executor of a night, lent to whoever has runs to make."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType

from remedy.workers.executor import Event, Executor, Finished
from remedy.workers.order import WorkOrder


@dataclass
class NightPool:
    """Makes an executor when it is first needed, and lends it to one study after the other.

    Workers live long, and Python keeps what they import: two trainings in different folders, each with a `model.py` of
    its own, would see each other's. `serve` says whose runs come next, and the executor is made anew where that could
    happen.
    """

    make: Callable[[], Executor]
    _executor: Executor | None = None
    _imported: dict[str, str] = field(default_factory=dict)
    _before: frozenset[str] = field(default_factory=lambda: frozenset(sys.modules))
    _path: tuple[str, ...] = field(default_factory=lambda: tuple(sys.path))
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def serve(self, folder: str, modules: Collection[str]) -> None:
        """Make ready for trainings of a folder that import these modules of it."""
        if any(self._imported.get(name, folder) != folder for name in modules):
            self.close()
        self._imported.update(dict.fromkeys(modules, folder))
        if folder in sys.path and sys.path[0] != folder:
            sys.path.remove(folder)
            sys.path.insert(0, folder)

    def lend(self) -> Lent:
        """Return the executor for one user; what that closes stays open for the next."""
        if self._executor is None:
            self._executor = self.make()
        return Lent(self._executor, self._numbers)

    def close(self) -> None:
        """End the executor, and forget what trainings had this process import."""
        executor, self._executor = self._executor, None
        if executor is not None:
            executor.close()
        folders = {*self._imported.values()}
        self._imported.clear()
        for name, module in list(sys.modules.items()):
            if name not in self._before and _below(module, folders):
                del sys.modules[name]
        sys.path[:] = [place for place in sys.path if place not in folders or place in self._path]


def _below(module: ModuleType, folders: Collection[str]) -> bool:
    file = getattr(module, "__file__", None)
    return (
        isinstance(file, str)
        and "site-packages" not in file
        and any(file.startswith(f"{folder}{os.sep}") for folder in folders)
        and not str(getattr(module, "__name__", "")).startswith("remedy.")
    )


@dataclass
class Lent:
    """An executor whose runs have the borrower's own numbers, and that outlives the borrower.

    A run that was given up may still end later; its result is nobody's then.
    """

    inner: Executor
    numbers: Iterator[int]
    _mine: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.capacity = self.inner.capacity

    def submit(self, order: WorkOrder) -> None:
        number = next(self.numbers)
        self._mine[number] = order.number
        self.inner.submit(replace(order, number=number))

    def wait(self, timeout: float) -> list[Event]:
        return [event for inner in self.inner.wait(timeout) if (event := self._told(inner)) is not None]

    def _told(self, event: Event) -> Event | None:
        if isinstance(event, Finished):
            mine = self._mine.pop(event.result.number, None)
            return None if mine is None else Finished(replace(event.result, number=mine))
        mine = self._mine.get(event.number)
        return None if mine is None else replace(event, number=mine)

    def cancel(self, number: int) -> None:
        for inner, mine in self._mine.items():
            if mine == number:
                self.inner.cancel(inner)

    def close(self) -> None:
        """Cancel what still runs, and leave the rest to the next borrower."""
        for inner in self._mine:
            self.inner.cancel(inner)
        self._mine.clear()


def grouped(needs: Collection[tuple[str, str, Collection[str]]]) -> list[list[str]]:
    """Put trainings (name, folder, modules they import) together that can share workers, in their order."""
    groups: list[tuple[list[str], dict[str, str]]] = []
    for name, folder, modules in needs:
        fitting = (group for group in groups if all(group[1].get(module, folder) == folder for module in modules))
        group = next(fitting, None)
        if group is None:
            group = ([], {})
            groups.append(group)
        group[0].append(name)
        group[1].update(dict.fromkeys(modules, folder))
    return [names for names, _ in groups]


def folder_of(path: str, module: str) -> str:
    """Return the folder from which a training's own modules are imported."""
    return str(Path.cwd() if module else Path(path).resolve().parent)
