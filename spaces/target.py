"""Finds the training a TARGET names, and imports the user's file under a private name."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import shlex
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from remedy.spaces.error import InputError, UserCodeError, raised
from remedy.spaces.place import default, locate, top_level
from remedy.spaces.process import Globals
from remedy.spaces.remedy import Remedy
from remedy.spaces.script import Script
from remedy.spaces.training import Training

_AFTER: dict[str, Globals] = {}
"""What each file leaves set, found when it is first imported in this process."""


@dataclass(frozen=True)
class Source:
    """Where a training comes from. This travels to the workers, the training's objects never do."""

    path: str
    function: str
    sha256: str
    module: str = ""
    script: Script | None = None
    """What is known of a script (door B); its `function` is empty."""
    beside: tuple[Source, ...] = ()
    """The files that declare remedies beside the training's own; they name no function."""

    @property
    def name(self) -> str:
        """`file.py:function`, `package.module:function`, or a script with its arguments, for people."""
        place = self.module or self.path
        if self.script is None:
            return f"{place}:{self.function}" if self.function else place
        return shlex.join([place, "--", *self.script.args]) if self.script.args else place

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Source:
        """Read what `dataclasses.asdict` made of it."""
        script = data.get("script")
        beside = tuple(cls.from_json(one) for one in data.get("beside", ()))
        return cls(**{**data, "script": None if script is None else Script.from_json(script), "beside": beside})


@dataclass(frozen=True)
class Loaded:
    """A training with the remedies its file declares; `training` is None for a script."""

    source: Source
    training: Training | None
    remedies: tuple[Remedy, ...]
    code: Mapping[str, str] = field(default_factory=dict)
    """The hash of each file of the user's folder that is imported, by its path below the folder."""

    @property
    def builders(self) -> Training:
        """The training of a function (door A).

        Raises:
            InputError: it is a script.
        """
        if self.training is None:
            msg = f"{self.source.name} is a script; it may be a function that returns a remedy.Training"
            raise InputError(msg)
        return self.training


def find(target: str, args: Sequence[str] = (), remedies: Sequence[str] = ()) -> Source:
    """Read a TARGET without running any of its code. `args` are for a script, `remedies` files that declare some.

    Raises:
        InputError: no such file or function, a file that does not parse, or arguments for something else.
    """
    place, colon, function = target.rpartition(":")
    if not colon or "/" in function or "\\" in function or function.endswith(".py"):
        place, function = target, ""
    if colon and not function and place != target:
        msg = f"target {target!r} ends in a colon; it may be file.py:function or package.module:function"
        raise InputError(msg)
    path, module = locate(place)
    content = path.read_bytes()
    names, calls_prepare = top_level(path, content)
    if not function:
        function = default(path, names, calls_prepare=calls_prepare)
    elif function not in names:
        offered = ", ".join(sorted(name for name in names if not name.startswith("_"))) or "nothing"
        msg = f"{place} defines no function {function!r} at its top level; it defines {offered}"
        raise InputError(msg)
    script = Script(tuple(args), str(Path.cwd())) if not function else None
    if args and script is None:
        msg = f"arguments after -- are for a script, and {place}:{function} is a function; it is called without any"
        raise InputError(msg)
    beside = tuple(_beside(name) for name in remedies)
    return Source(str(path.resolve()), function, hashlib.sha256(content).hexdigest(), module, script, beside)


def _beside(name: str) -> Source:
    path, module = locate(name, "remedies", "remedies: functions under @remedy.remedy")
    content = path.read_bytes()
    top_level(path, content)
    return Source(str(path.resolve()), "", hashlib.sha256(content).hexdigest(), module)


def found_again(source: Source) -> Source:
    """Read what a study was submitted with as it is now, with what was learned of a script.

    Raises:
        InputError: as `find`.
    """
    place, beside = source.module or source.path, [own.module or own.path for own in source.beside]
    if source.script is None:
        return find(f"{place}:{source.function}", (), beside)
    now = find(place, source.script.args, beside)
    if now.script is None:
        msg = f"{place} is no script any more: it defines training()"
        raise InputError(msg)
    return replace(now, script=source.script)


def load(source: Source) -> Loaded:
    """Import the file and call the function. A script is not run.

    Raises:
        UserCodeError: the user's code raised; the traceback is kept.
        InputError: the function returned something else.
    """
    if source.script is not None:
        return Loaded(source, None, declared(source))
    try:
        module, beside = _import(source), declared(source)
        # What the file sets when it is imported holds for every run, not for the first in a process alone.
        _AFTER.setdefault(_private(source), Globals.now()).put()
        made = getattr(module, source.function)()
    except InputError:
        raise
    except Exception as error:  # noqa: BLE001  (whatever the user's code raises is reported in one sentence)
        raise raised(source.name, error) from None
    except SystemExit as error:
        msg = f"{source.name} called sys.exit({error.code!r}) while it was loaded; it may only define the training"
        raise UserCodeError(msg, traceback.format_exc()) from None
    if not isinstance(made, Training):
        msg = f"{source.name} returned {made!r:.80}; it may return a remedy.Training"
        raise InputError(msg)
    return Loaded(source, made, tuple(_once([*_remedies(module), *beside])), code_of(source))


def declared(source: Source) -> tuple[Remedy, ...]:
    """Import the files beside a training, and return the remedies that they declare.

    Raises:
        UserCodeError: a file raised; a mistake in a declaration is told so.
        InputError: a file declares none.
    """
    found: list[Remedy] = []
    for own in source.beside:
        try:
            mine = _remedies(_import(own))
        except InputError:
            raise
        except (Exception, SystemExit) as error:  # noqa: BLE001  (whatever the user's code raises is one sentence)
            raise raised(own.name, error) from None
        if not mine:
            raise InputError(f"remedies file {own.name!r} declares none; it may be one with @remedy.remedy functions")
        found += mine
    return tuple(_once(found))


def _remedies(module: ModuleType) -> list[Remedy]:
    return [value for value in vars(module).values() if isinstance(value, Remedy)]


def _once(remedies: Sequence[Remedy]) -> list[Remedy]:
    """Leave out what two files hold of one declaration: imported by one from the other, or under two names."""
    found: dict[tuple[str, str], Remedy] = {}
    for own in remedies:
        found.setdefault((own.name, own.declared_in), own)
    return list(found.values())


def code_of(source: Source) -> dict[str, str]:
    """Return the hash of each file of the user's folder that this process has imported, by its path below it."""
    folder = (Path.cwd() if source.module else Path(source.path).parent).resolve()
    found = {Path(own.path).resolve(): own.sha256 for own in (source, *source.beside)}
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        # An environment may lie in the user's folder; what is installed is told by its version.
        if not isinstance(file, str) or not file.startswith(f"{folder}{os.sep}") or "site-packages" in file:
            continue
        path = Path(file)
        if path.suffix == ".py" and path not in found and not _ours(module) and path.is_file():
            found[path] = hashlib.sha256(path.read_bytes()).hexdigest()
    below = {path: path.relative_to(folder) if path.is_relative_to(folder) else path for path in found}
    return {str(below[path]): sha for path, sha in sorted(found.items())}


def code_now(source: Source, before: Mapping[str, str]) -> dict[str, str]:
    """Return the hashes of the files that a script was made of, as they are now; those that are gone are left out."""
    folder = (Path.cwd() if source.module else Path(source.path).parent).resolve()
    files = {name: folder / name for name in before}
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items() if path.is_file()}


def _ours(module: ModuleType) -> bool:
    return str(getattr(module, "__name__", "")).partition(".")[0] == __name__.partition(".")[0]


def _private(source: Source) -> str:
    return f"_remedy_user_{hashlib.sha256(source.path.encode()).hexdigest()[:12]}_{source.sha256[:12]}"


def _import(source: Source) -> ModuleType:
    name = _private(source)
    if name in sys.modules:
        return sys.modules[name]
    path = unchanged(source)
    _add_folder(Path.cwd() if source.module else path.parent)
    if source.module:
        return importlib.import_module(source.module)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None  # noqa: S101  (only None for suffixes that are no Python source)
    assert spec.loader is not None  # noqa: S101
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def unchanged(source: Source) -> Path:
    """Return the user's file.

    Raises:
        InputError: it is not what the study was submitted with.
    """
    path = Path(source.path).resolve()  # on a cluster it is named from the folder that was sent
    if hashlib.sha256(path.read_bytes()).hexdigest() != source.sha256:
        msg = f"{path} has changed since the study began; put it back, or submit it as a new study"
        raise InputError(msg)
    return path


def _add_folder(folder: Path) -> None:
    # The user's own modules beside the file must be found, also by imports inside functions, called later.
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
