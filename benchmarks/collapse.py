#!/usr/bin/env python3
"""Do the examples collapse? Every example on ten seeds, watched and left alone; the healthy one must converge.

usage: python benchmarks/collapse.py [--seeds N]

Prints, per example: how many untouched runs converge when nothing stops them, how many the detectors end, with which
symptom and at which step.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

from remedy.spaces.outcome import Outcome
from remedy.spaces.target import find
from remedy.workers.order import Phase, WorkOrder
from remedy.workers.result import RunResult
from remedy.workers.run import stream

EXAMPLES = Path(__file__).parents[1] / "examples"


def ended(example: str, seed: int, *, watched: bool) -> RunResult:
    order = WorkOrder(0, find(str(EXAMPLES / f"{example}.py")), {}, seed, 0, Phase.BASELINE)
    *_, result = stream(order, watched=watched)
    assert isinstance(result, RunResult)  # noqa: S101  (a stream ends with its result)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    asked = parser.parse_args()
    for example in ("wide_softmax", "deep_takeover", "stuck_at_ln_n", "dead_relu", "healthy"):
        alone = [ended(example, seed, watched=False) for seed in range(asked.seeds)]
        seen = [ended(example, seed, watched=True) for seed in range(asked.seeds)]
        converged = sum(result.outcome is Outcome.CONVERGED for result in alone)
        symptoms = Counter(str(result.verdict.symptom) for result in seen if result.verdict)
        steps = sorted(result.steps for result in seen if result.verdict)
        span = f"at step {steps[0]} to {steps[-1]}" if steps else ""
        ends = ", ".join(f"{result.metric:.2f}" for result in alone)
        print(f"{example}: {converged} of {asked.seeds} converge ({ends})")
        print(f"    ended by detectors: {len(steps)} {dict(symptoms)} {span}", flush=True)


if __name__ == "__main__":
    main()
