"""What each remedy did: alone against the untouched training, and left out of every fix that holds it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from remedy.search.agenda import Agenda
from remedy.search.candidate import Candidate
from remedy.search.contrast import Contrast, alone, left_out
from remedy.search.evidence import difference
from remedy.spaces.combination import Combination
from remedy.spaces.outcome import Outcome
from remedy.spaces.remedy import Remedy

_SIDES = ("with", "without")


def remedies(agenda: Agenda, fixes: Sequence[Candidate]) -> list[dict[str, Any]]:
    """Return for each remedy tried alone what it did, and its effect against the baseline on the same seeds.

    Of several values of its hyperparameters the confirmed ones are shown, else those tried first: the best of many
    on one seed would be a lucky draw.
    """
    shown: dict[str, tuple[Combination, int, int]] = {}
    proved = {candidate.combination for candidate in agenda.candidates if candidate.confirmed}
    inapplicable: dict[str, str] = {}
    counted: dict[Combination, tuple[int, int]] = {}
    for entry in agenda.ledger.entries:
        combination = entry.item.combination
        if len(combination.names) != 1:
            continue
        (name,) = combination.names
        if entry.result.outcome is Outcome.INAPPLICABLE:
            inapplicable[name] = entry.result.reason
            continue
        if combination not in counted:
            counted[combination] = agenda.ledger.count(combination, agenda.ledger.seeds_of(combination))
        converged, runs = counted[combination]
        if runs and (name not in shown or combination in proved):
            shown[name] = (combination, converged, runs)
    rows = [_row(agenda, agenda.space.by_name[name], *found) for name, found in shown.items()]
    rows.sort(key=lambda row: (row["effect"] is None, -(row["effect"] or 0), -row["alone"]["runs"], row["remedy"]))
    rows += [_nothing(agenda.space.by_name[name], why) for name, why in inapplicable.items() if name not in shown]
    _add_left_out(agenda, fixes, rows)
    return rows


def _row(agenda: Agenda, remedy: Remedy, combination: Combination, converged: int, runs: int) -> dict[str, Any]:
    ledger = agenda.ledger
    shared = [seed for seed in ledger.seeds_of(combination) if ledger.at(Combination(), seed) is not None]
    told: dict[str, Any] = {
        "remedy": remedy.name,
        "slot": str(remedy.slot),
        "params": combination.params,
        "alone": {"converged": converged, "runs": runs},
        "effect": None,
        "interval": None,
        "contrasts": [],
    }
    if shared:
        mine, base = ledger.count(combination, shared), ledger.count(Combination(), shared)
        told["effect"] = mine[0] / mine[1] - base[0] / base[1]
        told["interval"] = list(difference(*mine, *base))
        told["shared_seeds"] = len(shared)
    found = alone(ledger, agenda.spec, combination)
    if found is not None:
        told["contrasts"].append({"kind": "alone", "fix": None, **found.told(_SIDES)})
    return told


def _nothing(remedy: Remedy, why: str) -> dict[str, Any]:
    nothing: dict[str, Any] = {"alone": None, "effect": None, "interval": None, "contrasts": [], "inapplicable": why}
    return {"remedy": remedy.name, "slot": str(remedy.slot), **nothing}


def _add_left_out(agenda: Agenda, fixes: Sequence[Candidate], rows: list[dict[str, Any]]) -> None:
    """Add to each remedy's row what the fixes lose without it; a row where it was never tried alone."""
    known = {row["remedy"]: row for row in rows}
    for place, candidate in enumerate(fixes, start=1):
        for name, rest in candidate.parts():
            found = left_out(agenda.ledger, agenda.spec, candidate, rest)
            if found is None:
                continue
            if name not in known:
                known[name] = _nothing(agenda.space.by_name[name], "")
                rows.append(known[name])
            known[name]["contrasts"].append(part(place, found))


def part(place: int | None, found: Contrast) -> dict[str, Any]:
    """Return what a fix loses with one remedy left out, as JSON-able data."""
    return {"kind": "left_out", "fix": place, **found.told(_SIDES)}
