"""Builds the live parts of one run: a fold of the combination's remedies over the slots, in their order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from remedy.spaces import gather
from remedy.spaces.batches import Epochs, batches_in, check_pair, evaluation, in_order, own_sampler
from remedy.spaces.combination import Combination
from remedy.spaces.cross_entropy import reading
from remedy.spaces.error import InputError
from remedy.spaces.facts import Facts
from remedy.spaces.logits import remembered
from remedy.spaces.metric import check_kind
from remedy.spaces.objective import TargetKind
from remedy.spaces.parts import Parts
from remedy.spaces.precision import Precision
from remedy.spaces.rehearsal import rehearse
from remedy.spaces.remedy import Change, Inapplicable, Receipt, Remedy
from remedy.spaces.schedule import Schedule
from remedy.spaces.seeding import derive, seed_all
from remedy.spaces.slot import Slot
from remedy.spaces.training import Training


def assemble(
    training: Training,
    combination: Combination | None = None,
    catalogue: Mapping[str, Remedy] | None = None,
    *,
    seed: int = 0,
    data_seed: int = 0,
) -> Parts:
    """Build a run: fresh weights of `seed`, the data of `data_seed`, every remedy of the combination applied.

    A fix that the training carries (`Fix.apply`) is applied too. The parts are live: `parts.model`, `parts.criterion`
    (outputs, targets -> loss), `parts.optimizer`, `parts.scheduler`, `parts.epochs`. In a loop of your own
    `parts.update(loss)` stands where `optimizer.step()` stood, and validation runs inside `with parts.judged():`.

    Raises:
        InputError: the training's parts cannot be what they are.
        Inapplicable: remedies found nothing to change; all of them are named, so that who asks need not ask again.
    """
    combination, catalogue = combination or Combination(), catalogue or {}
    if training.fix is not None:
        combination = training.fix.combination.plus(combination)
        catalogue = {**training.fix.catalogue, **catalogue}
    seed_all(derive(data_seed, "data"))
    train, validation = check_pair(training.data())
    seed_all(derive(seed, "model"))
    parts = _begin(training, train, validation)
    refused: dict[str, str] = {}
    for slot in Slot:
        # Width and depth may build the model anew; whatever looks into it later sees what it is given.
        if slot is Slot.RESIDUAL and parts.inputs is not None:
            _prepend(parts.model, parts.inputs)
        if slot is Slot.OPTIMIZER:
            parts.model.to(parts.device)
            if parts.inputs is not None:
                parts.inputs.to(parts.device)
            parts.optimizer = _optimizer(training, parts.model)
            parts.groups = len(parts.optimizer.param_groups)
        if slot is Slot.CLASS_WEIGHT and parts.aim.rescale is not None:
            # Only now: whoever looked for the output's activation had to see what the user wrote.
            parts.aim.attach(parts.model)
            parts.criterion = parts.criterion.after(remembered)
        if slot is Slot.BUDGET:
            _plan(parts, training)
        if slot is Slot.SCHEDULE:
            _stretch(parts)
        name = combination.remedies.get(str(slot))
        if name is not None:
            _try(parts, training, seed, catalogue[name], combination, refused)
    if refused:
        told = [f"{name}: {why}" if len(refused) > 1 else why for name, why in refused.items()]
        raise Inapplicable("; ".join(told), refused)
    _finish(parts, training, seed)
    rates = [name for slot, name in combination.remedies.items() if slot in (Slot.LEARNING_RATE, Slot.OPTIMIZER)]
    if rates and Slot.SCHEDULE not in combination.remedies:
        _check_schedule_keeps(parts.schedule, parts.optimizer, rates)
    # What happens in training (dropout) must not depend on how many numbers the initialisation drew.
    seed_all(derive(seed, "training"))
    return parts


def _begin(training: Training, train: Any, validation: Any) -> Parts:
    loaders = isinstance(train, DataLoader)
    if loaders and training.batch_size is not None:
        msg = f"batch_size is {training.batch_size}, but data() gives DataLoaders, which have their own; leave it out"
        raise InputError(msg)
    if not loaders and training.batch_size is None:
        msg = "batch_size is missing; it may be left out only where data() gives DataLoaders"
        raise InputError(msg)
    if loaders and training.sampler is not None:
        msg = "sampler is given, but data() gives DataLoaders, which have their own; leave it out"
        raise InputError(msg)
    model = gather.build_model(training, {})
    inputs, targets = gather.probe_batch(train, training.collate_fn)
    outputs = outputs_of(model, inputs)
    every = gather.targets_of(train, training.collate_fn)
    kind = gather.kind_of(every, outputs)
    check_kind(training.metric, kind, outputs, targets)
    criterion = reading(training.loss, kind, outputs, targets)
    wide = outputs.dim() > 1 and kind is not TargetKind.BINARY
    classes = 0 if kind is TargetKind.REAL else outputs.shape[1] if wide else 1
    counts, labels = gather.class_counts(every, kind, classes, criterion.ignored)
    knobs = gather.open_knobs(training)
    turned: dict[str, Any] = {}
    sampler = own_sampler(train) if loaders else training.sampler(train) if training.sampler is not None else None
    if sampler is not None and not hasattr(sampler, "__iter__"):
        msg = f"sampler() returned {type(sampler).__name__}; it may return a torch.utils.data.Sampler"
        raise InputError(msg)
    batches = batches_in(train, training.batch_size, sampler, model)

    def rebuild(**chosen: Any) -> nn.Module:
        turned.update(chosen)  # a second remedy that turns a knob keeps what the first turned
        return gather.build_model(training, turned)

    facts = Facts(
        kind=kind,
        classes=classes,
        counts=counts,
        labels=labels,
        inputs=inputs,
        targets=targets,
        every_input=gather.inputs_of(train, inputs),
        mode=training.mode or "max",
        batch_size=training.batch_size or len(targets),
        every_target=every,
        steps=training.steps or (training.epochs or 1) * batches,
        steps_per_epoch=batches,
        rebuild=rebuild,
        knobs=knobs,
        precision=training.precision,
        resampled=sampler is not None and not in_order(sampler),
    )
    device = _device(training)
    return Parts(
        train=train,
        validation=evaluation(validation, training.collate_fn),
        facts=facts,
        device=device,
        model=model,
        original=criterion,
        criterion=criterion,
        batch_size=training.batch_size,
        sampler=sampler,
        schedule=Schedule(training.schedule, training.schedule_interval),
        precision=Precision.of(training.precision, device),
        untouched=(facts.steps, batches),
        gradient=training.clip,
        steps=facts.steps,
    )


def outputs_of(model: nn.Module, inputs: Any) -> torch.Tensor:
    """Return the model's outputs on a batch, in evaluation mode, without gradients.

    Raises:
        InputError: the model returned something that is no tensor.
    """
    model.eval()
    with torch.no_grad():
        outputs = model(inputs)
    model.train()
    if not isinstance(outputs, torch.Tensor):
        msg = f"model(inputs) returned {type(outputs).__name__}; it may return a tensor of outputs, one row a sample"
        raise InputError(msg)
    return outputs


def _device(training: Training) -> torch.device:
    if training.device is not None:
        return torch.device(training.device)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _optimizer(training: Training, model: nn.Module) -> Optimizer:
    optimizer = training.optimizer(model.parameters())
    if not isinstance(optimizer, Optimizer):
        msg = f"optimizer() returned {type(optimizer).__name__}; it may return a torch.optim.Optimizer"
        raise InputError(msg)
    if isinstance(optimizer, torch.optim.LBFGS):
        msg = "optimizer() returned LBFGS, which needs a closure; it may return any optimizer with a plain step()"
        raise InputError(msg)
    return optimizer


def _prepend(model: nn.Module, transform: nn.Module) -> None:
    # Not a submodule: a Sequential would run it as its last layer.
    model.register_forward_pre_hook(lambda _module, args: (transform(args[0]), *args[1:]))


def _plan(parts: Parts, training: Training) -> None:
    """Set the budget by the batches that the run really has."""
    batches = batches_in(parts.train, parts.batch_size, parts.sampler, parts.model)
    parts.steps = training.steps or (training.epochs or 1) * batches
    parts.facts = replace(parts.facts, steps=parts.steps, steps_per_epoch=batches)


def _stretch(parts: Parts) -> None:
    """Have the training's own schedule follow a budget, or a length of epochs, that remedies have changed."""
    untouched, now = parts.untouched, parts.facts
    ratio = untouched[0] / now.steps
    if parts.schedule.interval == "epoch":
        ratio *= now.steps_per_epoch / untouched[1]
    parts.schedule = parts.schedule.stretched(ratio)


def _finish(parts: Parts, training: Training, seed: int) -> None:
    try:
        parts.scheduler = parts.schedule.make(parts.optimizer) if parts.schedule.make is not None else None
    except Exception as error:
        if len(parts.optimizer.param_groups) == parts.groups:
            raise
        msg = f"the training's scheduler does not take the parameter groups that were split: {error}"
        raise Inapplicable(msg) from error
    if parts.schedule.make is not None and not callable(getattr(parts.scheduler, "step", None)):
        msg = f"schedule() returned {type(parts.scheduler).__name__}; it may return a torch.optim.lr_scheduler"
        raise InputError(msg)
    order = derive(seed, "order")
    parts.epochs = Epochs(parts.train, parts.batch_size, parts.sampler, training.collate_fn, order, parts.model)


def _try(
    parts: Parts, training: Training, seed: int, remedy: Remedy, combination: Combination, refused: dict[str, str]
) -> None:
    """Apply a remedy, or write down in `refused` why it finds nothing; then the others are only asked the same."""
    if refused and remedy.slot is Slot.LEARNING_RATE:
        return  # rates may be rehearsed, which takes steps
    try:
        _apply(parts, training, seed, remedy, combination)
    except Inapplicable as why:
        refused[remedy.name] = str(why)
    except Exception:
        if not refused:  # else it may come of what is missing
            raise


def _apply(parts: Parts, training: Training, seed: int, remedy: Remedy, combination: Combination) -> None:
    own = {key.split(".", 1)[1]: value for key, value in combination.items if key.startswith(f"{remedy.name}.")}
    try_rates = partial(rehearse, parts, training, seed)
    now = replace(parts.facts, receipts=parts.receipts, model=parts.model, rehearse=try_rates)
    extra = {"facts": now} if remedy.wants_facts else {}
    change = remedy.function(parts.value(remedy.slot), **own, **extra)
    if not isinstance(change, Change):  # of the user's own
        told = f"remedy {remedy.name!r} returned {type(change).__name__}; it may return a remedy.Change"
        raise InputError(f"{told} of the slot's new value and what changed")
    parts.put(remedy.slot, change.value)
    parts.receipts += (Receipt(remedy.name, remedy.slot, change.receipt, change.told),)


def _check_schedule_keeps(schedule: Schedule, optimizer: Optimizer, remedies: Sequence[str]) -> None:
    """Refuse to count a learning rate of `remedies` that the user's scheduler overwrites (OneCycleLR sets its own)."""
    if schedule.make is None:
        return
    reached = []
    for rate in (1.0, 0.5):
        groups = [{"params": [torch.nn.Parameter(torch.zeros(1))]} for _ in optimizer.param_groups]
        stand_in = torch.optim.SGD(groups, lr=rate, momentum=0.9)
        try:
            schedule.make(stand_in)
        except Exception:  # noqa: BLE001  (it needs more of its optimizer than a stand-in has: nothing is known)
            return
        reached.append(float(stand_in.param_groups[0]["lr"]))
    if reached[0] != 0 and abs(reached[1] / reached[0] - 0.5) > 1e-6:
        msg = "the training's scheduler sets its own learning rate, so the optimizer's has no effect"
        raise Inapplicable(msg, remedies)
