"""Servers of the tests' own."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.deployed import Database


@pytest.fixture(scope="module")
def database() -> Iterator[Database]:
    # Below /tmp: a socket's path must be short, and its owner is another user, who cannot enter pytest's folders.
    with (
        tempfile.TemporaryDirectory(prefix="remedy-pg-", dir="/tmp", ignore_cleanup_errors=True) as folder,
        Database(Path(folder)).running() as running,
    ):
        yield running


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder with a short path: Ray's sockets lie in it."""
    with tempfile.TemporaryDirectory(prefix="rd-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        yield Path(folder)
