"""In which order remedies are tried: how well they treat the symptoms seen, the least invasive first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from remedy.search.knowledge import NO_SYMPTOM, Known, posterior
from remedy.spaces.remedy import Remedy
from remedy.spaces.symptom import Symptom
from remedy.spaces.verdict import Verdict

_UNRELATED = 99
_NOTED = 3


def ranked(
    remedies: Sequence[Remedy], seen: Iterable[Verdict], suggested: Sequence[str], taught: Known | None = None
) -> list[Remedy]:
    """Sort the remedies: pre-flight's suggestions, then by how likely each restores a training with these symptoms.

    That is the place the seen symptoms have in the remedy's `treats` (a symptom that stopped a run weighs more than one
    that was only noted), taken for a prior, and what past studies `taught`. Ties go to the less invasive remedy, then
    to the order of the catalogue. Who misses the goal and shows no symptom at all is taken for too slow: what treats a
    plateau goes first.
    """
    weights: dict[Symptom, int] = {}
    for verdict in seen:
        weights[verdict.symptom] = min(weights.get(verdict.symptom, _UNRELATED), 0 if verdict.stops else _NOTED)
    taught = taught or {}
    names = [str(symptom.value) for symptom in weights] or [NO_SYMPTOM]
    weights = weights or {Symptom.CHANCE_PLATEAU: _NOTED}

    def chance(remedy: Remedy) -> float:
        places = {
            symptom: weights[symptom] + place for place, symptom in enumerate(remedy.treats) if symptom in weights
        }
        best = _prior(min(places.values(), default=_UNRELATED))
        met = [taught[name][remedy.name] for name in names if remedy.name in taught.get(name, ())]
        # The symptoms of one training are not independent: the one that most is known of speaks for all.
        return posterior(best, max(met, key=lambda one: (one[1], one[0]))) if met else best

    def place(remedy: Remedy) -> tuple[int, float, int]:
        urgency = suggested.index(remedy.name) if remedy.name in suggested else len(suggested)
        return urgency, -chance(remedy), remedy.invasiveness

    return sorted(remedies, key=place)  # which keeps the catalogue's order where it finds none


def _prior(place: int) -> float:
    """Return the chance that a remedy is given for its place: 1 in 2 for the first, 1 in 50 for an unrelated one."""
    return 1 / (2 + place / 2)
