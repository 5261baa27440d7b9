"""The study that searches for a training's fixes, carried on from night to night as long as nights are alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from remedy.search.agenda import Agenda
from remedy.search.conduct import Study
from remedy.search.home import Home, StudyFolder
from remedy.search.nightly.check import NightCheck
from remedy.search.spec import Spec
from remedy.search.study import Patiently, Trials, forget
from remedy.spaces.outcome import Outcome
from remedy.spaces.space import Space
from remedy.workers.executor import Executor
from remedy.workers.order import Phase
from remedy.workers.result import RunResult

MakeStudy = Callable[[StudyFolder, Spec, Space], Study]


@dataclass
class NightExplorer:
    """One training's explorers tonight.

    Attributes:
        home: where its study lies.
        check: tonight's check; its runs are the first of a new study, so that none is made twice.
        space: what is searched.
        kin: says which nights' studies may be carried on.
        state: what is kept of it while the night goes on (see `begin`).
    """

    home: Home
    check: NightCheck
    space: Space
    kin: str
    state: dict[str, Any] = field(default_factory=dict)
    patiently: Patiently = lambda work: work()

    @property
    def folder(self) -> StudyFolder:
        """The study."""
        return self.home.study(self.state["study"])

    def begin(self, prefix: str, before: Mapping[str, Any] | None, keep: Callable[[], None]) -> None:
        """Choose the study: last night's where it is of the same kin, a new one else. `keep` saves the state.

        Cut off anywhere in here and begun again, it comes to the same.
        """
        if self.state and self.state["kin"] != self.kin:  # changed since the night was cut off
            before, self.state = None, {}
        if self.state.get("reason") in ("failed", "timeout"):  # tried again, as far as there is time
            self.state |= {"reason": None, "said": ""}
        if not self.state:
            carried = before is not None and self._carries(before)
            place = int(before["place"]) if before else 0
            place += 0 if carried else 1
            while not carried and self.home.study(f"{prefix}-{place}").exists():
                place += 1
            study = f"{prefix}-{place}"
            self.state = {"study": study, "place": place, "kin": self.kin, "carried_on": carried, "first": None,
                          "allotted": 0.0, "reason": self._ended(before) if carried else None, "said": ""}  # fmt: skip
            keep()
        if self.state["first"] is None:
            self.state["first"] = (
                max(self.folder.numbers(), default=-1) + 1 if self.state["carried_on"] else self._sow()
            )
            keep()

    def _carries(self, before: Mapping[str, Any]) -> bool:
        folder = self.home.study(str(before["study"]))
        found = folder.report()
        if before["kin"] != self.kin or found is None:
            return False
        # Of the same kin, and yet the baseline ends otherwise: something differs that nobody wrote down.
        seeds = self.check.spec.baseline_seeds
        mine = {e.item.seed: str(e.result.outcome) for e in self.check.baseline}
        theirs = dict(zip(found["baseline"]["seeds"], found["baseline"].get("outcomes", ()), strict=False))
        return all(
            (mine.get(seed) == Outcome.CONVERGED) == (theirs.get(seed) == Outcome.CONVERGED)
            for seed in seeds
            if seed in theirs
        )

    def _ended(self, before: Mapping[str, Any] | None) -> str | None:
        """Return why there is nothing left to search in a study that is carried on; None where there is."""
        found = self.home.study(str((before or {})["study"])).report() or {}
        minimal = sum(bool(fix["minimal"]) for fix in found["fixes"])
        if found["reason"] is None and found["exit_code"] == 0 and minimal >= self.check.spec.fixes:
            return "done"
        return "exhausted" if found["reason"] == "exhausted" else None

    def _sow(self) -> int:
        """Make the study, with tonight's runs in it; return the number of the first run to come."""
        folder, spec = self.folder, replace(self.check.spec, study=self.state["study"])
        self.patiently(lambda: forget(folder.storage, folder.name))
        folder.files.remove_all()
        agenda = Agenda(spec, self.space)
        trials = Trials(folder.storage, spec.study, self.space, spec.seed, self.patiently)
        count = 0
        for entry in sorted(self.check.ledger.entries, key=lambda e: (e.item.phase is not Phase.BASELINE, e.item.seed)):
            if not entry.item.combination.names <= {*self.space.by_name}:
                continue  # a fix from before the space changed
            number, item = trials.open(entry.item), entry.item
            result = replace(entry.result, number=number)
            folder.note_item(
                number,
                {"phase": item.phase, "seed": item.seed, "fix": item.fix, "params": item.combination.params},
            )
            folder.save_run(result)
            agenda.tell(item, result)
            trials.tell(number, agenda.value(result), str(result.outcome))
            count = number + 1
        folder.save_spec(spec.to_json())
        return count

    # ---------------------------------------------------------------- budget

    def spent(self) -> float:
        """Return what it spent tonight, in full-run equivalents."""
        return sum(result.steps for result in self.made()) / self.check.spec.steps

    def made(self) -> list[RunResult]:
        """Return the runs that it made tonight."""
        first = self.state.get("first")
        return [] if first is None else [result for n, result in self.folder.runs().items() if n >= first]

    @property
    def hungry(self) -> bool:
        """Whether it ended for want of budget, and more would be of use."""
        return self.state["reason"] in (None, "budget")

    def conduct(self, make_study: MakeStudy, lend: Callable[[], Executor], seconds: float | None) -> dict[str, Any]:
        """Search on, until tonight's allotment is spent, there is nothing left to search, or the seconds are over.

        Raises:
            InputError: somebody else works on the study.
            InfrastructureError: workers or stores failed.
        """
        folder, first = self.folder, int(self.state["first"])
        steps = sum(result.steps for number, result in folder.runs().items() if number < first)
        before = folder.report()
        used = float(before["cost"]["seconds"]) if before else 0.0
        spec = replace(
            self.check.spec,
            study=self.state["study"],
            budget=max(1e-6, steps / self.check.spec.steps + self.state["allotted"]),
            timeout=None if seconds is None else used + max(1.0, seconds),
            runs=None,
        )
        with folder.lease():
            folder.save_spec(spec.to_json())
        study = make_study(folder, spec, self.space)
        found = study.conduct(lend)
        ended = found["reason"] if found["exit_code"] != 4 else "healthy"
        self.state["reason"] = ended or "done"
        self.state["mlflow"] = {**found["mlflow"], "experiment_id": study.record.experiment_id}
        return found
