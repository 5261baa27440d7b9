"""How others look for a repair, one small class each: `ask` for a combination, see values on the way, `tell` the end.

All search the space that remedy does: for each slot to keep it or one of its remedies, then the chosen ones'
hyperparameters. Remedies that find nothing to change in the untouched training are left out of it for everybody. A
value is the validation metric, larger is better; its place on the way is a percentage of the run's own budget.

The rules are the libraries' own: Optuna's samplers and pruners through its Study; Ray Tune's ASHA through Tune's own
scheduler class, one trial after the other, without Tune's processes (which would not change what one worker is asked).
`random` and `asha` draw the same combinations from the same seed, so that their difference is the stopping.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, Protocol

import optuna

from remedy.spaces.combination import Combination
from remedy.spaces.remedy import Remedy
from remedy.spaces.space import Space
from remedy.spaces.symptom import Symptom

WORST = -1000.0
"""What is told of a run without a value: NaN, or something that cannot be applied."""


class Searcher(Protocol):
    """A method. One trial at a time. A `content` one ends a trial that has held the goal, as remedy's search does."""

    content: bool

    def ask(self) -> Combination | None:
        """Return what is tried next; None where there is nothing left."""

    def stops(self, percent: int, value: float) -> bool:
        """Take a value on the way; return whether the trial is ended here."""

    def tell(self, value: float, symptoms: Sequence[Symptom]) -> None:
        """Take the end of the trial: its value (`WORST` where it could not be trained), and what was seen in it."""


class OptunaSearch:
    """An Optuna study with one of its samplers and one of its pruners, both at their defaults."""

    content = False

    def __init__(self, space: Space, sampler: optuna.samplers.BaseSampler, pruner: optuna.pruners.BasePruner) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._space = space
        # Hyperband deals trials out to its brackets by the study's name, which is drawn anew where none is given.
        self._study = optuna.create_study(direction="maximize", sampler=sampler, pruner=pruner, study_name="search")
        self._trial: optuna.Trial | None = None
        self._pruned = False

    def ask(self) -> Combination:
        self._trial, self._pruned = self._study.ask(), False
        return self._space.sample(self._trial)

    def stops(self, percent: int, value: float) -> bool:
        assert self._trial is not None  # noqa: S101  (asked before)
        self._trial.report(value, percent)
        self._pruned = self._trial.should_prune()
        return self._pruned

    def tell(self, value: float, symptoms: Sequence[Symptom]) -> None:  # noqa: ARG002  (it knows none)
        assert self._trial is not None  # noqa: S101
        if self._pruned or value <= WORST:
            self._study.tell(self._trial, state=optuna.trial.TrialState.PRUNED)
        else:
            self._study.tell(self._trial, value)


class Sparse:
    """Random search that knows to change little: one to three slots, each with any remedy and any hyperparameters."""

    content = False

    def __init__(self, space: Space, seed: int) -> None:
        self._space = space
        self._study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed))

    def ask(self) -> Combination:
        trial, slots = self._study.ask(), list(self._space.slots)
        count = min(len(slots), trial.suggest_int("changes", 1, 3))
        places = {trial.suggest_int(f"place {place}", 0, len(slots) - 1) for place in range(count)}
        own = Space(tuple(remedy for place in sorted(places) for remedy in self._space.slots[slots[place]]))
        params: dict[str, Any] = {}
        for slot, mine in own.slots.items():
            chosen = mine[trial.suggest_int(f"remedy of {slot}", 0, len(mine) - 1)]
            params[str(slot)] = chosen.name
            for key, distribution in chosen.distributions.items():
                params[f"{chosen.name}.{key}"] = distribution.suggest(trial, f"{chosen.name}.{key}")
        return Combination.of(params)

    def stops(self, percent: int, value: float) -> bool:  # noqa: ARG002  (it never does)
        return False

    def tell(self, value: float, symptoms: Sequence[Symptom]) -> None:
        """Learn nothing."""


class Asha(OptunaSearch):
    """Ray Tune's ASHA at its defaults, on combinations drawn at random."""

    def __init__(self, space: Space, seed: int) -> None:
        from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler  # noqa: PLC0415  (takes a second)

        super().__init__(space, optuna.samplers.RandomSampler(seed), optuna.pruners.NopPruner())
        self._scheduler = AsyncHyperBandScheduler(time_attr="percent", metric="value", mode="max", max_t=100)
        self._stop = TrialScheduler.STOP
        self._on: Any = None

    def ask(self) -> Combination:
        combination = super().ask()
        assert self._trial is not None  # noqa: S101
        self._on = SimpleNamespace(trial_id=str(self._trial.number))
        self._scheduler.on_trial_add(None, self._on)
        return combination

    def stops(self, percent: int, value: float) -> bool:
        result = {"percent": percent, "value": value}
        return percent < 100 and self._scheduler.on_trial_result(None, self._on, result) == self._stop


class ContentAsha(Asha):
    """The same, told our rule of success: how much of remedy's lead is that?"""

    content = True


# What AutoTrainer (ICSE'21) tries for each of its problems, in the order of the strategy that its published code takes
# by default ("balance" in AutoTrainer/utils/repair.py of shiningrain/AUTOTRAINER), in our catalogue's names. A fix may
# change two parts at once, as its SELU and ReLU bring their weights. Of what it draws at random one stands for all;
# Gaussian noise behind the inputs, which is not in the catalogue, is noise on the gradient here.
_Fix = tuple[str | tuple[str, Mapping[str, Any]], ...]
_SELU: _Fix = ("selu", "lecun")
_RELU: _Fix = ("relu", "he")
_TANH: _Fix = ("tanh", "he")
_CLIP: _Fix = (("clip_value", {"limit": 10.0}),)
_VANISHING: tuple[_Fix, ...] = (_SELU, _RELU, ("batch_norm_on",))
_EXPLODING: tuple[_Fix, ...] = (_SELU, _RELU, _CLIP, _TANH, ("batch_norm_on",))
_DYING: tuple[_Fix, ...] = (
    _SELU, ("batch_norm_on",), ("he",), ("lecun",), ("xavier",), ("leaky_relu",), ("elu",), ("prelu",)
)  # fmt: skip
_OSCILLATING: tuple[_Fix, ...] = (
    ("adam",),
    *((("scale_down", {"factor": factor}),) for factor in (0.1, 0.01, 0.001)),
    ("plateau",),
    *((("larger_batch", {"factor": factor}),) for factor in (2, 4, 8)),
    *((("sgd_momentum", {"momentum": momentum}),) for momentum in (0.5, 0.9)),
    ("gradient_noise",),
)
_SLOW: tuple[_Fix, ...] = (
    (("sgd", {"lr": 0.01}),), ("adam",), ("rmsprop",),
    *((("scale_up", {"factor": factor}),) for factor in (10.0, 100.0, 1000.0)),
)  # fmt: skip
_FIXES: Mapping[Symptom, Sequence[_Fix]] = {
    Symptom.VANISHING_GRADIENT: _VANISHING,
    Symptom.ZERO_GRADIENT: _DYING,
    Symptom.DEAD_UNITS: _DYING,
    Symptom.EXPLODING_GRADIENT: _EXPLODING,
    Symptom.NON_FINITE: _EXPLODING,
    Symptom.ACCURACY_COLLAPSE: _OSCILLATING,
    Symptom.WORSE_THAN_GUESSING: _OSCILLATING,
}
_EVERY = (*_SLOW, *_VANISHING, *_DYING, *_EXPLODING, *_OSCILLATING)
_GAIN = 1e-3


class Greedy:
    """A fixed list for the problem seen, one fix at a time; what helped most is kept, and its problem comes next.

    In AutoTrainer's manner, and kinder: problems are found by our detectors, a trial is trained from fresh weights and
    counts as a repair only if it reaches the goal, and after a problem's own list come the fixes of all others.
    """

    content = False

    def __init__(self, space: Space, symptoms: Sequence[Symptom], value: float) -> None:
        self._known: Mapping[str, Remedy] = space.by_name
        self._base, self._value = Combination(), value
        self._tried: set[str] = set()
        self._asked = Combination()
        self._best: tuple[float, Combination, Sequence[Symptom]] = (value, self._base, symptoms)
        self._list = self._fixes(symptoms)

    def ask(self) -> Combination | None:
        while True:
            for fix in self._list:
                tried = self._base.plus(fix)
                if tried.key not in self._tried and tried != self._base:
                    self._tried.add(tried.key)
                    self._asked = tried
                    return tried
            value, base, symptoms = self._best
            if value <= self._value + _GAIN:
                return None
            self._base, self._value, self._list = base, value, self._fixes(symptoms)

    def stops(self, percent: int, value: float) -> bool:  # noqa: ARG002  (it never does)
        return False

    def tell(self, value: float, symptoms: Sequence[Symptom]) -> None:
        if value > self._best[0]:
            self._best = (value, self._asked, symptoms)

    def _fixes(self, symptoms: Sequence[Symptom]) -> list[Combination]:
        lists = [*(_FIXES.get(symptom, ()) for symptom in symptoms), _EVERY]
        found = [self._made(fix) for fixes in lists for fix in fixes]
        return [made for made in dict.fromkeys(found) if made]

    def _made(self, fix: _Fix) -> Combination:
        """Return a fix's parts as far as they can be applied here; values beyond our ranges are the nearest within."""
        made = Combination()
        for part in fix:
            name, values = part if isinstance(part, tuple) else (part, {})
            if name in self._known:
                remedy = self._known[name]
                own = {key: _within(remedy.distributions[key], value) for key, value in values.items()}
                chosen = {**remedy.first(), **{f"{name}.{key}": value for key, value in own.items()}}
                made = made.plus(Combination.of(chosen))
        return made


def _within(distribution: Any, value: Any) -> Any:
    if distribution.holds(value):
        return value
    return min(distribution.high, max(distribution.low, value))


def score(value: float, mode: str) -> float:
    """Return a metric's value with larger as better; what is not finite is the worst."""
    if not math.isfinite(value):
        return WORST
    return max(WORST + 1, value if mode == "max" else -value)


Make = Callable[[Space, int, Sequence[Symptom], float], Searcher]
PEERS: Mapping[str, Make] = {
    "random": lambda space, seed, *_: OptunaSearch(
        space, optuna.samplers.RandomSampler(seed), optuna.pruners.NopPruner()
    ),
    "random, 1 to 3 changes": lambda space, seed, *_: Sparse(space, seed),
    "Optuna TPE, median": lambda space, seed, *_: OptunaSearch(
        space, optuna.samplers.TPESampler(seed=seed), optuna.pruners.MedianPruner()
    ),
    "Optuna TPE, Hyperband": lambda space, seed, *_: OptunaSearch(
        space, optuna.samplers.TPESampler(seed=seed), optuna.pruners.HyperbandPruner(max_resource=100)
    ),
    "Ray Tune ASHA": lambda space, seed, *_: Asha(space, seed),
    "ASHA, ends at the goal": lambda space, seed, *_: ContentAsha(space, seed),
    "greedy, one at a time": lambda space, _, symptoms, value: Greedy(space, symptoms, value),
}
