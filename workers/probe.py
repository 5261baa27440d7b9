"""The one file that touches live tensors to watch a run; everything behind it gets plain numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from remedy.spaces.objective import IGNORED, Scale, TargetKind
from remedy.spaces.parts import Parts
from remedy.workers.observation import Activation, Layer, Outputs
from remedy.workers.statistics import figures, read

_MATRIX = 2
_COUNTED = 1 << 14
_NEARLY = 0.9999
_SNAPSHOT_LIMIT, _FEW = 10_000_000, 1 << 14
_RELU_MODULES = (nn.ReLU, nn.ReLU6)
_RELU_CALLS = {torch.relu, torch.Tensor.relu, F.relu, F.relu6}


def describe(
    outputs: torch.Tensor, targets: torch.Tensor, kind: TargetKind, scale: Scale, ignored: int = IGNORED
) -> Outputs:
    """Return the statistics of a set of predictions, computed in float32.

    `scale` says what the loss takes the outputs for; outputs whose rows are non-negative and sum to one are taken for
    probabilities whatever the loss believes (a softmax fed into a loss that expects logits).
    """
    return read(figures(outputs, targets, kind, scale, ignored).tolist(), kind, len(outputs))


class Probe:
    """Reads gradients, updates and activations of one run. It never changes anything."""

    def __init__(self, parts: Parts) -> None:
        """Look at the parts once: which parameters are weights, which modules are ReLU-like."""
        self._model = parts.model
        named = [(name, p) for name, p in parts.model.named_parameters() if p.requires_grad]
        self._weights = [(name, p) for name, p in named if p.dim() >= _MATRIX]
        self._parameters = [p for _, p in named]
        self._places = [place for place, (_, p) in enumerate(named) if p.dim() >= _MATRIX]
        self._numbers = sum(p.numel() for _, p in self._weights)
        self._before: list[torch.Tensor] = []  # made once: fresh memory takes longer than what is written to it
        self._snapped = False
        relus = ((name, m) for name, m in parts.model.named_modules() if isinstance(m, _RELU_MODULES))
        self._relus = {f"{name} ({type(m).__name__})": m for name, m in relus}

    @torch.no_grad()
    def gradients(self, *, snapshot: bool = False) -> torch.Tensor:
        """Return, after the backward pass: the global norm, then each weight's norm and share that is not zero.

        A share is counted in full where the norm is 0, and on a GPU; elsewhere, since counting takes ten times as long
        as the norm, on every so manyth entry of a large weight. `snapshot` keeps the weights, so that `moved` can
        say how far the step moves them; that of a few costs next to nothing, and they are kept always.
        """
        held = {place: _dense(p.grad) for place, p in enumerate(self._parameters) if p.grad is not None}
        numbers, limit = self._numbers, _SNAPSHOT_LIMIT if snapshot else _FEW
        self._snapped = bool(self._weights) and numbers <= limit
        if self._snapped:
            self._snap()
        device = self._parameters[0].device if self._parameters else torch.device("cpu")
        nothing = torch.zeros((), device=device)
        if not held:
            return nothing.expand(1 + 2 * len(self._weights))
        norms = dict(zip(held, _norms(list(held.values())), strict=True))
        own = [norms.get(place, nothing) for place in self._places]
        shares = [_share(held[place], norms[place]) if place in held else nothing for place in self._places]
        total = torch.linalg.vector_norm(torch.stack([norm.to(device) for norm in norms.values()]))
        return torch.stack([one.to(device) for one in (total, *own, *shares)])

    @torch.no_grad()
    def moved(self) -> torch.Tensor:
        """Return, after the step, whether all parameters are finite, and where a snapshot was kept how far it moved."""
        if not self._parameters:
            return torch.ones(1)
        device = self._parameters[0].device
        # Sums: norms would overflow sooner.
        sums = torch.stack([p.detach().sum().to(device) for p in self._parameters])
        told = [sums.sum().isfinite()]
        if self._snapped:
            sizes = _norms(self._before)
            torch._foreach_sub_(self._before, [p.detach() for _, p in self._weights])
            told += [*_norms(self._before), *sizes]
            self._snapped = False
        return torch.stack([one.float().to(device) for one in told])

    def _snap(self) -> None:
        weights = [p.detach() for _, p in self._weights]
        if [kept.shape for kept in self._before] == [weight.shape for weight in weights]:
            torch._foreach_copy_(self._before, weights)
        else:  # the first, or a script has grown its weights
            self._before = [weight.clone() for weight in weights]

    def layers(self, gradients: Sequence[float], moved: Sequence[float]) -> tuple[tuple[Layer, ...], bool]:
        """Return the layers, and whether all parameters are finite, from the figures of `gradients` and `moved`."""
        count = len(self._weights)
        norms, shares = gradients[1 : 1 + count], gradients[1 + count :]
        finite, steps, sizes = moved[0], moved[1 : 1 + count], moved[1 + count :]
        ratios = [step / size if size > 0 else math.nan for step, size in zip(steps, sizes, strict=True)]
        layers = tuple(
            # Only what is exactly 0 throughout is wholly zero, however rounded.
            Layer(name, norm, 1.0 if share == 0 else min(1 - share, _NEARLY), ratio)
            for (name, _), norm, share, ratio in zip(
                self._weights, norms, shares, ratios or [math.nan] * count, strict=True
            )
        )
        return layers, bool(finite)

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


def _dense(gradient: torch.Tensor) -> torch.Tensor:
    return gradient.detach().to_dense() if gradient.is_sparse else gradient.detach()


def _norms(tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    """Return the 2-norm of each, in one call."""
    return list(torch._foreach_norm(tensors))  # noqa: SLF001  (torch's own clip_grad_norm_ stands on it)


def _share(gradient: torch.Tensor, norm: torch.Tensor) -> torch.Tensor:
    """Return the share of entries that are not exactly 0; 0 only where all of them are."""
    if gradient.is_cuda or gradient.numel() <= _COUNTED or not bool(norm):
        return gradient.count_nonzero() / gradient.numel()
    # An odd stride, so that it does not always meet the same columns.
    some = gradient.reshape(-1)[:: gradient.numel() // _COUNTED | 1]
    return (some.count_nonzero() / some.numel()).clamp(min=1 / gradient.numel())


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
