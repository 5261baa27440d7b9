"""The parameters of a script's model that the optimizer it handed over does not hold: nobody else may train them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn
from torch.optim import Optimizer

from remedy.spaces.error import InputError

_NAMED = 3


@dataclass(frozen=True)
class Untended:
    """Those parameters, as they were."""

    model: nn.Module
    before: Mapping[str, torch.Tensor]

    @classmethod
    def of(cls, model: nn.Module, optimizer: Optimizer) -> Untended:
        """Keep a copy of each."""
        held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        named = model.named_parameters()
        return cls(model, {name: p.detach().clone() for name, p in named if p.requires_grad and id(p) not in held})

    def refuse_trained(self) -> None:
        """Refuse a script that trains them all the same.

        Raises:
            InputError: one has changed.
        """
        now = dict(self.model.named_parameters())
        changed = [name for name, old in self.before.items() if name in now and _differs(old, now[name])]
        if changed:
            names = ", ".join(changed[:_NAMED]) + (", ..." if len(changed) > _NAMED else "")
            raise InputError(
                f"{names}: trained past the optimizer that remedy.prepare was given, by a second one, say; it may be "
                "given one that holds all that is trained"
            )


def _differs(old: torch.Tensor, new: torch.Tensor) -> bool:
    return not torch.equal(old, new.detach().to(old.device))
