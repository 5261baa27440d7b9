"""The pages of docs/ that are the catalogue: `make docs` writes them, and a test compares."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from remedy.spaces.catalogue import REMEDIES
from remedy.spaces.remedy import Remedy
from remedy.spaces.slot import Slot
from remedy.spaces.symptom import Symptom
from remedy.workers.detectors.catalogue import of_symptom
from remedy.workers.detectors.threshold import Threshold, thresholds
from remedy.workers.forecast import ABOUT, Forecast

_SET = (
    "A study file sets their thresholds, or switches a detector off: `detectors: {chance_plateau: off, "
    "exploding_gradient: {factor: 2, patience: {share: 0.4}}}`. A patience is a share of the budget in optimizer "
    "steps, but at least so many steps and samples."
)
_FROM = "<!-- Written by `make docs` from the catalogue. Change the catalogue, not this page. -->"
_SOURCES = (
    "who proposes it. Posts "
    "[000, 001](https://epcsirmaz.blogspot.com/2019/07/decreasing-accuracy-in-neural-nets.html), "
    "[002](https://stats.stackexchange.com/questions/287617) and "
    "[003](https://discuss.pytorch.org/t/43814/16) are those that this project began with; R, P, D and F numbers are "
    "those of its first list of remedies, symptoms, detectors and checks."
)


def pages() -> dict[str, str]:
    """Return the text of each page by its name."""
    return {"remedies.md": _remedies(), "symptoms.md": _symptoms()}


def _remedies() -> str:
    said = sum(remedy.python is not None for remedy in REMEDIES)
    lines = [
        _FROM,
        "",
        "# Remedies",
        "",
        f"{len(REMEDIES)} remedies, by the slot of a training that each changes, in the order of application.",
        "A combination has at most one of each slot. `remedy remedies` prints the same; `--only` and `--without` of",
        "`remedy submit` take these names.",
        "",
        "- *Hyperparameters*: the range that is searched, and in brackets the value tried first.",
        "- *Invasive*: from 1 (a number changes) to 5 (the architecture changes).",
        f"- *Python*: whether `remedy export --as python` can say the change without us ({said} of {len(REMEDIES)}).",
        "  Some can where the model or the loss permits it: an activation that is a module, a loss of torch's.",
        "- *Treats*: [symptoms](symptoms.md), the most important one first. Whatever remedy names one repairs a small",
        "  broken training on at least 4 of 5 seeds, of which at most 1 converges without it",
        "  ([tests/workers/test_repairs.py](../tests/workers/test_repairs.py)).",
        f"- *Source*: {_SOURCES}",
        "",
        "| slot | remedies |",
        "|---|---|",
        *(f"| [{slot}](#{slot}) | {', '.join(f'`{r.name}`' for r in mine)} |" for slot, mine in _by_slot()),
    ]
    for slot, mine in _by_slot():
        lines += [
            "",
            f"## {slot}",
            "",
            "| remedy | does | hyperparameters | treats | invasive | Python | source |",
            "|---|---|---|---|---|---|---|",
            *map(_row, mine),
        ]
    return "\n".join(lines) + "\n"


def _by_slot() -> list[tuple[Slot, list[Remedy]]]:
    found = [(slot, [remedy for remedy in REMEDIES if remedy.slot is slot]) for slot in Slot]
    return [(slot, mine) for slot, mine in found if mine]


def _row(remedy: Remedy) -> str:
    tried = (f"{key}: {range_} ({remedy.defaults[key]})" for key, range_ in remedy.distributions.items())
    treats = (f"[{symptom.value}](symptoms.md#{symptom.value})" for symptom in remedy.treats)
    python = "yes" if remedy.python is not None else "no"
    return _cells(
        f"`{remedy.name}`",
        remedy.summary,
        "; ".join(tried),
        ", ".join(treats),
        str(remedy.invasiveness),
        python,
        remedy.source,
    )


def _symptoms() -> str:
    lines = [_FROM, "", "# Symptoms", "", "The ways a training goes wrong, as the detectors of a run tell them apart."]
    lines += [f"Sources: {_SOURCES}", "", _SET]
    for symptom in Symptom:
        names = [f"`{r.name}`" for r in sorted(REMEDIES, key=lambda r: _place(r, symptom)) if symptom in r.treats]
        lines += [
            "",
            f"## {symptom.value}",
            "",
            f"{_sentence(symptom.about)} What it usually means: {symptom.means}.",
            "",
            f"Treated by ([each of them](remedies.md)): {', '.join(names) or 'nothing by itself'}.",
            "",
            f"Source: {symptom.source}.",
            "",
            *_thresholds(of_symptom(symptom.value)),
        ]
    lines += [
        "",
        "## The forecast",
        "",
        f"{_sentence(ABOUT)} `forecast: off`, or `forecast: {{late: 0.8}}`, beside `detectors`.",
        "Progress is 0 at guessing and 1 at the goal.",
        "",
        *_thresholds(thresholds(Forecast)),
    ]
    return "\n".join(lines) + "\n"


def _thresholds(known: Mapping[str, Threshold[Any]]) -> list[str]:
    """Return a table of what a detector goes by."""
    rows = [_cells(f"`{n}`", f"{t.value:g}", t.may_be, t.why) for n, t in known.items()]
    return [_cells("threshold", "value", "may be", "why"), _cells("---", "---", "---", "---"), *rows]


def _place(remedy: Remedy, symptom: Symptom) -> int:
    """Return how important the symptom is among those that a remedy treats."""
    return remedy.treats.index(symptom) if symptom in remedy.treats else len(Symptom)


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _cells(*texts: str) -> str:
    return "| " + " | ".join(text.replace("|", "\\|") for text in texts) + " |"


def write(folder: Path, texts: Iterable[tuple[str, str]]) -> None:
    """Write the pages into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts:
        (folder / name).write_text(text, encoding="utf-8")


def main(argv: Sequence[str]) -> int:
    """Write the pages into the folder that is named, `docs` by default."""
    write(Path(argv[0] if argv else "docs"), pages().items())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
