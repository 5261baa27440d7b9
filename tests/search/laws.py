"""What is true of every study, whatever its world, its limits and its workers."""

import json
import math
from collections import Counter

from optuna.trial import TrialState

from remedy.search.agenda import Reason
from remedy.search.candidate import State
from remedy.search.evidence import fisher
from remedy.spaces.combination import Combination
from remedy.spaces.outcome import Outcome
from remedy.workers.order import Phase
from tests.search.scripted import Told

NOTHING = (Outcome.LOST, Outcome.STOPPED)


def obeyed(told: Told, most_lost: int = 2) -> bool:
    """Check every law; the assertion that fails says which. A run is lost and made again at most so many times."""
    _report(told)
    _fixes(told)
    _runs(told, most_lost)
    _trials(told)
    _end(told)
    return True


def _report(told: Told) -> None:
    found = told.report
    json.dumps(found, allow_nan=False)
    runs, cost = found["runs"], found["cost"]
    assert sum(runs[str(outcome)] for outcome in Outcome) == runs["total"]
    assert cost["steps_trained"] <= cost["steps_full"]
    if cost["steps_full"]:
        assert math.isclose(1 - cost["steps_trained"] / cost["steps_full"], sum(cost["saved"].values()), abs_tol=1e-9)
        assert math.isclose(cost["saved_by_early_stop"], sum(cost["saved"].values()), abs_tol=1e-9)
    assert sum(cost["by_phase"].values()) == cost["steps_trained"]
    assert (cost["steps_to_first_fix"] is not None) == any(c.confirmed for c in told.agenda.candidates)
    base = found["baseline"]
    assert base["runs"] == len(set(base["seeds"])) == len(base["metric"]) <= told.agenda.spec.seeds
    if base["runs"]:
        wanted = "healthy" if base["converged"] == base["runs"] else "unstable" if base["converged"] else "broken"
        assert base["state"] == wanted
    for row in found["remedies"]:
        if row["effect"] is not None:
            assert row["interval"][0] <= row["effect"] <= row["interval"][1]


def _fixes(told: Told) -> None:
    agenda, found = told.agenda, told.report
    used = {e.item.seed for e in agenda.ledger.entries if e.item.phase in (Phase.BASELINE, Phase.SEARCH)}
    names = [frozenset(str(v) for k, v in fix["remedies"].items() if "." not in k) for fix in found["fixes"]]
    assert len(set(names)) == len(names)
    assert not any(one < other for one in names for other in names)
    for fix, chosen in zip(found["fixes"], names, strict=True):
        assert fix["confirmed"]
        assert fix["runs"] == len(set(fix["seeds"])) >= 5
        assert not used & set(fix["seeds"])
        assert fix["converged"] / fix["runs"] >= 0.8
        assert fix["interval"][0] <= fix["converged"] / fix["runs"] <= fix["interval"][1]
        base = agenda.ledger.count(Combination(), fix["seeds"])
        assert base[1] == fix["runs"]
        assert fisher(fix["converged"], fix["runs"], *base) < 0.05
        if fix["minimal"]:
            assert {row["without"] for row in fix["ablation"]} == chosen
            for row in fix["ablation"]:
                # On the same seeds, from the first on; not on all where it is decided before.
                assert set(row["seeds"]) <= set(fix["seeds"])
                assert row["runs"] == len(set(row["seeds"])) > 0
                assert row["converged"] / row["runs"] < 0.8
                assert (row["converged"] + fix["runs"] - row["runs"]) / fix["runs"] < 0.8
    proved = [c.combination.names for c in agenda.candidates if c.state is not State.REFUTED]
    assert len(set(proved)) == len(proved)


def _runs(told: Told, most_lost: int) -> None:
    agenda, spec = told.agenda, told.agenda.spec
    counted = [e for e in agenda.ledger.entries if e.result.outcome is not Outcome.LOST]
    assert spec.runs is None or len(counted) <= spec.runs
    places = Counter((e.item.combination.key, e.item.seed) for e in counted if e.result.outcome is not Outcome.STOPPED)
    assert [place for place, times in places.items() if times > 1] == []
    lost = Counter(
        (e.item.combination.key, e.item.seed) for e in agenda.ledger.entries if e.result.outcome is Outcome.LOST
    )
    assert all(times <= most_lost for times in lost.values())
    for entry in counted:
        full = {Phase.BASELINE: spec.baseline_seeds, Phase.SEARCH: spec.search_seeds}
        assert entry.item.seed in full.get(entry.item.phase, spec.confirm_list(20))
        if entry.item.phase is Phase.BASELINE:
            assert not entry.item.combination
        if entry.item.phase is not Phase.SEARCH:
            assert entry.result.saved_by != "success"


def _trials(told: Told) -> None:
    trials = told.controller.trials._study.get_trials(deepcopy=False)
    assert {trial.state for trial in trials} <= {TrialState.COMPLETE, TrialState.FAIL, TrialState.PRUNED}
    results = {entry.result.number: entry for entry in told.agenda.ledger.entries}
    assert len(results) == len(told.agenda.ledger.entries)
    for trial in trials:
        entry = results.get(trial.number)
        assert (trial.state is TrialState.PRUNED) == ("remedy.discarded" in trial.user_attrs)
        if entry is None or entry.result.outcome in NOTHING or entry.result.reason.startswith("lost 3 times"):
            assert trial.state is not TrialState.COMPLETE
            continue
        assert trial.state is TrialState.COMPLETE
        assert trial.value is not None
        assert 0 <= trial.value <= 1.5
        assert (trial.value >= 1) == (entry.result.outcome is Outcome.CONVERGED)
        assert Combination.of(trial.params) == entry.item.combination
        assert trial.user_attrs["remedy.outcome"] == entry.result.outcome


def _end(told: Told) -> None:
    agenda, spec = told.agenda, told.agenda.spec
    assert told.controller.running == {}
    failed = all(e.result.outcome is Outcome.FAILED for e in agenda.baseline)
    confirmed = any(candidate.confirmed for candidate in agenda.candidates)
    wanted = {Reason.FAILED: 2, Reason.HEALTHY: 4}.get(told.reason, 0 if confirmed else 3)
    assert told.code == told.report["exit_code"] == wanted
    assert (told.reason is Reason.FAILED) <= failed
    assert (told.reason is Reason.DONE) == (len(agenda.minimal) >= spec.fixes)
    if told.reason is Reason.EXHAUSTED:
        names = [candidate.combination.names for candidate in agenda.candidates if candidate.state is not State.REFUTED]
        for candidate in agenda.candidates:
            covered = any(other < candidate.combination.names for other in names)
            assert covered or candidate.state not in (State.CONFIRMING, State.MINIMISING)
        for remedy in agenda.space.remedies:
            alone = Combination.of(remedy.first())
            known = any(other <= alone.names for other in names)
            # What cannot be applied is not tried again where another seed of the search was taken.
            seeds = [agenda.search_seed] if not alone.names & agenda._closed else spec.search_seeds
            assert known or any(agenda.ledger.at(alone, seed) is not None for seed in seeds)
