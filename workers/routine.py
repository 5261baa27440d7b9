"""Pre-flight checks of a script's own loop: what its first steps do with gradients, modes and targets."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import nn
from torch.amp import GradScaler
from torch.amp.grad_scaler import OptState
from torch.optim import Optimizer

from remedy.workers.finding import Finding

_LOOKED_AT = 20
_NO_GRADIENT = frozenset({"no_gradient", "zero_gradient", "equal_weights", "flat_loss", "optimizer"})
_MOODY = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)  # noqa: SLF001


class Routine:
    """Told of what a loop does, it remembers what is wrong with it.

    Gradients and targets are looked at in the first steps only, the mode of the model at every backward pass.
    """

    def __init__(self, model: nn.Module, optimizer: Optimizer, scaler: GradScaler | None) -> None:
        """Watch what goes into the model, for as long as that is looked at."""
        self._model, self._optimizer, self._scaler = model, optimizer, scaler
        self._weights = [p for p in model.parameters() if p.requires_grad]
        self._moody = any(isinstance(module, _MOODY) for module in model.modules())
        self._handle = model.register_forward_pre_hook(self._entered)
        self._steps = 0
        self._began = self._kept = 0  # backward passes right after a step, and those that found its gradients
        self._after_step = False
        self._cut = False  # of the last loss
        self._empty = self._cut_off = 0  # steps without gradients; those whose outputs hang on no weight
        self._passes = self._resting = 0  # backward passes, and those in evaluation mode
        self._first_rested = False
        self._batch: tuple[torch.Tensor, torch.Tensor] | None = None
        # What model and loss were given of the batch: its inputs, its targets, its targets in another order.
        self._own = self._as_given = self._moved = False
        self._disordered = self._clipped = 0

    @property
    def _looking(self) -> bool:
        return self._steps < _LOOKED_AT

    def delivered(self, batch: Any) -> None:
        """A batch to train on is given."""
        pair = isinstance(batch, tuple | list) and len(batch) == 2 and all(isinstance(x, torch.Tensor) for x in batch)
        self._batch = (batch[0], batch[1]) if pair and self._looking else None

    def _entered(self, _module: nn.Module, args: Any) -> None:
        if self._batch is not None and args and isinstance(args[0], torch.Tensor):
            self._own = self._own or _equal(args[0], self._batch[0])

    def computed(self, outputs: Any, targets: Any) -> None:
        """A loss that has a gradient is computed."""
        if not self._looking:
            return
        self._cut = isinstance(outputs, torch.Tensor) and outputs.grad_fn is None
        if self._batch is not None and isinstance(targets, torch.Tensor):
            given = self._batch[1]
            if _equal(targets, given):
                self._as_given = True
            elif targets.shape == given.shape and _equal(targets.detach().sort(0).values, given.sort(0).values):
                self._moved = True

    def backward(self) -> None:
        """A backward pass begins."""
        self._passes += 1
        if self._moody and not self._model.training:
            self._resting += 1
            self._first_rested = self._first_rested or self._passes == 1
        if self._looking and self._after_step:
            self._began += 1
            self._kept += self._any()
        self._after_step = False

    def clipping(self) -> None:
        """The gradients are about to be clipped."""
        if self._scaler is not None and self._scaler.is_enabled() and self._looking:
            state = self._scaler._per_optimizer_states[id(self._optimizer)]  # noqa: SLF001  (torch tells it nowhere else)
            self._clipped += state["stage"] is OptState.READY and self._any()

    def stepping(self) -> None:
        """The optimizer is about to step."""
        if self._looking:
            self._empty += not self._any()
            self._cut_off += self._cut
            self._disordered += self._own and self._moved and not self._as_given
        self._own = self._as_given = self._moved = False
        self._steps, self._after_step = self._steps + 1, True
        if not self._looking:
            self._handle.remove()

    def _any(self) -> bool:
        return any(p.grad is not None and bool(p.grad.any()) for p in self._weights)

    def findings(self, said: Collection[str]) -> list[Finding]:
        """Return what is wrong; what was `said` of model and loss explains gradients that are missing."""
        looked = min(self._steps, _LOOKED_AT)
        told: list[tuple[str, str, str]] = []
        if self._cut_off == looked > 1:
            message = (
                "the outputs that the loss is given hang on no weight: something between model and loss takes them "
                "out of the graph (detach, .data, numpy, torch.tensor)"
            )
            told.append(("no_gradient", "error", message))
        elif self._empty >= looked - 1 > 0 and self._passes and not _NO_GRADIENT & set(said):
            message = (
                "the optimizer steps without gradients: optimizer.zero_grad() comes after loss.backward() and before "
                "optimizer.step()"
            )
            told.append(("zero_grad", "error", message))
        elif self._began >= 2 and self._kept == self._began:
            message = (
                "the gradients of a step are still there when the next backward pass begins: optimizer.zero_grad() is "
                "missing, so that each step adds up all gradients before it"
            )
            told.append(("zero_grad", "error", message))
        if self._disordered == looked > 0:
            message = (
                "the loss is given a batch's targets in another order than its inputs: they are shuffled apart in the "
                "loop"
            )
            told.append(("shuffled_apart", "error", message))
        if self._clipped:
            message = (
                f"the gradients are clipped while the GradScaler's factor ({self._scale():g}) is still on them, and "
                "next to nothing is left of them: scaler.unscale_(optimizer) comes first"
            )
            told.append(("clipped_scaled", "error", message))
        if self._resting:
            since = "" if self._first_rested else "from the first validation on: model.train() is missing after it; "
            rests = "dropout is off, and batch norm learns no statistics"
            message = f"{self._resting} of {self._passes} backward passes are made in evaluation mode, {since}{rests}"
            told.append(("mode", "warning" if self._first_rested else "error", message))
        return [Finding(*finding) for finding in told]

    def _scale(self) -> float:
        return float(self._scaler.get_scale()) if self._scaler is not None else 1.0


def tell_clipping(ear: Callable[[], None]) -> None:
    """Have torch's own clipping of gradients tell, for whoever imports it from now on."""

    def told(own: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(own)
        def clip(*args: Any, **named: Any) -> Any:
            ear()
            return own(*args, **named)

        return clip

    for name in ("clip_grad_norm_", "clip_grad_value_"):
        setattr(nn.utils, name, told(getattr(nn.utils, name)))


def _equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one.detach().cpu(), other.detach().cpu())
