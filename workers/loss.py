"""Pre-flight checks of the loss: what it takes outputs for, whether it teaches a wrong net, how large it is first."""

from __future__ import annotations

import copy
import math

import torch
from torch import nn

from remedy.spaces.logits import Squash
from remedy.spaces.objective import Scale, TargetKind
from remedy.spaces.parts import Parts
from remedy.workers.finding import Finding
from remedy.workers.observation import Setting

_LOSS_OFF = 1.0
_SURE = 30.0
_SURER = 100.0
_SAFE = (nn.CrossEntropyLoss, nn.BCEWithLogitsLoss)
_EXCLUSIVE = (TargetKind.CLASS_INDEX, TargetKind.ONE_HOT)
_SAMPLES = 64


def head(parts: Parts, outputs: torch.Tensor) -> list[Finding]:
    """Find probabilities that the loss takes for logits, or takes the logarithm of."""
    if parts.facts.kind in (TargetKind.BINARY, TargetKind.MULTI_LABEL) and parts.original.scale is Scale.PROBABILITIES:
        message = "the loss takes probabilities from a sigmoid; the fused form on logits is the numerically stable one"
        return [Finding("loss_from_probabilities", "warning", message, ("fused_binary_cross_entropy",))]
    if parts.facts.kind not in _EXCLUSIVE or outputs.dim() < 2 or not Squash.SOFTMAX.fits(outputs.float()):
        return []
    classes = outputs.shape[1]
    if parts.original.scale is Scale.LOGITS:
        low, high = math.log(math.e + classes - 1) - 1, math.log(math.e + classes - 1)
        message = (
            f"the model ends in a softmax, and the loss applies another one: it can only lie between {low:.4f} and "
            f"{high:.4f}, and its gradient at the start is 1/{classes} of the right one"
        )
        return [Finding("softmax_before_loss", "error", message, ("fused_cross_entropy",))]
    if parts.original.scale is Scale.PROBABILITIES:
        message = "the loss takes probabilities from a softmax; the fused form on logits is the numerically stable one"
        return [Finding("loss_from_probabilities", "warning", message, ("fused_cross_entropy",))]
    return []


def flat_loss(parts: Parts, outputs: torch.Tensor) -> list[Finding]:
    """Evaluate the loss where the net is sure and wrong: it must be finite and must have a slope."""
    exclusive = parts.facts.kind in _EXCLUSIVE
    if isinstance(parts.original.loss, _SAFE) or parts.facts.kind is TargetKind.REAL:
        return []
    from_probabilities = parts.original.scale is Scale.PROBABILITIES
    if not from_probabilities and exclusive and Squash.SOFTMAX.fits(outputs.float()):
        return []  # what it makes of probabilities is not known
    wrong = _sure_and_wrong(parts, outputs)
    # One column is flat on one side only where its sigmoid reaches 1: that is what `head` says.
    turned = [wrong] if exclusive else [wrong, -wrong]
    for apart in (_SURE,) if from_probabilities else (_SURE, _SURER):
        shown = [_slope(parts, scores * apart, squashed=from_probabilities) for scores in turned]
        bad = [(loss, slope) for loss, slope in shown if not (math.isfinite(loss + slope) and slope)]
        if bad and (len(bad) == len(shown) or not all(math.isfinite(loss + slope) for loss, slope in bad)):
            what = f"the loss is {bad[0][0]:.4g} with gradient {bad[0][1]:.3g}: it cannot learn"
            message = f"where the net is sure of a wrong class (logits {apart:g} apart) {what}"
            fused = "fused_cross_entropy" if exclusive else "fused_binary_cross_entropy"
            suggests = (fused, "mixed_probabilities") if from_probabilities else (fused,)
            return [Finding("flat_loss", "error", message, suggests)]
    return []


def _sure_and_wrong(parts: Parts, outputs: torch.Tensor) -> torch.Tensor:
    """Return outputs that are 1 for one wrong class, or for every wrong label and 0 for the right ones."""
    targets, scores = parts.facts.targets[:_SAMPLES].detach(), torch.zeros_like(outputs[:_SAMPLES], dtype=torch.float32)
    if parts.facts.kind not in _EXCLUSIVE:
        return 1 - 2 * targets.reshape(scores.shape).float()
    truth = targets.argmax(1) if parts.facts.kind is TargetKind.ONE_HOT else targets.long()
    other = (truth.clamp(min=0) + 1) % scores.shape[1]
    return scores.scatter_(1, other.reshape(len(scores), 1, *scores.shape[2:]), 1.0)


def _slope(parts: Parts, scores: torch.Tensor, *, squashed: bool) -> tuple[float, float]:
    """Return the loss of these logits, and the largest slope of it along one of them."""
    logits = scores.to(parts.device).requires_grad_()
    taken = logits
    if squashed:
        taken = logits.softmax(1) if parts.facts.kind in _EXCLUSIVE else logits.sigmoid()
    loss = copy.deepcopy(parts.original)(taken, parts.facts.targets[:_SAMPLES].detach().to(parts.device))
    slopes = torch.autograd.grad(loss, logits, allow_unused=True)[0] if loss.requires_grad else None
    # What hangs on no output has no slope to judge: that no gradient arrives is said of it.
    return float(loss.detach()), 1.0 if slopes is None else float(slopes.abs().max())


def first_loss(parts: Parts, setting: Setting, loss: float) -> list[Finding]:
    """Compare the first loss with that of guessing."""
    if not math.isfinite(loss):
        suggests = ("repair_non_finite", "fused_cross_entropy") if setting.cross_entropy else ("repair_non_finite",)
        return [Finding("non_finite_loss", "error", f"the first loss is {loss}", suggests)]
    if not setting.cross_entropy or math.isnan(setting.entropy):
        return []
    # A net that knows nothing guesses every class alike, however seldom some are.
    even = math.log(max(2, parts.facts.classes))
    if loss <= (1 + _LOSS_OFF) * max(setting.entropy, even) and loss >= 0:
        return []
    message = f"the first loss is {loss:.3g}; guessing gives {even:.3g}, so the start is far off"
    return [Finding("first_loss", "warning", message, ("small_last_layer", "standardise"))]
