"""One night of a sweep: everybody's baseline, last night's fixes, then explorers with what is left of the budget."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from remedy.search.home import Home
from remedy.search.ledger import Item
from remedy.search.nightly.book import NightBook
from remedy.search.nightly.check import BASELINE, BEST_FIX, RERUN, Anchor, NightCheck, Status
from remedy.search.nightly.clock import NightClock
from remedy.search.nightly.explorer import MakeStudy, NightExplorer
from remedy.search.nightly.facts import unlike
from remedy.search.nightly.plan import Looked, NightPlan, NotRun
from remedy.search.nightly.pool import NightPool, folder_of, grouped
from remedy.search.nightly.record import explored, judged, not_run
from remedy.search.nightly.runs import NightRuns
from remedy.search.nightly.share import NightShare
from remedy.search.nightly.sweep import Entry, Sweep
from remedy.search.spec import Spec
from remedy.search.study import Patiently
from remedy.spaces.combination import Combination
from remedy.spaces.error import InputError
from remedy.spaces.space import Space
from remedy.workers.order import Phase
from remedy.workers.result import RunResult


@dataclass
class Night:
    """A night under way.

    `look` loads and checks a training, `space` returns what is searched for it, `make_study` a study with its record;
    `say` prints a line. What ended is in the book: a night made anew on the same book goes on where the last one was.
    """

    sweep: Sweep
    night: str
    book: NightBook
    home: Home
    scratch: Path
    pool: NightPool
    look: Callable[[Entry], Looked]
    space: Callable[[Entry, Spec], Space]
    make_study: MakeStudy
    say: Callable[[str], None] = lambda _line: None
    remote: bool = False
    patiently: Patiently = lambda work: work()
    _plans: dict[str, NightPlan] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Make the clock; it is started by `run`."""
        self.clock = NightClock(self.sweep, self.night, self.book)

    # ---------------------------------------------------------------- the whole

    def run(self) -> None:
        """Work until the night has ended.

        Raises:
            InfrastructureError: workers or stores failed; the same night can be gone on with.
            KeyboardInterrupt: likewise.
        """
        self.clock.start()
        try:
            for place, entry in enumerate(self.sweep.trainings, start=1):
                self._load(place, entry)
            groups = self._groups()
            if len(groups) > 1:  # everybody's baseline comes before anybody's rerun
                for names in groups:
                    self._make(names, BASELINE)
            for names in groups:
                self._make(names, BEST_FIX)
                self._judge(names)
            self._explore()
        finally:
            self.pool.close()
            self.clock.save()
        for name, plan in self._plans.items():
            self._close(name, plan)
        self.clock.end()

    # ---------------------------------------------------------------- a training's own code

    def _load(self, place: int, entry: Entry) -> None:
        earlier = self.book.earlier(self.night, entry.name, judged=True)
        plan = self._plans[entry.name] = NightPlan(entry, earlier, self.book.earlier(self.night, entry.name))
        done = self.book.record(self.night, entry.name)
        if done is not None and done["final"]:
            plan.record = done  # in an earlier session of this night
            return
        if self.clock.over():
            plan.record = not_run(
                self.night, entry.target, "the night's time ended before it was loaded", earlier, plan.latest
            )
            return
        try:
            plan.looked = self.look(entry)
        except NotRun as error:
            plan.record = not_run(self.night, entry.target, str(error), earlier, plan.latest, error.facts)
            self.book.save(self.night, entry.name, plan.record)
            self.say(f"[{place}/{len(self.sweep.trainings)}] {entry.name}: not run: {error}")
            return
        facts = plan.looked.facts.to_json()
        plan.unlike = unlike(earlier["facts"], facts) if earlier else ""
        anchor = earlier["anchor"] if earlier and not plan.unlike else None
        fix = (earlier or {}).get("best_fix")
        plan.check = NightCheck(
            plan.looked.spec,
            self.night,
            None if anchor is None else Anchor.from_json(anchor),
            None if fix is None else self._usable(plan, fix),
            int(fix["runs"]) if fix else plan.looked.spec.confirm_seeds,
        )
        self._recall(entry.name, plan.check, plan.looked)

    def _usable(self, plan: NightPlan, fix: Mapping[str, Any]) -> Combination | None:
        """Return last night's fix, where what it is made of is still there."""
        known = {name for mine in plan.known.spec.space.values() for name in mine}
        combination = Combination.of(fix["remedies"])
        return combination if combination.names <= known else None

    def _recall(self, name: str, check: NightCheck, looked: Looked) -> None:
        """Take in what an earlier session of this night ran with the same code and data."""
        found = True
        while found:
            found = False
            for _, item in list(check.wants()):
                result = self.book.run(self.night, name, looked.facts.mark, item)
                if result is not None:
                    check.tell(item, result)
                    found = True

    # ---------------------------------------------------------------- checks

    def _groups(self) -> list[list[str]]:
        needs = []
        for name, plan in self._plans.items():
            if plan.looked is not None:
                source = plan.looked.spec.source
                needs.append((name, folder_of(source.path, source.module), plan.looked.modules))
        return grouped(needs)

    def _serve(self, name: str) -> None:
        looked = self._plans[name].known
        self.pool.serve(folder_of(looked.spec.source.path, looked.spec.source.module), looked.modules)

    def _make(self, names: list[str], last: int) -> None:
        """Make the runs that are wanted of a group's trainings, up to a stage."""
        checks = {name: self._plans[name].checked for name in names}
        if not any(stage <= last for check in checks.values() for stage, _ in check.wants()):
            return
        for name in names:
            self._serve(name)
        lent = self.pool.lend()
        try:
            NightRuns(checks, self, self.scratch / self.night, self.clock.over, self.remote).run(lent, last=last)
        finally:
            lent.close()

    def _judge(self, names: list[str]) -> None:
        for name in names:
            plan = self._plans[name]
            facts, target = plan.known.facts.to_json(), plan.entry.target
            plan.record = judged(self.night, target, plan.checked, facts, plan.earlier, plan.latest, plan.unlike)
            plan.record["final"] = not self._explores(plan)
            self.book.save(self.night, name, plan.record)

    def ended(self, training: str, stage: int, item: Item, result: RunResult) -> None:
        """Keep a run of a check, and say how far it is."""
        plan = self._plans[training]
        check = plan.checked
        self.book.save_run(self.night, training, plan.known.facts.mark, item, result)
        self.clock.tick()
        what = f"baseline {len(check.baseline)} of {len(check.spec.baseline_seeds)}"
        if stage == RERUN:
            what = f"another outcome than before: rerun on fresh seeds, {len(check.fresh)}"
        if stage == BEST_FIX:
            what = f"last night's best fix, {item.fix}" + ("" if item.phase is Phase.CONFIRM else ", left out")
        self._tell(training, f"{what}: {result.outcome} (seed {item.seed})")

    def _tell(self, training: str, text: str) -> None:
        place = [entry.name for entry in self.sweep.trainings].index(training) + 1
        self.say(f"[{place}/{len(self.sweep.trainings)}] {training}: {text}")

    # ---------------------------------------------------------------- explorers

    def _explores(self, plan: NightPlan) -> bool:
        if plan.record is None or not plan.record["judged"]:
            return False
        return plan.record["status"] not in (Status.HEALTHY, Status.FIXED)

    def _explore(self) -> None:
        explorers = {name: found for name, plan in self._plans.items() if (found := self._explorer(name, plan))}
        spent = sum(plan.record["cost"]["full_runs"] for plan in self._plans.values() if plan.record is not None)
        NightShare(
            explorers,
            {name: self._plans[name].entry.weight for name in explorers},
            self.sweep.budget * len(self.sweep.trainings) - spent,
            self._conduct,
            self.clock.save,
            lambda: self.clock.left,
        ).run()

    def _explorer(self, name: str, plan: NightPlan) -> NightExplorer | None:
        if not self._explores(plan) or plan.check is None or plan.looked is None or plan.record is None:
            return None
        before = (plan.earlier or {}).get("explorer")
        try:
            made = NightExplorer(
                self.home,
                plan.check,
                self.space(plan.entry, plan.looked.spec),
                plan.looked.facts.kin,
                self.clock.explorers.get(name, {}),
                self.patiently,
            )
            made.begin(f"{self.sweep.name}-{name}", before, lambda: self._kept(name, made))
        except InputError as error:
            self._tell(name, f"no explorers: {error}")
            return None
        # Should this night never end, the next one finds the study all the same.
        plan.record["explorer"] = {key: made.state[key] for key in ("study", "place", "kin")}
        self.book.save(self.night, name, plan.record)
        plan.explorer = made
        if not made.hungry:
            self._tell(name, f"no explorers: study {made.state['study']} is {made.state['reason']}")
        return made

    def _kept(self, name: str, explorer: NightExplorer) -> None:
        self.clock.explorers[name] = explorer.state
        self.clock.save()

    def _conduct(self, name: str, seconds: float | None) -> None:
        plan, explorer = self._plans[name], self._plans[name].explorer
        assert explorer is not None  # noqa: S101  (it was given a share)
        verb = "carry on" if explorer.state["carried_on"] else "begin"
        left = explorer.state["allotted"] - explorer.spent()
        self._tell(name, f"explorers {verb}: study {explorer.state['study']}, {left:.1f} full runs")
        self._serve(name)
        try:
            plan.report = explorer.conduct(self.make_study, self.pool.lend, seconds)
        except InputError as error:
            explorer.state |= {"reason": "failed", "said": str(error)}
            self._tell(name, f"explorers: {error}")
            return
        found = len(plan.report["fixes"])
        said = f"{found} {'fix' if found == 1 else 'fixes'} so far, {explorer.spent():.1f} full runs tonight"
        self._tell(name, f"explorers end ({explorer.state['reason']}): {said}")

    # ---------------------------------------------------------------- the end

    def _close(self, name: str, plan: NightPlan) -> None:
        assert plan.record is not None  # noqa: S101  (each has one by now)
        if plan.explorer is not None:
            report = plan.report or plan.explorer.folder.report()
            explored(plan.record, plan.explorer.state, report, plan.explorer.made(), plan.checked.spec.steps)
        plan.record["final"] = True
        self.book.save(self.night, name, plan.record)
