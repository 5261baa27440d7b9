"""The morning report as one self-contained page: inline CSS, no script, nothing loaded from anywhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from remedy.search.markup import STYLE, Html, count, duration, join, percent, safe, table, tag
from remedy.search.nightly.check import Status
from remedy.search.nightly.markdown import confidence_lines, fix_line, interval, share, stops_line
from remedy.search.nightly.report import SIGNS

_LOOKS = {
    Status.HEALTHY: "good", Status.FIXED: "good", Status.NEWLY_BROKEN: "bad", Status.BROKEN: "known",
    Status.UNSTABLE: "known", Status.NOT_RUN: "away", None: "none",
}  # fmt: skip
# Okabe and Ito's colours: told apart by who sees no red or green, and each has its letter besides.
_STYLE = """
.verdict{padding:.5em .8em;border-radius:8px;border-left:8px solid var(--good);background:var(--card)}
.verdict.red{border-left-color:var(--bad)}
:root{--good:#009e73;--bad:#d55e00;--known:#e69f00;--away:#cc79a7}
.strip{white-space:nowrap;font:600 .75rem ui-monospace,Menlo,Consolas,monospace}
.strip span{display:inline-block;width:1.35em;text-align:center;margin-right:2px;border-radius:3px;color:#111;
border:1px solid transparent;line-height:1.5}
.s-good{background:var(--good)}.s-bad{background:var(--bad);border-color:var(--text)!important}
.s-known{background:var(--known)}.s-away{background:var(--away);border-color:var(--text)!important}
.s-none{background:none;color:var(--soft)!important;border-color:var(--rule)!important}
.mark{white-space:nowrap}
h2{margin:1.2em 0 .2em;padding-top:.5em}
.legend{line-height:2}
"""


def morning_html(found: Mapping[str, Any]) -> str:
    """Write the report as one page."""
    parts = (_heading(found), _rows(found), _new(found), _league(found), _sure(found), _actions(found), _foot(found))
    page = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{safe(found['sweep'])}, {safe(found['night'])}: morning report</title>\n"
        f"<style>{STYLE}{_STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n{chr(10).join(part for part in parts if part)}\n</main>\n</body>\n</html>\n"
    )
    return page.encode("ascii", "xmlcharrefreplace").decode()


def _heading(found: Mapping[str, Any]) -> Html:
    budget, red = found["budget"], bool(found["exit_code"])
    tiles = [
        ("Full runs spent", f"{budget['full_runs']:.1f} of {budget['of']:g}"),
        ("Saved by early stopping", percent(budget["saved_by_early_stop"])),
        ("Ended as collapsed", count(budget["early_stops"], "run", "runs")),
        (
            "Stopped wrongly (audit)",
            f"{budget['wrongly_stopped'] if budget['audited'] else '-'} of {budget['audited']}",
        ),
        ("Time", "-" if budget["seconds"] is None else duration(budget["seconds"])),
    ]
    return tag(
        "header",
        tag("p", f"Sweep {found['sweep']}, night of {found['night']}", look="soft"),
        tag("h1", found["verdict"], look="verdict red" if red else "verdict"),
        tag("dl", *(tag("div", tag("dt", name), tag("dd", value)) for name, value in tiles)),
    )


def _rows(found: Mapping[str, Any]) -> Html:
    rows = []
    for row in found["trainings"]:
        last, tonight, fix = row["last_night"], row["tonight"], row["best_fix"]
        red = Status(row["status"]).red
        target = tag("div", row["target"].rpartition("/")[2], look="soft", title=row["target"])
        study = tag("a", row["study"], href=row["link"]) if row["link"] else row["study"]
        rows.append(
            (
                join((tag("strong", row["name"]), target)),
                tag("span", _sign(row["status"]), " ", tag("strong" if red else "span", row["status"]), look="mark"),
                "-" if last is None else last["status"],
                _strip(row),
                "-" if tonight is None else join((share(tonight), tag("div", interval(tonight), look="soft mark"))),
                f"{row['cost']['full_runs']:.1f}",
                "-" if fix is None else join((fix_line(fix), tag("div", "study ", study, look="soft"))),
            )
        )
    nights = len(found["trainings"][0]["strip"])
    head = ("training", "tonight", "the night before", f"last {nights} nights", "converged [95 %]", "full runs",
            "best fix")  # fmt: skip
    known = [pair for status in (*Status, None) for pair in (_sign(status), f" {status or 'no night'} ")]
    return tag("section", tag("h2", "Trainings"), table(head, rows), tag("p", *known, look="soft legend"))


def _sign(status: str | None) -> Html:
    which = None if status is None else Status(status)
    sign = tag("span", SIGNS[which], look=f"s-{_LOOKS[which]}", role="img", **{"aria-label": which or "no night"})
    return tag("span", sign, look="strip")


def _strip(row: Mapping[str, Any]) -> Html:
    signs = []
    for night in row["strip"]:
        which = None if night["status"] is None else Status(night["status"])
        told = f"{night['night']}: {which or 'no night'}"
        signs.append(tag("span", SIGNS[which], look=f"s-{_LOOKS[which]}", title=told))
    told = "; ".join(f"{night['night']} {night['status'] or 'no night'}" for night in row["strip"])
    return tag("span", *signs, look="strip", role="img", **{"aria-label": told})


def _new(found: Mapping[str, Any]) -> Html:
    lines = [tag("li", tag("strong", new["training"]), f", {new['status']}: {new['what']}") for new in found["new"]]
    return tag("section", tag("h2", "What is new"), tag("ul", *lines)) if lines else Html()


def _league(found: Mapping[str, Any]) -> Html:
    rows = [
        (tag("code", row["remedy"]), ", ".join(row["necessary"]) or "-", f"{row['converged']} of {row['runs']}",
         ", ".join(row["harmful"]) or "-")
        for row in found["league"]
    ]  # fmt: skip
    head = ("remedy", "necessary in (by ablation)", "alone converged", "harmful in")
    return tag("section", tag("h2", "Remedies"), table(head, rows)) if rows else Html()


def _sure(found: Mapping[str, Any]) -> Html:
    lines = [tag("li", line) for line in confidence_lines(found["confidence"])]
    return tag("section", tag("h2", "How sure this is"), tag("ul", *lines)) if lines else Html()


def _actions(found: Mapping[str, Any]) -> Html:
    rows = [(row["training"] or "-", row["why"], tag("code", row["command"])) for row in found["actions"]]
    return tag("section", tag("h2", "To paste"), table(("training", "to", "command"), rows)) if rows else Html()


def _foot(found: Mapping[str, Any]) -> Html:
    parts = ", ".join(f"{name} {spent:.1f}" for name, spent in found["budget"]["parts"].items() if spent >= 0.05)
    told = f"Full runs by part: {parts or 'none'}. {stops_line(found['budget'])}"
    return tag("footer", tag("p", told, look="soft"))
