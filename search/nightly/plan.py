"""What a night has in hand of one training, from loading it to its record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from remedy.search.nightly.check import NightCheck
from remedy.search.nightly.explorer import NightExplorer
from remedy.search.nightly.facts import NightFacts
from remedy.search.nightly.sweep import Entry
from remedy.search.spec import Spec


@dataclass(frozen=True)
class Looked:
    """A training that was loaded and checked, as plain data."""

    spec: Spec
    facts: NightFacts
    modules: tuple[str, ...] = ()
    """What it imports of its own folder, by name."""


class NotRun(Exception):  # noqa: N818  (it is an outcome)
    """A training cannot be run tonight: one sentence, and the facts that are known of it."""

    def __init__(self, said: str, facts: Mapping[str, Any] | None = None) -> None:
        """Keep both."""
        super().__init__(said)
        self.facts = facts


@dataclass
class NightPlan:
    """One training's night."""

    entry: Entry
    earlier: dict[str, Any] | None
    latest: dict[str, Any] | None
    looked: Looked | None = None
    check: NightCheck | None = None
    explorer: NightExplorer | None = None
    record: dict[str, Any] | None = None
    unlike: str = ""
    report: dict[str, Any] | None = None

    @property
    def known(self) -> Looked:
        """The training as it was loaded; asked only of those that were."""
        assert self.looked is not None  # noqa: S101  (as said)
        return self.looked

    @property
    def checked(self) -> NightCheck:
        """Its check; asked only of those that were loaded."""
        assert self.check is not None  # noqa: S101  (as said)
        return self.check
