"""One look at how the untouched model takes a batch: its signals, its gradients, its outputs, as plain numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from remedy.spaces.parts import Parts
from remedy.spaces.surgery import Weighted
from remedy.workers.double import Double, steady
from remedy.workers.probe import Probe, dead_shares

_ROWS = 16


@dataclass(frozen=True)
class Glance:
    """What a batch shows of a double of the untouched training, in training mode without dropout.

    Attributes:
        outputs: the model's outputs.
        loss_dtype: of the loss.
        gradients: parameter -> norm of its gradient; None where none arrives.
        closed: some branch is multiplied by zero at the start, as zero-initialised branches are.
        spreads: layer -> standard deviation over the samples of what it gives, the mean of its units.
        sizes: layer -> the root mean square of what it gives.
        entering: standard deviation of what the first layer is given; None where it is no floating tensor.
        dead: ReLU-like activation -> share of units that are zero for every sample.
        custom: functions in the graph whose gradient is written by hand.
        mixing: how much the outputs of a sample change in evaluation mode with the other samples of its batch, in
            parts of their spread; None where nothing is known.
    """

    outputs: torch.Tensor
    loss_dtype: torch.dtype
    gradients: dict[str, float | None]
    closed: bool
    spreads: dict[str, float]
    sizes: dict[str, float]
    entering: float | None
    dead: dict[str, float]
    custom: tuple[str, ...]
    mixing: float | None

    @classmethod
    def of(cls, parts: Parts) -> Glance:
        """Push the probe batch through, forwards and backwards."""
        double = Double.of(parts).without_dropout()
        facts, device = parts.facts, parts.device
        inputs, targets = facts.inputs.to(device), facts.targets.detach().to(device)
        ever: dict[str, torch.Tensor] = {}
        seen = _Signals()
        with steady(), seen.watching(double.model), Probe(_on(parts, double)).watching(ever):
            outputs, loss = double.loss(inputs, targets)
        custom = _custom(loss)
        for parameter in double.model.parameters():
            parameter.grad = None
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        named = [(name, p) for name, p in double.model.named_parameters() if p.requires_grad]
        return cls(
            outputs.detach().float().cpu(),
            loss.dtype,
            {name: None if p.grad is None else float(p.grad.detach().float().norm()) for name, p in named},
            any(not bool(p.detach().any()) for name, p in named if not name.endswith("bias")),
            seen.spreads,
            seen.sizes,
            seen.entering,
            {shown.name: shown.dead_share for shown in dead_shares(ever)},
            custom,
            _mixing(double, inputs),
        )


def _on(parts: Parts, double: Double) -> Any:
    """Return what a probe needs of parts, of the double."""
    return type("Doubled", (), {"model": double.model, "parts": parts})


@dataclass
class _Signals:
    spreads: dict[str, float] = field(default_factory=dict)
    sizes: dict[str, float] = field(default_factory=dict)
    entering: float | None = None

    @contextmanager
    def watching(self, model: nn.Module) -> Iterator[None]:
        layers = [(path, m) for path, m in model.named_modules() if isinstance(m, Weighted)]
        handles = [m.register_forward_hook(self._noting(path)) for path, m in layers]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _noting(self, path: str) -> Any:
        def note(_module: nn.Module, args: Any, output: Any) -> None:
            if not isinstance(output, torch.Tensor) or len(output) < 2:
                return
            if not self.sizes and args and isinstance(args[0], torch.Tensor):
                self.entering = float(args[0].detach().float().std())
            out = output.detach().float()
            self.spreads[path] = float(out.std(0).mean())
            self.sizes[path] = float(out.square().mean().sqrt())

        return note


def _custom(loss: torch.Tensor) -> tuple[str, ...]:
    """Return the names of the functions in the graph that have a backward pass written in Python."""
    found: dict[str, None] = {}
    nodes, known = [loss.grad_fn], set()
    while nodes:
        node = nodes.pop()
        if node is None or node in known:
            continue
        known.add(node)
        if isinstance(node, torch.autograd.function.BackwardCFunction):
            found[type(node).__name__.removesuffix("Backward")] = None
        nodes += [before for before, _ in node.next_functions]
    return tuple(found)


@torch.no_grad()
def _mixing(double: Double, inputs: torch.Tensor) -> float | None:
    """Compare a sample's outputs beside some samples with those beside others."""
    half = min(_ROWS, len(inputs) // 2)
    norms = [m for m in double.model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]  # noqa: SLF001
    if half < 2 or any(norm.running_mean is None for norm in norms):
        return None
    double.model.eval()
    own, other = inputs[:half], inputs[half : 2 * half].clone()
    middle = half // 2  # what takes the batch for the time may look at what came before only
    other[middle] = own[middle]
    first, again, beside = (double.model(batch).float() for batch in (own, own, other))
    double.model.train()
    spread = float((first - first.mean(0)).abs().max())
    if spread == 0 or not torch.equal(first, again):
        return None
    return float((first[middle] - beside[middle]).abs().max()) / spread
