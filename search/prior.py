"""In which order remedies are tried: how well they treat the symptoms seen, the least invasive first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from remedy.spaces.remedy import Remedy
from remedy.spaces.symptom import Symptom
from remedy.spaces.verdict import Verdict

_UNRELATED = 99


def ranked(remedies: Sequence[Remedy], seen: Iterable[Verdict], suggested: Sequence[str]) -> list[Remedy]:
    """Sort the remedies: pre-flight's suggestions, then by the place the seen symptoms have in `treats`.

    A symptom that stopped a run weighs more than one that was only noted. Ties go to the less invasive remedy, then to
    the order of the catalogue.
    """
    weights: dict[Symptom, int] = {}
    for verdict in seen:
        weights[verdict.symptom] = min(weights.get(verdict.symptom, _UNRELATED), 0 if verdict.stops else 3)

    def place(remedy: Remedy) -> tuple[int, int, int, int]:
        urgency = suggested.index(remedy.name) if remedy.name in suggested else len(suggested)
        fits = [weights[symptom] + place for place, symptom in enumerate(remedy.treats) if symptom in weights]
        return urgency, min(fits, default=_UNRELATED), remedy.invasiveness, remedies.index(remedy)

    return sorted(remedies, key=place)
