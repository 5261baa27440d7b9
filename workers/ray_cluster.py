"""A Ray to work on: one of our own on this machine, or a cluster that is joined."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import secrets
import signal
import sys
import tempfile
import threading
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

# Ray reads these while it is imported; where the user's code has imported it before, it finds its own way to the token.
if "ray" not in sys.modules:
    os.environ.setdefault("RAY_AUTH_MODE", "token")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")  # or the death of a worker is told on the terminal, at length

import ray
from ray import exceptions
from ray._private import ray_constants

from remedy.spaces.error import InfrastructureError, InputError, TimeLimit
from remedy.workers.executor import time_limit
from remedy.workers.result import OUT_OF_MEMORY

INIT_SECONDS = 90.0
SECRETS = ("REMEDY_STORAGE", "MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD",
           "MLFLOW_TRACKING_TOKEN")  # fmt: skip
"""What the controller alone has any use for: workers run code of others."""
_TOKEN = secrets.token_hex(32)  # Ray keeps the first token it sees for as long as the process lives


def start(workers: int, temp_dir: str) -> str:
    """Start a Ray on this machine, for this process alone, and return its folder."""
    os.environ.setdefault("RAY_AUTH_TOKEN", _TOKEN)  # other users of this machine reach Ray's ports
    folder = tempfile.mkdtemp(prefix="remedy-", dir=temp_dir)
    inner = str(Path(folder) / "r")  # Ray opens the folder it is given to everybody
    small = {"include_dashboard": False, "object_store_memory": 100 * 1024**2}
    why = ""
    for _ in range(2):
        try:
            with _without(SECRETS), _on_this_machine_alone():
                _init(address="local", num_cpus=workers, _temp_dir=inner, **small)
        except Exception as error:  # noqa: BLE001  (a machine under load lets Ray fail in many ways)
            why = said(error, 0)
            ray.shutdown()
        else:
            return folder
    raise InfrastructureError(f"Ray does not start on this machine: {why}; its logs are in {folder}")


def join(address: str) -> None:
    """Join the cluster at `HOST:PORT`, or the one that this machine is part of (`auto`)."""
    if "@" in address:
        raise InputError("the address holds a user or a password; it may be HOST:PORT, and RAY_AUTH_TOKEN the secret")
    if address.startswith("ray://"):
        raise InputError(f"address is {address!r}; it may be HOST:PORT of a Ray cluster's head, such as 10.0.0.1:6379")
    try:
        _init(address=address)
    except Exception as error:  # noqa: BLE001  (no route, no token, another version: Ray raises what it likes)
        hint = "does RAY_AUTH_TOKEN (or RAY_AUTH_TOKEN_PATH) hold the cluster's token?"
        raise InfrastructureError(f"cannot join the Ray cluster at {address}: {said(error, 0)}; {hint}") from None


def _init(**settings: Any) -> None:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        with time_limit(INIT_SECONDS):
            ray.init(log_to_driver=False, logging_level=logging.ERROR, **settings)
    except TimeLimit:
        raise TimeoutError(f"not ready within {INIT_SECONDS:g} s") from None
    finally:
        for number, handler in handlers.items():  # Ray puts its own in their place
            if handler is not None and threading.current_thread() is threading.main_thread():
                signal.signal(number, handler)


@contextlib.contextmanager
def _without(names: tuple[str, ...]) -> Iterator[None]:
    """Take variables out of the environment, so that what is started meanwhile has none of them."""
    kept = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)


@contextlib.contextmanager
def _on_this_machine_alone() -> Iterator[None]:
    """Have the Ray that is started meanwhile listen on 127.0.0.1, as it does by itself on Windows only."""
    before = getattr(ray_constants, "ENABLE_RAY_CLUSTER", True)  # where Ray loses it, our test of it fails
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def room(share: Mapping[str, float], without: Collection[str] = ()) -> int:
    """Return how many runs with such a share (CPU, GPU, resources of other names) fit on the nodes that are alive.

    Nodes whose ids are in `without` are left out.
    """
    return sum(_fits(node["Resources"], share) for node in alive() if node["NodeID"] not in without)


def _fits(has: Mapping[str, float], share: Mapping[str, float]) -> int:
    # A share of a GPU lies on one GPU.
    whole = {name: float(int(has.get(name, 0.0))) for name in share}
    counts = [
        int(1 / part + 1e-6) * int(whole[name]) if name == "GPU" and part < 1 else int(has.get(name, 0.0) / part + 1e-6)
        for name, part in share.items()
        if part > 0
    ]
    return min(counts, default=0)


def alive() -> list[dict[str, Any]]:
    """Return the nodes that are alive."""
    return [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]


def most(name: str) -> float:
    """Return how much the cluster has of a resource."""
    return float(ray.cluster_resources().get(name, 0.0))  # type: ignore[no-untyped-call]


@contextlib.contextmanager
def in_words() -> Iterator[None]:
    """Raise what is raised meanwhile as text: the user's own kinds of error do not leave their process."""
    try:
        yield
    except (GeneratorExit, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # noqa: BLE001  (whatever it is)
        raise RuntimeError(f"{type(error).__name__}: {said(error, 0)}") from None


def said(error: BaseException, line: int) -> str:
    """Return a line of what Ray said, without its colours."""
    lines = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip().splitlines() or [type(error).__name__]
    return lines[line].strip()[:300]


def why(error: Exception, otherwise: str) -> str:
    """Say why a worker is gone, as far as Ray's error tells; else what is said otherwise."""
    if isinstance(error, exceptions.OutOfMemoryError):
        return f"its worker was killed because the machine {OUT_OF_MEMORY}"
    if isinstance(error, exceptions.RayTaskError):
        return f"its worker raised {said(error.cause, 0)}"
    return "the machine of its worker is gone" if isinstance(error, exceptions.NodeDiedError) else otherwise
