"""The statistics of the evidence: seeds are its unit."""

from __future__ import annotations

import math
from collections.abc import Sequence

LEAST_RUNS = 5
MOST_RUNS = 20
SHARE = 0.8
LEVEL = 0.05
LEAST_TOLD = 4
"""Fewest seeds for which an interval is told: with three, all against none may still be luck (Fisher, p = 0.05)."""
_Z = 1.959963984540054


def wilson(converged: int, runs: int) -> tuple[float, float]:
    """Return the Wilson 95 % interval of a share, clamped to contain k/n (Wilson 1927); (0, 1) without runs."""
    if runs == 0:
        return 0.0, 1.0
    share, z2 = converged / runs, _Z * _Z
    center = (share + z2 / (2 * runs)) / (1 + z2 / runs)
    half = _Z / (1 + z2 / runs) * math.sqrt(share * (1 - share) / runs + z2 / (4 * runs * runs))
    return min(share, max(0.0, center - half)), max(share, min(1.0, center + half))


def fisher(converged: int, runs: int, base_converged: int, base_runs: int) -> float:
    """Return the one-sided p of Fisher's exact test that the first share is larger than the second."""
    total, successes = runs + base_runs, converged + base_converged
    most = min(runs, successes)
    ways = math.comb(total, successes)
    tail = sum(math.comb(runs, k) * math.comb(base_runs, successes - k) for k in range(converged, most + 1))
    return tail / ways


def difference(converged: int, runs: int, base_converged: int, base_runs: int) -> tuple[float, float]:
    """Return Newcombe's 95 % interval of the difference of two shares, from the two Wilson intervals (1998)."""
    return balance(((1, converged, runs), (-1, base_converged, base_runs)))


def balance(parts: Sequence[tuple[int, int, int]]) -> tuple[float, float]:
    """Return the 95 % interval of shares added and taken away: of each its sign, how many converged, of how many.

    Newcombe's interval for any number of shares, from the Wilson interval of each (Zou and Donner 2008).
    """
    total, down, up = 0.0, 0.0, 0.0
    for sign, converged, runs in parts:
        share, (low, high) = converged / runs, wilson(converged, runs)
        under, over = (share - low, high - share) if sign > 0 else (high - share, share - low)
        total, down, up = total + sign * share, math.hypot(down, under), math.hypot(up, over)
    least, most = (sum(sign for sign, _, _ in parts if sign * side > 0) for side in (-1, 1))
    return max(float(least), total - down), min(float(most), total + up)


def holds(converged: int, runs: int) -> bool:
    """Whether a share of converged runs reaches the 80 % asked of a fix."""
    return runs > 0 and converged >= SHARE * runs - 1e-9


def can_hold(converged: int, failed: int, runs: int) -> bool:
    """Whether 80 % of `runs` can still be reached after so many converged and failed."""
    return holds(runs - failed, runs) and converged + failed <= runs


def better(converged: int, runs: int, base_converged: int, base_runs: int) -> bool:
    """Whether the fix beats the baseline on the same seeds (one-sided Fisher exact test, p < 0.05)."""
    return fisher(converged, runs, base_converged, base_runs) < LEVEL
