"""A remedy at run time for units that have stopped to answer: they are drawn anew."""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from remedy.spaces.batches import to_device
from remedy.spaces.distribution import Choice
from remedy.spaces.facts import Facts
from remedy.spaces.parts import Rule
from remedy.spaces.remedy import Change, Inapplicable, Remedy, remedy
from remedy.spaces.slot import Slot
from remedy.spaces.stack import stacks

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


class Redraw:
    """Draws the weights into units that hardly answer to a probe batch anew, and sets those out of them to 0.

    What such units get as a gradient is 0 or near it, so that what an optimizer remembers of them has faded.
    """

    def __init__(self, model: nn.Module, inputs: Any, least: float, every: int, own: Rule | None) -> None:
        """Look at the model every `every` steps; dormant is who answers at most `least` times as much as the mean."""
        self._model, self._inputs, self._least, self._every, self._own = model, inputs, least, every, own
        self._pairs = pairs(model)
        self._steps = 0

    @torch.no_grad()
    def __call__(self, parameters: list[nn.Parameter]) -> None:
        """Let the training's own constraint follow."""
        self._steps += 1
        if self._steps % self._every == 0:
            for (layer, following), scores in zip(self._pairs, self._scores(), strict=True):
                dormant = scores <= self._least * scores.mean()
                fresh = copy.deepcopy(layer)
                fresh.reset_parameters()
                for mine, new in zip(layer.parameters(), fresh.parameters(), strict=True):
                    mine.copy_(torch.where(dormant.reshape(-1, *[1] * (mine.dim() - 1)), new, mine))
                following.weight.mul_(
                    torch.where(dormant, 0.0, 1.0).reshape(1, -1, *[1] * (following.weight.dim() - 2))
                )
        if self._own is not None:
            self._own(parameters)

    def _scores(self) -> list[torch.Tensor]:
        """Return how strongly each unit answers, as what comes into the layer behind it."""
        scores: dict[nn.Module, torch.Tensor] = {}

        def note(layer: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
            size = args[0].abs()
            place = -1 if isinstance(layer, nn.Linear) else 1
            scores[layer] = size.movedim(place, 0).flatten(1).mean(1)

        handles = [following.register_forward_pre_hook(note) for _, following in self._pairs]
        self._model.eval()
        try:
            self._model(to_device(self._inputs, next(self._model.parameters()).device))
        finally:
            self._model.train()
            for handle in handles:
                handle.remove()
        return [scores[following] for _, following in self._pairs]

    def state_dict(self) -> dict[str, Any]:
        """Return what has to be saved; the numbers come from the global generator."""
        return {"steps": self._steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where another one stopped."""
        self._steps = state["steps"]


def pairs(model: nn.Module) -> list[tuple[Any, Any]]:
    """Return the layers of Sequentials with the one behind each, where unit for unit goes into it."""
    found = []
    for blocks in stacks(model):
        for block, following in pairwise(blocks):
            if _unit_for_unit(block.layer, following.layer):
                found.append((block.layer, following.layer))
    return found


def _unit_for_unit(layer: nn.Module, after: nn.Module) -> bool:
    if isinstance(layer, nn.Linear) and isinstance(after, nn.Linear):
        return layer.out_features == after.in_features
    if not isinstance(layer, _CONVOLUTIONS) or not isinstance(after, _CONVOLUTIONS):
        return False
    return type(layer) is type(after) and layer.groups == after.groups == 1


@remedy(
    Slot.WEIGHT_CONSTRAINT,
    treats=("dead_units", "zero_gradient"),
    invasiveness=3,
    source="Sokar et al. 2023 (ReDo); catalogue R51",
    least=Choice(0.0, 0.025, 0.1),
)
def redraw_dormant(rule: Rule | None, *, least: float = 0.025, facts: Facts) -> Change:
    """Draws the weights of dormant units anew, twenty times in the budget."""
    if facts.model is None or not (found := pairs(facts.model)):
        raise Inapplicable("the model has no Sequential in which one layer's units go straight into the next layer")
    every = max(5, facts.steps // 20)
    made = Redraw(facts.model, facts.inputs, least, every, rule)
    told = f"every {every} steps units that answer at most {least:g} times as much as the mean are drawn anew"
    return Change(made, f"{told}, in {len(found)} layer(s)")


REMEDIES: tuple[Remedy, ...] = (redraw_dormant,)
