"""What a script's own validation shows: outputs, with targets as far as they are known, and dead units."""

from __future__ import annotations

import dataclasses
import math
from contextlib import ExitStack
from typing import Any

import torch

from remedy.spaces.metric import decide
from remedy.spaces.objective import TargetKind
from remedy.spaces.parts import Parts
from remedy.workers.loop import KEPT
from remedy.workers.observation import Activation, Outputs
from remedy.workers.probe import Probe, dead_shares, describe

Pairs = list[tuple[torch.Tensor, torch.Tensor]]


class Evaluation:
    """Gathers what the model gives out while it is not trained, until the script reports.

    Targets are known where the loss is computed, or where the batch comes from a prepared DataLoader for validation.
    """

    def __init__(self, parts: Parts, probe: Probe, *, by_loader: bool) -> None:
        """Look at every forward pass that is none of training."""
        self._parts, self._probe, self._by_loader = parts, probe, by_loader
        self._inside: list[ExitStack] = []
        self.clear()
        parts.model.register_forward_pre_hook(lambda *_: self._enter())
        parts.model.register_forward_hook(lambda _m, _i, outputs: self._leave(outputs), always_call=True)

    @property
    def under_way(self) -> bool:
        """Whether the model is judged now, and not trained."""
        return not (self._parts.model.training and torch.is_grad_enabled())

    def clear(self) -> None:
        """Forget, once training goes on."""
        self._targets: torch.Tensor | None = None
        self._delivered: Pairs = []
        self._computed: Pairs = []
        self._alone: list[torch.Tensor] = []
        self._ever: dict[str, torch.Tensor] = {}

    def delivered(self, targets: Any) -> None:
        """Take note of the targets of the batch that comes next."""
        self._targets = targets if isinstance(targets, torch.Tensor) else None

    def computed(self, outputs: Any, targets: Any) -> None:
        """Take note of what a loss was computed of."""
        if isinstance(outputs, torch.Tensor) and isinstance(targets, torch.Tensor):
            _keep(self._computed, outputs, targets)

    def statistics(self) -> tuple[Outputs | None, tuple[Activation, ...]]:
        """Return what was seen since the last step."""
        return self._outputs(), tuple(dead_shares(self._ever))

    def _outputs(self) -> Outputs | None:
        facts, criterion = self._parts.facts, self._parts.original
        for pairs in (self._delivered, self._computed):
            if pairs:
                outputs, targets = torch.cat([o for o, _ in pairs]), torch.cat([t for _, t in pairs])
                shown = described(self._parts, outputs, targets)
                if shown is not None:
                    return shown
        if not self._alone or facts.kind in (TargetKind.REAL, TargetKind.MULTI_LABEL):
            return None
        outputs = torch.cat(self._alone)
        stand_in = torch.zeros(outputs.shape[:1] + outputs.shape[2:], dtype=torch.long, device=outputs.device)
        predicted, _ = decide(outputs, stand_in, TargetKind.CLASS_INDEX, criterion.scale, criterion.ignored)
        shown = described(self._parts, outputs, predicted.reshape(stand_in.shape)) if len(predicted) else None
        # What is predicted is known, not whether it is right.
        return shown and dataclasses.replace(shown, accuracy=math.nan, saturated_wrong=math.nan)

    def _enter(self) -> None:
        stack = ExitStack()
        if self.under_way and not self._inside:
            stack.enter_context(self._probe.watching(self._ever))
        self._inside.append(stack)

    def _leave(self, outputs: Any) -> None:
        if not self._inside:
            return
        self._inside.pop().close()
        if not self.under_way or self._inside or not isinstance(outputs, torch.Tensor):
            return
        targets, self._targets = self._targets, None
        if self._by_loader:
            if targets is not None and len(targets) == len(outputs):
                _keep(self._delivered, outputs, targets.to(outputs.device))
        elif outputs.dim() > 1 and sum(map(len, self._alone)) < KEPT:
            self._alone += [outputs.detach()] if not self._alone or _alike(outputs, self._alone[0]) else []


def described(parts: Parts, outputs: Any, targets: Any) -> Outputs | None:
    """Return the statistics of a set of predictions; None where they are of a shape that nothing is known of."""
    if not isinstance(outputs, torch.Tensor) or not isinstance(targets, torch.Tensor) or not outputs.dim():
        return None
    try:
        return describe(outputs.detach(), targets, parts.facts.kind, parts.original.scale, parts.original.ignored)
    except (RuntimeError, IndexError, ValueError):  # a script may give its loss anything
        return None


def _keep(pairs: Pairs, outputs: torch.Tensor, targets: torch.Tensor) -> None:
    same = not pairs or (_alike(outputs, pairs[0][0]) and _alike(targets, pairs[0][1]))
    if same and outputs.dim() and targets.dim() and len(pairs) * len(targets) < KEPT:
        pairs.append((outputs.detach(), targets.detach()))


def _alike(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.shape[1:] == other.shape[1:]
