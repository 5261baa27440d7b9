"""A training around the live parts of a script, so that remedies are applied to them as to any other."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import nn
from torch.optim import Optimizer

from remedy.spaces.given import Given
from remedy.spaces.metric import MODES
from remedy.spaces.rebinding import schedule_of, unknown, unscheduled
from remedy.spaces.script import Script, metric_of
from remedy.spaces.slot import Slot
from remedy.spaces.training import Training

_OPEN = frozenset(
    {
        Slot.INPUTS,
        Slot.TARGETS,
        Slot.SAMPLING,
        Slot.WIDTH,
        Slot.DEPTH,
        Slot.RESIDUAL,
        Slot.ACTIVATION,
        Slot.NORMALISATION,
        Slot.DROPOUT,
        Slot.INITIALISATION,
        Slot.OBJECTIVE,
        Slot.CLASS_WEIGHT,
        Slot.LABEL_SMOOTHING,
        Slot.LOGITS,
        Slot.OPTIMIZER,
        Slot.LEARNING_RATE,
        Slot.SCHEDULE,
        Slot.WEIGHT_DECAY,
        Slot.WEIGHT_CONSTRAINT,
        Slot.GRADIENT,
        Slot.GUARD,
    }
)
_OF_THE_LOOP = {
    Slot.BATCH_SIZE: "the script counts its own batches",
    Slot.AVERAGING: "the script decides when its model is judged",
    Slot.PRECISION: "the script decides what runs under autocast",
    Slot.BUDGET: "the script decides how long it trains",
}
_OF_THE_RATES = (Slot.OPTIMIZER, Slot.LEARNING_RATE, Slot.SCHEDULE)


def facade(given: Given, script: Script) -> Training:
    """Return the training that these live parts are."""
    train, validation = given.loaders[0], given.loaders[-1]
    device = next(given.model.parameters()).device
    schedule = schedule_of(given.scheduler)
    if schedule is not None:
        unscheduled(given.optimizer)
    metric = metric_of(script.metric)
    return Training(
        model=given.model.cpu,  # where every training begins; the parameters stay the same objects
        data=lambda: (train, validation),
        loss=given.loss,
        optimizer=Regrouped(given.optimizer, given.model),
        schedule=schedule,
        schedule_interval=script.interval,
        steps=script.steps or len(train),
        metric=metric,
        mode=MODES.get(script.metric, script.mode),
        goal=script.goal,
        device=str(device),
    )


def closed(given: Given, *, hidden_scheduler: bool, accumulates: bool) -> dict[str, str]:
    """Return the slots that no remedy can fill in this script, and why.

    `hidden_scheduler` is whether the optimizer has a scheduler that `remedy.prepare` was not given, `accumulates`
    whether several batches make one step.
    """
    shut = {str(slot): _OF_THE_LOOP.get(slot, "it needs a loop of remedy's own") for slot in Slot if slot not in _OPEN}
    if given.loaders[0].batch_size is None:
        shut[str(Slot.SAMPLING)] = "the DataLoader forms its batches by a batch sampler"
    why = unknown(given.scheduler) if given.scheduler is not None else ""
    if hidden_scheduler:
        why = "the script has a scheduler that remedy.prepare was not given"
    if why:
        shut |= dict.fromkeys(map(str, _OF_THE_RATES), why)
    elif given.scheduler is not None and accumulates:
        shut[str(Slot.SCHEDULE)] = "several batches make one step, so that the script's own schedule cannot be followed"
    return shut


@dataclass
class Regrouped:
    """Gives the script's own optimizer the parameters that the model has after surgery.

    Groups are kept, as objects. A parameter that has gone leaves its group; a new one comes into the group of the one
    that had its name, else into that of the parameter before it. What the optimizer holds beside the model stays, and
    what of the model it did not hold stays out.
    """

    optimizer: Optimizer
    model: nn.Module
    _before: dict[str, nn.Parameter] = field(init=False)

    def __post_init__(self) -> None:
        """Note how the model is before surgery."""
        self._before = dict(self.model.named_parameters())

    def __call__(self, parameters: Any) -> Optimizer:
        """Return the optimizer over the parameters that there are now."""
        now: list[nn.Parameter] = list(parameters)
        groups = self.optimizer.param_groups
        place = {id(p): number for number, group in enumerate(groups) for p in group["params"]}
        known = {id(p) for p in self._before.values()}
        names = {id(p): name for name, p in self.model.named_parameters()}
        gone = known - {id(p) for p in now}
        kept = [[p for p in group["params"] if id(p) not in gone] for group in groups]
        last = next((place[id(p)] for p in self._before.values() if id(p) in place), 0)
        for parameter in now:
            if id(parameter) in known:
                last = place.get(id(parameter), last)
                continue
            same = self._before.get(names.get(id(parameter), ""))
            last = place.get(id(same), last)
            kept[last].append(parameter)
        for group, mine in zip(groups, kept, strict=True):
            group["params"][:] = mine
        for key in [key for key in self.optimizer.state if id(key) in gone]:
            del self.optimizer.state[key]
        return self.optimizer
