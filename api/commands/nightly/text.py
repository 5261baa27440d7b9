"""The morning report of a sweep as text: one screen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from remedy.page import Page, share
from remedy.search.nightly.check import Status
from remedy.search.nightly.markdown import budget_line, confidence_lines
from remedy.search.nightly.report import LEGEND, SIGNS

_ROWS, _LEAGUE, _NEWS, _ACTIONS = 20, 8, 10, 12
"""What one screen holds of each; the other formats hold all of it."""


def morning_text(found: Mapping[str, Any], *, terminal: bool = False, home: str = "") -> str:
    """Return the report for people."""
    page = Page(terminal=terminal)
    page.line(found["verdict"], "bold green" if not found["exit_code"] else "bold red")
    page.line(f"sweep {found['sweep']}, night of {found['night']}", "dim")
    page.line()
    rows, trainings = [], _shown(found["trainings"])
    for row in trainings:
        last = row["last_night"]
        rows.append(
            (
                row["name"],
                row["status"].upper() if Status(row["status"]).red else row["status"],
                "-" if last is None else last["status"],
                strip(row),
                counts(row["tonight"]),
                f"{row['cost']['full_runs']:.1f}",
                fix_text(row),
            )
        )
    columns = ("training", "tonight", "the night before", f"{len(found['trainings'][0]['strip'])} nights",
               "converged [95 %]", "runs*", "best fix")  # fmt: skip
    page.table(columns, rows)
    if len(trainings) < len(found["trainings"]):
        page.line(f"{len(found['trainings']) - len(trainings)} more are healthy, or in --format json", "dim", indent=2)
    page.line(f"nights: {LEGEND}. * in full-run equivalents", "dim", indent=2)
    _new(page, found)
    _league(page, found)
    for line in (*confidence_lines(found["confidence"]), budget_line(found["budget"])):
        page.line(line)
    _actions(page, found, home)
    return str(page)


def _shown(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the trainings that are shown: all, or those that are not healthy, red ones first."""
    if len(rows) <= _ROWS:
        return rows
    ailing = [row for row in rows if row["status"] != Status.HEALTHY]
    return sorted(ailing, key=lambda row: not Status(row["status"]).red)[:_ROWS]


def strip(row: Mapping[str, Any]) -> str:
    """Return the nights of a training, a letter each."""
    return "".join(SIGNS[night["status"]] for night in row["strip"])


def counts(tonight: Mapping[str, Any] | None) -> str:
    """Return `3 of 3 [0.44, 1.00]`; `-` where nothing ran."""
    if tonight is None:
        return "-"
    identical = " identical" if tonight["identical"] else ""
    return share(tonight["converged"], tonight["runs"], tonight["interval"]) + identical


def fix_text(row: Mapping[str, Any]) -> str:
    """Return the best fix, and what it did tonight."""
    fix = row["best_fix"]
    if fix is None:
        return "-" if row["status"] in ("healthy", "fixed", "not run") else "none yet"
    tonight = fix["tonight"]
    if tonight is None:
        return f"{fix['label']}: {share(fix['converged'], fix['runs'])}"
    return f"{fix['label']}: {share(tonight['converged'], tonight['runs'])}, without {tonight['base_converged']}"


def _new(page: Page, found: Mapping[str, Any]) -> None:
    if found["new"]:
        page.line()
        page.line("What is new", "bold")
    for new in found["new"][:_NEWS]:
        page.line(f"{new['training']}, {new['status']}: {new['what']}", indent=2)
    if len(found["new"]) > _NEWS:
        page.line(f"{len(found['new']) - _NEWS} more are in --format json", "dim", indent=2)


def _league(page: Page, found: Mapping[str, Any]) -> None:
    if not found["league"]:
        page.line()
        return
    page.line()
    rows = [
        (row["remedy"], ", ".join(row["necessary"]) or "-", f"{row['converged']} of {row['runs']}",
         ", ".join(row["harmful"]) or "-")
        for row in found["league"][:_LEAGUE]
    ]  # fmt: skip
    page.table(("remedy", "necessary in (by ablation)", "alone converged", "harmful in"), rows, "Remedies")
    if len(found["league"]) > _LEAGUE:
        page.line(f"{len(found['league']) - _LEAGUE} more are in --format json", "dim", indent=2)
    page.line()


def _actions(page: Page, found: Mapping[str, Any], home: str) -> None:
    links = [(row["name"], row["link"]) for row in found["trainings"] if row["link"] and row["explorers"]]
    if links:
        page.line()
        for name, link in links[:_LEAGUE]:
            page.raw(f"MLflow, {name}: {link}")
    page.line()
    for action in found["actions"][:_ACTIONS]:
        whose = f"{action['training']}: " if action["training"] else ""
        page.raw(f"{whose}{action['why']}:  {action['command']}")
    if len(found["actions"]) > _ACTIONS:
        page.line(f"{len(found['actions']) - _ACTIONS} more are in --format json", "dim")
    page.raw(
        f"next: remedy nightly report {found['sweep']} --night {found['night']}{home} --format html --out morning.html"
    )
