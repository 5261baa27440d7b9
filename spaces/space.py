"""The search space: which remedies may be combined, and how one flat dict is sampled from them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from remedy.spaces.assembly import assemble
from remedy.spaces.combination import Combination
from remedy.spaces.distribution import Scalar, Suggests
from remedy.spaces.error import InputError
from remedy.spaces.parts import Parts
from remedy.spaces.remedy import KEEP, Remedy
from remedy.spaces.slot import Slot
from remedy.spaces.training import Training


@dataclass(frozen=True)
class Space:
    """Remedies that may be combined, at most one for each slot."""

    remedies: tuple[Remedy, ...]

    @classmethod
    def of(cls, catalogue: Iterable[Remedy], only: Iterable[str] = (), without: Iterable[str] = ()) -> Space:
        """Choose from the catalogue by name.

        Raises:
            InputError: a name that the catalogue does not hold, or nothing left.
        """
        known = {remedy.name: remedy for remedy in catalogue}
        for option, names in (("--only", only), ("--without", without)):
            for name in names:
                if name not in known:
                    near = difflib.get_close_matches(str(name), known, n=5, cutoff=0.4)
                    offered = f"the nearest are {', '.join(near)}" if near else f"there are {len(known)}"
                    msg = f"{option} {name!r}: no such remedy; {offered}; see `remedy remedies`"
                    raise InputError(msg)
        chosen = tuple(r for r in known.values() if (not only or r.name in set(only)) and r.name not in set(without))
        if not chosen:
            msg = "no remedy is left to try; --only and --without leave nothing"
            raise InputError(msg)
        return cls(chosen)

    @property
    def by_name(self) -> Mapping[str, Remedy]:
        """The remedies by name."""
        return MappingProxyType({remedy.name: remedy for remedy in self.remedies})

    @property
    def slots(self) -> dict[Slot, tuple[Remedy, ...]]:
        """The open slots in their order, each with its remedies."""
        return {
            slot: mine for slot in Slot if (mine := tuple(remedy for remedy in self.remedies if remedy.slot is slot))
        }

    def sample(self, trial: Suggests) -> Combination:
        """Let a trial choose: one categorical for each slot, then the chosen remedies' own hyperparameters."""
        params: dict[str, Scalar] = {}
        for slot, mine in self.slots.items():
            name = trial.suggest_categorical(str(slot), [KEEP, *(remedy.name for remedy in mine)])
            params[str(slot)] = name
            if name != KEEP:
                remedy = next(remedy for remedy in mine if remedy.name == name)
                for key, distribution in remedy.distributions.items():
                    params[f"{name}.{key}"] = distribution.suggest(trial, f"{name}.{key}")
        return Combination.of(params)

    def full(self, combination: Combination) -> dict[str, Scalar]:
        """Return the combination's parameters with `keep` for every other open slot, as a sampler wants them."""
        return {**{str(slot): KEEP for slot in self.slots}, **combination.params}

    def baseline(self) -> Combination:
        """Return the empty combination."""
        return Combination()

    def apply(self, training: Training, combination: Combination, *, seed: int, data_seed: int) -> Parts:
        """Build a run of the training with every remedy of the combination applied (see `assemble`)."""
        return assemble(training, combination, self.by_name, seed=seed, data_seed=data_seed)

    def describe(self) -> dict[str, Any]:
        """Return the space as JSON-able data: slot -> remedies -> distributions as text."""
        return {
            str(slot): {r.name: {key: str(d) for key, d in r.distributions.items()} for r in mine}
            for slot, mine in self.slots.items()
        }
