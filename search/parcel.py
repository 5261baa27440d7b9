"""What is sent to a cluster of the user's folder: a zip that is kept with the study, so that any machine resumes it."""

from __future__ import annotations

import base64
import io
import os
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import pathspec

from remedy.spaces.error import InfrastructureError, InputError

PARCEL = "code.zip.base64"
LARGEST = 30 * 1024**2
IGNORE = ".remedyignore"
_LEFT_OUT = (
    ".*/",  # .git, .venv, .remedy, caches
    "venv/",
    "__pycache__/",
    "*.egg-info/",
    "mlruns/",
    "node_modules/",
    "*.pyc",
    "*.pem",
    "*.key",
    "*.p12",
    ".env*",
    ".netrc",
    ".pypirc",
    ".git-credentials",
    "id_rsa*",
    "id_ed25519*",
    "mlflow.db",
)
_EPOCH = (1980, 1, 1, 0, 0, 0)


def pack(folder: Path) -> str:
    """Return the folder as text, less what nobody sends and what its `.remedyignore` (as `.gitignore`) names.

    Raises:
        InputError: it is larger than a cluster should be sent; the largest parts are named.
    """
    ignore = folder / IGNORE
    lines = ignore.read_text(encoding="utf-8").splitlines() if ignore.is_file() else []
    spec = pathspec.GitIgnoreSpec.from_lines([*_LEFT_OUT, *lines])
    files = list(_files(folder, spec))
    size = sum(path.stat().st_size for path in files)
    if size > LARGEST:
        largest = sorted(files, key=lambda path: -path.stat().st_size)[:3]
        named = ", ".join(f"{path.relative_to(folder)} ({path.stat().st_size / 1024**2:.0f} MB)" for path in largest)
        raise InputError(
            f"folder {str(folder)!r} is {size / 1024**2:.0f} MB, and at most {LARGEST / 1024**2:.0f} MB are sent to a "
            f"cluster; the largest: {named}; name what is not needed in {ignore}"
        )
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in files:
            # No times: the same files are the same parcel.
            entry = zipfile.ZipInfo(str(path.relative_to(folder)), _EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, path.read_bytes())
    return base64.b64encode(packed.getvalue()).decode()


def _files(folder: Path, spec: pathspec.GitIgnoreSpec) -> Iterator[Path]:
    for here, folders, names in os.walk(folder):
        place = Path(here).relative_to(folder)
        folders[:] = sorted(name for name in folders if not spec.match_file(f"{place / name}/"))
        for name in sorted(names):
            path = Path(here) / name
            if path.is_file() and not spec.match_file(str(place / name)):
                yield path


def unpack(text: str, folder: Path) -> None:
    """Put a parcel's files into a folder.

    Raises:
        InfrastructureError: it is damaged, or larger than any that was sent.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(base64.b64decode(text, validate=True))) as archive:
            size = sum(entry.file_size for entry in archive.infolist())  # no entry gives more than it says
            if size > LARGEST:
                raise InfrastructureError(f"the study's parcel of code would be {size / 1024**2:.0f} MB; it is damaged")
            archive.extractall(folder)  # makes no links, and leads neither upwards nor to absolute paths
    except (ValueError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, OSError) as error:
        raise InfrastructureError(f"the study's parcel of code cannot be unpacked: {error}") from None
