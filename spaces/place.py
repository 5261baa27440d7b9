"""Where the code that a TARGET names lies, and what it defines: read without running it."""

from __future__ import annotations

import ast
import sys
from importlib.machinery import PathFinder
from pathlib import Path

from remedy.spaces.error import InputError

DEFAULT = "training"


def locate(
    place: str, what: str = "target", holds: str = "a function that returns remedy.Training"
) -> tuple[Path, str]:
    """Return the file that a place names, and the module where it names one.

    Raises:
        InputError: there is none, or it is no Python file; `what` names it and `holds` says what it should hold.
    """
    path = Path(place)
    if path.suffix == ".py" or path.exists() or "/" in place:
        if not path.is_file():
            kind = "is a folder" if path.is_dir() else "does not exist"
            msg = f"{what} file {place!r} {kind}; it may be a Python file with {holds}"
            raise InputError(msg)
        if path.suffix != ".py":
            msg = f"{what} file {place!r} is no Python file; it may be one with {holds}"
            raise InputError(msg)
        return path, ""
    file = _file_of(place)
    if file is None:
        msg = f"{what} {place!r} is neither a file nor a module that can be found; it may be one with {holds}"
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


def top_level(path: Path, content: bytes) -> tuple[set[str], bool]:
    """Return the names that a file defines at its top level, and whether it calls `remedy.prepare`.

    Raises:
        InputError: it does not parse.
    """
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


def default(path: Path, names: set[str], *, calls_prepare: bool) -> str:
    """Return the function that is meant where none is named; empty for a script.

    Raises:
        InputError: there is none, or it could be both.
    """
    if DEFAULT in names and calls_prepare:
        msg = f"{path} both defines training() and calls remedy.prepare; name the function: {path}:training"
        raise InputError(msg)
    if DEFAULT in names:
        return DEFAULT
    if calls_prepare:
        return ""
    msg = f"{path} neither defines training() nor calls remedy.prepare; say which function: {path}:FUNCTION"
    raise InputError(msg)
