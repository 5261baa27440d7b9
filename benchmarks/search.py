#!/usr/bin/env python3
"""What it costs to find a repair: remedy, and general searches, on the same trainings, space, seeds and machine.

usage: python benchmarks/search.py --cache DIR [--quick] [--only NAME ...] [--methods NAME ...] [--repeats N]
                                   [--budget X] [--first] [--table] [--waste] [--pairs] [--json FILE]

Costs are optimizer steps, as multiples of the untouched training's; wall time is in none of the figures. A repeat is a
seed of the study. Of every method the table says, as medians over the repeats,

  first true fix   the steps until the first trial whose repair is true: afterwards, and at nobody's cost, it converges
                   on at least 8 of 10 fresh seeds. remedy pays for all it does until then (pre-flight's steps,
                   baseline, confirming), the others for their trials only.
  minimal fix      the steps until a fix is confirmed on 5 fresh seeds and no remedy can be left out of it. The others
                   have no such proof: what converges in one of their trials is proved as remedy proves it, at its cost.

and the share of the trainings truly repaired at 5, 10, 20 and 50 times the cost of the original training (the protocol
of ICST'23). Who finds nothing within the budget counts with the budget, marked `>`: a lower bound. The general searches
get the part of the catalogue that can be applied to the training; remedy gets it whole. What makes a step dearer
(more width, depth, samples), or a run longer, is left out for all of them. Controls are told apart.

`--cache` holds each run by (training, combination, seed), so that repeats and methods share what is identical: our runs
are deterministic. Each is trained once to its end, its curve is kept, and every method's own early stopping is replayed
on it (run_cache.py): that makes the benchmark affordable on one core. What is cut off goes on with the same command;
`--table` prints what there is. Runs and rows of other versions of our files are never used.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import math
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from broken_trainings import CASES, ROOT, Case, Kind
from run_cache import Results, RunCache, looked_at_by
from search_tables import METHODS, OURS, POINTS, Found, tables, waste
from searchers import PEERS, WORST, Searcher, score

from remedy.search.agenda import Agenda, Reason
from remedy.search.candidate import Candidates, State
from remedy.search.controller import Controller
from remedy.search.defaults import unrehearsed
from remedy.search.evidence import can_hold, holds
from remedy.search.home import StudyFolder
from remedy.search.ledger import Entry, Item, Ledger
from remedy.search.report import exit_code
from remedy.search.spec import Spec
from remedy.search.study import Trials
from remedy.spaces.catalogue import REMEDIES
from remedy.spaces.combination import Combination
from remedy.spaces.outcome import Outcome
from remedy.spaces.remedy import Inapplicable
from remedy.spaces.space import Space
from remedy.spaces.symptom import Symptom
from remedy.spaces.target import load
from remedy.workers.executor import Event, Finished
from remedy.workers.order import Phase, WorkOrder
from remedy.workers.preflight import preflight
from remedy.workers.probation import SHARE
from remedy.workers.result import RunResult

_ASKS = 20
DEARER = frozenset({"wider", "deeper", "larger_batch", "train_longer"})
"""Left out of the space for everybody: they change what a step, or a run, takes, and costs here are steps."""
FRESH, TRUE_OF, HOLDS_OF = 9_000_000, 10, 20
QUICK = ("too_slow", "sigmoid_and_far", "destroyed_labels", "sound_rings")


# ---------------------------------------------------------------- one training


@dataclass
class Bench:
    """One training, with all that is known of it."""

    case: Case
    cache: RunCache
    budget: float

    def spec(self, repeat: int) -> Spec:
        """Return the study's specification as `remedy submit` makes it: with what pre-flight finds."""
        source = self.cache.source(self.case)

        def look() -> dict[str, Any]:
            loaded = load(source)
            tries = unrehearsed(Space(REMEDIES))
            found = preflight(loaded, loaded.builders, repeat, 0, thorough=True, share=SHARE, tries=tries)
            tried = found.probation.steps if found.probation else 0
            told = [{"check": f.check, "suggests": list(f.suggests)} for f in found.findings]
            return {
                "steps": found.setting.steps, "suggested": list(found.suggested), "closed": list(found.closed),
                "refused": list(found.refused), "preflight_steps": tried, "mode": loaded.builders.mode,
                "metric": str(loaded.builders.metric), "goal": loaded.builders.goal, "preflight": told,
            }  # fmt: skip

        known = self.cache.known(f"preflight/{looked_at_by()}/{source.sha256}:{source.function}/{repeat}", look)
        lists = {name: tuple(known[name]) for name in ("suggested", "closed", "refused", "preflight")}
        return Spec(study="benchmark", source=source, seed=repeat, fixes=1, budget=self.budget, **{**known, **lists})

    def space(self, spec: Spec) -> Space:
        """Return the remedies that find something to change in the untouched training."""
        source = self.cache.source(self.case)

        def apply() -> list[str]:
            training, whole = load(source).builders, Space(REMEDIES)
            fit = []
            for remedy in REMEDIES:
                try:
                    whole.apply(training, Combination.of(remedy.first()), seed=0, data_seed=0)
                except Inapplicable:
                    continue
                except Exception as error:  # noqa: BLE001  (it would fail every trial that has it)
                    print(f"  {self.case.name}: {remedy.name} raises {type(error).__name__}: {error}", file=sys.stderr)
                    continue
                fit.append(remedy.name)
            return fit

        names = set(self.cache.known(f"applicable/{source.sha256}:{source.function}", apply))
        return Space(tuple(r for r in self.whole_space(spec).remedies if r.name in names))

    def whole_space(self, spec: Spec) -> Space:
        """Return the catalogue as a study has it."""
        return Space(tuple(r for r in REMEDIES if r.name not in DEARER and str(r.slot) not in spec.closed))

    def holds(self, combination: Combination, count: int) -> bool:
        """Whether a combination converges on 80 % of so many fresh seeds; ends as soon as that is decided."""
        converged = failed = 0
        for seed in range(FRESH, FRESH + count):
            ended = self.cache.run(self.case, combination, seed).proof.outcome
            converged, failed = converged + (ended is Outcome.CONVERGED), failed + (ended is not Outcome.CONVERGED)
            if not can_hold(converged, failed, count):
                return False
            if holds(converged, count):
                return True
        return False

    def held(self, combination: Combination) -> int:
        """Return on how many of 20 fresh seeds it converges."""
        ends = [self.cache.run(self.case, combination, seed).proof.outcome for seed in range(FRESH, FRESH + HOLDS_OF)]
        return sum(end is Outcome.CONVERGED for end in ends)


# ---------------------------------------------------------------- ours


class Replayed:
    """Remedy's executor here: the answers come from the cache, which trains what it does not know."""

    capacity = 1

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._waiting: list[WorkOrder] = []

    def submit(self, order: WorkOrder) -> None:
        self._waiting.append(order)

    def wait(self, timeout: float) -> list[Event]:  # noqa: ARG002  (it is there at once, or trained)
        if not self._waiting:
            return []
        order = self._waiting.pop()
        result = self._bench.cache.run(self._bench.case, Combination.of(order.params), order.seed).of(order.phase)
        return [Finished(dataclasses.replace(result, number=order.number))]

    def cancel(self, number: int) -> None:
        """Nothing is ever under way."""

    def close(self) -> None:
        """Drop what was not asked for."""
        self._waiting.clear()


@dataclass
class _Milestones:
    """Notes what the study had spent when it first had what."""

    minimal: int | None = None

    def ended(self, order: WorkOrder, item: Item, result: RunResult) -> None:
        """Nothing: `tick` sees the controller."""

    def tick(self, controller: Controller) -> None:
        if self.minimal is None and controller.agenda.minimal:
            self.minimal = controller.agenda.ledger.steps


def ours(bench: Bench, repeat: int) -> Found:
    """Run a study as `remedy submit` does, answered from the cache."""
    spec = bench.spec(repeat)
    space = bench.whole_space(spec)
    seen = _Milestones()
    with tempfile.TemporaryDirectory(prefix="remedy-benchmark-") as place:
        folder = StudyFolder.at(Path(place) / "study")
        folder.scratch.mkdir(parents=True, exist_ok=True)
        trials = Trials(folder.storage, spec.study, space, spec.seed)
        controller = Controller(Agenda(spec, space), trials, folder, Replayed(bench), [seen])
        reason = controller.run()
    agenda, unit = controller.agenda, spec.steps
    steps, first, first_fix, false = spec.preflight_steps, None, "", 0
    spent: Counter[str] = Counter({"pre-flight": spec.preflight_steps})
    judged: dict[str, bool] = {}
    for entry in agenda.ledger.entries:
        steps += entry.result.steps
        spent[_purpose(bench, entry)] += entry.result.steps
        combination = entry.item.combination
        if bench.case.kind is Kind.HEALTHY:  # what converges there repairs nothing
            continue
        if not combination or entry.result.outcome is not Outcome.CONVERGED or combination.key in judged:
            continue
        judged[combination.key] = bench.holds(combination, TRUE_OF)
        false += not judged[combination.key]
        if judged[combination.key] and first is None:
            first, first_fix = steps, combination.label
    fix = agenda.minimal[0].combination if agenda.minimal else None
    return Found(
        bench.case.name, OURS, repeat, None if first is None else first / unit, first_fix,
        None if seen.minimal is None else (seen.minimal + spec.preflight_steps) / unit, fix.label if fix else "",
        bench.held(fix) if fix else None, steps / unit, len(agenda.ledger.entries), false,
        exit_code(agenda, Reason(reason)), {name: count / unit for name, count in spent.items()},
    )  # fmt: skip


def _purpose(bench: Bench, entry: Entry) -> str:
    if entry.item.phase is not Phase.SEARCH:
        return str(entry.item.phase)
    if not entry.item.combination:
        return "control"
    count = len(entry.item.combination.names)
    kind = "singles" if count == 1 else "pairs" if count == 2 else "combinations"
    converged = entry.result.outcome is Outcome.CONVERGED
    good = converged and bench.holds(entry.item.combination, TRUE_OF)
    return f"{kind}: {'true' if good else 'false' if converged else str(entry.result.saved_by or 'to the end')}"


# ---------------------------------------------------------------- the others


class Proof:
    """Proves what converged once as a study does: confirms it on fresh seeds, and leaves each remedy out."""

    def __init__(self, bench: Bench, spec: Spec) -> None:
        self._bench, self._spec = bench, spec
        self._ledger, self._candidates = Ledger(), Candidates()
        self.steps = self.runs = 0

    def minimal(self, combination: Combination, allowed: float) -> Combination | None:
        """Return the minimal fix that comes of it, if any does within so many steps."""
        self._candidates.nominate([(combination, self._spec.confirm_seeds)])
        item: Item | None = Item(Phase.SEARCH, combination, self._spec.search_seeds[0])
        before = self.steps
        while item is not None:
            while self._candidates.nominate(self._candidates.advance(item, self._ledger, self._spec)):
                pass
            done = [c.combination for c in self._candidates if c.state is State.MINIMAL]
            if done:
                return done[0]
            if self.steps - before >= allowed:
                return None
            item = next(self._candidates.wants(self._ledger, self._spec), None)
            if item is not None:
                result = self._bench.cache.run(self._bench.case, item.combination, item.seed).proof
                self._ledger.add(Entry(item, result))
                self.steps, self.runs = self.steps + result.steps, self.runs + 1
        return None


def theirs(bench: Bench, repeat: int, method: str, *, proving: bool = True) -> Found:
    """Let a general search look for a repair until it has one that is true and one proved, or the budget is spent.

    Without `proving` what it finds is not proved, and it is done with the first true one.
    """
    spec = bench.spec(repeat)
    seed, limit = spec.search_seeds[0], bench.budget * spec.steps
    base = bench.cache.run(bench.case, Combination(), seed)
    greedy = method.startswith("greedy")
    searcher = PEERS[method](bench.space(spec), repeat, symptoms(base), score(base.whole.metric, spec.mode))
    proof = Proof(bench, spec)
    steps, runs = (base.whole.steps, 1) if greedy else (0, 0)
    known: dict[str, bool] = {}
    first: float | None = None
    first_fix = minimal_fix = ""
    minimal: float | None = None
    fix: Combination | None = None
    asks = 0
    while steps < limit and (first is None or (proving and minimal is None and steps + proof.steps < limit)):
        if asks >= _ASKS * bench.budget:
            break  # what cannot be applied costs nothing, and might be proposed for ever
        asks += 1
        combination = searcher.ask()
        if combination is None:
            break
        made = bench.cache.run(bench.case, combination, seed)
        cost, converged = trial(searcher, made, spec.mode)
        steps, runs = steps + cost, runs + 1
        if not converged or not combination or combination.key in known:
            continue
        known[combination.key] = bench.holds(combination, TRUE_OF)
        if known[combination.key] and first is None and steps <= limit:
            first, first_fix = steps / spec.steps, combination.label
        if proving and minimal is None and steps + proof.steps < limit:
            fix = proof.minimal(combination, limit - steps - proof.steps)
            if fix is not None and steps + proof.steps <= limit:
                minimal, minimal_fix = (steps + proof.steps) / spec.steps, fix.label
    return Found(
        bench.case.name, method, repeat, first, first_fix, minimal, minimal_fix,
        bench.held(fix) if fix is not None and minimal is not None else None, (steps + proof.steps) / spec.steps,
        runs + proof.runs, sum(not true for true in known.values()), None,
        {"trials": steps / spec.steps, "proof": proof.steps / spec.steps}, proving,
    )  # fmt: skip


def trial(searcher: Searcher, made: Results, mode: str) -> tuple[int, bool]:
    """Replay a run before a method; return what it cost, and whether it reached the goal in the method's eyes."""
    whole, value, last = made.whole, WORST, 0
    held = made.search.steps if searcher.content and made.search.saved_by == "success" else math.inf
    for step, metric in whole.curves.get("metric", ()):
        percent, value = round(100 * step / max(1, whole.steps_full)), score(metric, mode)
        if percent == last:
            continue
        last = percent
        if searcher.stops(percent, value):
            searcher.tell(value, ())
            return step, False
        if step >= held:
            searcher.tell(value, ())
            return step, True
    ended = whole.outcome in (Outcome.CONVERGED, Outcome.MISSED)
    searcher.tell(score(whole.metric, mode) if ended else WORST, symptoms(made))
    return whole.steps, whole.outcome is Outcome.CONVERGED


def symptoms(made: Results) -> list[Symptom]:
    """Return what our detectors see in a run, what would have stopped it first."""
    seen = [made.proof.verdict] if made.proof.verdict else []
    return list(dict.fromkeys(verdict.symptom for verdict in [*seen, *made.proof.notes]))


# ---------------------------------------------------------------- the whole


PROOF = ("candidate", "ledger", "evidence", "spec")
"""What of our search the others go through: their finds are proved as ours are."""


def code(method: str) -> str:
    """Return a hash of what decides a method's rows beside the runs: the search, and this benchmark."""
    mine = (ROOT / "search").glob("*.py") if method == OURS else (ROOT / "search" / f"{name}.py" for name in PROOF)
    sha = hashlib.sha256(looked_at_by().encode() if method == OURS else b"")
    for path in sorted([*mine, *(ROOT / "benchmarks" / name for name in ("search.py", "searchers.py"))]):
        sha.update(path.read_bytes())
    return sha.hexdigest()[:12]


def measured(
    cache: RunCache, cases: Sequence[Case], methods: Sequence[str], repeats: Sequence[int], budget: float, *,
    work: bool, proving: bool = True,
) -> list[Found]:  # fmt: skip
    """Return a row for each training, method and repeat; those not there are made where there is `work` to do."""
    rows, versions = [], {method: code(method) for method in methods}
    for repeat in repeats:
        for case in cases:
            bench = Bench(case, cache, budget)
            for method in methods:
                key = f"row/{versions[method]}/{cache.source(case).sha256}:{case.name}/{method}/{repeat}/{budget:g}"

                def make(bench: Bench = bench, method: str = method, repeat: int = repeat) -> dict[str, Any]:
                    if method == OURS:
                        return dataclasses.asdict(ours(bench, repeat))
                    return dataclasses.asdict(theirs(bench, repeat, method, proving=proving))

                known = cache.known(key, None)
                if known is None:
                    key = key if proving or method == OURS else f"{key}/unproved"
                    known = cache.known(key, make if work else None)
                if known is None and not work:
                    known = cache.known(f"{key}/unproved", None)
                if known is None:
                    continue
                row = Found(**known)
                rows.append(row)
                if work:
                    told = f"true {_told(row.true)}, minimal {_told(row.minimal)}, cost {row.cost:.1f}, {row.runs} runs"
                    print(f"{case.name} / {method} / {repeat}: {told}; trained {cache.trained} so far", flush=True)
    return rows


def proved(case: Case, cache: RunCache) -> list[str]:
    """Return what shows that a training is broken and can be repaired, and whether that takes two remedies together.

    On the search seeds of five repeats, each run to its end: how often the untouched training converges, which remedies
    of the whole catalogue do so alone on the first seed, as they are first tried, and on how many of the five.
    """
    by_name = Space(REMEDIES).by_name
    seeds = [Spec("benchmark", cache.source(case), seed=repeat).search_seeds[0] for repeat in range(5)]

    def converged(combination: Combination, seeds: Sequence[int] = seeds) -> int:
        return sum(cache.run(case, combination, seed).whole.outcome is Outcome.CONVERGED for seed in seeds)

    told = [f"{case.name} ({case.kind}): untouched {converged(Combination())} of 5"]
    if case.together is not None:
        one, other = (Combination.of(by_name[name].first()) for name in case.together)
        told += [f"{made.label} {converged(made)} of 5" for made in (one, other, one.plus(other))]
    singles = [Combination.of(remedy.first()) for remedy in REMEDIES]
    once = [made for made in singles if converged(made, seeds[:1])]
    counts = [f"{made.label} {converged(made)} of 5" for made in once[:4]]
    told += [f"{len(once)} of all {len(singles)} alone on the first seed{': ' * bool(counts)}{', '.join(counts)}"]
    return ["; ".join(told)]


def _told(cost: float | None) -> str:
    return "-" if cost is None else f"{cost:.1f}"


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--cache", type=Path, required=True, help="folder of the runs; made where there is none")
    asked.add_argument("--quick", action="store_true", help=f"{', '.join(QUICK)}; one repeat, 10 times the training")
    asked.add_argument("--only", nargs="+", choices=[case.name for case in CASES], default=[])
    asked.add_argument("--kinds", nargs="+", choices=[str(kind) for kind in Kind], default=[])
    asked.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    asked.add_argument("--repeats", type=int, default=5)
    asked.add_argument("--first", action="store_true", help="the others' finds are not proved: no minimal fix of them")
    asked.add_argument("--budget", type=float, default=float(POINTS[-1]))
    asked.add_argument("--table", action="store_true", help="print what there is, train nothing")
    asked.add_argument("--waste", action="store_true", help="say where remedy's steps went")
    asked.add_argument(
        "--pairs", action="store_true", help="prove what is broken and what needs two remedies, and do nothing else"
    )
    asked.add_argument("--json", type=Path, help="write the rows")
    given = asked.parse_args()
    if given.quick:
        given.only, given.repeats, given.budget = given.only or list(QUICK), 1, 10.0
    cases = [case for case in CASES if not given.only or case.name in given.only]
    cases = [case for case in cases if not given.kinds or str(case.kind) in given.kinds]
    cache = RunCache(given.cache)
    if given.pairs:
        for case in cases:
            if case.repairable:
                print("\n".join(proved(case, cache)), flush=True)
        return
    work, proving = not given.table, not given.first
    rows = measured(cache, cases, given.methods, range(given.repeats), given.budget, work=work, proving=proving)
    print("\n".join([*tables(rows, given.budget), *(waste(rows) if given.waste else [])]))
    print(f"\n{cache.trained} runs trained, {cache.remembered} remembered")
    if given.json is not None:
        given.json.write_text(json.dumps([dataclasses.asdict(row) for row in rows], indent=1), encoding="utf-8")
    cache.close()


if __name__ == "__main__":
    main()
