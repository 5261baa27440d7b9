"""Door B: what a script with a loop of its own calls. Outside a study both functions cost nothing and do nothing."""

from __future__ import annotations

import os
from typing import Any, Protocol

FIX = "REMEDY_FIX"


class Behind(Protocol):
    """What stands behind the door: a run of a study, or a fix that is applied in production."""

    def prepare(self, parts: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return what takes the place of the parts, in their order."""

    def report(self, metrics: dict[str, Any]) -> None:
        """Take validation metrics."""


class Door:
    """Who stands behind it; nobody, outside a study."""

    behind: Behind | None = None


def prepare(*parts: Any) -> Any:
    """Return the given parts in their order, made ready for a run of a study; outside one exactly what was given.

    Args:
        parts: model, loss, optimizer and train DataLoader, and where there are any the scheduler, DataLoaders for
            validation and a GradScaler, in any order. One alone is returned alone.

    Raises:
        InputError: within a study, or with `REMEDY_FIX`: a part is missing, or can not be what it is.
    """
    if Door.behind is None and os.environ.get(FIX):
        from remedy.workers.production import Production  # noqa: PLC0415  (outside a study nothing heavy is imported)

        Door.behind = Production(os.environ[FIX])
    new = parts if Door.behind is None else Door.behind.prepare(parts)
    return new[0] if len(parts) == 1 else new


def report(**metrics: float) -> None:
    """Say what a validation found: `remedy.report(accuracy=0.93)`. Outside a study this does nothing."""
    if Door.behind is not None:
        Door.behind.report(metrics)
