"""What proposes combinations: Optuna's TPE, whose proposals cost no more late in a study than early."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.search_space import IntersectionSearchSpace
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial

_STARTUP = 5
_SHOWN, _BEST = 200, 25
"""How many trials the sampler is shown, and how many of those are the best: as many as it counts among the good."""


class Sampler(optuna.samplers.TPESampler):
    """Optuna's, which is told what all trials have in common: found anew, that is half of what a proposal costs."""

    def __init__(self, common: IntersectionSearchSpace, seed: int) -> None:
        # Both said on purpose, so that a later default cannot change a study.
        super().__init__(seed=seed, n_startup_trials=_STARTUP, multivariate=True, constant_liar=True)
        self._common = common

    def infer_relative_search_space(
        self,
        study: optuna.Study,
        trial: FrozenTrial,  # noqa: ARG002  (Optuna's)
    ) -> dict[str, BaseDistribution]:
        common = self._common.calculate(study)
        return {name: found for name, found in common.items() if not found.single()}


class Memory(InMemoryStorage):
    """Trials in memory, of which the sampler is shown the best and the latest.

    It looks at all it is shown once for each hyperparameter, so that otherwise each proposal would cost more than the
    one before: a quarter of a second after a thousand runs. What it is shown follows from the trials alone.
    """

    def __init__(self) -> None:
        super().__init__()
        self._shown: list[FrozenTrial] | None = None

    @contextlib.contextmanager
    def narrowed(self, study_id: int) -> Iterator[None]:
        """Show less meanwhile."""
        trials = self.get_all_trials(study_id, deepcopy=False)
        if len(trials) > _SHOWN:
            valued = [trial for trial in trials if trial.values is not None]
            best = sorted(valued, key=lambda trial: (-trial.values[0], trial.number))[:_BEST]
            kept = {trial.number for trial in best}
            latest = [trial for trial in trials if trial.number not in kept][len(best) - _SHOWN :]
            self._shown = sorted([*best, *latest], key=lambda trial: trial.number)
        try:
            yield
        finally:
            self._shown = None

    def get_all_trials(self, study_id: int, deepcopy: bool = True, states: Any = None) -> list[FrozenTrial]:  # noqa: FBT001, FBT002  (Optuna's)
        """Return the trials, or those that are shown."""
        if self._shown is None:
            return super().get_all_trials(study_id, deepcopy, states)
        return [trial for trial in self._shown if states is None or trial.state in states]
