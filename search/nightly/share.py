"""Shares out what is left of a night's budget among the explorers that have use for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from remedy.search.nightly.explorer import NightExplorer
from remedy.spaces.error import InfrastructureError, sentence

_LEAST = 0.5
"""Less of a full run than this is not worth another round."""


@dataclass
class NightShare:
    """Round after round: each that is hungry gets its share of what nobody has spent, until it is spent.

    Attributes:
        explorers: by training, and `weights` their shares relative to each other.
        pot: full-run equivalents for all of them together, tonight.
        conduct: lets one training's explorers work, for at most so many seconds (None: without limit).
        keep: saves the explorers' states.
        left: seconds left of the night; None without limit.
    """

    explorers: Mapping[str, NightExplorer]
    weights: Mapping[str, float]
    pot: float
    conduct: Callable[[str, float | None], None]
    keep: Callable[[], None]
    left: Callable[[], float | None]

    def run(self) -> None:
        """Work until the pot is empty, nobody is hungry, or the night's time is over.

        Raises:
            InfrastructureError: workers or stores failed for two trainings one after the other.
        """
        failures = 0
        # An allotment that an earlier session of the night wrote down is spent before the next is made.
        behind = self._open()
        while not self._over() and (behind := behind or self._allot()):
            name = behind.pop(0)
            try:
                self.conduct(name, self._seconds(name, behind))
            except InfrastructureError as error:
                failures += 1
                self.explorers[name].state |= {"reason": "failed", "said": str(error)}
                if failures > 1:
                    raise
            except Exception as error:  # noqa: BLE001  (whatever it is, it leaves the other trainings)
                self.explorers[name].state |= {"reason": "failed", "said": sentence(error)}
            else:
                failures = 0
            self.keep()

    def _over(self) -> bool:
        left = self.left()
        return left is not None and left <= 0

    def _seconds(self, name: str, others: list[str]) -> float | None:
        left = self.left()
        return None if left is None else left * self.weights[name] / sum(self.weights[n] for n in (name, *others))

    def _open(self) -> list[str]:
        return [name for name, found in self.explorers.items()
                if found.state["reason"] is None and found.state["allotted"] > found.spent()]  # fmt: skip

    def _allot(self) -> list[str]:
        hungry = [name for name, found in self.explorers.items() if found.hungry]
        left = self.pot - sum(found.spent() for found in self.explorers.values())
        if not hungry or left < _LEAST:
            return []
        whole = sum(self.weights[name] for name in hungry)
        for name in hungry:
            found = self.explorers[name]
            found.state |= {"allotted": found.spent() + left * self.weights[name] / whole, "reason": None}
        self.keep()
        return hungry
