"""The public contract of a report, as one function: everything that `submit --json` promises."""

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import OURS

OUTCOMES = {"converged", "collapsed", "missed", "stopped", "failed", "inapplicable", "lost"}
REASONS = {0: {None, "exhausted", "budget", "timeout", "stopped"}, 2: {"failed"}, 4: {None},
           3: {"exhausted", "budget", "timeout", "stopped"}}  # fmt: skip
KEYS = {
    "": {"schema", "study", "training", "goal", "exit_code", "reason", "seed", "preflight", "decision", "baseline",
         "fixes", "remedies", "runs", "cost", "mlflow"},
    "baseline": {"state", "runs", "converged", "metric", "seeds", "symptoms"},
    "cost": {"steps_trained", "steps_full", "saved_by_early_stop", "saved", "preflight_steps", "seconds",
             "steps_to_first_fix"},
    "mlflow": {"tracking_uri", "experiment", "parent_run_id"},
    "fix": {"remedies", "minimal", "confirmed", "converged", "runs", "seeds", "interval", "metric_mean", "invasiveness",
            "steps_to_goal", "ablation", "fix_file"},
    "symptom": {"symptom", "runs", "onset_step", "stopped", "evidence"},
    "remedy": {"remedy", "slot", "alone", "effect", "interval"},
}  # fmt: skip


def holds(share: float, interval: list[float], low: float = 0.0, high: float = 1.0) -> bool:
    """Whether an interval is one, and contains what it is the interval of."""
    return len(interval) == 2 and low <= interval[0] <= share <= interval[1] <= high


def check_report(report: dict[str, Any], code: int) -> None:
    """Hold a report against section 6 of the design, every figure against every other."""
    assert set(report) >= KEYS[""]
    assert report["schema"] == 1
    assert report["exit_code"] == code
    assert report["reason"] in REASONS[code]
    assert set(report["goal"]) in ({"metric", "at_least"}, {"metric", "at_most"})
    for finding in report["preflight"]:
        assert set(finding) == {"check", "level", "message", "suggests"}
        assert finding["level"] in ("error", "warning")
        assert finding["message"]
    check_runs(report["runs"])
    check_cost(report["cost"])
    check_baseline(report["baseline"])
    assert set(report["mlflow"]) >= KEYS["mlflow"]
    state = report["baseline"]["state"]
    assert (code == 4) == (state == "healthy")
    assert (code == 0) == bool([fix for fix in report["fixes"] if fix["confirmed"]])
    for fix in report["fixes"]:
        check_fix(fix, report["baseline"])
    assert [place(fix) for fix in report["fixes"]] == sorted(place(fix) for fix in report["fixes"])
    names = [frozenset(chosen(fix)) for fix in report["fixes"]]
    assert len(names) == len(set(names)), "two fixes are distinct if their sets of remedies differ"
    first = report["cost"]["steps_to_first_fix"]
    assert (first is None) == (code != 0)
    assert first is None or 0 < first <= report["cost"]["steps_trained"]
    for row in report["remedies"]:
        check_remedy(row)


def check_runs(runs: dict[str, int]) -> None:
    assert set(runs) == OUTCOMES | {"total"}
    assert sum(runs[outcome] for outcome in OUTCOMES) == runs["total"]


def check_cost(cost: dict[str, Any]) -> None:
    assert set(cost) >= KEYS["cost"]
    assert 0 <= cost["steps_trained"] <= cost["steps_full"]
    assert cost["seconds"] > 0
    share = 1 - cost["steps_trained"] / cost["steps_full"] if cost["steps_full"] else 0
    assert math.isclose(cost["saved_by_early_stop"], share, abs_tol=1e-9)
    assert set(cost["saved"]) == {"collapse", "success", "controller"}
    assert all(part >= 0 for part in cost["saved"].values())
    assert math.isclose(sum(cost["saved"].values()), share, abs_tol=1e-9), "the saving adds up by its causes"


def check_baseline(base: dict[str, Any]) -> None:
    assert set(base) >= KEYS["baseline"]
    assert base["runs"] >= 3
    assert len(base["metric"]) == len(base["seeds"]) == len(set(base["seeds"])) == base["runs"]
    everyone, nobody = base["converged"] == base["runs"], base["converged"] == 0
    assert base["state"] == ("healthy" if everyone else "broken" if nobody else "unstable")
    for found in base["symptoms"]:
        assert set(found) >= KEYS["symptom"]
        assert 1 <= found["runs"] == len(found["onset_step"]) <= base["runs"]
        assert all(step >= 0 for step in found["onset_step"])
        assert any(letter.isdigit() for letter in found["evidence"]), "evidence is in figures"


def check_fix(fix: dict[str, Any], base: dict[str, Any]) -> None:
    assert set(fix) >= KEYS["fix"]
    assert chosen(fix)
    assert all("." not in key or key.split(".")[0] in chosen(fix) for key in fix["remedies"])
    assert holds(fix["converged"] / fix["runs"], fix["interval"])
    assert len(fix["seeds"]) == len(set(fix["seeds"])) == fix["runs"]
    assert not set(fix["seeds"]) & set(base["seeds"]), "fresh seeds"
    assert 1 <= fix["invasiveness"] <= 5
    assert Path(fix["fix_file"]).is_file()
    if fix["confirmed"]:
        assert fix["runs"] >= 5
        assert fix["converged"] >= 0.8 * fix["runs"]
    for row in fix["ablation"]:
        assert set(row["seeds"]) <= set(fix["seeds"]), "on the same seeds"
        assert len(row["seeds"]) == row["runs"] > 0
    if fix["minimal"]:
        assert {row["without"] for row in fix["ablation"]} == chosen(fix), "every remedy was left out"
        assert all(row["converged"] / row["runs"] < 0.8 for row in fix["ablation"])


def check_remedy(row: dict[str, Any]) -> None:
    assert set(row) >= KEYS["remedy"]
    if row["alone"] is not None:
        assert 0 <= row["alone"]["converged"] <= row["alone"]["runs"]
    if row["effect"] is not None:
        assert holds(row["effect"], row["interval"], -1.0, 1.0)


def chosen(fix: dict[str, Any]) -> set[str]:
    return {str(value) for key, value in fix["remedies"].items() if "." not in key and value != "keep"}


def place(fix: dict[str, Any]) -> tuple[Any, ...]:
    return not fix["confirmed"], not fix["minimal"], len(chosen(fix)), fix["invasiveness"]


@pytest.fixture(autouse=True)
def _no_settings_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Ray of an earlier test leaves its token in this process."""
    for name in [name for name in os.environ if name.startswith(OURS)]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def contract() -> Callable[[dict[str, Any], int], None]:
    """The function that holds a report against the contract."""
    return check_report
