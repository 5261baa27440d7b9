"""Loads and checks one training of a sweep in a process of its own: what it breaks there stays there."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import multiprocessing
import os
import signal
import sys
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from remedy.commands.submit import metric_name
from remedy.search.conduct import commit_of, space_of
from remedy.search.defaults import unrehearsed
from remedy.search.nightly.facts import UNSTEADY, NightFacts, minimal_facts, space_hash, yardstick
from remedy.search.nightly.plan import Looked, NotRun
from remedy.search.nightly.pool import folder_of
from remedy.search.nightly.sweep import Entry, Sweep
from remedy.search.spec import Spec
from remedy.spaces.catalogue import REMEDIES
from remedy.spaces.error import InputError, TimeLimit, raised
from remedy.spaces.gather import inputs_of, probe_batch, targets_of
from remedy.spaces.metric import parse_goal
from remedy.spaces.process import reset_process
from remedy.spaces.seeding import derive, seed_all
from remedy.spaces.space import Space
from remedy.spaces.target import Source, find, load
from remedy.workers.detectors.choice import in_force
from remedy.workers.executor import time_limit
from remedy.workers.preflight import preflight
from remedy.workers.run import catalogue_of

_SLOW = ("torch._inductor.config",)
"""What torch imports where a run begins (deterministic algorithms): seconds, and the same for each training."""
_PATIENCE = 1800.0
_GRACE = 30.0
_MOST_BYTES = 256 * 1024**2


def look(entry: Entry, sweep: Sweep, log: Path) -> Looked:
    """Load and check a training; `log` takes what its code prints.

    Raises:
        NotRun: it cannot be run tonight.
    """
    try:
        source = find(entry.target, (), entry.remedies)
    except InputError as error:
        raise NotRun(str(error)) from None
    commit = os.environ.get("REMEDY_COMMIT") or commit_of(Path(source.path).parent)
    if os.environ.get("REMEDY_JOB"):
        source = dataclasses.replace(_here(source), beside=tuple(_here(own) for own in source.beside))
    facts = minimal_facts(source.path, source.sha256, commit)
    # A fresh interpreter for each, so that the modules of one training are not taken for those of another; torch is
    # imported once, in the process that they are forked from, and which runs nothing.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, *_SLOW])
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_look, args=(theirs, source, entry, sweep, commit, str(log)), daemon=True)
    child.start()
    theirs.close()
    limit = entry.run_timeout or _PATIENCE
    try:
        answer = json.loads(ours.recv_bytes()) if ours.poll(limit + _GRACE) else None
    except EOFError:  # it is gone without a word
        child.join()
        raise NotRun(f"loading it ended its process ({_ended(child.exitcode)}); see {log}", facts) from None
    finally:
        ours.close()
        child.kill()
        child.join()
    if answer is None:
        raise NotRun(f"loading and checking it took longer than {limit:g} s (run_timeout)", facts)
    if "said" in answer:
        raise NotRun(answer["said"] + (f"; traceback in {log}" if answer["trace"] else ""), facts)
    return Looked(Spec.from_json(answer["spec"]), NightFacts.from_json(answer["facts"]), tuple(answer["modules"]))


def _here(source: Source) -> Source:
    """Name what was sent to a cluster from the folder that it lies in, another one on each machine; all work in it."""
    path = os.path.relpath(source.path)
    return dataclasses.replace(source, path=source.path if path.startswith("..") else path)


def _ended(code: int | None) -> str:
    if code is not None and code < 0:
        return signal.Signals(-code).name
    return f"exit code {code}"


def _look(answer: Connection, source: Source, entry: Entry, sweep: Sweep, commit: str, log: str) -> None:
    """In the child: load, check, and say what was found, or what was raised."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the night is what is interrupted, and ends this process
    Path(log).parent.mkdir(parents=True, exist_ok=True)
    with Path(log).open("a", encoding="utf-8") as kept:
        for stream in (1, 2):
            os.dup2(kept.fileno(), stream)
    trace = ""
    try:
        with time_limit(entry.run_timeout):
            told = _found(source, entry, sweep, commit)
    except TimeLimit as error:
        told = {"said": f"loading and checking it {error}"}
    except InputError as error:
        told, trace = {"said": str(error)}, str(getattr(error, "trace", ""))
    except (Exception, SystemExit) as error:  # noqa: BLE001  (the user's code may raise anything)
        made = raised(source.name, error)
        told, trace = {"said": str(made)}, made.trace
    if trace:
        sys.stderr.write(trace)
        sys.stderr.flush()
    answer.send_bytes(json.dumps({**told, "trace": bool(trace)} if "said" in told else told).encode())
    answer.close()


def _found(source: Source, entry: Entry, sweep: Sweep, commit: str) -> dict[str, Any]:
    before = frozenset(sys.modules)
    reset_process()
    loaded = load(source)
    training = loaded.builders
    kept: list[Any] = []
    if entry.goal is not None:
        training = dataclasses.replace(training, goal=parse_goal(entry.goal, training.metric))
    data = training.data

    def remembered() -> Any:
        kept[:] = [data()]
        return kept[0]

    training = dataclasses.replace(training, data=remembered)
    found = preflight(loaded, training, entry.seed, entry.seed, tries=unrehearsed(Space(REMEDIES)))
    spec = Spec(
        study="check",
        source=source,
        seed=entry.seed,
        metric=metric_name(training.metric),
        mode=training.mode or "max",
        goal=float(training.goal or 0),
        steps=found.setting.steps,
        seeds=sweep.seeds,
        confirm_seeds=sweep.confirm_seeds,
        fixes=sweep.fixes,
        run_timeout=entry.run_timeout,
        only=entry.only,
        without=entry.without,
        suggested=found.suggested,
        preflight=tuple({**dataclasses.asdict(f), "suggests": list(f.suggests)} for f in found.findings),
        closed=found.closed,
        refused=found.refused,
        code=loaded.code,
        commit=commit,
        audit=sweep.audit,
        detectors=entry.detectors,
        thresholds=in_force(entry.detectors),
    )
    spec = dataclasses.replace(spec, space=space_of(catalogue_of(loaded).values(), spec, spec.closed).describe())
    own = _own_modules(folder_of(source.path, source.module), before)
    facts = NightFacts(
        commit=commit,
        code=loaded.code,
        data=_data_hash(kept[-1], training.collate_fn, entry.seed) if kept else "",
        versions=_versions(),
        space=space_hash(spec),
        yardstick=yardstick(spec),
        device=found.device,
    )
    return {"spec": spec.to_json(), "facts": facts.to_json(), "modules": own}


def _own_modules(folder: str, before: frozenset[str]) -> list[str]:
    """Return the names of the modules that were imported from the training's folder."""
    names = []
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        mine = isinstance(file, str) and file.startswith(f"{folder}{os.sep}") and "site-packages" not in file
        if mine and name not in before and not name.startswith(("remedy.", "_remedy_user_")):
            names.append(name)
    return sorted(names)


def _versions() -> Mapping[str, str]:
    """Return the versions of all distributions that are imported by now, and of Python."""
    from importlib.metadata import packages_distributions, version

    of = packages_distributions()
    imported = {name.partition(".")[0] for name in sys.modules}
    names = {distribution for package in imported for distribution in of.get(package, ())}
    found = {name.lower(): version(name) for name in names}
    return {**dict(sorted(found.items())), "remedy": version("remedy"), "python": sys.version.split()[0]}


def _data_hash(pair: Any, collate_fn: Any, seed: int) -> str:
    """Return a hash of the data's samples and numbers, the same as long as `data()` gives the same."""
    try:
        first, again = (_hash(pair, collate_fn, seed) for _ in range(2))
    except Exception:  # noqa: BLE001  (data that can be trained on and not be read sample by sample)
        return ""
    return first if first == again else UNSTEADY


def _hash(pair: Any, collate_fn: Any, seed: int) -> str:
    told = hashlib.sha256()
    for part in pair:
        seed_all(derive(seed, "data"))
        inputs, targets = probe_batch(part, collate_fn)
        every = inputs_of(part, inputs)
        if every.numel() * every.element_size() <= _MOST_BYTES:
            inputs, targets = every, targets_of(part, collate_fn)
        for tensor in (inputs, targets):
            told.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
            told.update(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return told.hexdigest()
