"""The one file that knows Optuna's Study: one trial for each run, in a storage that survives."""

from __future__ import annotations

import contextlib
import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
from optuna.search_space import IntersectionSearchSpace
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from remedy.search.ledger import Item
from remedy.search.sampler import Memory, Sampler
from remedy.spaces.combination import Combination
from remedy.spaces.error import InfrastructureError
from remedy.spaces.seeding import derive
from remedy.spaces.space import Space
from remedy.workers.order import Phase

_GRACE = 5
_LEAST_MODELLED, _MOST_MODELLED = 20, 2000

Patiently = Callable[[Callable[[], Any]], Any]


class Trials:
    """Ask and tell. Every run, of whatever phase, is one trial of one Optuna study.

    The sampler works on a copy in memory; the storage gets each trial in one piece when its run is decided, and again
    when it ends. So a storage far away costs two short transactions a run, and what is tried again after an outage is
    never there twice.

    Args:
        storage: the journal file (made where it does not exist, repaired where its last line is torn), or the address
            of a database as SQLAlchemy takes it.
        name: of the study.
        space: what may be sampled.
        seed: of the sampler.
        patiently: does what may find the storage away, and tries again.
    """

    def __init__(
        self, storage: Path | str, name: str, space: Space, seed: int, patiently: Patiently = lambda work: work()
    ) -> None:
        """Open or make the study."""
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._space = space
        self._seed = seed
        self._patiently = patiently
        self._storage = patiently(lambda: opened(storage))
        self._id = patiently(lambda: self._known(name))
        self._memory = Memory()
        self._common = IntersectionSearchSpace(include_pruned=True)
        self._study = optuna.create_study(storage=self._memory, direction="maximize", sampler=self._sampler(0))
        self._study_id = self._memory.get_study_id_from_name(self._study.study_name)
        self._there: dict[int, int] = {}
        self._ended = 0
        trials = patiently(lambda: self._storage.get_all_trials(self._id, deepcopy=False))
        for frozen in sorted(trials, key=lambda trial: trial.number):
            self._there[frozen.number] = frozen._trial_id  # noqa: SLF001  (the storage's own name of it)
            self._study.add_trial(frozen)
            self._ended = max(self._ended, int(frozen.user_attrs.get("remedy.place", 0)))
        self._live: dict[int, optuna.Trial] = {}
        self.asked = 0

    def _known(self, name: str) -> int:
        try:
            return int(self._storage.get_study_id_from_name(name))
        except KeyError:
            return int(self._storage.create_new_study([StudyDirection.MAXIMIZE], name))

    def _sampler(self, place: int) -> optuna.samplers.TPESampler:
        return Sampler(self._common, derive(self._seed, "sampler", place))

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
        """Let the sampler choose a combination; return the trial's number and what it chose.

        The next call is `assign` or `discard`.
        """
        # A fresh one each time: what it draws follows from the runs so far, not from where this session began.
        self._study.sampler = self._sampler(self.asked)
        self.asked += 1
        trial = self._study.ask()
        trial.set_user_attr("remedy.proposed", value=True)
        with self._memory.narrowed(self._study_id):
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
        self._store(number)

    def tell(self, number: int, value: float | None, outcome: str) -> None:
        """Close a trial: a graded value, or None for a run that says nothing about its combination."""
        trial = self._live.pop(number)
        self._ended += 1
        # The order in which runs ended decides what comes next, and clocks can be set back.
        for name, content in (("remedy.outcome", outcome), ("remedy.place", self._ended)):
            trial.set_user_attr(name, content)
        state = TrialState.FAIL if value is None else TrialState.COMPLETE
        self._study.tell(trial, value, state=state)

        def close() -> None:
            there = self._storage.get_trial(self._there[number])
            if there.state is not TrialState.RUNNING:
                return  # an answer that got lost
            for name in ("remedy.outcome", "remedy.place"):
                self._storage.set_trial_user_attr(self._there[number], name, trial.user_attrs[name])
            self._storage.set_trial_state_values(self._there[number], state, None if value is None else [value])

        self._patiently(close)

    def restore(self, known: Callable[[int], bool]) -> tuple[list[tuple[int, Item]], list[Item]]:
        """Return the items of all runs that have a result, in the order in which they ended, and those cut off.

        `known(number)` says whether the run's result was saved. A trial that is still open but has a result was cut
        off between the two writes; it is left live, to be told. What was cut off is closed as failed.
        """
        done, cut = [], []
        for frozen in sorted(self._study.get_trials(deepcopy=False), key=_when_ended):
            raw = str(frozen.user_attrs.get("remedy.item", ""))
            saved = bool(raw) and known(frozen.number)
            self.asked += "remedy.proposed" in frozen.user_attrs
            if saved:
                done.append((frozen.number, _item(json.loads(raw))))
            if frozen.state is TrialState.RUNNING:
                self._live[frozen.number] = optuna.Trial(self._study, frozen._trial_id)  # noqa: SLF001
                if not saved:
                    self.tell(frozen.number, None, "lost")
                    cut += [_item(json.loads(raw))] if raw else []
        return done, cut

    def importance(self) -> dict[str, Any] | None:
        """Return how much of the trials' graded value each slot explains, as Optuna's evaluators model it.

        None where there is too little for a model: few trials, none that converged, or one slot. Of many the latest.
        """
        told = [t for t in self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)) if _scored(t)]
        told = told[-_MOST_MODELLED:]
        slots = [s for s in map(str, self._space.slots) if len({trial.params.get(s) for trial in told}) > 1]
        if len(told) < _LEAST_MODELLED or len(slots) < 2 or max(trial.value or 0.0 for trial in told) < 1:
            return None
        study = optuna.create_study(direction="maximize")
        study.add_trials(told)
        # Imported here: scikit-learn takes seconds. The mean decrease in impurity is left out: it is not reliable here.
        from optuna import importance  # noqa: PLC0415

        found: dict[str, dict[str, float]] = {}
        for name, evaluator in (
            ("fanova", importance.FanovaImportanceEvaluator(seed=0)),
            ("ped_anova", importance.PedAnovaImportanceEvaluator()),
        ):
            with warnings.catch_warnings():
                warnings.filterwarnings("error", message=".*importances will be equal")
                try:
                    shares = importance.get_param_importances(study, evaluator=evaluator, params=slots)
                except UserWarning:  # nearly all trials are as good as the best
                    return None
            found[name] = {slot: float(share) for slot, share in shares.items()}
        slots.sort(key=lambda slot: -found["fanova"][slot])
        rows = [{"slot": slot, **{name: shares[slot] for name, shares in found.items()}} for slot in slots]
        return {"kind": "model-based", "optuna": optuna.__version__, "trials": len(told), "slots": rows}

    def is_open(self, number: int) -> bool:
        """Whether a trial waits to be told."""
        return number in self._live

    def _opened(self, trial: optuna.Trial, item: Item) -> int:
        self._live[trial.number] = trial
        content = {"phase": item.phase, "params": item.combination.params, "seed": item.seed, "fix": item.fix}
        trial.set_user_attr("remedy.item", json.dumps(content))
        self._store(trial.number)
        return trial.number

    def _store(self, number: int) -> None:
        """Write a trial, whole."""
        frozen = self._memory.get_trial(self._memory.get_trial_id_from_study_id_trial_number(self._study_id, number))
        again = False

        def write() -> None:
            nonlocal again
            if again:  # the storage may have taken it and not said so
                there = self._storage.get_all_trials(self._id, deepcopy=False)
                self._there.update({trial.number: trial._trial_id for trial in there})  # noqa: SLF001
            again = True
            if number not in self._there:
                self._there[number] = self._storage.create_new_trial(self._id, template_trial=frozen)

        self._patiently(write)


def _scored(trial: FrozenTrial) -> bool:
    """Whether its value says how good a combination is: not where nothing was changed, or the user's code raised."""
    return trial.user_attrs.get("remedy.outcome") not in ("inapplicable", "failed")


def _when_ended(trial: FrozenTrial) -> tuple[bool, int, int]:
    place = trial.user_attrs.get("remedy.place")
    return place is None, int(place or 0), trial.number


def opened(storage: Path | str) -> BaseStorage:
    """Open a journal file or a database."""
    if isinstance(storage, Path):
        storage.parent.mkdir(parents=True, exist_ok=True)
        repair(storage)
        lock = JournalFileOpenLock(str(storage), grace_period=_GRACE)
        return JournalStorage(JournalFileBackend(str(storage), lock_obj=lock))
    try:
        return RDBStorage(storage, engine_kwargs={"pool_pre_ping": True, "pool_size": 1})
    except RuntimeError as error:  # tables of another version; the text names the command that mends it
        raise InfrastructureError(f"Optuna cannot use the storage: {' '.join(str(error).split())}") from None


def forget(storage: Path | str, name: str) -> None:
    """Remove a study's trials, if there are any."""
    opening = opened(storage)
    with contextlib.suppress(KeyError):
        opening.delete_study(opening.get_study_id_from_name(name))


def _item(raw: dict[str, Any]) -> Item:
    return Item(Phase(raw["phase"]), Combination.of(raw["params"]), raw["seed"], raw["fix"])


def repair(path: Path) -> None:
    """Cut a torn last line off a journal: the next write would be glued to it and make the study unreadable."""
    if not path.exists():
        return
    content = path.read_bytes()
    if content and not content.endswith(b"\n"):
        os.truncate(path, content.rfind(b"\n") + 1)
