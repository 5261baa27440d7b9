"""A study's report together with its runs: what every page, figure and table of it is made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from remedy.search.home import StudyFolder
from remedy.search.markup import number
from remedy.search.plots.curves import Goal
from remedy.spaces.combination import Combination
from remedy.spaces.outcome import Outcome
from remedy.workers.order import Phase
from remedy.workers.result import RunResult

_NOTHING = (Outcome.LOST, Outcome.STOPPED)
_FULL = (Phase.BASELINE, Phase.CONFIRM, Phase.MINIMISE)


@dataclass(frozen=True)
class Made:
    """One run, with what it was to be; `seed` is -1 and `phase` empty where that was not written down."""

    phase: str
    seed: int
    combination: Combination
    result: RunResult

    @property
    def label(self) -> str:
        """What was changed, for people."""
        return self.combination.label if self.combination else "untouched"

    @property
    def symptom(self) -> str:
        """The symptom of its verdict, else what was noted without ending it."""
        if self.result.verdict is not None:
            return self.result.verdict.symptom.value
        noted = dict.fromkeys(note.symptom.value for note in self.result.notes)
        return f"{', '.join(noted)} (noted)" if noted else ""

    @property
    def converged(self) -> bool:
        """Whether it did."""
        return self.result.outcome is Outcome.CONVERGED

    @property
    def counts(self) -> bool:
        """Whether it says anything about its combination."""
        return self.result.outcome not in (*_NOTHING, Outcome.INAPPLICABLE)

    @property
    def given_up(self) -> bool:
        """Whether the forecast ended it before its budget."""
        return self.result.outcome is Outcome.MISSED and self.result.saved_by == "controller"


@dataclass(frozen=True)
class Findings:
    """A report and the runs it tells of. A report may be of another version: what it does not hold is left out."""

    report: Mapping[str, Any]
    runs: tuple[Made, ...]

    @classmethod
    def of(cls, report: Mapping[str, Any], folder: StudyFolder) -> Findings:
        """Join a report with the runs of its study that ended, in order."""
        items, made = folder.noted(), []
        for run, result in folder.runs().items():
            item = items.get(run, {})
            combination = Combination.of(item.get("params") or {})
            made.append(Made(item.get("phase", ""), item.get("seed", -1), combination, result))
        return cls(report, tuple(made))

    @property
    def study(self) -> str:
        """Its name."""
        return str(self.report.get("study", "study"))

    @property
    def fixes(self) -> Sequence[Mapping[str, Any]]:
        """The fixes, best first."""
        return self.report.get("fixes") or ()

    @property
    def best(self) -> Mapping[str, Any]:
        """The first confirmed fix; empty where there is none."""
        return next((fix for fix in self.fixes if fix.get("confirmed")), {})

    @property
    def baseline(self) -> Mapping[str, Any]:
        """The untouched training."""
        return self.report.get("baseline") or {}

    @property
    def identical(self) -> bool:
        """Whether runs on different seeds were the same run: then counts of them are no evidence over seeds."""
        return bool(self.baseline.get("deterministic"))

    @property
    def over(self) -> str:
        """What the confirming runs of a fix differ in."""
        return "(identical runs)" if self.identical else "on fresh seeds"

    @property
    def metric(self) -> str:
        """The name of the validation metric."""
        return str((self.report.get("goal") or {}).get("metric", "metric"))

    @property
    def aim(self) -> str:
        """The goal for people: `accuracy ≥ 0.9`."""
        said = self.report.get("goal") or {}
        sign, value = ("≤", said["at_most"]) if "at_most" in said else ("≥", said.get("at_least"))
        return f"{self.metric}\N{NO-BREAK SPACE}{sign}\N{NO-BREAK SPACE}{number(value)}"

    @property
    def goal(self) -> Goal | None:
        """The goal as a line in a plot of the metric."""
        said, chance = self.report.get("goal") or {}, self.baseline.get("chance")
        value = said.get("at_least", said.get("at_most"))
        if value is None:
            return None
        far = abs(value - chance) if chance is not None else 0.0
        return Goal(value, f"goal: {self.aim}", far, "at_most" in said)

    def whole(self, combination: Combination, seeds: Sequence[int] | None = None) -> list[Made]:
        """Return a combination's runs that were trained to their own end: no success ends them early."""
        made = [run for run in self.runs if run.phase in _FULL and run.combination.key == combination.key]
        return [run for run in made if run.result.outcome not in _NOTHING and (seeds is None or run.seed in set(seeds))]

    def of_fix(self, fix: Mapping[str, Any]) -> list[Made]:
        """Return the confirming runs of a fix."""
        return self.whole(Combination.of(fix.get("remedies") or {}), fix.get("seeds") or ())

    def ablation(self, fix: Mapping[str, Any]) -> list[tuple[str, list[Made]]]:
        """Return (what is left out of a fix, its runs on the fix's seeds): nothing first, all of it last."""
        whole, seeds = Combination.of(fix.get("remedies") or {}), fix.get("seeds") or ()
        rows = [("nothing", whole), *((name, whole.without(name)) for name in whole.remedies.values())]
        rows += [("all of it", Combination())] if len(whole.names) > 1 else []
        return [(name, self.whole(combination, seeds)) for name, combination in rows]

    def control(self, fix: Mapping[str, Any]) -> tuple[int, int]:
        """Return (converged, runs) of the untouched training on the seeds of a fix."""
        found = {run.seed: run.converged for run in self.whole(Combination(), fix.get("seeds") or ())}
        return sum(found.values()), len(found)


def label(fix: Mapping[str, Any]) -> str:
    """Return the name of a fix for people."""
    return str(fix.get("label") or Combination.of(fix.get("remedies") or {}).label)


def share(counts: Mapping[str, Any]) -> str:
    """Return `3 of 5`."""
    return f"{counts.get('converged', 0)} of {counts.get('runs', 0)}"
