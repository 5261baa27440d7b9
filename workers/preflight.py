"""Pre-flight checks: what can be said of a training before a single step is spent."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from remedy.spaces.assembly import assemble, outputs_of
from remedy.spaces.chance import held_classes
from remedy.spaces.combination import Combination
from remedy.spaces.error import InputError, raised, sentence
from remedy.spaces.metric import meets
from remedy.spaces.objective import TargetKind
from remedy.spaces.parts import Parts
from remedy.spaces.remedy import Inapplicable
from remedy.spaces.slot import Slot
from remedy.spaces.target import Loaded
from remedy.spaces.training import Training
from remedy.workers import response, samples, structure
from remedy.workers.double import unmoved
from remedy.workers.effort import Effort
from remedy.workers.finding import Finding, errors_first, unexplained
from remedy.workers.glance import Glance
from remedy.workers.loop import check_loss
from remedy.workers.loss import first_loss, flat_loss, head
from remedy.workers.observation import Setting
from remedy.workers.probation import MOST, Probation, probation
from remedy.workers.run import catalogue_of, setting_of

_QUICK_SECONDS = 5.0


@dataclass(frozen=True)
class Preflight:
    """What was found: the findings, and the run's setting for the plan."""

    findings: tuple[Finding, ...]
    setting: Setting
    batch_size: int
    parameters: int
    device: str
    classes: int
    closed: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    """Checks that could not be made, each with what it raised."""
    probation: Probation | None = None
    """What some hundred steps show, where they were asked for."""
    refused: tuple[str, ...] = ()
    """The remedies that find nothing to change, of those that were asked about."""

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Preflight:
        """Read what `dataclasses.asdict` made of it, numbers that are not finite being texts."""
        said = data["setting"]
        numbers = {name: float(said[name]) for name in ("prior", "entropy", "chance", "goal")}
        findings = tuple(Finding(**{**found, "suggests": tuple(found["suggests"])}) for found in data["findings"])
        setting = Setting(**{**said, **numbers, "kind": TargetKind(said["kind"])})
        lists = {name: tuple(data.get(name, ())) for name in ("closed", "left_out", "refused")}
        tried = Probation.from_json(data["probation"]) if data.get("probation") else None
        return cls(**{**data, "findings": findings, "setting": setting, **lists, "probation": tried})

    @property
    def suggested(self) -> tuple[str, ...]:
        """Names of suggested remedies, errors first."""
        return tuple(dict.fromkeys(name for finding in self.findings for name in finding.suggests))


def preflight(
    loaded: Loaded,
    training: Training,
    seed: int,
    data_seed: int,
    *,
    thorough: bool = False,
    share: float = 1.0,
    tries: Combination | None = None,
) -> Preflight:
    """Build the untouched training, push one batch through it, and say what is wrong.

    `training` is the loaded one with the study's goal. No optimizer step is made, unless it is to be `thorough`: then
    doubles of the parts are trained for some hundred steps, at most a `share` of the training's own. Where it is built
    quickly, it is built once more with `tries`, to see which of these remedies find nothing to change.

    Raises:
        InputError: the training cannot run at all, or cannot be judged.
    """
    name, effort = loaded.source.name, Effort()
    try:
        parts = assemble(training, Combination(), catalogue_of(loaded), seed=seed, data_seed=data_seed)
    except InputError:
        raise
    except Exception as error:  # noqa: BLE001  (the user's builders may raise anything)
        raise _explained(name, training, error) from None
    took = effort.seconds
    found = examined(name, training, parts)

    def built(combination: Combination) -> Parts:
        # A loss may count its calls: each beginning has one of its own.
        own = replace(training, loss=copy.deepcopy(training.loss))
        return assemble(own, combination, catalogue_of(loaded), seed=seed, data_seed=data_seed)

    if tries is not None and took < _QUICK_SECONDS:
        found = replace(found, refused=_refused(tries, built))
    if not thorough:
        return found

    most = min(MOST, int(share * parts.steps))
    if took < _QUICK_SECONDS:
        return tried(found, parts, partial(built, Combination()), most=most)
    left_out = (*found.left_out, f"determinism (building the training takes {took:.0f} s)")
    return tried(replace(found, left_out=left_out), parts, None, most=most)


def _refused(tries: Combination, built: Callable[[Combination], Parts]) -> tuple[str, ...]:
    try:
        built(tries)
    except Inapplicable as why:
        return why.remedies
    except Exception:  # noqa: BLE001  (what is wrong with it, its run will say)
        return ()
    return ()


def tried(found: Preflight, parts: Parts, again: Callable[[], Parts] | None, *, most: int) -> Preflight:
    """Add what some hundred steps show, `most` at most; `again` builds the run once more from the same seed."""
    try:
        shown = probation(parts, again, most=most)
    except Exception as error:  # noqa: BLE001  (a check must not break what it looks at)
        shown = Probation(left_out=(f"probation ({sentence(error)})",))
    every = [*found.findings, *shown.findings]
    shown = replace(shown, doubts=tuple(unexplained(every, shown.doubts)))
    return replace(found, findings=errors_first(unexplained(every, every)), probation=shown)


def examined(name: str, training: Training, parts: Parts) -> Preflight:
    """Push one batch through the untouched parts of a training, and say what is wrong.

    Raises:
        InputError: as `preflight`.
    """
    try:
        loss, outputs = _first_batch(parts)
        _check_targets(parts, outputs)
        setting = setting_of(training, parts)
        held = held_classes(parts.validation, parts.facts.kind, parts.original.ignored)
    except InputError:
        raise
    except Exception as error:  # noqa: BLE001
        raise raised(name, error) from None
    if held == 1:
        msg = f"{name}: the validation set holds one class only; it may hold two or more"
        raise InputError(msg)
    refuse_guessing(setting)
    with unmoved(parts):
        findings, left_out = _found(
            {
                "head": lambda: head(parts, outputs),
                "flat_loss": lambda: flat_loss(parts, outputs),
                "first_loss": lambda: first_loss(parts, setting, loss),
                **{check.__name__: partial(check, parts) for check in (*structure.CHECKS, *samples.CHECKS)},
            }
        )
        findings, left_out = _looked_at(parts, findings, left_out)
    return Preflight(
        errors_first(findings),
        setting,
        parts.facts.batch_size,
        sum(p.numel() for p in parts.model.parameters()),
        str(parts.device),
        parts.facts.classes,
        ("sampling", "batch_size") if parts.value(Slot.BATCH_SIZE) is None else (),
        tuple(left_out),
    )


def refuse_guessing(setting: Setting) -> None:
    """Refuse a goal that the trivial predictor meets.

    Raises:
        InputError: as said.
    """
    if not math.isnan(setting.chance) and meets(setting.chance, setting.goal, setting.mode):
        reached = f"the trivial predictor reaches {setting.chance:.3g}"
        msg = f"goal {setting.goal:g} is met by guessing: {reached}; ask for more"
        raise InputError(msg)


def _found(checks: Mapping[str, Callable[[], list[Finding]]]) -> tuple[list[Finding], list[str]]:
    """Return what the checks find, and which cannot be made on this training, with the reason."""
    found, left_out = [], []
    for name, check in checks.items():
        try:
            found += check()
        except Exception as error:  # noqa: BLE001  (a check must not break what it looks at)
            left_out.append(f"{name} ({sentence(error)})")
    return found, left_out


def _looked_at(parts: Parts, found: list[Finding], left_out: list[str]) -> tuple[list[Finding], list[str]]:
    """Add what one look at the model's response shows; inputs that are not finite show nothing."""
    if not bool(torch.isfinite(parts.facts.inputs).all()):
        return unexplained(found, found), left_out
    try:
        seen = Glance.of(parts)
    except Exception as error:  # noqa: BLE001
        return unexplained(found, found), [*left_out, f"response ({sentence(error)})"]
    more, without = _found({check.__name__: partial(check, parts, seen) for check in response.CHECKS})
    every = [*found, *more]
    return unexplained(every, every), left_out + without


def _explained(name: str, training: Training, error: Exception) -> InputError:
    """Say which of the two does not fit where the model refuses the data's inputs."""
    told = raised(name, error)
    try:
        model = training.model(**training.knobs)
        train, _ = training.data()
        sample = train[0][0] if not hasattr(train, "batch_size") else None
    except Exception:  # noqa: BLE001  (then the first error says more)
        return told
    first = next((tuple(p.shape) for p in model.parameters()), None)
    shape = tuple(sample.shape) if isinstance(sample, torch.Tensor) else None
    if shape is None or first is None or not isinstance(error, RuntimeError):
        return told
    told.args = (f"model and inputs do not fit: {told} (an input has shape {shape}, the first weight {first})",)
    return told


def _first_batch(parts: Parts) -> tuple[float, torch.Tensor]:
    inputs, targets = parts.facts.inputs.to(parts.device), parts.facts.targets.to(parts.device)
    parts.model.train()
    outputs = parts.model(inputs)
    _check_fit(parts, outputs)
    loss = parts.criterion(outputs, targets)
    check_loss(loss)
    return float(loss.detach()), outputs_of(parts.model, inputs).cpu()


def _check_fit(parts: Parts, outputs: torch.Tensor) -> None:
    targets, facts = parts.facts.targets, parts.facts
    if outputs.dim() == 0 or len(outputs) != len(targets):
        msg = f"model and targets do not fit: outputs have shape {tuple(outputs.shape)} for {len(targets)} targets"
        raise InputError(msg)
    if facts.kind is TargetKind.CLASS_INDEX and facts.counts:
        width = outputs.shape[1] if outputs.dim() > 1 else 1
        if len(facts.counts) > width:
            top = len(facts.counts) - 1
            msg = f"model and targets do not fit: the model gives {width} outputs, the targets hold class {top}"
            raise InputError(msg)
    if facts.kind is TargetKind.CLASS_INDEX and not facts.counts and bool((facts.targets < 0).any()):
        msg = f"targets hold class {int(facts.targets.min())}; classes may be 0 and up (-100 is left out)"
        raise InputError(msg)


def _check_targets(parts: Parts, outputs: torch.Tensor) -> None:
    facts = parts.facts
    if facts.counts and sum(count > 0 for count in facts.counts) < 2:
        only = next((label for label, count in enumerate(facts.counts) if count), 0)
        msg = f"the train set holds one class only ({only}); it may hold two or more"
        raise InputError(msg)
    shapes = (tuple(outputs.shape), tuple(facts.targets.shape))
    if facts.kind in (TargetKind.REAL, TargetKind.BINARY) and outputs.numel() != facts.targets.numel():
        msg = f"model and targets do not fit: outputs have shape {shapes[0]}, targets {shapes[1]}"
        raise InputError(msg)
