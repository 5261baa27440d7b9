"""The one file that knows Optuna's Study: one trial for each run, in a storage that survives."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import TrialState

from remedy.search.ledger import Item
from remedy.spaces.combination import Combination
from remedy.spaces.seeding import derive
from remedy.spaces.space import Space
from remedy.workers.order import Phase

_GRACE = 5
_STARTUP = 5


class Trials:
    """Ask and tell. Every run, of whatever phase, is one trial of one Optuna study.

    Args:
        path: the journal file; made where it does not exist, repaired where its last line is torn.
        name: of the study.
        space: what may be sampled.
        seed: of the sampler.
    """

    def __init__(self, path: Path, name: str, space: Space, seed: int) -> None:
        """Open or make the study."""
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        repair(path)
        backend = JournalFileBackend(str(path), lock_obj=JournalFileOpenLock(str(path), grace_period=_GRACE))
        self._space = space
        self._seed = seed
        self._study = optuna.create_study(
            storage=JournalStorage(backend),
            study_name=name,
            direction="maximize",
            sampler=self._sampler(0),
            load_if_exists=True,
        )
        self._live: dict[int, optuna.Trial] = {}
        self.asked = 0

    def _sampler(self, place: int) -> optuna.samplers.TPESampler:
        # Both said on purpose, so that a later default cannot change a study.
        return optuna.samplers.TPESampler(
            seed=derive(self._seed, "sampler", place), n_startup_trials=_STARTUP, multivariate=True, constant_liar=True
        )

    def open(self, item: Item) -> int:
        """Open a trial for a run that is already decided; return its number, which is the run's number."""
        self._study.enqueue_trial(self._space.full(item.combination))
        trial = self._study.ask()
        with warnings.catch_warnings():
            # A fix may hold a value outside the range searched; it is stored as it is.
            warnings.filterwarnings("ignore", message="Fixed parameter", category=UserWarning)
            self._space.sample(trial)
        return self._opened(trial, item)

    def propose(self) -> tuple[int, Combination]:
        """Let the sampler choose a combination; return the open trial's number and what it chose."""
        # A fresh one each time: what it draws follows from the runs so far, not from where this session began.
        self._study.sampler = self._sampler(self.asked)
        self.asked += 1
        trial = self._study.ask()
        trial.set_user_attr("remedy.proposed", value=True)
        combination = self._space.sample(trial)
        self._live[trial.number] = trial
        return trial.number, combination

    def assign(self, number: int, item: Item) -> None:
        """Say what run a proposed trial became."""
        self._opened(self._live[number], item)

    def discard(self, number: int) -> None:
        """Close a proposed trial that teaches nothing new (a repeat, or a known fix with more on top)."""
        trial = self._live.pop(number)
        trial.set_user_attr("remedy.discarded", value=True)
        # A pruned trial counts as a bad one, and the sampler turns elsewhere; it would repeat a failed one for ever.
        self._study.tell(trial, state=TrialState.PRUNED)

    def tell(self, number: int, value: float | None, outcome: str) -> None:
        """Close a trial: a graded value, or None for a run that says nothing about its combination."""
        trial = self._live.pop(number)
        trial.set_user_attr("remedy.outcome", outcome)
        if value is None:
            self._study.tell(trial, state=TrialState.FAIL)
        else:
            self._study.tell(trial, value)

    def restore(self, known: Callable[[int], bool]) -> tuple[list[tuple[int, Item]], list[Item]]:
        """Return the items of all runs that have a result, in the order in which they ended, and those cut off.

        `known(number)` says whether the run's result was saved. A trial that is still open but has a result was cut
        off between the two writes; it is left live, to be told. What was cut off is closed as failed.
        """
        done, cut = [], []
        trials = self._study.get_trials(deepcopy=False)
        for frozen in sorted(trials, key=lambda t: (t.datetime_complete is None, t.datetime_complete, t.number)):
            raw = str(frozen.user_attrs.get("remedy.item", ""))
            saved = bool(raw) and known(frozen.number)
            self.asked += "remedy.proposed" in frozen.user_attrs
            if saved:
                done.append((frozen.number, _item(json.loads(raw))))
            if frozen.state in (TrialState.RUNNING, TrialState.WAITING):
                # A trial that was enqueued only is the next to be asked for.
                waits = frozen.state is TrialState.WAITING
                trial = self._study.ask() if waits else optuna.Trial(self._study, frozen._trial_id)  # noqa: SLF001
                self._live[trial.number] = trial
                if not saved:
                    self.tell(trial.number, None, "lost")
                    cut += [_item(json.loads(raw))] if raw else []
        return done, cut

    def is_open(self, number: int) -> bool:
        """Whether a trial waits to be told."""
        return number in self._live

    def _opened(self, trial: optuna.Trial, item: Item) -> int:
        self._live[trial.number] = trial
        content = {"phase": item.phase, "params": item.combination.params, "seed": item.seed, "fix": item.fix}
        trial.set_user_attr("remedy.item", json.dumps(content))
        return trial.number


def _item(raw: dict[str, Any]) -> Item:
    return Item(Phase(raw["phase"]), Combination.of(raw["params"]), raw["seed"], raw["fix"])


def repair(path: Path) -> None:
    """Cut a torn last line off a journal: the next write would be glued to it and make the study unreadable."""
    if not path.exists():
        return
    content = path.read_bytes()
    if content and not content.endswith(b"\n"):
        os.truncate(path, content.rfind(b"\n") + 1)
