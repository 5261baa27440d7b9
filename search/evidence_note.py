"""The evidence of a study as Markdown: contrasts, fixes as recipes, pairs, and apart from them what models say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from remedy.search.markdown import code, escape, number, percent, share, table
from remedy.spaces.combination import Combination

_LEAST = 0.05


def evidence(report: Mapping[str, Any]) -> Iterator[str]:
    """Yield the sections there is something to say in."""
    yield _contrasts(report)
    yield _recipes(report)
    yield _pairs(report)
    yield _models(report)


def _contrasts(report: Mapping[str, Any]) -> str:
    # What a fix of one remedy loses without it is what the remedy adds alone, and stands there once.
    why = "identical runs" if (report.get("baseline") or {}).get("deterministic") else "too few seeds"
    fixes = enumerate(report.get("fixes") or (), start=1)
    single = {place for place, fix in fixes if len(Combination.of(fix["remedies"]).names) == 1}
    rows = [
        (code(row["remedy"]), _what(told), share(told["with"]), share(told["without"]), _difference(told, why))
        for row in report.get("remedies") or ()
        for told in row.get("contrasts") or ()
        if (told["with"]["runs"] > 1 or told["with"]["converged"]) and told["fix"] not in single
    ]
    if not rows:
        return ""
    head = ("remedy", "contrast, same seeds", "converged with it", "without it", "difference \\[95 %\\]")
    return "\n".join(["### What each remedy did, on the same seeds with and without it", "", *table(head, rows)])


def _what(told: Mapping[str, Any]) -> str:
    what = "added alone" if told["kind"] == "alone" else f"left out of fix {told['fix']}"
    return f"{what}, {'fresh seeds' if told['fresh'] else 'the seed of the search'}"


def _difference(told: Mapping[str, Any], why: str) -> str:
    if told["interval"] is None:
        return why
    low, high = told["interval"]
    return f"{told['effect']:+.2f} \\[{low:+.2f}, {high:+.2f}\\]"


def _recipes(report: Mapping[str, Any]) -> str:
    metric = escape((report.get("goal") or {}).get("metric", "metric"))
    rows = [
        (str(place), *(_spread(told.get(name)) for name in ("metric", "steps_to_goal", "seconds_to_goal")),
         _against(told.get("against_first") or {}, metric))
        for place, fix in enumerate(report.get("fixes") or (), start=1)
        if (told := fix.get("recipe"))
    ]  # fmt: skip
    if not rows:
        return ""
    head = ("fix", f"final {metric}", "steps to the goal", "seconds to the goal", "against fix 1, same seeds")
    return "\n".join(["### The fixes as recipes: mean, lowest to highest over the seeds", "", *table(head, rows)])


def _spread(told: Mapping[str, Any] | None) -> str:
    if not told:
        return "-"
    mean, low, high = (f"{told[name]:.3g}" for name in ("mean", "lowest", "highest"))
    return f"{mean} ({low} to {high})"


def _against(told: Mapping[str, Any], metric: str) -> str:
    said = []
    if gap := told.get("metric"):
        said.append(f"{metric} {gap['mean']:+.2g}, better on {told['better']} of {gap['runs']}")
    if gap := told.get("steps_to_goal"):
        said.append(f"{gap['mean']:+.0f} steps, sooner on {told['sooner']} of {gap['runs']}")
    return "; ".join(said) or "-"


def _pairs(report: Mapping[str, Any]) -> str:
    rows = [
        (" + ".join(code(name) for name in row["remedies"]), str(len(row["seeds"])),
         *(share(row[side]) for side in ("together", "first", "second", "untouched")), f"{row['effect']:+.2f}")
        for row in report.get("interactions") or ()
        if row["effect"]
    ]  # fmt: skip
    if not rows:
        return ""
    head = ("pair", "seeds", "together", "first alone", "second alone", "untouched", "beyond the sum")
    return "\n".join(["### Pairs that do more, or less, together than apart", "", *table(head, rows)])


def _models(report: Mapping[str, Any]) -> str:
    told = report.get("importance") or {}
    rows = [row for row in told.get("slots") or () if max(row["fanova"], row["ped_anova"]) >= _LEAST]
    if not rows:
        return ""
    shares = (f"{code(row['slot'])} {percent(row['fanova'])} / {percent(row['ped_anova'])}" for row in rows)
    return (
        "### Model-based importance, not a contrast\n\n"
        f"What of the graded values of {number(told['trials'])} runs each slot explains, by Optuna's fANOVA / "
        f"PED-ANOVA: {', '.join(shares)}. With so few runs either may name a slot that did nothing."
    )
