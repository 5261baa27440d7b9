"""Figures on their way from the device: asked for now, read later, so that no step waits for them."""

from __future__ import annotations

from collections.abc import Sequence

import torch


class Reading:
    """Some tensors' figures, one after the other in one copy.

    On a GPU they are copied to pinned memory while training goes on; `values` waits for the copy alone, and is asked
    for only when the next step has been given to the device. Elsewhere there is nothing to wait for.
    """

    def __init__(self, parts: Sequence[torch.Tensor]) -> None:
        """Ask for them."""
        self._lengths = [part.numel() for part in parts]
        device = parts[0].device
        flat = torch.cat([part.detach().reshape(-1).to(device, torch.float32) for part in parts])
        self._event: torch.cuda.Event | None = None
        if flat.is_cuda:
            self._flat = torch.empty(flat.shape, dtype=flat.dtype, pin_memory=True)
            self._flat.copy_(flat, non_blocking=True)
            self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            self._event.record()
        else:
            self._flat = flat

    def values(self) -> list[list[float]]:
        """Return each tensor's figures."""
        if self._event is not None:
            self._event.synchronize()
        every, found, place = self._flat.tolist(), [], 0
        for length in self._lengths:
            found.append(every[place : place + length])
            place += length
        return found
