"""Statistics of a set of predictions, computed where these lie: nothing here waits for a device."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from remedy.spaces.objective import IGNORED, Scale, TargetKind
from remedy.workers.observation import Outputs

_SURE = 1e-6
_WHOLE = 1e-3
_MOST = 1 << 18
_WITHOUT_CLASSES = (TargetKind.REAL, TargetKind.MULTI_LABEL)


def few(outputs: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return as many samples of a batch as are looked at: a language model's scores are too many to read at a step."""
    if outputs.numel() <= _MOST or len(outputs) != len(targets):
        return outputs, targets
    kept = max(1, _MOST * len(outputs) // outputs.numel())
    return outputs[:kept], targets[:kept]


def figures(
    outputs: torch.Tensor, targets: torch.Tensor, kind: TargetKind, scale: Scale, ignored: int = IGNORED
) -> torch.Tensor:
    """Return the figures that `read` makes the statistics of, in float32."""
    outputs = outputs.detach()
    scores = outputs.float()
    rows = scores.reshape(len(scores), -1) if scores.dim() > 1 else scores.reshape(-1, 1)
    told = [
        rows.sum(),
        torch.linalg.vector_norm(rows),
        torch.linalg.vector_norm(rows - rows.mean(0, keepdim=True)),
        rows.std(1).mean() if rows.shape[1] > 1 else rows.new_zeros(()),
    ]
    if kind in _WITHOUT_CLASSES:
        return torch.stack(told)
    predicted, truth, kept = _judged(outputs, targets, kind, scale, ignored)
    weights = kept.float()
    count, wrong = weights.sum(), (predicted != truth) & kept
    classes = 2 if kind is TargetKind.BINARY else outputs.shape[1]
    shares = rows.new_zeros(classes).scatter_add_(0, predicted, weights) / count.clamp(min=1)
    top, sure = shares.max(0), _probability(scores, scale)
    saturated = ((sure >= 1 - _SURE) & wrong).sum() / count if sure.numel() == wrong.numel() else count * math.nan
    entropy = torch.special.entr(shares).sum()
    wrongs = wrong.sum(dtype=torch.float32)
    told += [count, wrongs, top.values, top.indices.float(), entropy, sure.mean(), saturated]
    return torch.stack(told)


def read(told: Sequence[float], kind: TargetKind, samples: int) -> Outputs:
    """Return the statistics that `figures` computed of so many samples."""
    total, size, spread, class_spread, *judged = told
    finite = math.isfinite(total)
    input_spread = spread / size if size > 0 else 0.0
    if not judged or not finite:
        accuracy = 0.0 if kind is not TargetKind.REAL and not finite else math.nan
        nothing = (math.nan, -1, math.nan, math.nan, math.nan)
        return Outputs(samples, accuracy, *nothing, class_spread, input_spread, finite=finite)
    count, wrong, top_share, top_class, entropy, probability, saturated = judged
    return Outputs(
        count=int(count),
        accuracy=1 - wrong / count if count else math.nan,
        top_share=top_share,
        top_class=int(top_class),
        prediction_entropy=abs(entropy),
        top_probability=probability,
        saturated_wrong=saturated,
        class_spread=class_spread,
        input_spread=input_spread,
        finite=True,
    )


def _judged(
    outputs: torch.Tensor, targets: torch.Tensor, kind: TargetKind, scale: Scale, ignored: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return predictions, truths and which of them count, as `metric.decide` does, but all of them and flat."""
    if kind is TargetKind.BINARY:
        predicted = (outputs > (0.0 if scale is Scale.LOGITS else 0.5)).long()
        truth = targets.reshape(predicted.shape).round().long()
        return predicted.flatten(), truth.flatten(), torch.ones_like(truth, dtype=torch.bool).flatten()
    predicted = outputs.argmax(1)
    truth = targets.argmax(1) if kind is TargetKind.ONE_HOT else targets.reshape(predicted.shape).long()
    kept = (truth >= 0) & (truth < outputs.shape[1])
    kept = kept & (truth != ignored) if ignored >= 0 else kept
    return predicted.flatten(), truth.flatten(), kept.flatten()


def _probability(scores: torch.Tensor, scale: Scale) -> torch.Tensor:
    if scores.dim() == 1 or scores.shape[1] == 1:
        p = scores.sigmoid() if scale is Scale.LOGITS else scores.clamp(0, 1)
        return torch.maximum(p, 1 - p).flatten()
    if not scores.is_cuda and bool(scores.min() < 0):
        return scores.softmax(1).amax(1).flatten()
    # Rows that are non-negative and sum to one are probabilities, whatever the loss believes.
    whole = (scores >= 0).all() & ((scores.sum(1) - 1).abs() <= _WHOLE).all()
    return torch.where(whole, scores, scores.softmax(1)).amax(1).flatten()
