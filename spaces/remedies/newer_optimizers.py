"""Remedies that exchange the optimizer for a younger one."""

from __future__ import annotations

from functools import partial

import torch
from torch.optim import NAdam, Optimizer, RAdam

from remedy.spaces.distribution import Choice, Float
from remedy.spaces.facts import Facts
from remedy.spaces.groups import last_layer
from remedy.spaces.lion import Lion
from remedy.spaces.muon import MuonAdamW
from remedy.spaces.remedies.optimizer import exchanged, rebuilt
from remedy.spaces.remedy import Change, Inapplicable, Remedy, remedy
from remedy.spaces.slot import Slot
from remedy.spaces.stable_adamw import StableAdamW

_TREATS = ("chance_plateau", "accuracy_collapse", "dead_units", "vanishing_gradient")


@remedy(
    Slot.OPTIMIZER,
    treats=("exploding_gradient", "accuracy_collapse", "dead_units"),
    invasiveness=2,
    source="Liu et al. 2020 (RAdam); catalogue R59",
    lr=Float(1e-5, 1e-1, log=True),
    python=rebuilt("torch.optim.RAdam"),
)
def radam(optimizer: Optimizer, *, lr: float = 1e-3) -> Change:
    """Steps by RAdam: Adam that waits with its scaling until it has seen enough gradients."""
    _refuse(optimizer, RAdam)
    return exchanged(optimizer, RAdam, lr=lr)


@remedy(
    Slot.OPTIMIZER,
    treats=_TREATS,
    invasiveness=2,
    source="Dozat 2016 (NAdam); catalogue R59",
    lr=Float(1e-5, 1e-1, log=True),
    python=rebuilt("torch.optim.NAdam"),
)
def nadam(optimizer: Optimizer, *, lr: float = 1e-3) -> Change:
    """Steps by NAdam: Adam with Nesterov's momentum."""
    _refuse(optimizer, NAdam)
    return exchanged(optimizer, NAdam, lr=lr)


@remedy(
    Slot.OPTIMIZER,
    treats=_TREATS,
    invasiveness=2,
    source="Shazeer & Stern 2018 (Adafactor); catalogue R59",
    lr=Float(1e-4, 1e-1, log=True),
    python=rebuilt("torch.optim.Adafactor"),
)
def adafactor(optimizer: Optimizer, *, lr: float = 1e-2) -> Change:
    """Steps by Adafactor: rates relative to the size of the weights, updates clipped."""
    kind = getattr(torch.optim, "Adafactor", None)
    if kind is None:
        raise Inapplicable(f"torch {torch.__version__} has no Adafactor")
    _refuse(optimizer, kind)
    return exchanged(optimizer, kind, lr=lr)


@remedy(
    Slot.OPTIMIZER,
    treats=("accuracy_collapse", "exploding_gradient", "class_takeover", "stale_moments"),
    invasiveness=2,
    source="Wortsman et al. 2023 (StableAdamW); catalogue R58",
    lr=Float(1e-5, 1e-1, log=True),
    beta2=Choice(0.95, 0.99, 0.999),
    python=rebuilt("StableAdamW", StableAdamW),
)
def stable_adamw(optimizer: Optimizer, *, lr: float = 1e-3, beta2: float = 0.99) -> Change:
    """Steps by AdamW with its update clipped where a gradient is larger than its past foretold."""
    return exchanged(optimizer, StableAdamW, lr=lr, betas=(0.9, beta2))


@remedy(
    Slot.OPTIMIZER,
    treats=_TREATS,
    invasiveness=2,
    source="Chen et al. 2023 (Lion); catalogue R61",
    lr=Float(1e-5, 1e-2, log=True),
    python=rebuilt("Lion", Lion),
)
def lion(optimizer: Optimizer, *, lr: float = 1e-3) -> Change:
    """Steps by Lion: every weight moves by the learning rate, whatever the size of its gradient."""
    return exchanged(optimizer, Lion, lr=lr)


@remedy(
    Slot.OPTIMIZER,
    treats=_TREATS,
    invasiveness=2,
    source="Jordan et al. 2024; torch Muon; catalogue R61",
    lr=Float(1e-4, 1e-1, log=True),
    python=rebuilt("MuonAdamW", last_layer, MuonAdamW, more=", by_adamw=last_layer(model)"),
)
def muon(optimizer: Optimizer, *, lr: float = 3e-3, facts: Facts) -> Change:
    """Steps by Muon where a matrix lies inside the model, by AdamW everywhere else."""
    if not hasattr(torch.optim, "Muon"):
        raise Inapplicable(f"torch {torch.__version__} has no Muon")
    spared = last_layer(facts.model) if facts.model is not None else set()
    every = [p for group in optimizer.param_groups for p in group["params"]]
    count = sum(p.dim() == 2 and p not in spared for p in every)
    if not count:
        raise Inapplicable("no layer but the last has a matrix of weights")
    made = exchanged(optimizer, partial(MuonAdamW, by_adamw=spared), lr=lr)
    return Change(
        made.value, f"{made.receipt}; Muon for {count} matrices, AdamW for {len(every) - count} others", made.told
    )


def _refuse(optimizer: Optimizer, kind: type[Optimizer]) -> None:
    if type(optimizer) is kind:
        raise Inapplicable(f"the optimizer already is {kind.__name__}")


REMEDIES: tuple[Remedy, ...] = (radam, nadam, adafactor, stable_adamw, lion, muon)
