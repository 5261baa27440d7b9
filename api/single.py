"""What `check`, `plan` and `run` say of one training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from remedy.page import Page, curves, number, preflight_lines

if TYPE_CHECKING:
    from remedy.workers.result import RunResult


def _ending(page: Page, told: Mapping[str, Any]) -> None:
    value, sign = number(told["value"]), ">=" if told["mode"] == "max" else "<="
    full = f" of {told['steps_full']}" if told["steps_full"] else ""
    reached = "" if told["value"] is None else f"{told['metric']} {value} (goal {sign} {told['goal']:g}) "
    page.line(f"{told['outcome']}: {reached}after {told['steps']}{full} steps, seed {told['seed']}", "bold")
    if told["verdict"]:
        verdict = told["verdict"]
        page.line(f"{verdict['symptom']} since step {verdict['onset_step']}: {verdict['evidence']}", indent=2)
    elif told["reason"]:
        page.line(told["reason"], indent=2)
    for note in told["notes"]:
        page.line(f"noted: {note['symptom']} since step {note['onset_step']}: {note['evidence']}", indent=2)
    if told["outcome"] == "failed":
        page.raw(f"  traceback in {told['log']}")


def check_text(told: Mapping[str, Any], result: RunResult, submit: str) -> str:
    """Return what `remedy check` says."""
    page = Page()
    page.raw(f"training {told['training']}")
    classes = f", {told['classes']} classes" if told["classes"] > 1 else ""
    page.line(
        f"targets: {told['target_kind']}{classes}; guessing reaches {told['metric']} {number(told['chance'])}; "
        f"{told['parameters']} parameters on {told['device']}"
    )
    page.line()
    _ending(page, told)
    preflight_lines(page, told["preflight"])
    if not told["preflight"]:
        page.line("pre-flight: nothing found", indent=2)
    if told["left_out"]:
        page.line(f"pre-flight left out: {'; '.join(told['left_out'])}", "dim", indent=2)
    if told["decision"]:
        page.line(told["decision"], indent=2)
    page.line()
    curves(page, result)
    page.line()
    page.raw(f"next: {submit}" + ("      is it so on every seed?" if told["outcome"] == "converged" else ""))
    return str(page)


def run_text(told: Mapping[str, Any], result: RunResult) -> str:
    """Return what `remedy run` says."""
    page = Page()
    for receipt in told["receipts"]:
        page.line(f"{receipt['remedy']}: {receipt['changed']}")
    _ending(page, told)
    curves(page, result)
    return str(page)


def plan_text(told: Mapping[str, Any], submit: str) -> str:
    """Return what `remedy plan` says."""
    page = Page()
    page.raw(f"training {told['training']}")
    preflight_lines(page, told["preflight"])
    page.line(f"a full run: {told['steps']} steps, about {told['seconds_per_full_run']:g} s on this machine")
    page.table(
        ("slot", "remedies that may fill it"), [(slot, ", ".join(names)) for slot, names in told["slots"].items()]
    )
    for slot, why in told["closed_because"].items():
        page.line(f"closed: {slot}, since {why}")
    if told["closed"] and not told["closed_because"]:
        page.line(f"closed, since data() gives a DataLoader with a batch sampler: {', '.join(told['closed'])}")
    if told["defaults"]:
        page.line(f"tried first, all at once, as far as they find something to change: {', '.join(told['defaults'])}")
    page.line(f"tried alone: {', '.join(told['order'][:6])}, ...; what the untouched runs show can change this order")
    page.line(
        f"at most {told['most_runs']} runs: {told['baseline_runs']} of the baseline, then single remedies, then "
        f"combinations; a fix takes {told['confirming_runs_per_fix']} runs to confirm and show minimal; "
        f"at most about {told['most_seconds']:.0f} s of training, less what early stopping saves"
    )
    page.raw(f"next: {submit}")
    return str(page)
