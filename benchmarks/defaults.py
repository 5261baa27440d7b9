#!/usr/bin/env python3
"""What the known-good defaults restore by themselves, on trainings that they were not written for.

usage: python benchmarks/defaults.py [--seeds N] [--only KIND ...]

Every kind of training in the corpus (corpus_kinds.py) of which each recorded run is doomed is trained with the defaults
that a study begins with, less those that find nothing to change, to its end, on fresh seeds; and every kind of which
each recorded run is healthy, to see whether they break it. Printed: how many seeds converged, of each kind.
"""

from __future__ import annotations

import argparse
import math
import warnings
from collections.abc import Iterator

import corpus
from corpus_kinds import KINDS, Kind, Role

from remedy.search.defaults import defaults
from remedy.search.evidence import wilson
from remedy.spaces.catalogue import REMEDIES
from remedy.spaces.combination import Combination
from remedy.spaces.metric import meets
from remedy.spaces.parts import Parts
from remedy.spaces.process import reset_process
from remedy.spaces.remedy import Inapplicable
from remedy.spaces.space import Space
from remedy.workers.loop import train
from remedy.workers.run import setting_of

FIRST_SEED = 5000
SPACE = Space(REMEDIES)


def built(kind: Kind, seed: int) -> tuple[Parts, Combination] | None:
    """Build a run with the defaults that find something to change, as a study does: a refusal names all that do not."""
    refused: set[str] = set()
    while made := defaults(SPACE, (), refused):
        try:
            return SPACE.apply(kind.training(seed), made, seed=seed, data_seed=0), made
        except Inapplicable as why:
            if not why.remedies:
                return None
            refused |= set(why.remedies)
    return None


def converges(kind: Kind, parts: Parts, seed: int) -> bool:
    """Train to the end, with nothing that stops it; whether the mean of the last three validations is at the goal."""
    training = kind.training(seed)
    setting = setting_of(training, parts)
    found = [seen.metric for seen in train(training, parts) if seen.metric is not None][-corpus.LAST :]
    return bool(found) and all(map(math.isfinite, found)) and meets(sum(found) / len(found), setting.goal, setting.mode)


def kinds(asked: list[str]) -> Iterator[tuple[Kind, bool]]:
    """Yield each kind whose recorded runs all end alike, and whether they are doomed."""
    for kind in KINDS:
        if kind.search or (asked and kind.name not in asked):
            continue
        doomed = {trace.doomed for trace in corpus.traces(kind)}
        if len(doomed) == 1:
            yield kind, doomed.pop()


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("--seeds", type=int, default=3)
    given.add_argument("--only", nargs="+", default=[], metavar="KIND")
    asked = given.parse_args()
    counts: dict[tuple[Role, bool], list[int]] = {}
    warnings.simplefilter("ignore")
    for kind, doomed in kinds(asked.only):
        converged, labels = 0, set()
        for seed in range(FIRST_SEED, FIRST_SEED + asked.seeds):
            reset_process()
            run = built(kind, seed)
            labels.add(run[1].label if run else "too few find anything to change")
            converged += run is not None and converges(kind, run[0], seed)
        counts.setdefault((kind.role, doomed), []).append(converged)
        told = f"{kind.name:<28}{kind.role:<11}{'doomed' if doomed else 'healthy':<9}{converged} of {asked.seeds}"
        print(f"{told}  {'; '.join(sorted(labels))}", flush=True)
    for (role, doomed), each in counts.items():
        most = sum(2 * converged > asked.seeds for converged in each)
        low, high = wilson(most, len(each))
        name = f"{role}, {'doomed' if doomed else 'healthy'}"
        print(f"{name}: {sum(each)} of {asked.seeds * len(each)} runs converge", end="; ")
        print(f"more than half of those of {most} of {len(each)} kinds [{low:.2f}, {high:.2f}]")


if __name__ == "__main__":
    main()
