"""What wears on a run, read off live tensors: scores, Adam's moments, attention, the loss scale. Nothing is changed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import Adam, AdamW, NAdam, RAdam
from torch.utils._python_dispatch import TorchDispatchMode

from remedy.spaces.objective import TargetKind
from remedy.spaces.parts import Parts
from remedy.workers.observation import Strain
from remedy.workers.statistics import few

_ADAMS = (Adam, AdamW, NAdam, RAdam)
_EXCLUSIVE = (TargetKind.CLASS_INDEX, TargetKind.ONE_HOT)
_MATRIX = 2
_ENTRIES = 1 << 11
_SAMPLES, _POSITIONS = 8, 256
_MASKED = -1e4


class Gauge:
    """Reads what wears on one run: at a look without waiting for the device, attention at a validation."""

    def __init__(self, parts: Parts, scaler: torch.amp.GradScaler | None = None) -> None:
        """Look at the parts once: which weights have second moments that may grow stale."""
        self._parts, self._scaler = parts, scaler
        self._unknown = torch.full((), math.nan, device=parts.device)
        # Rows of an embedding that a batch does not hold keep old moments, and that is as it should be.
        rare = {id(p) for m in parts.model.modules() if isinstance(m, nn.Embedding | nn.EmbeddingBag)
                for p in m.parameters()}  # fmt: skip
        mine = isinstance(parts.optimizer, _ADAMS)
        self._moved = {id(p) for p in parts.model.parameters() if mine and p.dim() >= _MATRIX and id(p) not in rare}
        self._blind = False

    @torch.no_grad()
    def figures(self, outputs: Any, *, closely: bool = True) -> list[torch.Tensor]:
        """Return, after a step, the figures that `strain` reads; `outputs` are those of its batch, or None.

        Scores and moments take time: they are read at validations and close looks only, as how far weights move is.
        """
        worn = [*self._offset(outputs), self._staleness()] if closely else [self._unknown] * 3
        return [*worn, self._loss_scale()]

    @torch.no_grad()
    def attention(self) -> float:
        """Return the largest attention logit of a few known samples; NaN where the model has no attention.

        A pass of its own, whose outputs nobody uses: watched operators may compute other numbers (torch's layers do,
        under autocast, which is left out here), or refuse to be run (compiled ones). One that shows no attention, or
        raises, is the last.
        """
        if self._blind:
            return math.nan
        seen, parts = _Attention(), self._parts
        drawn = [parts.device] if parts.device.type == "cuda" else []
        with torch.random.fork_rng(drawn), suppress(Exception), seen:
            parts.model.eval()
            parts.model(parts.facts.inputs[:_SAMPLES].to(parts.device))
        parts.model.train()
        self._blind = seen.largest is None
        return math.nan if seen.largest is None else float(seen.largest)

    def _offset(self, outputs: Any) -> list[torch.Tensor]:
        """Return the offset of the scores, and their standard deviation over classes."""
        several = isinstance(outputs, torch.Tensor) and outputs.dim() > 1 and outputs.shape[1] > 1
        if self._parts.facts.kind not in _EXCLUSIVE or not several or not outputs.is_floating_point():
            return [self._unknown] * 2
        scores = few(outputs, outputs)[0].detach().float()
        spread, common = torch.std_mean(scores, 1)
        return [common.abs_().mean(), spread.mean()]

    def _staleness(self) -> torch.Tensor:
        """Return the largest root mean square, over the weights, of g / max(sqrt(v), eps), v being what Adam uses."""
        norms: list[torch.Tensor] = []
        for group in self._parts.optimizer.param_groups if self._moved else ():
            held: dict[Any, list[tuple[torch.Tensor, torch.Tensor]]] = {}
            for p in group["params"]:
                state = self._parts.optimizer.state.get(p, {}) if id(p) in self._moved else {}
                if p.grad is None or p.grad.is_sparse or "exp_avg_sq" not in state:
                    continue
                moment = state["max_exp_avg_sq" if group.get("amsgrad") else "exp_avg_sq"]
                count = state["step"]
                # Counted in the computer's memory, but by fused and captured optimizers: those are not waited for.
                counted = not isinstance(count, torch.Tensor) or count.device.type == "cpu"
                key = p.device, float(count) if counted else count
                held.setdefault(key, []).append((_some(p.grad), _some(moment)))
            for (_, count), pairs in held.items():
                # Of all at once: on a small net each call costs more than what it computes.
                root = (1 - group["betas"][1] ** count) ** 0.5
                sizes = torch.cat([moment for _, moment in pairs]).sqrt_()
                # g / max(sqrt(v) / root, eps), but for the root.
                ratios = torch.cat([gradient for gradient, _ in pairs]).div_(sizes.clamp_(min=group["eps"] * root))
                lengths = [len(gradient) for gradient, _ in pairs]
                found = torch._foreach_norm(torch.split(ratios, lengths))  # noqa: SLF001  (as the probe's)
                norms += torch._foreach_mul(found, [root / math.sqrt(length) for length in lengths])  # noqa: SLF001
        if not norms:
            return self._unknown
        apart = len({norm.device for norm in norms}) > 1
        return torch.stack([norm.to(self._unknown.device) for norm in norms] if apart else norms).amax()

    def _loss_scale(self) -> torch.Tensor:
        # Not `get_scale()`, which waits for the device.
        scale = getattr(self._scaler, "_scale", None)
        return scale if isinstance(scale, torch.Tensor) else self._unknown


def strain(told: Sequence[float]) -> Strain:
    """Return what `Gauge.figures` told."""
    offset, spread, staleness, scale = told
    ratio = offset / spread if spread else math.inf * offset
    return Strain(offset=offset, offset_ratio=ratio, staleness=staleness, loss_scale=scale)


def _some(tensor: torch.Tensor) -> torch.Tensor:
    """Return so many entries of a weight as are read at a look."""
    flat = tensor.reshape(-1)
    # An odd stride, so that it does not always meet the same columns.
    return (flat if len(flat) <= _ENTRIES else flat[:: len(flat) // _ENTRIES | 1]).float()


# ---------------------------------------------------------------- attention


class _Attention(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it untyped
    """Sees the operators of attention as they are run, fused ones too, and keeps the largest logit."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.largest: torch.Tensor | None = None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        reader = _READERS.get(func)
        if reader is not None:
            names = [argument.name for argument in func._schema.arguments]  # noqa: SLF001  (public in all but name)
            found = reader({**dict(zip(names, args, strict=False)), **kwargs})
            if found is not None:
                self.largest = found if self.largest is None else torch.maximum(self.largest, found)
        return result


def _products(given: Any) -> torch.Tensor | None:
    """Read scaled_dot_product_attention: queries and keys of (samples, heads, positions, numbers)."""
    query, key = _first(given["query"]), _first(given["key"])
    if query.shape[1] != key.shape[1]:  # several heads of queries share one of keys
        key = key.repeat_interleave(query.shape[1] // key.shape[1], dim=1)
    mask = given.get("attn_mask", given.get("attn_bias"))
    if isinstance(mask, torch.Tensor):
        mask = ~mask if mask.dtype == torch.bool else mask <= _MASKED
        mask = mask[..., : query.shape[2], : key.shape[2]]
        mask = mask[:_SAMPLES] if mask.dim() == query.dim() else mask
    if given.get("is_causal"):
        mask = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=query.device).triu(1)
    return _largest(query, key, given.get("scale"), mask)


def _softmax(given: Any) -> torch.Tensor | None:
    """Read a softmax that can be that of attention written out: over the keys, of four dimensions or square."""
    logits, dim = given["self"], given["dim"]
    square = logits.dim() == 3 and logits.shape[1] == logits.shape[2]
    if dim % logits.dim() != logits.dim() - 1 or not (square or logits.dim() == 4):
        return None
    # What is masked is far below 0: only what is far above it tells something.
    some = logits[: _SAMPLES * _SAMPLES, ..., :_POSITIONS, :]
    largest: torch.Tensor = some.float().amax().clamp(min=0)
    return largest


def _projected(given: Any) -> torch.Tensor | None:
    """Read the fused forward pass of torch's attention and encoder layers: from what goes in, and their weights."""
    queries = given.get("src", given.get("query"))
    keys = given.get("key", queries)
    size, heads = given["embed_dim"], given.get("num_heads", given.get("num_head"))
    weight, bias = given["qkv_weight"].float(), given["qkv_bias"].float()

    def split(inputs: torch.Tensor, place: int) -> torch.Tensor:
        inputs = inputs.float()
        if given.get("norm_first"):
            inputs = F.layer_norm(inputs, (size,), given["norm_weight_1"], given["norm_bias_1"], given["eps"])
        own = slice(place * size, (place + 1) * size)
        made = F.linear(inputs, weight[own], bias[own])
        return made.reshape(*made.shape[:2], heads, -1).transpose(1, 2)

    if queries.is_nested:  # samples of different lengths, without what fills them up
        each = zip(queries.unbind()[:_SAMPLES], keys.unbind()[:_SAMPLES], strict=True)
        found = [
            _largest(split(q[None, :_POSITIONS], 0), split(k[None, :_POSITIONS], 1), None, None)
            for q, k in each if len(q) and len(k)
        ]  # fmt: skip
        return torch.stack(found).amax() if found else None
    query = split(queries[:_SAMPLES, :_POSITIONS], 0)
    key = split(keys[:_SAMPLES, :_POSITIONS], 1)
    return _largest(query, key, None, _masked(given, query.shape[2], key.shape[2]))


def _masked(given: Any, positions: int, keys: int) -> torch.Tensor | None:
    mask = given.get("mask")
    if mask is None:
        return None
    mask = mask if mask.dtype == torch.bool else mask <= _MASKED
    if given.get("mask_type") == 1:  # of keys that only fill up, by samples
        return mask[:_SAMPLES, None, None, :keys]  # type: ignore[no-any-return]
    mask = mask[..., :positions, :keys]
    return mask[:_SAMPLES] if mask.dim() == 4 else mask  # type: ignore[no-any-return]


def _first(tensor: torch.Tensor) -> torch.Tensor:
    return tensor[:_SAMPLES, :, :_POSITIONS].float()


def _largest(query: torch.Tensor, key: torch.Tensor, scale: float | None, masked: torch.Tensor | None) -> torch.Tensor:
    """Return the largest size of a scaled product of a query and a key that it may see."""
    sizes = (query @ key.transpose(-2, -1)).abs() * (query.shape[-1] ** -0.5 if scale is None else scale)
    return (sizes if masked is None else sizes.masked_fill(masked, 0)).amax()


def _readers() -> dict[Any, Any]:
    """Return how each operator of attention that this torch has is read."""
    aten = torch.ops.aten
    kinds = ("flash_attention", "flash_attention_for_cpu", "efficient_attention", "cudnn_attention",
             "fused_attention_overrideable", "attention_math", "attention_math_for_mps")  # fmt: skip
    by_name = {f"_scaled_dot_product_{kind}": _products for kind in kinds}
    by_name |= dict.fromkeys(("_softmax", "_safe_softmax"), _softmax)
    by_name |= dict.fromkeys(("_native_multi_head_attention", "_transformer_encoder_layer_fwd"), _projected)
    return {getattr(aten, name).default: reader for name, reader in by_name.items() if hasattr(aten, name)}


_READERS = _readers()
