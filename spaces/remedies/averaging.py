"""Remedies that judge the run by an average of its weights."""

from __future__ import annotations

from torch.optim.swa_utils import get_ema_multi_avg_fn, get_swa_multi_avg_fn

from remedy.spaces.averaging import SOURCES, Averaging
from remedy.spaces.distribution import Float
from remedy.spaces.facts import Facts
from remedy.spaces.python import Python
from remedy.spaces.remedy import Change, Inapplicable, Remedy, remedy
from remedy.spaces.slot import Slot


@remedy(
    Slot.AVERAGING,
    treats=("accuracy_collapse", "generalisation_gap"),
    invasiveness=2,
    source="Polyak & Juditsky 1992; torch AveragedModel; catalogue R91",
    share=Float(0.005, 0.2, log=True),
    python=Python(
        define=SOURCES,
        optimizer="averaging = Averaging(torch.optim.swa_utils.get_ema_multi_avg_fn(1 - 1 / max(2.0, $share * steps)))",
        after_step="averaging.update(model)",
        judged="averaging.in_force(model)",
    ),
)
def ema_weights(averaging: Averaging | None, *, share: float = 0.05, facts: Facts) -> Change:
    """Judges the model by a moving average of its weights, whose length is a share of the budget."""
    _none_yet(averaging)
    decay = 1 - 1 / max(2.0, share * facts.steps)
    made = Averaging(get_ema_multi_avg_fn(decay))  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return Change(made, f"validated with a moving average of all weights, decay {decay:.4g} a step")


@remedy(
    Slot.AVERAGING,
    treats=("accuracy_collapse", "generalisation_gap"),
    invasiveness=2,
    source="Izmailov et al. 2018 (SWA); torch swa_utils; catalogue R91",
    begin=Float(0.2, 0.9),
    python=Python(
        define=SOURCES,
        optimizer="averaging = Averaging(torch.optim.swa_utils.get_swa_multi_avg_fn(), begin=round($begin * steps))",
        after_step="averaging.update(model)",
        judged="averaging.in_force(model)",
    ),
)
def swa_weights(averaging: Averaging | None, *, begin: float = 0.5, facts: Facts) -> Change:
    """Judges the model by the plain mean of its weights over the last part of the budget."""
    _none_yet(averaging)
    first = round(begin * facts.steps)
    made = Averaging(get_swa_multi_avg_fn(), first)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return Change(made, f"validated with the mean of all weights since step {first} of {facts.steps}")


def _none_yet(averaging: Averaging | None) -> None:
    if averaging is not None:
        raise Inapplicable("the weights are averaged already")


REMEDIES: tuple[Remedy, ...] = (ema_weights, swa_weights)
