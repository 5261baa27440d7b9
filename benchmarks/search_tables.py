"""What the methods of the search benchmark came to, and its tables."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from broken_trainings import CASES, Case
from searchers import PEERS

OURS, LESS = "remedy", "less pre-flight"
METHODS = (OURS, *PEERS)
POINTS = (5, 10, 20, 50)


@dataclass(frozen=True)
class Found:
    """What a method came to in one repeat on one training. Costs are multiples of the training's own; None: not found.

    Attributes:
        true, true_fix: the cost to the first true fix, and what it was.
        minimal, minimal_fix: the cost to the confirmed minimal fix, and what it was.
        held: of 20 fresh seeds, on how many the minimal fix converged; None without one.
        cost, runs: everything that was spent.
        false: trials that converged and whose repair is not true.
        code: the exit code (ours only).
        spent: cost by phase, or by what came of it.
        proving: whether what it found was to be proved at all.
    """

    case: str
    method: str
    repeat: int
    true: float | None = None
    true_fix: str = ""
    minimal: float | None = None
    minimal_fix: str = ""
    held: int | None = None
    cost: float = 0.0
    runs: int = 0
    false: int = 0
    code: int | None = None
    spent: Mapping[str, float] = field(default_factory=dict)
    proving: bool = True


def compared(rows: Sequence[Found]) -> list[Found]:
    """Leave out repeats of a training that not every method has made: medians are over the same seeds."""
    made = {(row.case, row.method, row.repeat) for row in rows}
    methods = {row.method for row in rows}
    return [row for row in rows if all((row.case, method, row.repeat) in made for method in methods)]


def tables(rows: Sequence[Found], budget: float) -> list[str]:
    """Return the tables of what every method has made; of the controls what there is."""
    every, rows = rows, compared(rows)
    rows = [*rows, *(less for row in rows if (less := _less(row)) is not None)]
    by = {(row.case, row.method, row.repeat): row for row in rows}
    cases = [case for case in CASES if any(row.case == case.name for row in rows)]
    methods = [method for method in (OURS, LESS, *PEERS) if any(row.method == method for row in rows)]
    broken = [case for case in cases if case.repairable]
    lines: list[str] = []
    for title, name in (("first true fix", "true"), ("confirmed minimal fix", "minimal")):
        lines += [f"\nCost to the {title}, x the original training (median; `>`: not within the budget)"]
        asked = by if name == "true" else _of_proved(by)
        lines += _costs(asked, broken, methods, name, budget)
    lines += ["\nShare of trainings truly repaired at x the cost of the original training (mean over repeats)"]
    lines += [f"{'':24}" + "".join(f"{point:>8}x" for point in POINTS if point <= budget)]
    for method in methods:
        mine = [row for row in rows if row.method == method and any(row.case == case.name for case in broken)]
        shares = [
            sum(row.true is not None and row.true <= p for row in mine) / len(mine) for p in POINTS if p <= budget
        ]
        lines += [f"{method:24}" + "".join(f"{share:>9.2f}" for share in shares) + f"   n={len(mine)}"] if mine else []
    lines += ["\nRemedies in the first true fix (median, least and most), where one was found"]
    for method in methods:
        counts = [row.true_fix.count(" + ") + 1 for row in rows if row.method == method and row.true_fix]
        told = f"{statistics.median(counts):>6g}   {min(counts)} to {max(counts)}   n={len(counts)}" if counts else ""
        lines += [f"{method:24}{told}"] if counts and method != LESS else []
    lines += ["\nFixes reported as confirmed and minimal that hold on at least 16 of 20 fresh seeds"]
    for method in methods:
        held = [row.held for row in rows if row.method == method and row.held is not None]
        lines += [f"{method:24}{sum(count >= 16 for count in held):>4} of {len(held)}"] if held else []
    lines += ["\nControls: exit code, cost; trials of others that converged, and were no repair"]
    for case in CASES:
        if case.repairable:
            continue
        for row in every:
            if row.case == case.name:
                code = "" if row.code is None else f"exit {row.code}, "
                told = f"{case.name:20}{case.kind:18}{row.method:24}seed {row.repeat}: {code}cost {row.cost:.1f}, "
                lines.append(f"{told}{row.false} false, fix: {row.minimal_fix or 'none'}")
    return lines


def _less(row: Found) -> Found | None:
    """Return our row without what pre-flight tried: some hundred steps, whatever the training's length."""
    if row.method != OURS:
        return None
    tried = row.spent.get("pre-flight", 0.0)
    true, minimal = (None if cost is None else cost - tried for cost in (row.true, row.minimal))
    return replace(row, method=LESS, true=true, minimal=minimal, cost=row.cost - tried)


def _of_proved(by: Mapping[tuple[str, str, int], Found]) -> dict[tuple[str, str, int], Found]:
    """Leave out the repeats in which any method's finds were not to be proved."""
    without = {(row.case, row.repeat) for row in by.values() if not row.proving}
    return {at: row for at, row in by.items() if (row.case, row.repeat) not in without}


def _costs(
    by: Mapping[tuple[str, str, int], Found], cases: Sequence[Case], methods: Sequence[str], name: str, budget: float
) -> list[str]:
    lines = [f"{'':22}" + "".join(f"{method[:22]:>24}" for method in methods)]
    logs: dict[str, dict[str, float]] = {method: {} for method in methods}
    for case in cases:
        cells = []
        for method in methods:
            mine = [row for (at, by_whom, _), row in by.items() if (at, by_whom) == (case.name, method)]
            if not mine:
                cells.append("")
                continue
            costs = [getattr(row, name) if getattr(row, name) is not None else math.inf for row in mine]
            median = statistics.median_high(costs)
            logs[method][case.name] = min(median, budget)
            cells.append(f"{'>' if median > budget else ''}{min(median, budget):.1f}")
        repeats = len({repeat for (at, _, repeat) in by if at == case.name})
        lines.append(f"{case.name:22}" + "".join(f"{cell:>24}" for cell in cells) + f"   {repeats} repeats")
    whole = [case.name for case in cases if all(case.name in logs[method] for method in methods)]
    if not whole:
        return lines
    means = {m: math.exp(statistics.fmean(math.log(max(1e-9, logs[m][case])) for case in whole)) for m in methods}
    lines.append(f"{f'geometric mean of {len(whole)}':22}" + "".join(f"{means[method]:>24.2f}" for method in methods))
    others = {method: mean for method, mean in means.items() if method in PEERS}
    if OURS in means and others:
        best = min(others, key=lambda method: others[method])
        lines.append(f"remedy is {others[best] / means[OURS]:.2f} times cheaper than the best of the others ({best})")
        rand = [m for m in methods if m.startswith("random")]
        dear = {m: [case for case in whole if logs[OURS][case] > logs[m][case]] for m in rand}
        lines += [f"dearer than {m} on: {', '.join(names) or 'none'}" for m, names in dear.items()]
    return lines


def waste(rows: Sequence[Found]) -> list[str]:
    """Return where remedy's steps went, as multiples of the original training, the mean over repeats."""
    lines = ["\nWhere remedy's steps went (x the original training, mean over repeats)"]
    for case in CASES:
        mine = [row for row in rows if row.case == case.name and row.method == OURS]
        names = {name for row in mine for name in row.spent}
        spent = {name: statistics.fmean(row.spent.get(name, 0) for row in mine) for name in names}
        parts = [f"{name} {cost:.1f}" for name, cost in sorted(spent.items(), key=lambda p: -p[1]) if cost >= 0.05]
        fixes = sorted({row.minimal_fix or "none" for row in mine})
        lines += [f"{case.name:22}{', '.join(parts)}\n{'':22}-> {'; '.join(fixes)}"] if mine else []
    return lines
