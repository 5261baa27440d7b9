"""Finds the training a TARGET names, and imports the user's file under a private name."""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import os
import shlex
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from remedy.spaces.error import InputError, UserCodeError, raised
from remedy.spaces.process import Globals
from remedy.spaces.remedy import Remedy
from remedy.spaces.script import Script
from remedy.spaces.training import Training

DEFAULT = "training"
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

    @property
    def name(self) -> str:
        """`file.py:function`, `package.module:function`, or a script with its arguments, for people."""
        place = self.module or self.path
        if self.script is None:
            return f"{place}:{self.function}"
        return shlex.join([place, "--", *self.script.args]) if self.script.args else place

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Source:
        """Read what `dataclasses.asdict` made of it."""
        script = data.get("script")
        return cls(**{**data, "script": None if script is None else Script.from_json(script)})


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


def find(target: str, args: Sequence[str] = ()) -> Source:
    """Read a TARGET without running any of its code. `args` are for a script.

    Raises:
        InputError: no such file or function, a file that does not parse, or arguments for something else.
    """
    place, colon, function = target.rpartition(":")
    if not colon or "/" in function or "\\" in function or function.endswith(".py"):
        place, function = target, ""
    if colon and not function and place != target:
        msg = f"target {target!r} ends in a colon; it may be file.py:function or package.module:function"
        raise InputError(msg)
    path, module = _locate(place)
    content = path.read_bytes()
    names, calls_prepare = _top_level(path, content)
    if not function:
        function = _default(path, names, calls_prepare=calls_prepare)
    elif function not in names:
        offered = ", ".join(sorted(name for name in names if not name.startswith("_"))) or "nothing"
        msg = f"{place} defines no function {function!r} at its top level; it defines {offered}"
        raise InputError(msg)
    script = Script(tuple(args), str(Path.cwd())) if not function else None
    if args and script is None:
        msg = f"arguments after -- are for a script, and {place}:{function} is a function; it is called without any"
        raise InputError(msg)
    return Source(str(path.resolve()), function, hashlib.sha256(content).hexdigest(), module, script)


def found_again(source: Source) -> Source:
    """Read what a study was submitted with as it is now, with what was learned of a script.

    Raises:
        InputError: as `find`.
    """
    place = source.module or source.path
    if source.script is None:
        return find(f"{place}:{source.function}")
    now = find(place, source.script.args)
    if now.script is None:
        msg = f"{place} is no script any more: it defines training()"
        raise InputError(msg)
    return replace(now, script=source.script)


def _locate(place: str) -> tuple[Path, str]:
    path = Path(place)
    if path.suffix == ".py" or path.exists() or "/" in place:
        if not path.is_file():
            kind = "is a folder" if path.is_dir() else "does not exist"
            msg = f"target file {place!r} {kind}; it may be a Python file with a function that returns remedy.Training"
            raise InputError(msg)
        if path.suffix != ".py":
            msg = f"target file {place!r} is no Python file; it may be file.py:function"
            raise InputError(msg)
        return path, ""
    file = _file_of(place)
    if file is None:
        msg = f"target {place!r} is neither a file nor a module that can be found; it may be file.py:function"
        raise InputError(msg)
    return file, place


def _file_of(module: str) -> Path | None:
    """Find a module's file without importing the packages above it."""
    where: list[str] | None = [str(Path.cwd()), *sys.path]
    spec = None
    for part in module.split("."):
        spec = PathFinder.find_spec(part, where) if part and where else None
        if spec is None:
            return None
        where = list(spec.submodule_search_locations or ())
    return Path(spec.origin) if spec is not None and spec.origin and Path(spec.origin).is_file() else None


def _top_level(path: Path, content: bytes) -> tuple[set[str], bool]:
    try:
        tree = ast.parse(content, str(path))
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None)
        msg = f"{path} does not parse: {getattr(error, 'msg', error)}" + (f" (line {line})" if line else "")
        raise InputError(msg) from None
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {t.id for t in node.targets if isinstance(t, ast.Name)}
        elif isinstance(node, ast.ImportFrom | ast.Import):
            names |= {alias.asname or alias.name for alias in node.names}
    prepare = any(isinstance(node, ast.Call) and _is_prepare(node.func, tree) for node in ast.walk(tree))
    return names, prepare


def _is_prepare(called: ast.expr, tree: ast.Module) -> bool:
    """Whether this is `remedy.prepare`, under whatever names it was imported."""
    known = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import) or (isinstance(node, ast.ImportFrom) and node.module == "remedy")
        for alias in node.names
        if alias.name == ("remedy" if isinstance(node, ast.Import) else "prepare")
    }
    whose = called.value if isinstance(called, ast.Attribute) and called.attr == "prepare" else called
    return isinstance(whose, ast.Name) and whose.id in known


def _default(path: Path, names: set[str], *, calls_prepare: bool) -> str:
    if DEFAULT in names and calls_prepare:
        msg = f"{path} both defines training() and calls remedy.prepare; name the function: {path}:training"
        raise InputError(msg)
    if DEFAULT in names:
        return DEFAULT
    if calls_prepare:
        return ""
    msg = f"{path} neither defines training() nor calls remedy.prepare; say which function: {path}:FUNCTION"
    raise InputError(msg)


def load(source: Source) -> Loaded:
    """Import the file and call the function. A script is not run.

    Raises:
        UserCodeError: the user's code raised; the traceback is kept.
        InputError: the function returned something else.
    """
    if source.script is not None:
        return Loaded(source, None, ())
    try:
        module = _import(source)
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
    own = {id(value): value for value in vars(module).values() if isinstance(value, Remedy)}
    return Loaded(source, made, tuple(own.values()), code_of(source))


def code_of(source: Source) -> dict[str, str]:
    """Return the hash of each file of the user's folder that this process has imported, by its path below it."""
    folder = (Path.cwd() if source.module else Path(source.path).parent).resolve()
    found = {Path(source.path).resolve(): source.sha256}
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
