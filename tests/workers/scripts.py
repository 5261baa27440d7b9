"""Scripts with a loop of their own, and runs of them in forked processes: the real thing, without a new torch."""

import dataclasses
import os
import textwrap
import traceback
from pathlib import Path

from remedy.spaces.script import Goal, Script
from remedy.spaces.target import find
from remedy.workers import script as process
from remedy.workers.mailbox import Mailbox
from remedy.workers.order import Phase, WorkOrder
from remedy.workers.result import RunResult

HEAD = """
    import sys
    import torch
    from torch import nn
    from torch.utils.data import DataLoader, TensorDataset
    import remedy

    x = torch.randn(400, 4, generator=torch.Generator().manual_seed(0))
    y = x[:, :3].argmax(1)
    train, held = TensorDataset(x[:320], y[:320]), TensorDataset(x[320:], y[320:])
    loader, check = DataLoader(train, 32, shuffle=True), DataLoader(held, 512)
"""
MODEL = "model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))"
LOSS = "loss_fn = nn.CrossEntropyLoss()"
OPTIMIZER = "optimizer = torch.optim.SGD(model.parameters(), lr=0.01)"
PREPARE = "model, loss_fn, optimizer, loader, check = remedy.prepare(model, loss_fn, optimizer, loader, check)"
STEP = """
    optimizer.zero_grad()
    loss_fn(model(a), b).backward()
    optimizer.step()
"""
LOOP = """
    for epoch in range(epochs):
        model.train()
        for place, (a, b) in enumerate(loader):
{step}
        model.eval()
        right = 0
        with torch.no_grad():
            for a, b in check:
                outputs = model(a)
                right += ((outputs.argmax(1) == b) & outputs.isfinite().all(1)).sum().item()
        remedy.report(accuracy=right / len(held))
"""


def text(
    model: str = MODEL,
    loss: str = LOSS,
    optimizer: str = OPTIMIZER,
    prepare: str = PREPARE,
    step: str = STEP,
    loop: str = LOOP,
    epochs: int = 20,
    after: str = "",
) -> str:
    """Return a script; what is not said is a small, healthy training that is too slow for its budget."""
    steps = textwrap.indent(textwrap.dedent(step).strip(), " " * 8)
    body = textwrap.dedent(loop.replace("{step}", textwrap.indent(steps, "    ")))
    parts = [HEAD, f"epochs = {epochs}", model, loss, optimizer, prepare, body, after]
    return "\n".join(textwrap.dedent(part).strip("\n") for part in parts) + "\n"


def written(place: Path, content: str, name: str = "train.py") -> Path:
    path = place / name
    path.write_text(content)
    return path


def order_of(path: Path, script: Script, params=None, seed: int = 0, args=(), phase=Phase.BASELINE) -> WorkOrder:
    source = find(str(path), args)
    known = dataclasses.replace(script, args=tuple(args), cwd=str(path.parent))
    return WorkOrder(0, dataclasses.replace(source, script=known), params or {}, seed, 0, phase)


def forked(order: WorkOrder, place: Path, *, learn: bool = False) -> tuple[RunResult | None, dict, str]:
    """Run a script in a fork of this process; returns its result, what was learned, and what it printed."""
    folder = place / f"box{len(list(place.glob('box*')))}"
    folder.mkdir()
    box = Mailbox(folder)
    theirs, ours = os.pipe()
    box.put_order(order, learn=learn, lifeline=theirs)
    child = os.fork()
    if child == 0:
        try:
            os.setsid()
            os.close(ours)
            with (folder / "log").open("w") as log:
                os.dup2(log.fileno(), 1)
                os.dup2(log.fileno(), 2)
            import sys

            sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
            process.main(str(box.order_file))
            sys.stdout.flush()
            sys.stderr.flush()
        except BaseException:  # noqa: BLE001  (whatever it is, no fork of the tests goes on)
            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(theirs)
    os.waitpid(child, 0)
    os.close(ours)
    result, learned = box.result() or (None, {})
    return result, learned, (folder / "log").read_text()


def learned_of(
    path: Path, place: Path, goal: str = "accuracy>=0.9", args=(), *, thorough=False
) -> tuple[Script, dict, RunResult | None]:
    """Run a script to its end, as `remedy check` does first."""
    asked = Goal.read(goal)
    script = Script(metric=asked.name, mode=asked.mode or "max", goal=asked.value)
    order = dataclasses.replace(order_of(path, script, args=args), thorough=thorough)
    result, told, _ = forked(order, place, learn=True)
    return Script.from_json(told["script"]) if "script" in told else script, told, result
