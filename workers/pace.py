"""How often a run is looked at: as rarely as its size asks for, and more often while something looks wrong.

What a look costs is counted, not timed: a clock would have the same study look at other steps each time, and so record
other curves and other verdicts. Counted are the nodes of the loss's graph, multiply-adds, tensors and numbers; the
figures below turn them into nanoseconds of one core, and of these only the ratio of a look to a step matters.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from remedy.workers.observation import Observation

SAMPLES = 100
LONGEST = 50
SHARE = 0.01
"""Of a step's time, for looks between validations while nothing looks wrong; those at validations take as much."""
_MOST = 4
_EARLY = 0.05
_WARY = 10
_RISEN = 0.1
_QUIET, _LOUD = 0.1, 10.0
_STILL = 1e-6
# Nanoseconds, as benchmarks/overhead.py measures them on one busy core, torch 2.13; only their ratios count.
_NODE, _MULTIPLY, _UPDATE = 70_000, 0.038, 6.2
_LOOK, _TENSOR, _NUMBER = 650_000, 30_000, 0.76


def interval(steps: int) -> int:
    """Return the least steps between two looks: a function of the budget alone."""
    return max(1, min(LONGEST, steps // SAMPLES))


@dataclass
class Price:
    """What a step and a look at it cost, in what can be counted.

    Attributes:
        nodes: of the graph of the loss.
        multiplied: multiply-adds of the forward pass by weights.
        tensors: parameters.
        numbers: in all parameters.
    """

    nodes: int = 0
    multiplied: int = 0
    tensors: int = 0
    numbers: int = 0

    @property
    def ratio(self) -> float:
        """What a look costs, in steps."""
        step = _NODE * self.nodes + 3 * _MULTIPLY * self.multiplied + _UPDATE * self.numbers
        look = _LOOK + _TENSOR * self.tensors + _NUMBER * self.numbers
        return look / step if step else 0.0

    @classmethod
    @contextmanager
    def counting(cls, model: nn.Module) -> Iterator[Price]:
        """Count a forward pass of the model; `of` counts the loss it ends in."""
        known = [p for p in model.parameters() if p.requires_grad]
        price = cls(tensors=len(known), numbers=sum(p.numel() for p in known))

        def passed(module: nn.Module, _inputs: Any, output: Any) -> None:
            if not torch.is_grad_enabled() or not isinstance(output, torch.Tensor) or isinstance(module, nn.Embedding):
                return
            weights = [p for p in module.parameters(recurse=False) if p.dim() > 1]
            price.multiplied += sum(output.numel() * math.prod(w.shape[1:]) for w in weights)

        own = [m for m in model.modules() if any(p.dim() > 1 for p in m.parameters(recurse=False))]
        handles = [module.register_forward_hook(passed) for module in own]
        try:
            yield price
        finally:
            for handle in handles:
                handle.remove()

    def of(self, loss: Any) -> Price:
        """Count the graph of the loss, too, that the forward pass ended in."""
        seen, waiting = set(), [getattr(loss, "grad_fn", None)]
        while waiting:
            node = waiting.pop()
            if node is not None and node not in seen:
                seen.add(node)
                waiting += [following for following, _ in node.next_functions]
        self.nodes = len(seen)
        return self


@dataclass
class Pace:
    """Decides step by step whether it is looked at. A function of what was seen, so that records repeat.

    `every` is what the size of the training asks for while nothing looks wrong; 0 until it is known.
    """

    steps: int
    every: int = 0
    _last: int = 0
    _wary: int = 0
    _first: float = math.nan
    _least: float = math.inf
    _norms: list[float] = field(default_factory=list)

    @property
    def dense(self) -> int:
        """Steps between two looks where something looks wrong."""
        return interval(self.steps)

    def settle(self, price: Price) -> None:
        """Choose how rarely it is looked at."""
        if not self.every:
            self.every = min(_MOST * self.dense, max(self.dense, math.ceil(price.ratio / SHARE)))

    def close(self, step: int) -> bool:
        """Whether the run is looked at closely: at its beginning, and while something looks wrong."""
        return self._wary > 0 or step <= _EARLY * self.steps

    def due(self, step: int) -> bool:
        """Whether the step is looked at."""
        if step in (1, self.steps):
            return True
        return step % self.dense == 0 and (self.close(step) or step - self._last >= self.every)

    def see(self, seen: Observation) -> None:
        """Take a look into account."""
        self._last = seen.step
        self._wary = _WARY if self._odd(seen) else max(0, self._wary - 1)

    def _odd(self, seen: Observation) -> bool:
        loss, norm = seen.mean_loss, seen.gradient_norm
        if not math.isfinite(loss) or not math.isfinite(seen.loss) or not seen.finite_parameters:
            return True
        if math.isnan(self._first):
            self._first = loss
        self._least = min(self._least, loss)
        # It has lost a tenth of what it had gained; what has gained next to nothing is judged by its beginning.
        odd = loss > self._least + _RISEN * max(self._first - self._least, abs(self._first) / 2)
        usual = sorted(self._norms)[len(self._norms) // 2] if self._norms else norm
        # A gradient that shrinks while the loss is still high is no sign of having learnt.
        odd = odd or not norm <= _LOUD * usual or (norm < _QUIET * usual and loss > self._first / 2)
        self._norms = [*self._norms[1 - LONGEST :], norm]
        # NaN, where it was not measured, is not below anything.
        still = any(layer.update_ratio < _STILL for layer in seen.layers)
        return odd or still or any(layer.zero_share >= 1 for layer in seen.layers)
