import os

import optuna
import pytest


@pytest.fixture(autouse=True)
def no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """A study writes a thousand lines; waiting for the disk at each is three quarters of its time."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials live in memory: for many worlds that are never resumed."""
    monkeypatch.setattr("remedy.search.study.JournalStorage", lambda backend: optuna.storages.InMemoryStorage())
