"""The process of a script: `python -m remedy.workers.script ORDER.json`. It sets the scene and runs the script."""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import torch
from torch.nn.modules.module import register_module_parameter_registration_hook

from remedy.spaces.error import InputError
from remedy.spaces.process import reset_process
from remedy.spaces.seeding import derive, seed_all
from remedy.spaces.target import declared, unchanged
from remedy.workers.door import Door
from remedy.workers.live import Live
from remedy.workers.mailbox import Mailbox
from remedy.workers.order import WorkOrder
from remedy.workers.survey import Survey


def main(order_file: str) -> None:
    """Run the script of an order, and say how it ended."""
    box = Mailbox(Path(order_file).parent)
    order, said = box.order()
    threading.Thread(target=_hold, args=(said["lifeline"],), daemon=True).start()
    reset_process()
    behind: Live | Survey = Survey(order, box) if said["learn"] else Live(order, box)
    Door.behind = behind
    try:
        declared(order.source)  # before anything is seeded: an import may draw numbers
        path = _scene(order)
        runpy.run_path(str(path), run_name="__main__")
    except SystemExit as error:
        behind.end(error if _means_failure(error.code) else None)
    except BaseException as error:  # noqa: BLE001  (the user's code may raise anything; it is told as the run's end)
        behind.end(error)
    else:
        behind.end(None)


def _scene(order: WorkOrder) -> Path:
    """Give the script what it has when it is run by hand, and the run its seeds."""
    script = order.source.script
    assert script is not None  # noqa: S101  (only scripts are run here)
    path = unchanged(order.source)
    if script.cwd:
        try:
            os.chdir(script.cwd)
        except OSError as error:
            raise InputError(f"folder {script.cwd!r}, in which the script is run: {error.strerror}") from None
    sys.argv = [str(path), *script.args]
    sys.path.insert(0, str(path.parent))
    # Data made before the model are the same in every run; the weights are fresh from the run's seed.
    seed_all(derive(order.data_seed, "data"))
    _seed_weights(derive(order.seed, "model"))
    return path


def _seed_weights(seed: int) -> None:
    """Seed the global generators once, when the first parameter is registered: before its values are drawn."""
    waiting = [seed]

    def registered(_module: torch.nn.Module, _name: str, _parameter: torch.nn.Parameter) -> None:
        if waiting:  # torch does not bear a hook that removes itself
            seed_all(waiting.pop())

    register_module_parameter_registration_hook(registered)


def _means_failure(code: Any) -> bool:
    return code is not None and code != 0


def _hold(lifeline: int) -> None:
    """End this process, and all that it has started, once the worker that started it has gone."""
    os.read(lifeline, 1)
    os.killpg(os.getpgid(0), signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1])
