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
_NORMS = (
    nn.modules.batchnorm._BatchNorm,  # noqa: SLF001
    nn.modules.instancenorm._InstanceNorm,  # noqa: SLF001
    nn.GroupNorm,
    nn.LayerNorm,
    nn.RMSNorm,
)
_MOODY = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)  # noqa: SLF001


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
        entering: mean and standard deviation of what the first layer with weights is given; None where it is no
            floating tensor, or a layer that normalises it.
        normalised: that layer does.
        dead: ReLU-like activation -> share of units that are zero for every sample.
        custom: functions in the graph whose gradient is written by hand.
        asleep, awake: dropout and batch norm that the forward pass itself has put into evaluation mode in training,
            and into training mode in evaluation.
        restless: the same samples have other outputs at each pass in evaluation mode.
        mixing: how much the outputs of a sample change in evaluation mode with the other samples of its batch, in
            parts of their spread; None where nothing is known.
    """

    outputs: torch.Tensor
    loss_dtype: torch.dtype
    gradients: dict[str, float | None]
    closed: bool
    spreads: dict[str, float]
    sizes: dict[str, float]
    entering: tuple[float, float] | None
    normalised: bool
    dead: dict[str, float]
    custom: tuple[str, ...]
    asleep: tuple[str, ...]
    awake: tuple[str, ...]
    restless: bool
    mixing: float | None

    @classmethod
    def of(cls, parts: Parts) -> Glance:
        """Push the probe batch through, forwards and backwards."""
        double = Double.of(parts).without_dropout()
        facts, device = parts.facts, parts.device
        inputs, targets = facts.inputs.to(device), facts.targets.detach().to(device)
        ever: dict[str, torch.Tensor] = {}
        seen, moody = _Signals(), _moody(double.model)
        before = [m for _, m in moody if m.training]
        with steady(), seen.watching(double.model), Probe(_on(parts, double)).watching(ever):
            outputs, loss = double.loss(inputs, targets)
        custom = _custom(loss)
        asleep = tuple(name for name, m in moody if m in before and not m.training)
        for parameter in double.model.parameters():
            parameter.grad = None
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        named = [(name, p) for name, p in double.model.named_parameters() if p.requires_grad]
        restless, awake, mixing = _evaluated(double, inputs)
        return cls(
            outputs.detach().float().cpu(),
            loss.dtype,
            {name: None if p.grad is None else float(p.grad.detach().float().norm()) for name, p in named},
            any(not bool(p.detach().any()) for name, p in named if not name.endswith("bias")),
            seen.spreads,
            seen.sizes,
            seen.entering,
            seen.normalised,
            {shown.name: shown.dead_share for shown in dead_shares(ever)},
            custom,
            asleep,
            awake,
            restless,
            mixing,
        )


def _on(parts: Parts, double: Double) -> Any:
    """Return what a probe needs of parts, of the double."""
    return type("Doubled", (), {"model": double.model, "parts": parts})


def _moody(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return the modules that do something else in evaluation mode."""
    return [(path, m) for path, m in model.named_modules() if isinstance(m, _MOODY)]


@dataclass
class _Signals:
    spreads: dict[str, float] = field(default_factory=dict)
    sizes: dict[str, float] = field(default_factory=dict)
    entering: tuple[float, float] | None = None
    normalised: bool = False
    begun: bool = False

    @contextmanager
    def watching(self, model: nn.Module) -> Iterator[None]:
        layers = [(path, m) for path, m in model.named_modules() if isinstance(m, Weighted)]
        handles = [m.register_forward_hook(self._noting(path)) for path, m in layers]
        first = [m for m in model.modules() if _has_weights(m)]
        handles += [m.register_forward_pre_hook(self._entered) for m in first]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _entered(self, module: nn.Module, args: Any) -> None:
        if self.begun:
            return
        self.begun, given = True, args[0] if args else None
        self.normalised = isinstance(module, _NORMS)
        if not self.normalised and isinstance(given, torch.Tensor) and given.is_floating_point():
            self.entering = float(given.detach().float().mean()), float(given.detach().float().std())

    def _noting(self, path: str) -> Any:
        def note(_module: nn.Module, _args: Any, output: Any) -> None:
            if not isinstance(output, torch.Tensor) or len(output) < 2:
                return
            out = output.detach().float()
            self.spreads[path] = float(out.std(0).mean())
            self.sizes[path] = float(out.square().mean().sqrt())

        return note


def _has_weights(module: nn.Module) -> bool:
    """Whether it is a layer with parameters, rather than what holds layers."""
    alone = isinstance(module, nn.MultiheadAttention) or next(module.children(), None) is None
    return alone and next(module.parameters(recurse=False), None) is not None


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
def _evaluated(double: Double, inputs: torch.Tensor) -> tuple[bool, tuple[str, ...], float | None]:
    """Look at the model in evaluation mode: is it restless, what is awake, how much are samples mixed?"""
    half = min(_ROWS, len(inputs) // 2)
    moody = _moody(double.model)
    double.model.eval()
    before = [m for _, m in moody if not m.training]
    own = inputs[: max(1, half)]
    first, again = (double.model(own).float() for _ in range(2))
    awake = tuple(name for name, m in moody if m in before and m.training)
    quiet = torch.allclose(first, again, rtol=1e-3, atol=1e-6, equal_nan=True)
    mixing = _mixing(double, inputs, half, first) if quiet and not awake else None
    double.model.train()
    return not quiet and not awake, awake, mixing


def _mixing(double: Double, inputs: torch.Tensor, half: int, first: torch.Tensor) -> float | None:
    """Compare a sample's outputs beside some samples with those beside others."""
    norms = [m for m in double.model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]  # noqa: SLF001
    if half < 2 or any(norm.running_mean is None for norm in norms):
        return None
    own, other = inputs[:half], inputs[half : 2 * half].clone()
    middle = half // 2  # what takes the batch for the time may look at what came before only
    other[middle] = own[middle]
    beside = double.model(other).float()
    spread = float((first - first.mean(0)).abs().max())
    if spread == 0:
        return None
    return float((first[middle] - beside[middle]).abs().max()) / spread
