"""Finds the training a TARGET names, and imports the user's file under a private name."""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType

from remedy.spaces.error import InputError, UserCodeError, raised
from remedy.spaces.process import Globals
from remedy.spaces.remedy import Remedy
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

    @property
    def name(self) -> str:
        """`file.py:function` or `package.module:function`, for people."""
        return f"{self.module or self.path}:{self.function}"


@dataclass(frozen=True)
class Loaded:
    """A training with the remedies its file declares."""

    source: Source
    training: Training
    remedies: tuple[Remedy, ...]
    code: Mapping[str, str] = field(default_factory=dict)
    """The hash of each file of the user's folder that is imported, by its path below the folder."""


def find(target: str) -> Source:
    """Read a TARGET without running any of its code.

    Raises:
        InputError: no such file or function, or a file that does not parse.
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
    return Source(str(path.resolve()), function, hashlib.sha256(content).hexdigest(), module)


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
    prepare = any(
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "prepare"
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "remedy"
        for node in ast.walk(tree)
    )
    return names, prepare


def _default(path: Path, names: set[str], *, calls_prepare: bool) -> str:
    if DEFAULT in names and calls_prepare:
        msg = f"{path} both defines training() and calls remedy.prepare; name the function: {path}:training"
        raise InputError(msg)
    if DEFAULT in names:
        return DEFAULT
    if calls_prepare:
        may_be = "this version takes only a function that returns remedy.Training"
        msg = f"{path} is a script that calls remedy.prepare; {may_be}"
        raise InputError(msg)
    msg = f"{path} neither defines training() nor calls remedy.prepare; say which function: {path}:FUNCTION"
    raise InputError(msg)


def load(source: Source) -> Loaded:
    """Import the file and call the function.

    Raises:
        UserCodeError: the user's code raised; the traceback is kept.
        InputError: the function returned something else.
    """
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
    return Loaded(source, made, tuple(own.values()), _code(source))


def _code(source: Source) -> dict[str, str]:
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


def _ours(module: ModuleType) -> bool:
    return str(getattr(module, "__name__", "")).partition(".")[0] == __name__.partition(".")[0]


def _private(source: Source) -> str:
    return f"_remedy_user_{hashlib.sha256(source.path.encode()).hexdigest()[:12]}_{source.sha256[:12]}"


def _import(source: Source) -> ModuleType:
    name = _private(source)
    if name in sys.modules:
        return sys.modules[name]
    path = Path(source.path).resolve()  # on a cluster it is named from the folder that was sent
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != source.sha256:
        msg = f"{path} has changed since the study began; put it back, or submit it as a new study"
        raise InputError(msg)
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


def _add_folder(folder: Path) -> None:
    # The user's own modules beside the file must be found, also by imports inside functions, called later.
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
