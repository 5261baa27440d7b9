#!/usr/bin/env python3
"""How early doomed runs are ended, and whether healthy ones live: our detectors and the rules of others, side by side.

usage: python benchmarks/detection.py [--half calibrate|judge|final] [--kinds] [--missed] [--corpus DIR]

Replays the corpus (corpus.py), and prints for each half on its own: the share of the doomed budget saved, doomed runs
caught, healthy runs stopped, and the median step of a catch as a share of the budget. A run is doomed if it missed its
goal at the end of its full budget; it counts as stopped wrongly only where it had not reached the goal yet. Every run
weighs the same; intervals are 95 %, from 2,000 draws of kinds and of seeds within (for healthy runs stopped: Wilson's,
over runs, since a count of 0 has no spread).

Ours see of a run what they see in a study, at its sparsest; the others get every look that the corpus has.
`remedy` are the detectors: what they end is called collapsed. `+ forecast` adds the runs that a search ends because
they will not make it in their budget (workers/forecast.py), which are called missed, never collapsed. `ours at that
rate` is what both together would save were they as impatient as the peer (HASTE below: thresholds of the forecast, as a
study file sets them): of the points that stop no more healthy runs than the peer does, with a coin for what is left.
"""

from __future__ import annotations

import argparse
import math
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from corpus import FOLDER, Trace, paced, traces
from corpus_kinds import KINDS, Role
from peers import PEERS, Rule, Stops

from remedy.spaces.metric import meets
from remedy.workers.detectors.catalogue import detectors
from remedy.workers.detectors.threshold import with_values
from remedy.workers.forecast import Forecast

DRAWS = 2000
COLLAPSED = 0.25
TOP = 10
EVEN = 0.005
HEADINGS = {
    Role.CALIBRATE: "Kinds that calibrated",
    Role.JUDGE: "Kinds that only judge",
    Role.FINAL: "Kinds that judge last",
}


@dataclass(frozen=True)
class Judged:
    """What a rule did to one run.

    Attributes:
        kind: of training.
        doomed: whether it missed its goal when nothing stopped it.
        collapsed: whether it ended no further than a quarter of the way from guessing to the goal.
        stop: the share of its budget at which it was ended, 1 where it was not.
        wrong: whether it was healthy, and ended before it had reached the goal.
    """

    kind: str
    doomed: bool
    collapsed: bool
    stop: float
    wrong: bool


def judged(trace: Trace, stop: int | None) -> Judged:
    """Compare what a rule did with how the run ended."""
    steps = trace.setting.steps
    if stop is None or stop >= steps:
        stop = None
    last = [value for step, value in trace.metrics if stop is not None and step <= stop][-3:]
    there = len(last) == 3 and meets(sum(last) / 3, trace.setting.goal, trace.setting.mode)
    return Judged(
        trace.kind, trace.doomed, not trace.reached > COLLAPSED, 1.0 if stop is None else stop / steps,
        wrong=stop is not None and not trace.doomed and not there,
    )  # fmt: skip


# ---------------------------------------------------------------- ours


@cache
def ours(trace: Trace) -> int | None:
    """Return the step at which our detectors end a run."""
    found = verdict(trace)
    return found[0] if found else None


@cache
def verdict(trace: Trace) -> tuple[int, str] | None:
    """Return the first stop of the whole catalogue, and its symptom."""
    watching = detectors(trace.setting)
    for seen in paced(trace):
        for detector in watching:
            said = detector.observe(seen)
            if said is not None and said.stops:
                return seen.step, str(said.symptom)
    return None


@cache
def forecast(trace: Trace) -> int | None:
    """Return the step at which the forecast gives a run up."""
    ahead = Forecast(trace.setting)
    return next((seen.step for seen in paced(trace) if ahead.hopeless(seen)), None)


def both(trace: Trace) -> int | None:
    """Return what comes first."""
    steps = [step for step in (ours(trace), forecast(trace)) if step is not None]
    return min(steps, default=None)


# From patient to hasty, fixed on the calibrating kinds: thresholds of the forecast, as a study file sets them. First a
# loss that rises is not forgiven, then one that does not fall, then what is behind a line to the goal.
_ALL = {"risen_by": -100.0}
_FALLING = {**_ALL, "risen": -0.02, "risen_over": 0.1}
_CLOSE = {**_ALL, "risen_over": 0.05}
HASTE: tuple[Mapping[str, float], ...] = (
    {},
    {"risen": 0.2},
    *({"risen": 0.1, "risen_by": least} for least in (0.1, 0.05, -100.0)),
    *({**_CLOSE, "risen": risen} for risen in (0.1, 0.05, 0.02, 0.0, -0.01)),
    {**_FALLING, "demand_from": 0.1},
    *({**_FALLING, "demand_from": 0.05, "demand_by": by} for by in (1.2, 0.8)),
    {**_CLOSE, "risen": 0.1, "demand_from": 0.05, "demand_by": 0.8},
    *({**_CLOSE, "risen": -0.01, "demand_from": 0.05, "demand_by": by} for by in (0.8, 0.6, 0.4, 0.2, 0.1)),
)


def impatient(trace: Trace, haste: Mapping[str, float]) -> int | None:
    """Return the step at which a run is ended with a forecast of these thresholds."""
    ahead = with_values(Forecast, haste)(trace.setting)
    given_up = next((seen.step for seen in paced(trace) if ahead.hopeless(seen)), None)
    return min((step for step in (ours(trace), given_up) if step is not None), default=None)


@dataclass(frozen=True)
class Point:
    """What is saved of the doomed budget at a share of healthy runs stopped."""

    saved: float
    rate: float

    def at(self, rate: float) -> float:
        """Return what is saved with a coin for what is left of another rate."""
        coin = (rate - self.rate) / (1 - self.rate) if self.rate < 1 else 0.0
        return self.saved + (1 - self.saved) * coin


def impatience(runs: Sequence[Trace]) -> list[Point]:
    """Return what ours save with ever less patience."""
    points = [Point(0.0, 0.0)]  # stops nothing
    for haste in HASTE:
        made = [judged(trace, impatient(trace, haste)) for trace in runs]
        healthy = [run for run in made if not run.doomed]
        points.append(Point(mean([run for run in made if run.doomed], saved), mean(healthy, lambda run: run.wrong)))
    return points


OURS: Mapping[str, Rule] = {
    "remedy": lambda study: [ours(trace) for trace in study],
    "remedy + forecast": lambda study: [both(trace) for trace in study],
}

# ---------------------------------------------------------------- shares


def mean(runs: Sequence[Judged], value: Callable[[Judged], float]) -> float:
    """Return the mean over runs; NaN for none."""
    return float(np.mean([value(run) for run in runs])) if runs else math.nan


def interval(runs: Sequence[Judged], value: Callable[[Judged], float]) -> tuple[float, float]:
    """Return the 95 % interval of such a mean, over draws of kinds and of seeds within."""
    kinds: dict[str, list[float]] = {}
    for run in runs:
        kinds.setdefault(run.kind, []).append(value(run))
    values = [np.array(each) for each in kinds.values()]
    draw = np.random.default_rng(0)
    means = []
    for _ in range(DRAWS if values else 0):
        drawn = [values[place] for place in draw.integers(len(values), size=len(values))]
        means.append(np.mean(np.concatenate([own[draw.integers(len(own), size=len(own))] for own in drawn])))
    return (float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))) if means else (math.nan, math.nan)


def wilson(count: int, total: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share."""
    if not total:
        return math.nan, math.nan
    z, share = 1.959964, count / total
    middle, half = share + z * z / (2 * total), z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    return max(0.0, (middle - half) / (1 + z * z / total)), min(1.0, (middle + half) / (1 + z * z / total))


def saved(run: Judged) -> float:
    return 1 - run.stop


def caught(run: Judged) -> float:
    return float(run.stop < 1)


@dataclass(frozen=True)
class Score:
    """How a rule did on a half of the corpus."""

    saved: float
    saved_between: tuple[float, float]
    caught: float
    caught_between: tuple[float, float]
    wrong: int
    healthy: int
    median: float

    @classmethod
    def of(cls, runs: Sequence[Judged]) -> Score:
        doomed, healthy = [run for run in runs if run.doomed], [run for run in runs if not run.doomed]
        stops = [run.stop for run in doomed if run.stop < 1]
        return cls(
            mean(doomed, saved), interval(doomed, saved), mean(doomed, caught),
            interval(doomed, caught), sum(run.wrong for run in healthy), len(healthy),
            float(np.median(stops)) if stops else math.nan,
        )  # fmt: skip

    @property
    def rate(self) -> float:
        """The share of healthy runs stopped."""
        return self.wrong / self.healthy if self.healthy else math.nan

    def line(self, name: str, curve: Sequence[Point]) -> str:
        low, high = wilson(self.wrong, self.healthy)
        at = ""
        if curve:
            level = max(point.at(self.rate) for point in curve if point.rate <= self.rate)
            told = "even" if abs(level - self.saved) < EVEN else "ahead" if level > self.saved else "BEHIND"
            at = f"{level:>8.0%} {told}"
        return (
            f"{name:<36}{between(self.saved, self.saved_between)}{between(self.caught, self.caught_between)}"
            f"{self.wrong:>5} of {self.healthy} {self.rate:>4.0%} [{low:.0%}, {high:.0%}]".ljust(96)
            + f"{self.median:>7.0%}{at}"
        )


def between(share: float, bounds: tuple[float, float]) -> str:
    return f"{share:>6.0%} [{bounds[0]:.0%}, {bounds[1]:.0%}]".ljust(20)


# ---------------------------------------------------------------- tables

HEADER = f"{'rule':<36}{' saved':<20}{'caught':<20}  healthy stopped".ljust(96) + " median  ours at that rate (saved)"


def mixed(runs: Sequence[Trace]) -> list[Trace]:
    """Return the runs as one study would start them, in an order fixed once."""
    order = list(runs)
    random.Random(0).shuffle(order)
    return order


def by_rule(rule: Rule, name: str, runs: Sequence[Trace]) -> list[Judged]:
    """Apply a rule: BTTackler compares train losses, so each kind is a study of its own; the others see all runs."""
    studies: list[list[Trace]] = [mixed(runs)]
    if name == "BTTackler":
        kinds = sorted({trace.kind for trace in runs})
        studies = [[trace for trace in runs if trace.kind == kind] for kind in kinds]
    return [
        judged(trace, stop) for study in studies for trace, stop in zip(study, rule(study), strict=True)
    ]  # fmt: skip


def compared(runs: Sequence[Trace]) -> dict[str, list[Judged]]:
    """Apply every rule, ours and those of others."""
    return {name: by_rule(rule, name, runs) for name, rule in {**OURS, **PEERS}.items()}


def table(results: Mapping[str, Sequence[Judged]], curve: Sequence[Point]) -> list[str]:
    """Return the lines of the table over all kinds."""
    lines = [HEADER]
    for name, runs in results.items():
        lines.append(Score.of(runs).line(name, () if name in OURS else curve))
    return lines


def kinds_table(runs: Sequence[Trace], results: Mapping[str, Sequence[Judged]]) -> list[str]:
    """Return a line for each kind: how our detectors, alone and with the forecast, did on it."""
    lines = [f"{'kind':<28}doomed  caught  saved   with forecast   healthy  stopped   median  symptoms"]
    for kind in dict.fromkeys(trace.kind for trace in runs):
        own = [trace for trace in runs if trace.kind == kind]
        alone = [run for run in results["remedy"] if run.kind == kind]
        more = [run for run in results["remedy + forecast"] if run.kind == kind]
        doomed = [run for run in alone if run.doomed]
        ends = [run.stop for run in doomed if run.stop < 1]
        also = [run for run in more if run.doomed]
        said = Counter(found[1] for trace in own if (found := verdict(trace)))
        lines.append(
            f"{kind:<28}{len(doomed):>6}{sum(map(caught, doomed)):>8.0f}{share(doomed):>7}"
            f"{sum(map(caught, also)):>8.0f}{share(also):>8}{len(alone) - len(doomed):>10}"
            f"{sum(run.wrong for run in more):>9}{f'{np.median(ends):.0%}' if ends else '-':>9}  "
            + ", ".join(f"{name} {count}" for name, count in said.most_common())
        )
    return lines


def share(runs: Sequence[Judged]) -> str:
    return f"{np.mean([saved(run) for run in runs]):.0%}" if runs else "-"


def searches_table(studies: Sequence[Sequence[Trace]]) -> list[str]:
    """Return a line for each rule: what it does to searches, as BTTackler is judged."""
    columns = f"{'rule':<36}{'collapsed stopped':<20}{'budget saved':<15}{'top-10 killed':<16}{'best killed':<14}"
    lines = [columns + "reached the goal, killed"]
    for name, rule in {**OURS, **PEERS}.items():
        gone = collapsed = killed = best = lost = good = 0
        kept: list[float] = []
        for study in studies:
            stops: Stops = rule(study)
            runs = [judged(trace, stop) for trace, stop in zip(study, stops, strict=True)]
            order = sorted(range(len(study)), key=lambda n, study=study: -_finite(study[n].reached))  # type: ignore[misc]
            collapsed += sum(run.collapsed for run in runs)
            gone += sum(run.collapsed and run.stop < 1 for run in runs)
            kept += [saved(run) for run in runs]
            killed += sum(runs[place].stop < 1 for place in order[:TOP])
            best += runs[order[0]].stop < 1
            good += sum(not run.doomed for run in runs)
            lost += sum(not run.doomed and run.stop < 1 for run in runs)
        lines.append(
            f"{name:<36}{f'{gone} of {collapsed}':<20}{np.mean(kept):<15.0%}{f'{killed} of {TOP * len(studies)}':<16}"
            f"{f'{best} of {len(studies)}':<14}{lost} of {good}"
        )
    return lines


def _finite(value: float) -> float:
    return value if math.isfinite(value) else -math.inf


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--half", choices=[str(role) for role in Role], help="default: all three")
    parser.add_argument("--kinds", action="store_true", help="a line for each kind, too")
    parser.add_argument("--missed", action="store_true", help="say which doomed runs were not caught")
    parser.add_argument("--corpus", type=Path, default=FOLDER, metavar="DIR", help="default: %(default)s")
    asked = parser.parse_args()
    for role in Role:
        if asked.half not in (None, str(role)):
            continue
        runs, studies = [], []
        for kind in KINDS:
            if kind.role is not role:
                continue
            seen = list(traces(kind, asked.corpus))
            (studies.append if kind.search else runs.extend)(seen)  # type: ignore[operator]
        print(f"\n# {HEADINGS[role]}\n")
        report(runs, [study for study in studies if study], kinds=asked.kinds, missed=asked.missed)


def report(runs: Sequence[Trace], studies: Sequence[Sequence[Trace]], *, kinds: bool, missed: bool) -> None:
    """Print what is to be said of one half."""
    doomed = [trace for trace in runs if trace.doomed]
    lost = sum(not trace.reached > COLLAPSED for trace in doomed)
    print(
        f"{len(runs)} runs of {len({trace.kind for trace in runs})} kinds: {len(doomed)} doomed ({lost} of them end no "
        f"further than a quarter of the way from guessing to the goal), {len(runs) - len(doomed)} healthy, "
        f"{sum(not trace.doomed and trace.plateau >= 0.3 for trace in runs)} of these with a plateau of 30 % of the "
        "budget or more\n"
    )
    if runs:
        results = compared(runs)
        print("\n".join(table(results, impatience(runs))))
        if kinds:
            print("\n" + "\n".join(kinds_table(runs, results)))
        if missed:
            for trace in doomed:
                if ours(trace) is None:
                    print(
                        f"not caught: {trace.kind} {trace.seed}, ends at {trace.metric:.3g}, forecast {forecast(trace)}"
                    )
    if studies:
        print(f"\nSearches: {len(studies)} of {len(studies[0])} random configurations\n")
        print("\n".join(searches_table(studies)))


if __name__ == "__main__":
    main()
