"""The rules of others, as they publish them, over recorded runs.

A rule takes the runs of one study in the order in which they were started, and says for each at which step it would
have ended it. Optuna's pruners are Optuna's own, on trials in memory. The others are written down from their sources:

- Lightning's EarlyStopping: patience 3 by default, `check_finite`; once more with a patience of 10 validations.
- SageMaker Debugger's rules (closed source): the thresholds of its documentation at awsdocs@dcfe1c6, ended at the first
  fire; what it saves every 500 steps is given to it at every observation.
- AutoTrainer (ICSE'21): checked every 3 epochs; its gradient symptoms count only while accuracy is below 0.6.
- BTTackler (KDD'24): default_config.yaml of thuml/BTTackler, read with btassessor.py; the best tenth is spared.

An epoch is a twentieth of the budget. Where a rule asks for the validation loss, it gets the validation metric, on the
scale where guessing is 1 and the goal 0.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Protocol

import numpy as np
import optuna
from corpus import Look, Trace

from remedy.workers.detectors.guessing import progress

EPOCHS = 20
Stops = list[int | None]


class Rule(Protocol):
    """Says at which step each run of a study is ended; None where it is not."""

    def __call__(self, study: Sequence[Trace]) -> Stops: ...


@dataclass(frozen=True)
class Epoch:
    """What is known at the end of a twentieth of a run.

    Attributes:
        step: its last step.
        metric: the last validation, where guessing is 0 and the goal 1.
        loss: mean train loss (NaN where all of it was not finite).
        accuracy: mean accuracy on its batches.
        last: the last observation in it.
    """

    step: int
    metric: float
    loss: float
    accuracy: float
    last: Look


@cache
def epochs(trace: Trace) -> tuple[Epoch, ...]:
    """Cut a run into its twenty epochs."""
    steps, made, metric = trace.setting.steps, [], math.nan
    looks, place = trace.looks, 0
    for number in range(1, EPOCHS + 1):
        held: list[Look] = []
        while place < len(looks) and looks[place].seen.step <= steps * number / EPOCHS + 1e-9:
            held.append(looks[place])
            place += 1
        for look in held:
            if look.seen.metric is not None:
                metric = progress(trace.setting, look.seen.metric)
        if not held:
            continue
        losses = [look.seen.mean_loss for look in held if math.isfinite(look.seen.mean_loss)]
        right = [look.seen.batch.accuracy for look in held if look.seen.batch is not None]
        made.append(
            Epoch(
                held[-1].seen.step, metric, sum(losses) / len(losses) if losses else math.nan,
                sum(right) / len(right) if right else math.nan, held[-1],
            )
        )  # fmt: skip
    return tuple(made)


def each(rule: Callable[[Trace], int | None]) -> Rule:
    """Return the rule of a study from one that looks at a single run."""
    return lambda study: [rule(trace) for trace in study]


# ---------------------------------------------------------------- Optuna


def optuna_pruner(make: Callable[[], optuna.pruners.BasePruner]) -> Rule:
    """Return a pruner of Optuna's as a rule: the runs are its trials, one after the other."""

    def rule(study: Sequence[Trace]) -> Stops:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # PatientPruner
            pruner = make()
        trials = optuna.create_study(
            direction="maximize", pruner=pruner, sampler=optuna.samplers.RandomSampler(seed=0), study_name="detection"
        )
        stops: Stops = []
        for trace in study:
            trial, stop, value = trials.ask(), None, math.nan
            for number, epoch in enumerate(epochs(trace), start=1):
                # What is not finite is as bad as can be, or Optuna would refuse the trial's value.
                value = max(-10.0, epoch.metric) if not math.isnan(epoch.metric) else -10.0
                trial.report(value, number)
                if trial.should_prune():
                    stop = epoch.step
                    break
            trials.tell(trial, None if stop else value, optuna.trial.TrialState.PRUNED if stop else None)
            stops.append(stop)
        return stops

    return rule


# ---------------------------------------------------------------- Lightning


def early_stopping(patience: int) -> Rule:
    """Return Lightning's EarlyStopping on the validation metric."""

    def rule(trace: Trace) -> int | None:
        best, waited = -math.inf, 0
        for step, metric in trace.metrics:
            value = progress(trace.setting, metric)
            if not math.isfinite(value):
                return step
            best, waited = (value, 0) if value > best else (best, waited + 1)
            if waited >= patience:
                return step
        return None

    return each(rule)


# ---------------------------------------------------------------- SageMaker Debugger


def first(fires: Callable[[Look], bool]) -> Rule:
    """Return the rule that ends a run at the first observation that fires."""

    def rule(trace: Trace) -> int | None:
        return next((look.seen.step for look in trace.looks if fires(look)), None)

    return each(rule)


def loss_not_decreasing(trace: Trace) -> int | None:
    """The loss fell by less than 0.1 % in 10 saved steps."""
    losses = [(look.seen.step, look.seen.mean_loss) for look in trace.looks]
    for (_, before), (step, now) in zip(losses, losses[10:], strict=False):
        if not now <= before * (1 - 0.1 / 100):
            return step
    return None


def unchanged_loss(trace: Trace) -> int | None:
    """UnchangedTensor on the loss: `np.allclose` over 3 saved steps."""
    losses = [(look.seen.step, look.seen.mean_loss) for look in trace.looks]
    for (_, a), (_, b), (step, c) in zip(losses, losses[1:], losses[2:], strict=False):
        if np.allclose(a, b, rtol=1e-5, atol=1e-8) and np.allclose(b, c, rtol=1e-5, atol=1e-8):
            return step
    return None


def dead_relu(look: Look) -> bool:
    return any(unit.dead_share > 0.5 for unit in look.seen.activations)


def update_ratio(look: Look) -> bool:
    ratios = [layer.update_ratio for layer in look.seen.layers if not math.isnan(layer.update_ratio)]
    return any(ratio > 10 or ratio < 1e-8 for ratio in ratios)


def vanishing(look: Look) -> bool:
    return any(mean < 1e-7 for mean in look.mean_gradients)


def exploding_tensor(look: Look) -> bool:
    seen = look.seen
    return not (math.isfinite(seen.loss) and math.isfinite(seen.gradient_norm) and seen.finite_parameters)


def all_zero(look: Look) -> bool:
    return any(layer.zero_share >= 1 for layer in look.seen.layers)


def overtraining(trace: Trace) -> int | None:
    """No better validation, by 0.01, for 10 validations, or train loss for 5."""
    best, waited, loss, idle = math.inf, 0, math.inf, 0
    for epoch in epochs(trace):
        best, waited = (1 - epoch.metric, 0) if 1 - epoch.metric < best - 0.01 else (best, waited + 1)
        loss, idle = (epoch.loss, 0) if epoch.loss < loss - 0.01 else (loss, idle + 1)
        if waited >= 10 or idle >= 5:
            return epoch.step
    return None


# ---------------------------------------------------------------- AutoTrainer


def autotrainer(trace: Trace) -> int | None:
    """Its symptoms with their published thresholds, checked every 3 epochs."""
    seen = epochs(trace)
    for number in range(3, len(seen) + 1, 3):
        past = seen[:number]
        if _sick_gradient(past) or _sick_curve(past):
            return past[-1].step
    return None


def _sick_gradient(past: Sequence[Epoch]) -> bool:
    last = past[-1].last.seen
    if not math.isfinite(last.loss) or not last.finite_parameters or not abs(last.loss) < 1e3:
        return True
    right = [epoch.accuracy for epoch in past if not math.isnan(epoch.accuracy)]
    if max(right, default=-1.0) >= 0.6 or len(last.layers) < 2:
        return False
    begin, end = last.layers[0].gradient_norm, last.layers[-1].gradient_norm
    ratio = begin / end if end > 0 else math.nan
    zero = sum(layer.zero_share for layer in last.layers) / len(last.layers)
    return (ratio < 1e-3 and begin < 1e-4) or ratio > 70 or zero >= 0.7


def _sick_curve(past: Sequence[Epoch]) -> bool:
    right = [epoch.accuracy for epoch in past]
    if len(past) < 0.3 * EPOCHS or math.isnan(sum(right)):
        return False
    gains = [now - before for before, now in pairwise(right)]
    swings = sum(min(abs(one), abs(other)) >= 0.03 and one * other < 0 for one, other in pairwise(gains))
    slow = max(right) < 0.7 and max(gains) < 0.01
    return swings >= 0.2 * EPOCHS or slow


# ---------------------------------------------------------------- BTTackler


def bttackler(study: Sequence[Trace]) -> Stops:
    """Its indicators; a run in the best tenth of train losses at an epoch, of at least 10 runs, is spared from then."""
    losses: list[list[float]] = [[] for _ in range(EPOCHS)]
    return [_tackled(trace, losses) for trace in study]


def _tackled(trace: Trace, losses: list[list[float]]) -> int | None:
    seen, spared = epochs(trace), False
    for place in range(len(seen)):
        past, loss = seen[: place + 1], seen[place].loss
        others = losses[place]
        spared = spared or (len(others) >= 10 and bool(loss <= np.percentile(others, 10)))
        sick = _bt_explodes(past[-1]) or _bt_hopeless(past) or (not spared and _bt_soft(past))
        if math.isfinite(loss):
            others.append(loss)
        if sick:
            return past[-1].step
    return None


def _bt_explodes(now: Epoch) -> bool:
    means = np.array(now.last.mean_gradients)
    if not len(means) or not np.isfinite(means).all() or not math.isfinite(now.last.seen.loss):
        return True
    return bool(np.median(means) > 1e4) or _quotient(means) > 1e3


def _quotient(means: np.ndarray) -> float:  # type: ignore[type-arg]
    return float(np.median(means[:-1] / means[1:])) if len(means) > 1 and not (means == 0).any() else math.nan


def _bt_soft(past: Sequence[Epoch]) -> bool:
    means = np.array(past[-1].last.mean_gradients)
    early = len(past) <= EPOCHS // 2
    if early and (np.median(means) < 1e-5 or (means == 0).any() or _quotient(means) < 1e-4):
        return True
    if len(past) >= 5 and np.median([layer.zero_share for layer in past[-1].last.seen.layers]) > 0.5:
        return True
    curves = [epoch.loss for epoch in past], [1 - epoch.metric for epoch in past]
    if early and len(past) >= 3 and _variation(curves[0]) < 1e-4:
        return True
    if not early and any(_variation(c[: len(c) // 2]) < _variation(c[len(c) // 2 :]) for c in curves):
        return True
    return len(past) >= 6 and any(np.mean(c[-6:-3]) < np.mean(c[-3:]) for c in curves)


def _bt_hopeless(past: Sequence[Epoch]) -> bool:
    if len(past) <= EPOCHS // 2:
        return False
    for curve in ([epoch.loss for epoch in past[-6:]], [1 - epoch.metric for epoch in past[-6:]]):
        if np.isfinite(curve).all() and np.polyfit(np.arange(6), curve, 1)[0] >= 0.01 and _variation(curve) > 0.2:
            return True
    return False


def _variation(curve: Sequence[float]) -> float:
    mean = float(np.mean(curve))
    return float(np.std(curve)) / mean if mean else math.nan


PEERS: dict[str, Rule] = {
    "Optuna MedianPruner": optuna_pruner(optuna.pruners.MedianPruner),
    "Optuna MedianPruner, 50 % warm-up": optuna_pruner(lambda: optuna.pruners.MedianPruner(n_warmup_steps=10)),
    "Optuna ASHA (eta 4)": optuna_pruner(optuna.pruners.SuccessiveHalvingPruner),
    "Optuna ASHA (eta 2)": optuna_pruner(lambda: optuna.pruners.SuccessiveHalvingPruner(reduction_factor=2)),
    "Optuna Hyperband": optuna_pruner(lambda: optuna.pruners.HyperbandPruner(max_resource=EPOCHS)),
    "Optuna Patient(Median), 5": optuna_pruner(lambda: optuna.pruners.PatientPruner(optuna.pruners.MedianPruner(), 5)),
    "Optuna Patient, 5": optuna_pruner(lambda: optuna.pruners.PatientPruner(None, 5)),
    "EarlyStopping, patience 3": early_stopping(3),
    "EarlyStopping, patience 10": early_stopping(10),
    "SageMaker LossNotDecreasing": each(loss_not_decreasing),
    "SageMaker VanishingGradient": first(vanishing),
    "SageMaker ExplodingTensor": first(exploding_tensor),
    "SageMaker WeightUpdateRatio": first(update_ratio),
    "SageMaker DeadRelu": first(dead_relu),
    "SageMaker SaturatedActivation": first(lambda look: look.saturated > 0.5),
    "SageMaker AllZero": first(all_zero),
    "SageMaker UnchangedTensor": each(unchanged_loss),
    "SageMaker Overtraining": each(overtraining),
    "AutoTrainer": each(autotrainer),
    "BTTackler": bttackler,
}
