"""What a pre-flight check finds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One sentence a colleague would say, and the remedies it suggests."""

    check: str
    level: str
    message: str
    suggests: tuple[str, ...] = ()
