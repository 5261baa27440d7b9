"""The one file that touches live tensors to watch a run; everything behind it gets plain numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from remedy.spaces.metric import decide
from remedy.spaces.objective import IGNORED, Scale, TargetKind
from remedy.spaces.parts import Parts
from remedy.workers.observation import Activation, Layer, Outputs

_SURE = 1e-6
_MATRIX = 2
_SNAPSHOT_LIMIT = 10_000_000
_RELU_MODULES = (nn.ReLU, nn.ReLU6)
_RELU_CALLS = {torch.relu, torch.Tensor.relu, F.relu, F.relu6}


def describe(
    outputs: torch.Tensor, targets: torch.Tensor, kind: TargetKind, scale: Scale, ignored: int = IGNORED
) -> Outputs:
    """Return the statistics of a set of predictions, computed in float32.

    `scale` says what the loss takes the outputs for; outputs whose rows are non-negative and sum to one are taken for
    probabilities whatever the loss believes (a softmax fed into a loss that expects logits).
    """
    scores = outputs.detach().float()
    finite = bool(torch.isfinite(scores).all())
    rows = scores.reshape(len(scores), -1) if scores.dim() > 1 else scores.reshape(-1, 1)
    center = rows - rows.mean(0, keepdim=True)
    size = float(rows.square().mean().sqrt())
    input_spread = float(center.square().mean().sqrt()) / size if size > 0 else 0.0
    class_spread = float(rows.std(1).mean()) if rows.shape[1] > 1 else 0.0
    if kind in (TargetKind.REAL, TargetKind.MULTI_LABEL) or not finite:
        accuracy = 0.0 if kind is not TargetKind.REAL and not finite else math.nan
        return Outputs(
            len(scores), accuracy, math.nan, -1, math.nan, math.nan, math.nan, class_spread, input_spread, finite
        )
    predicted, truth = decide(outputs.detach(), targets, kind, scale, ignored)
    shares = torch.bincount(predicted.clamp(min=0)).float() / max(1, len(predicted))
    top, sure, wrong = shares.max(0), _probability(scores, scale), predicted != truth
    saturated = (sure.reshape(-1) >= 1 - _SURE)[: len(wrong)] if len(sure.reshape(-1)) == len(wrong) else wrong[:0]
    return Outputs(
        count=len(truth),
        accuracy=float((predicted == truth).float().mean()) if len(truth) else math.nan,
        top_share=float(top.values),
        top_class=int(top.indices),
        prediction_entropy=float(-(shares * shares.clamp(min=1e-12).log()).sum()),
        top_probability=float(sure.mean()),
        saturated_wrong=float((saturated & wrong).float().mean()) if len(saturated) else math.nan,
        class_spread=class_spread,
        input_spread=input_spread,
        finite=finite,
    )


def _probability(scores: torch.Tensor, scale: Scale) -> torch.Tensor:
    if scores.dim() == 1 or scores.shape[1] == 1:
        p = scores.sigmoid() if scale is Scale.LOGITS else scores.clamp(0, 1)
        return torch.maximum(p, 1 - p).flatten()
    whole = (scores >= 0).all() and torch.allclose(scores.sum(1), torch.ones_like(scores[:1].sum(1)), atol=1e-3)
    return (scores if whole else scores.softmax(1)).amax(1)


class Probe:
    """Reads gradients, updates and activations of one run. It never changes anything."""

    def __init__(self, parts: Parts) -> None:
        """Look at the parts once: which parameters are weights, which modules are ReLU-like."""
        self._model = parts.model
        named = [(name, p) for name, p in parts.model.named_parameters() if p.requires_grad]
        self._weights = [(name, p) for name, p in named if p.dim() >= _MATRIX]
        self._parameters = [p for _, p in named]
        self._snapshots = sum(p.numel() for _, p in self._weights) <= _SNAPSHOT_LIMIT
        self._before: list[torch.Tensor] = []
        relus = ((name, m) for name, m in parts.model.named_modules() if isinstance(m, _RELU_MODULES))
        self._relus = {f"{name} ({type(m).__name__})": m for name, m in relus}

    @torch.no_grad()
    def gradients(self) -> tuple[float, list[tuple[float, float]]]:
        """Return the global gradient norm, and (norm, share of exact zeros) of each weight, after the backward pass."""
        grads = [p.grad.to_dense() if p.grad.is_sparse else p.grad for p in self._parameters if p.grad is not None]
        if not grads:
            return 0.0, [(0.0, 1.0) for _ in self._weights]
        norms = torch.stack([g.detach().norm() for g in grads])
        each = [
            torch.stack([g.norm(), (g == 0).float().mean()]) if (g := p.grad) is not None else torch.tensor([0.0, 1.0])
            for _, p in self._weights
        ]
        if self._snapshots:
            self._before = [p.detach().clone() for _, p in self._weights]
        table = torch.stack([e.to(norms.device) for e in each]).tolist() if each else []
        return float(norms.norm()), [(row[0], row[1]) for row in table]

    @torch.no_grad()
    def layers(self, seen: list[tuple[float, float]]) -> tuple[tuple[Layer, ...], bool]:
        """Return the layers, with the update that the step made, and whether all parameters are finite after it."""
        ratios = [math.nan] * len(self._weights)
        if self._before:
            pairs = zip(self._weights, self._before, strict=True)
            stacked = [torch.stack([(p - old).norm(), old.norm()]) for (_, p), old in pairs]
            ratios = [moved / size if size > 0 else math.nan for moved, size in torch.stack(stacked).tolist()]
            self._before = []
        finite = bool(torch.stack([p.detach().sum() for p in self._parameters]).isfinite().all())
        layers = tuple(
            Layer(name, norm, zero, ratio)
            for (name, _), (norm, zero), ratio in zip(self._weights, seen, ratios, strict=True)
        )
        return layers, finite

    @contextmanager
    def activations(self, into: list[Activation]) -> Iterator[None]:
        """Watch ReLU-like activations during a validation pass; fills `into` with the dead share of each."""
        ever: dict[str, torch.Tensor] = {}
        try:
            with self.watching(ever):
                yield
        finally:
            into += dead_shares(ever)

    @contextmanager
    def watching(self, ever: dict[str, torch.Tensor]) -> Iterator[None]:
        """Note in `ever` which units of ReLU-like activations are not zero at some sample."""

        def note(name: str, output: Any) -> None:
            if isinstance(output, torch.Tensor) and output.dim() > 1:
                active = (output.detach() != 0).flatten(1).any(0)
                ever[name] = ever[name] | active if name in ever and ever[name].shape == active.shape else active

        handles = [
            module.register_forward_hook(lambda _m, _i, output, name=name: note(name, output))
            for name, module in self._relus.items()
        ]
        try:
            if self._relus:
                yield
            else:
                calls = _Calls(note)
                handles.append(self._model.register_forward_pre_hook(lambda *_: calls.restart()))
                with calls:
                    yield
        finally:
            for handle in handles:
                handle.remove()


def dead_shares(ever: dict[str, torch.Tensor]) -> list[Activation]:
    """Return the share of units of each activation that were zero at every sample."""
    return [Activation(name, 1 - float(active.float().mean())) for name, active in ever.items()]


class _Calls(TorchFunctionMode):
    """Notes the results of functional ReLUs, by their place among the calls of one forward pass."""

    def __init__(self, note: Any) -> None:
        super().__init__()
        self._note = note
        self._count = 0

    def restart(self) -> None:
        self._count = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in _RELU_CALLS:
            self._count += 1
            self._note(f"relu call {self._count}", result)
        return result
