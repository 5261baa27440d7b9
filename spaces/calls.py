"""The torch functions that a model's forward pass calls: recorded on a probe, remembered or exchanged in training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from remedy.spaces.remedy import Inapplicable

PROBE = 64
_WEIGHTED = frozenset(
    {
        "linear",
        "conv1d",
        "conv2d",
        "conv3d",
        "conv_transpose1d",
        "conv_transpose2d",
        "conv_transpose3d",
        "bilinear",
        "matmul",
        "__matmul__",
        "__rmatmul__",
        "mm",
        "bmm",
        "addmm",
        "baddbmm",
        "einsum",
        "lstm",
        "gru",
        "rnn_tanh",
        "rnn_relu",
        "multi_head_attention_forward",
        "_transformer_encoder_layer_fwd",
    }
)


@dataclass(frozen=True)
class Call:
    """One call of a torch function.

    `owner` is the innermost module it was called from, `given` its first argument and `result` what it returned where
    these are tensors, `saved` whether autograd keeps what the backward pass needs: not so without gradients and under
    activation checkpointing.
    """

    name: str
    owner: str
    result: torch.Tensor | None
    saved: bool
    given: torch.Tensor | None = None


@dataclass(frozen=True)
class Trace:
    """One forward pass: every call, every module's output in the order in which they ended, and what came out."""

    calls: tuple[Call, ...]
    modules: tuple[tuple[str, torch.Tensor], ...]
    outputs: torch.Tensor

    def last_weighted(self) -> int:
        """Return the place of the last call that multiplies by weights; what comes after belongs to the output."""
        return max((place for place, call in enumerate(self.calls) if call.name in _WEIGHTED), default=-1)


def trace(model: nn.Module, inputs: torch.Tensor, *, training: bool) -> Trace:
    """Run one forward pass on a few inputs, and leave no mark on the model or on the random numbers.

    Raises:
        Inapplicable: the forward pass, or a part of it, is no Python any more.
    """
    refuse_frozen(model)
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    calls: list[Call] = []
    modules: list[tuple[str, torch.Tensor]] = []
    model.train(training)
    try:
        with torch.random.fork_rng(devices=[]), ExitStack() as stack:
            recorder = _Recorder(calls, stack.enter_context(_watched(model, modules)))
            stack.enter_context(torch.autograd.graph.saved_tensors_hooks(recorder.pack, lambda tensor: tensor))
            stack.enter_context(recorder)
            outputs = model(inputs[:PROBE])
    finally:
        model.train()
        with torch.no_grad():
            for name, buffer in model.named_buffers():
                buffer.copy_(buffers[name])
    return Trace(tuple(calls), tuple(modules), outputs)


@contextmanager
def _watched(model: nn.Module, modules: list[tuple[str, torch.Tensor]]) -> Iterator[list[str]]:
    """Follow which module is running; yields the paths of the running modules, innermost last."""
    running: list[str] = []

    def begin(path: str) -> Callable[..., None]:
        return lambda *_: running.append(path)

    def end(path: str) -> Callable[..., None]:
        def note(_module: nn.Module, _args: Any, output: Any) -> None:
            running.pop()
            if isinstance(output, torch.Tensor):
                modules.append((path, output))

        return note

    handles = []
    for path, module in model.named_modules():
        handles += [module.register_forward_pre_hook(begin(path)), module.register_forward_hook(end(path))]
    try:
        yield running
    finally:
        for handle in handles:
            handle.remove()


def _name(function: Any) -> str:
    return str(getattr(function, "__name__", ""))


class _Recorder(TorchFunctionMode):
    def __init__(self, calls: list[Call], owners: list[str]) -> None:
        super().__init__()
        self._calls, self._owners, self._packed = calls, owners, 0

    def pack(self, tensor: torch.Tensor) -> torch.Tensor:
        """Count what autograd saves; checkpointing puts hooks of its own in front of this one."""
        self._packed += 1
        return tensor

    def _saves(self) -> bool:
        before = self._packed
        torch.ones(1, requires_grad=True).square()
        return self._packed > before

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if self._owners:
            tensor = result if isinstance(result, torch.Tensor) else None
            given = args[0] if args and isinstance(args[0], torch.Tensor) else None
            self._calls.append(Call(_name(func), self._owners[-1], tensor, self._saves(), given))
        return result


def calls_of(function: Callable[..., Any], *args: Any) -> tuple[Any, frozenset[str]]:
    """Call a function; returns its result and the names of the torch functions it called."""
    calls: list[Call] = []
    with _Recorder(calls, [""]):
        result = function(*args)
    return result, frozenset(call.name for call in calls)


Instead = Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]


@dataclass(frozen=True)
class Places:
    """Which calls are meant: places among all calls of `names` in one forward pass, and how many there are in all."""

    names: frozenset[str]
    places: frozenset[int]
    total: int


class Watched(TorchFunctionMode):
    """Lets every call through, but hands those at the given places to `at`, with the function and its arguments."""

    def __init__(self, places: Places, at: Instead) -> None:
        super().__init__()
        self._places, self._at = places, at
        self.count = 0

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if _name(func) not in self._places.names:
            return func(*args, **(kwargs or {}))
        self.count += 1
        if self.count - 1 in self._places.places:
            return self._at(func, args, kwargs or {})
        return func(*args, **(kwargs or {}))

    def check(self) -> None:
        """Refuse a forward pass that is not the one the probe saw: the wrong call may have been taken."""
        if self.count != self._places.total:
            names, seen = ", ".join(sorted(self._places.names)), self._places.total
            msg = f"the forward pass called {names} {self.count} times, but {seen} times on the probe: it varies"
            raise RuntimeError(msg)


class Swapped:
    """A forward method in which some calls are exchanged; which ones may differ between training and evaluation."""

    def __init__(self, model: nn.Module, places: dict[bool, Places], instead: Instead) -> None:
        self._model, self._below, self._places, self.instead = model, model.forward, places, instead

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the forward method below with the calls exchanged."""
        with Watched(self._places[self._model.training], self.instead) as mode:
            outputs = self._below(*args, **kwargs)
        mode.check()
        return outputs


def replace_forward(model: nn.Module, forward: Callable[..., Any]) -> None:
    """Give one model another forward method."""
    model.__dict__["forward"] = forward


def refuse_frozen(model: nn.Module) -> None:
    """Refuse a model whose forward pass is no Python any more.

    Raises:
        Inapplicable: the model, or a part of it, is scripted or compiled.
    """
    for path, module in model.named_modules():
        own = getattr(module, "_compiled_call_impl", None)  # set by `module.compile()`
        compiled = type(module).__name__ == "OptimizedModule" or own is not None
        if compiled or isinstance(module, torch.jit.ScriptModule):
            kind = "compiled" if compiled else "scripted"
            part = f"part {path!r} of the model" if path else "the model"
            raise Inapplicable(f"{part} is {kind} and cannot be changed safely")


def refuse_checkpointed(model: nn.Module, inputs: torch.Tensor, names: frozenset[str]) -> None:
    """Refuse a model that computes these calls a second time in the backward pass, where no mode is in force.

    Raises:
        Inapplicable: activation checkpointing was seen.
    """
    if any(call.name in names and not call.saved for call in trace(model, inputs, training=True).calls):
        raise Inapplicable("the model uses activation checkpointing: its forward pass runs again without the change")
