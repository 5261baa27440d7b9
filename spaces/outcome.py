"""How a run ended."""

from __future__ import annotations

from enum import StrEnum


class Outcome(StrEnum):
    """The seven ways a run can end; every run of a study has exactly one."""

    CONVERGED = "converged"
    """The goal was met: the mean of the last three validation values, at the end of the budget (or, in the search
    phase only, provisionally before it)."""
    COLLAPSED = "collapsed"
    """A detector gave a verdict that ends the run."""
    MISSED = "missed"
    """The full budget was trained, the goal was not met, and no detector stopped the run."""
    STOPPED = "stopped"
    """The search had no more use for the run."""
    FAILED = "failed"
    """The user's code raised, or the run took longer than `--run-timeout`."""
    INAPPLICABLE = "inapplicable"
    """A remedy found nothing to change."""
    LOST = "lost"
    """Infrastructure: a worker died. Retried, and counted apart."""
