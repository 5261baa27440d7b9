"""What is to run each night, and when: the same for cron, systemd and Kubernetes."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

LONGEST = 72_000
"""Seconds after which a night is ended: before the next one begins."""


@dataclass(frozen=True)
class NightJob:
    """What is to run, and when.

    Attributes:
        name: of the sweep, and `sweep` its file.
        home: where state lies on this machine.
        hour, minute, zone: when; no zone: the machine's own.
        needed: environment variables that are set now and have to be there then.
    """

    name: str
    sweep: Path
    home: Path
    hour: int
    minute: int
    zone: str | None
    needed: tuple[str, ...]

    @property
    def command(self) -> tuple[str, ...]:
        """How this remedy is called from anywhere."""
        return (sys.executable, "-P", "-m", "remedy", "nightly")

    @property
    def environment(self) -> Path:
        """The file that holds what is needed, readable for its owner alone."""
        return configuration() / "remedy" / "environment"

    @property
    def unit(self) -> str:
        """The name of its systemd units and of its CronJob."""
        return f"remedy-nightly-{self.name}"

    @property
    def wanted(self) -> str:
        """What the user has to do for what is needed; empty where nothing is."""
        if not self.needed:
            return ""
        told = ", ".join(f"{name}=..." for name in self.needed)
        return f"\n      {self.environment} has to hold {told} (chmod 600); they are not written anywhere else"


def configuration() -> Path:
    """Return the folder of the user's own configuration."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
