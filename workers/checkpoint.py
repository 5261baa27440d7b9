"""Checkpoints of a run: whole or absent. A run that stops and goes on equals the unbroken run."""

from __future__ import annotations

import dataclasses
import math
import os
import random
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from remedy.spaces.parts import Parts
from remedy.workers.observation import Activation, Layer, Observation, Outputs, Strain

SECONDS = 60.0


@dataclass
class Checkpoint:
    """Keeps one run's state in a file, at most every `seconds`, and puts it back.

    Kept are the model, optimizer, scheduler, gradient scaler and rules, the global generators, the place in the data,
    and every observation so far, from which the detectors are brought to where they were. State that a module or
    sampler of the user's hides outside `state_dict` is not.
    """

    path: Path
    seconds: float = SECONDS
    seen: list[Observation] = field(default_factory=list)
    step: int = 0
    epoch: int = 0
    place: int = 0
    metric: float | None = None
    every: int = 0
    """How rarely the run is looked at while nothing looks wrong; 0 where that is not settled."""
    _state: dict[str, Any] | None = None
    _last: float = field(default_factory=time.monotonic)

    @classmethod
    def open(cls, path: Path, seconds: float = SECONDS) -> Checkpoint:
        """Read the file where there is one; else begin at step 0."""
        if not path.is_file():
            return cls(path, seconds)
        try:
            state = torch.load(path, weights_only=True)
            seen = [_observation(raw) for raw in state["seen"]]
            known = (state["step"], state["epoch"], state["place"], state["metric"], state["every"])
            return cls(path, seconds, seen, *known, state)
        except Exception:  # noqa: BLE001  (of another torch, damaged by the disk, or none: the run begins anew)
            return cls(path, seconds)

    def restore(self, parts: Parts, scaler: Any) -> None:
        """Put the parts into the state that was kept; the generators come back with `restore_generators`."""
        if self._state is None:
            return
        parts.model.load_state_dict(self._state["model"])
        parts.optimizer.load_state_dict(self._state["optimizer"])
        scaler.load_state_dict(self._state["scaler"])
        parts.load_state_dict(self._state["rules"])
        if parts.scheduler is not None:
            parts.scheduler.load_state_dict(self._state["scheduler"])

    def restore_generators(self) -> None:
        """Put the global generators back, once the batches already trained on have been passed over."""
        if self._state is None:
            return
        kept = self._state["generators"]
        version, numbers, gauss = kept["python"]
        random.setstate((version, tuple(numbers), gauss))
        name, keys, *rest = kept["numpy"]
        np.random.set_state((name, np.array(keys, dtype=np.uint32), *rest))  # noqa: NPY002  (what user code draws from)
        torch.set_rng_state(kept["torch"])
        if torch.cuda.is_available():
            torch.cuda.set_rng_state_all(kept["cuda"])
        self._state = None

    def offer(self, parts: Parts, scaler: Any, place: tuple[int, int, int], metric: float | None) -> None:
        """Keep the state after an observation at `place` = (step, epoch, batches done in it), if it is time again.

        What cannot be kept (a scheduler that holds a lambda, a full disk) is said once in the run's log; the run goes
        on without checkpoints.
        """
        if time.monotonic() - self._last < self.seconds:
            return
        self._last = time.monotonic()
        try:
            self._keep(parts, scaler, place, metric)
        except Exception as error:  # noqa: BLE001  (pickling a user's objects may raise anything)
            print(f"remedy: no checkpoints are kept of this run: {error}")  # noqa: T201  (goes to the run's log)
            self.seconds = math.inf

    def _keep(self, parts: Parts, scaler: Any, place: tuple[int, int, int], metric: float | None) -> None:
        version, numbers, gauss = random.getstate()
        name, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002
        state = {
            "step": place[0],
            "epoch": place[1],
            "place": place[2],
            "metric": metric,
            "every": self.every,
            "seen": [dataclasses.asdict(observation) for observation in self.seen],
            "model": parts.model.state_dict(),
            "optimizer": parts.optimizer.state_dict(),
            "scaler": scaler.state_dict(),
            "rules": parts.state_dict(),
            "scheduler": parts.scheduler.state_dict() if parts.scheduler is not None else {},
            "generators": {
                "python": [version, list(numbers), gauss],
                "numpy": [name, np.asarray(keys).tolist(), *rest],
                "torch": torch.get_rng_state(),
                "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            },
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        beside = self.path.with_name(f"{self.path.name}.{os.getpid()}.part")
        with beside.open("wb") as handle:
            torch.save(state, handle)
            handle.flush()
            os.fsync(handle.fileno())
        beside.replace(self.path)


def _observation(raw: dict[str, Any]) -> Observation:
    return Observation(
        **{
            **raw,
            "batch": Outputs(**raw["batch"]) if raw["batch"] else None,
            "validation": Outputs(**raw["validation"]) if raw["validation"] else None,
            "layers": tuple(Layer(**layer) for layer in raw["layers"]),
            "activations": tuple(Activation(**activation) for activation in raw["activations"]),
            # Checkpoints from before it was measured have none.
            "strain": Strain(**raw.get("strain", {})),
        }
    )
