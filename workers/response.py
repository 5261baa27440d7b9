"""Pre-flight checks of how model and loss respond to a batch: no step is made."""

from __future__ import annotations

import copy
import math

import torch

from remedy.spaces.objective import Scale, TargetKind
from remedy.spaces.parts import Parts
from remedy.workers.double import steady
from remedy.workers.finding import Finding
from remedy.workers.glance import Glance
from remedy.workers.probe import describe

_MIXED = 1e-2
_VANISHED = 1e-6
_EVEN_SPREAD = 1e-4
_LOUD = 1e3
_DEAD = 0.5
_RESCALED = 0.05
_INPUT_MEAN, _PLAIN = 1.0, (0.1, 10.0)
_HALF = (torch.float16, torch.bfloat16)
_NAMED = 4
_SAMPLES = 16
_SLOPE_OFF = 0.05
_DELTA = 1e-5
_SURE = 0.99


def flow(_parts: Parts, seen: Glance) -> list[Finding]:
    """Find parameters that no gradient reaches, and layers that hardly any reaches."""
    missing = [name for name, norm in seen.gradients.items() if norm is None]
    if missing:
        message = f"no gradient reaches {_some(missing)}: the loss does not depend on it, or the graph is cut before it"
        return [Finding("no_gradient", "error", message)]
    norms = {name: norm for name, norm in seen.gradients.items() if norm is not None and not name.endswith("bias")}
    still = [name for name, norm in norms.items() if norm == 0]
    if still and not seen.closed:
        message = f"the gradient of {_some(still)} is exactly 0 at the start: what comes after it is dead or saturated"
        return [Finding("zero_gradient", "error", message, ("default_weights", "positive_bias", "leaky_relu"))]
    finite = [norm for norm in norms.values() if math.isfinite(norm) and norm > 0]
    if len(finite) == len(norms) > 2 and not seen.closed and finite[0] < _VANISHED * max(finite):
        first = next(iter(norms))
        message = (
            f"the gradient vanishes on its way to {first}: {finite[0]:.2g} there, {max(finite):.2g} at the largest"
        )
        suggests = ("batch_norm_on", "residual", "relu", "shallower", "xavier")
        return [Finding("vanishing_gradient", "warning", message, suggests)]
    return []


def signal(_parts: Parts, seen: Glance) -> list[Finding]:
    """Find layers that give every sample the same, give very large values, or are mostly dead."""
    told: list[Finding] = []
    if not seen.closed:
        even = [path for path, spread in seen.spreads.items() if spread < _EVEN_SPREAD]
        loud = [path for path, size in seen.sizes.items() if size > _LOUD]
        if even:
            message = (
                f"what {_some(even)} gives hardly differs between samples "
                f"(standard deviation {seen.spreads[even[0]]:.2g})"
            )
            suggests = ("batch_norm_on", "residual", "he", "lsuv", "shallower")
            told.append(Finding("even_signal", "warning", message, suggests))
        if loud:
            message = f"what {_some(loud)} gives is very large at the start ({seen.sizes[loud[0]]:.2g} on average)"
            told.append(Finding("large_signal", "warning", message, ("standardise", "lsuv", "default_weights")))
    dead = [name for name, share in seen.dead.items() if share > _DEAD]
    if dead:
        share = seen.dead[dead[0]]
        message = f"{share:.0%} of the units of {dead[0]} are zero for every sample before the first step"
        told.append(Finding("dead_units", "warning", message, ("positive_bias", "leaky_relu", "he", "standardise")))
    return told


def input_scale(parts: Parts, seen: Glance) -> list[Finding]:
    """Find inputs far from mean 0 and standard deviation 1, where the model does not bring them there itself."""
    given = parts.facts.inputs
    own = (float(given.mean()), float(given.std())) if given.is_floating_point() else None
    reach = seen.entering or own
    if seen.normalised or reach is None or _usual(reach):
        return []
    if own is not None and not _usual(own):
        message = f"inputs have mean {own[0]:.3g} and standard deviation {own[1]:.3g}; nets expect about 0 and 1"
    elif own is None or reach[1] > _PLAIN[1] or abs(reach[0]) > _INPUT_MEAN:
        message = (
            f"what reaches the first layer has mean {reach[0]:.3g} and standard deviation {reach[1]:.3g}; "
            "nets expect about 0 and 1"
        )
    else:
        return []  # scaled twice, where it is small enough to matter
    return [Finding("input_scale", "warning", message, ("standardise", "min_max", "robust_scale"))]


def _usual(scale: tuple[float, float]) -> bool:
    return abs(scale[0]) <= _INPUT_MEAN and _PLAIN[0] <= scale[1] <= _PLAIN[1]


def rescaled(parts: Parts, seen: Glance) -> list[Finding]:
    """Find inputs that are scaled once by the data and again by the model."""
    inputs = parts.facts.inputs
    if seen.entering is None or not inputs.is_floating_point():
        return []
    own, reach = float(inputs.std()), seen.entering[1]
    if reach >= _RESCALED or not _PLAIN[0] <= own <= _PLAIN[1]:
        return []
    message = (
        f"inputs have a standard deviation of {own:.3g}, but what reaches the first layer one of {reach:.2g}: "
        "are they scaled twice?"
    )
    return [Finding("scaled_twice", "warning", message, ("batch_norm_on", "scale_up"))]


def mode(_parts: Parts, seen: Glance) -> list[Finding]:
    """Find a forward pass that sets the mode itself, or does not heed it."""
    if seen.asleep:
        message = f"the forward pass itself puts {_some(seen.asleep)} into evaluation mode, in training too"
        return [Finding("mode", "warning", message)]
    if seen.awake:
        message = f"the forward pass itself puts {_some(seen.awake)} into training mode, in evaluation too"
        return [Finding("mode", "warning", message)]
    if seen.restless:
        message = (
            "the same samples have other outputs at each pass in evaluation mode: F.dropout without "
            "training=self.training, or noise?"
        )
        return [Finding("mode", "warning", message, ("dropout_off",))]
    return []


def outputs(parts: Parts, seen: Glance) -> list[Finding]:
    """Find outputs that are sure of one class before anything was learnt, or large and alike."""
    facts = parts.facts
    if facts.kind is not TargetKind.CLASS_INDEX or not bool(torch.isfinite(seen.outputs).all()):
        return []
    if seen.outputs.dim() != 2 or seen.outputs.shape[1] < 2:
        return []
    shown = describe(seen.outputs, facts.targets.detach().cpu(), facts.kind, parts.original.scale)
    size = float(seen.outputs.abs().mean())
    if parts.original.scale is Scale.LOGITS and size > 10 and shown.class_spread < size / 100:
        message = (
            f"the logits of all classes are large and alike at the start: {size:.3g}, {shown.class_spread:.2g} apart"
        )
        return [Finding("outputs", "warning", message, ("small_last_layer", "z_loss"))]
    if shown.top_probability > _SURE:
        message = f"the model is sure before it has learnt: probability {shown.top_probability:.3g} on average"
        return [Finding("outputs", "warning", message, ("small_last_layer", "standardise", "logit_norm"))]
    return []


def mixed(_parts: Parts, seen: Glance) -> list[Finding]:
    """Find outputs that depend on the other samples of a batch."""
    if seen.mixing is None or seen.mixing < _MIXED:
        return []
    message = (
        "the outputs of a sample change with the other samples of its batch, in evaluation mode too: some operation "
        "takes the batch for another axis (batch_first, a reshape, dim=0)"
    )
    return [Finding("mixed_samples", "error", message)]


def half_loss(parts: Parts, seen: Glance) -> list[Finding]:
    """Find a loss that is computed in half precision."""
    if parts.precision.forward == "float32" or seen.loss_dtype not in _HALF:
        return []
    name = str(seen.loss_dtype).removeprefix("torch.")
    message = f"the loss itself is computed in {name}, where sums and exponentials overflow or lose their digits"
    return [Finding("half_loss", "warning", message, ("loss_in_float32", "full_precision"))]


def sign(parts: Parts, seen: Glance) -> list[Finding]:
    """Find a loss that is lower for wrong outputs than for right ones."""
    pair = _right_and_wrong(parts, seen.outputs.to(parts.facts.inputs.device))
    if pair is None:
        return []
    targets = parts.facts.targets.detach()
    loss = copy.deepcopy(parts.original)
    with torch.no_grad():
        right, wrong = (float(loss(given.to(parts.device), targets.to(parts.device))) for given in pair)
    if not (math.isfinite(right) and math.isfinite(wrong)) or right <= wrong:
        return []
    message = f"the loss is lower for wrong outputs ({wrong:.3g}) than for right ones ({right:.3g}): its sign is turned"
    return [Finding("loss_sign", "error", message, ("match_objective",))]


def _right_and_wrong(parts: Parts, outputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Return outputs that are right and outputs that are wrong, both of values that the model gives."""
    kind, targets = parts.facts.kind, parts.facts.targets.detach()
    if kind is TargetKind.REAL:
        if outputs.shape != targets.shape:
            return None
        return targets.float(), targets.float().roll(max(1, len(targets) // 2), 0)
    if kind in (TargetKind.BINARY, TargetKind.MULTI_LABEL):
        yes = targets.reshape(outputs.shape) > 0.5
        low, high = outputs.min(), outputs.max()
        return torch.where(yes, high, low), torch.where(yes, low, high)
    truth = (targets.argmax(1) if kind is TargetKind.ONE_HOT else targets.long()).reshape(-1)
    if outputs.dim() != 2 or outputs.shape[1] < 2 or len(truth) != len(outputs):
        return None
    ordered = outputs.sort(1, descending=True).values
    left_out = bool(((truth < 0) | (truth >= outputs.shape[1])).any())
    if left_out or bool((ordered[:, 0] == ordered[:, -1]).all()):
        return None
    return _placed(ordered, truth), _placed(ordered.flip(1), truth)


def _placed(ordered: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Return rows with their first value at the true class, and the others after it."""
    classes = ordered.shape[1]
    places = (torch.arange(classes) + truth[:, None].cpu()) % classes
    return torch.empty_like(ordered).scatter_(1, places.to(ordered.device), ordered)


def broadcast(parts: Parts, seen: Glance) -> list[Finding]:
    """Find a loss that compares each output with each target, since their shapes differ."""
    targets, outputs = parts.facts.targets.detach(), seen.outputs
    if outputs.shape == targets.shape or outputs.numel() != targets.numel() or len(targets) < 2:
        return []
    given = outputs.to(parts.device)[:_SAMPLES].requires_grad_()
    aims = targets[:_SAMPLES].to(parts.device)
    turned = aims.clone()
    turned[1:] = aims[1:].flip(0) if not torch.equal(aims[1:], aims[1:].flip(0)) else 1 - aims[1:]
    loss = copy.deepcopy(parts.original)
    slopes = [torch.autograd.grad(loss(given, aim), given)[0].flatten()[0] for aim in (aims, turned)]
    if torch.isclose(slopes[0], slopes[1], rtol=1e-3, atol=1e-9):
        return []
    shapes = tuple(outputs.shape), tuple(targets.shape)
    message = f"outputs of shape {shapes[0]} and targets of shape {shapes[1]}: the loss compares each with each"
    return [Finding("broadcast", "error", message, ("match_objective",))]


def slope(parts: Parts, seen: Glance) -> list[Finding]:
    """Compare the gradient with the slope of the loss, where a part of it is written by hand."""
    facts = parts.facts
    if not seen.custom:
        return []
    model, loss = copy.deepcopy(parts.model).double(), copy.deepcopy(parts.criterion)
    inputs, targets = facts.inputs[:_SAMPLES].to(parts.device), facts.targets[:_SAMPLES].detach().to(parts.device)
    inputs = inputs.double() if inputs.is_floating_point() else inputs
    targets = targets.double() if targets.is_floating_point() else targets
    weights = [p for p in model.parameters() if p.requires_grad]
    with steady():
        gradients = torch.autograd.grad(loss(model(inputs), targets), weights, allow_unused=True)
        norm = math.sqrt(sum(float(g.square().sum()) for g in gradients if g is not None))
        if norm == 0 or not math.isfinite(norm):
            return []
        sides = []
        with torch.no_grad():
            for step in (_DELTA, -2 * _DELTA):
                for weight, gradient in zip(weights, gradients, strict=True):
                    if gradient is not None:
                        weight.add_(gradient, alpha=step / norm)
                sides.append(float(loss(model(inputs), targets)))
    real = (sides[0] - sides[1]) / (2 * _DELTA)
    if abs(real - norm) <= _SLOPE_OFF * norm:
        return []
    message = (
        f"the backward pass written by hand ({_some(seen.custom)}) gives a slope of {norm:.3g} where the loss has one "
        f"of {real:.3g}: right only where it is meant so, as in straight-through estimators"
    )
    return [Finding("hand_written_gradient", "warning", message)]


def _some(names: list[str] | tuple[str, ...]) -> str:
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")


CHECKS = (flow, signal, input_scale, rescaled, mode, outputs, mixed, half_loss, sign, broadcast, slope)
