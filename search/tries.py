"""Which combinations of known remedies are worth a try, the most promising first: a function of what is known."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

from remedy.search.defaults import LEAST, defaults
from remedy.search.grade import graded
from remedy.search.ledger import Entry, Ledger
from remedy.search.prior import ranked
from remedy.search.reduction import parts
from remedy.search.spec import Spec
from remedy.spaces.combination import Combination
from remedy.spaces.outcome import Outcome
from remedy.spaces.remedy import Remedy
from remedy.spaces.space import Space
from remedy.spaces.verdict import Verdict
from remedy.workers.order import Phase

_ALONE, _NEARER = 6, 0.1
"""Single remedies that are tried before the best of them are joined with others, unless one came so much nearer."""
_FAULTS = 4
_BASES = 4
_PARTNERS = 16
_MOST, _LATER = 3, 6
"""Remedies in what is joined here: what needs more is left to the sampler; and how much later a third one's turn is."""

_When = tuple[int, int, int, int, str]


@dataclass
class Tries:
    """Single remedies by the prior, and in turn with them what is worth joining.

    First the known-good defaults, all at once. Then what pre-flight suggests: for each fault found the remedy named
    first, then those of two faults at once, for each of them is reason enough to fail; then the others that were
    suggested. Then parts of many remedies that converged together. Then single remedies, and in turn with them joined
    tries: what came nearest to the goal, with what treats the symptoms still seen in it. They begin when something has
    come clearly nearer than the untouched training, or after the first few. Without that, whatever needs two remedies
    would wait for the whole catalogue.
    """

    spec: Spec
    space: Space
    ledger: Ledger
    _made: tuple[_When, list[Combination]] | None = field(default=None, compare=False)
    # What is asked for again for every run, and costs more than to remember it.
    _ranks: dict[tuple[tuple[str, bool], ...], list[Remedy]] = field(default_factory=dict, compare=False)
    _values: dict[tuple[int, float], float] = field(default_factory=dict, compare=False)
    _alone: dict[str, Combination] = field(default_factory=dict, compare=False)
    _parts: dict[Combination, dict[frozenset[str], Combination]] = field(default_factory=dict, compare=False)
    _joints: dict[tuple[str, str], Combination] = field(default_factory=dict, compare=False)

    def ordered(
        self, seed: int, chance: float, closed: Collection[str], many: Combination | None = None
    ) -> Sequence[Combination]:
        """Return what is to be tried on a seed, best first; what was tried and cannot be applied is not in it.

        `many` are remedies that converge together, of which parts are to be tried.
        """
        # Asked for each run that begins; it changes with the runs of these two phases only.
        untouched, searched = (len(self.ledger.of_phase(phase)) for phase in (Phase.BASELINE, Phase.SEARCH))
        when = (seed, untouched, searched, len(closed), many.key if many else "")
        if self._made is None or self._made[0] != when:
            self._made = when, list(self._listed(seed, chance, closed, many))
        return self._made[1]

    def defaults(self, seed: int) -> list[Combination]:
        """Return the known-good defaults, unless they were tried on this seed; those that found nothing are left out.

        A run that cannot be made tells all that found nothing, so that few are needed to learn what fits.
        """
        refused = set(self.spec.refused)
        while made := defaults(self.space, self.spec.suggested, refused):
            known = self.ledger.by_seed(made)
            told = {name for entry in known.values() for name in entry.result.refused}
            if told <= refused:
                return [] if seed in known else [made]
            refused |= told
        return []

    def parts(self, many: Combination, seed: int) -> list[Combination]:
        """Return the parts of a combination that converges which are still to be tried, the likeliest first."""
        names = many.names
        if len(names) < LEAST:
            return []
        made = self._parts.setdefault(many, {})
        likely = [remedy.name for remedy in self.order() if remedy.name in names]
        every = [frozenset(part) for part in parts(likely)]
        made.update((part, many.only(part)) for part in every if part not in made)
        return [made[part] for part in every if self.ledger.at(made[part], seed) is None]

    def _listed(
        self, seed: int, chance: float, closed: Collection[str], many: Combination | None
    ) -> Iterator[Combination]:
        def new(made: Combination) -> bool:
            return self.ledger.at(made, seed) is None and made.names.isdisjoint(closed)

        yield from self.defaults(seed)
        remedies = self.order()
        singles = [self._single(remedy) for remedy in remedies]
        faults = self._faults(closed)
        suggested = [self._single(self.space.by_name[name]) for name in faults]
        suggested += self._both(faults)
        suggested += [single for single in singles if single.names & set(self.spec.suggested) - set(faults)]
        yield from filter(new, suggested)
        yield from filter(new, self.parts(many, seed) if many else ())
        rest = [single for single in singles if not single.names & set(self.spec.suggested)]
        left, trained = [single for single in rest if new(single)], [e.item.combination for e in self._tried(seed)]
        if not self._nearer(seed, chance):
            first = max(0, _ALONE - len(set(trained) & set(rest)))
            yield from left[:first]
            left = left[first:]
        fresh = [made for made in self._joined(seed, chance, closed) if new(made)]
        if left and trained and len(trained[-1].names) > 1:  # it is the single one's turn
            yield left.pop(0)
        for pair in itertools.zip_longest(fresh, left):
            yield from (made for made in pair if made is not None)

    def _nearer(self, seed: int, chance: float) -> bool:
        """Whether anything came clearly nearer to the goal than the untouched training."""
        level = self._level(chance) + _NEARER
        few = [entry for entry in self._tried(seed) if len(entry.item.combination.names) <= _MOST]
        return any(self._value(entry, chance) >= level for entry in few)

    def _level(self, chance: float) -> float:
        """Return how near to the goal the untouched training comes by itself, at best."""
        untouched = self.ledger.by_seed(Combination()).values()
        return max((self._value(entry, chance) for entry in untouched), default=0.0)

    def _tried(self, seed: int) -> list[Entry]:
        """Return the runs of combinations on a seed of the search that were trained."""
        searched = self.ledger.of_phase(Phase.SEARCH)
        return [e for e in searched if e.item.seed == seed and e.item.combination and _says(e)]

    def order(self) -> list[Remedy]:
        """Return the remedies in the order of the prior for what untouched runs have shown so far."""
        return self._ranked(self._shown(), self.spec.suggested)

    def _ranked(self, seen: Sequence[Verdict], suggested: Sequence[str]) -> list[Remedy]:
        key = (*((str(verdict.symptom), verdict.stops) for verdict in seen), *((name, True) for name in suggested))
        if key not in self._ranks:
            self._ranks[key] = ranked(self.space.remedies, seen, suggested, self.spec.knowledge)
        return self._ranks[key]

    def _single(self, remedy: Remedy) -> Combination:
        """Return a remedy by itself, with the values that are tried first."""
        if remedy.name not in self._alone:
            self._alone[remedy.name] = Combination.of(remedy.first())
        return self._alone[remedy.name]

    def _joint(self, one: Combination, other: Combination) -> Combination:
        key = one.key, other.key
        if key not in self._joints:
            self._joints[key] = one.plus(other)
        return self._joints[key]

    def _value(self, entry: Entry, chance: float) -> float:
        key = id(entry), chance  # the ledger keeps it
        if key not in self._values:
            self._values[key] = graded(entry.result, self.spec, chance)
        return self._values[key]

    def _shown(self) -> list[Verdict]:
        untouched = self.ledger.by_seed(Combination()).values()
        early = [e for e in untouched if e.item.phase in (Phase.BASELINE, Phase.SEARCH)]
        return [verdict for entry in sorted(early, key=lambda e: e.item.seed) for verdict in shown(entry)]

    def _faults(self, closed: Collection[str]) -> list[str]:
        """Return for each fault that pre-flight found the first remedy it names, as far as it can be applied."""
        known = self.space.by_name
        names = (
            next((name for name in finding["suggests"] if name in known and name not in closed), None)
            for finding in self.spec.preflight
        )
        return [name for name in dict.fromkeys(names) if name is not None][:_FAULTS]

    def _both(self, names: Sequence[str]) -> list[Combination]:
        """Return what treats two faults at once, the most urgent two first."""
        places = sorted(itertools.combinations(range(len(names)), 2), key=lambda pair: (sum(pair), pair))
        chosen = [(self.space.by_name[names[i]], self.space.by_name[names[j]]) for i, j in places]
        return [self._single(one).plus(self._single(other)) for one, other in chosen if one.slot != other.slot]

    # ---------------------------------------------------------------- what came nearest, and what it lacks

    def _joined(self, seed: int, chance: float, closed: Collection[str]) -> list[Combination]:
        """Return what came nearest to the goal, each with what may be missing in it, the most promising first."""
        valued = [(self._value(entry, chance), entry) for entry in self._tried(seed)]
        nearest = [(value, entry.item.combination, entry) for value, entry in sorted(valued, key=lambda one: -one[0])]
        bases = [(made, entry) for _, made, entry in nearest if len(made.names) < _MOST][:_BASES]
        level = self._level(chance)
        near = [made for value, made, _ in nearest if len(made.names) == 1 and value > level]
        found = [
            (place + other + _LATER * (len(base.names) - 1), place, self._joint(base, partner))
            for place, (base, entry) in enumerate(bases)
            for other, partner in enumerate(self._partners(base, entry, near, closed))
        ]
        found.sort(key=lambda one: one[:2])
        return list(dict.fromkeys(made for _, _, made in found))

    def _partners(
        self, base: Combination, entry: Entry, near: Sequence[Combination], closed: Collection[str]
    ) -> list[Combination]:
        """Return what may be missing: in turn what treats the symptoms that are left, and what helped by itself."""
        seen, taken = shown(entry), set(base.remedies)
        treating = [self._single(remedy) for remedy in self._ranked(seen, ())]
        fit = [
            [made for made in made_of if taken.isdisjoint(made.remedies) and made.names.isdisjoint(closed)]
            for made_of in ((treating, near) if seen else (near, treating))
        ]
        both = (made for pair in itertools.zip_longest(*fit) for made in pair if made is not None)
        return list(itertools.islice(dict.fromkeys(both), _PARTNERS))


def shown(entry: Entry) -> list[Verdict]:
    """Return the symptoms that a run has shown."""
    verdict = [entry.result.verdict] if entry.result.verdict else []
    return [*verdict, *entry.result.notes]


def _says(entry: Entry) -> bool:
    return entry.result.outcome not in (Outcome.INAPPLICABLE, Outcome.FAILED)
