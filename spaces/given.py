"""What a script hands to `remedy.prepare`: parts told apart by what they are, in any order."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.amp import GradScaler
from torch.optim import LBFGS, Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader

from remedy.spaces.error import InputError
from remedy.spaces.gather import refuse_wrapped

_NEEDED = {
    "model": "the model (an nn.Module)",
    "loss": "the loss (a callable, such as nn.CrossEntropyLoss() or F.cross_entropy)",
    "optimizer": "the optimizer",
    "loader": "the DataLoader it trains on",
}
_MAY_BE = "a model, a loss, an optimizer, a scheduler, DataLoaders, a GradScaler or None"


@dataclass(frozen=True)
class Given:
    """The parts by what they are, and where each stood among the arguments."""

    arguments: tuple[Any, ...]
    model: nn.Module
    loss: Callable[..., Any]
    optimizer: Optimizer
    loaders: tuple[DataLoader[Any], ...]
    scheduler: Any = None
    scaler: GradScaler | None = None

    @classmethod
    def of(cls, arguments: tuple[Any, ...]) -> Given:
        """Tell the arguments of `remedy.prepare` apart.

        Raises:
            InputError: one is missing, there are two of a kind, or one is nothing that can be prepared.
        """
        found: dict[str, list[Any]] = {"model": [], "loss": [], "optimizer": [], "scheduler": [], "loader": []}
        for place, part in enumerate(arguments, start=1):
            kind = _kind(part, place)
            if kind and not any(part is other for other in found[kind]):
                found[kind].append(part)
        if len(found["model"]) > 1:
            named = _types(found["model"])
            raise InputError(f"remedy.prepare was given {named}: two modules with parameters; it may be one, the model")
        for kind in ("loss", "optimizer", "scheduler"):
            if len(found[kind]) > 1:
                named = _types(found[kind])
                raise InputError(
                    f"remedy.prepare was given {len(found[kind])} of the kind {kind} ({named}); one is known"
                )
        missing = [said for kind, said in _NEEDED.items() if not found[kind]]
        if missing:
            raise InputError(f"remedy.prepare was not given {' nor '.join(missing)}; it needs all four")
        _check(found["optimizer"][0], found["loader"], found["model"][0])
        one = {kind: parts[0] for kind, parts in found.items() if parts and kind != "loader"}
        scaler = next((part for part in arguments if isinstance(part, GradScaler)), None)
        return cls(arguments, loaders=tuple(found["loader"]), scaler=scaler, **one)

    def back(self, new: Mapping[int, Any]) -> tuple[Any, ...]:
        """Return the arguments in their order, with those exchanged that `new` holds by the id of the old one."""
        return tuple(new.get(id(part), part) for part in self.arguments)


def _kind(part: Any, place: int) -> str:
    if part is None or isinstance(part, GradScaler):
        return ""
    if isinstance(part, Optimizer):
        return "optimizer"
    if isinstance(part, LRScheduler) or all(hasattr(part, name) for name in ("step", "optimizer", "state_dict")):
        return "scheduler"
    if isinstance(part, DataLoader):
        return "loader"
    if isinstance(part, nn.Module):
        return "model" if next(part.parameters(), None) is not None else "loss"
    if callable(part):
        return "loss"
    raise InputError(f"argument {place} of remedy.prepare is a {type(part).__name__}; it may be {_MAY_BE}")


def _check(optimizer: Optimizer, loaders: list[DataLoader[Any]], model: nn.Module) -> None:
    refuse_wrapped(model, "remedy.prepare was given", "be given")
    if isinstance(optimizer, LBFGS):
        raise InputError(
            "remedy.prepare was given LBFGS, whose step runs the loop; it may be given any other optimizer"
        )
    own = {id(parameter) for parameter in model.parameters()}
    if not any(id(p) in own for group in optimizer.param_groups for p in group["params"]):
        raise InputError("remedy.prepare was given an optimizer that holds none of the model's parameters")
    for loader in loaders:
        try:
            length = len(loader)
        except TypeError:
            raise InputError(
                f"remedy.prepare was given a DataLoader over a {type(loader.dataset).__name__} without a length; "
                "it may be given one over a Dataset with a length"
            ) from None
        if not length:
            raise InputError("remedy.prepare was given a DataLoader without a single batch")


def _types(parts: list[Any]) -> str:
    return " and ".join(getattr(part, "__name__", type(part).__name__) for part in parts)
