"""`submit` and `resume`: what begins studies and goes on with them."""

from __future__ import annotations

import argparse
import dataclasses
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from remedy.commands.cluster import is_cluster, send
from remedy.commands.knowledge import taken
from remedy.commands.loading import Checked, checked, imported
from remedy.commands.views import where
from remedy.commands.work import check_workers, work
from remedy.search.conduct import commit_of, space_of
from remedy.search.database import PATIENCE
from remedy.search.defaults import unrehearsed
from remedy.search.home import Home
from remedy.search.spec import Spec
from remedy.spaces.catalogue import REMEDIES
from remedy.spaces.error import InputError
from remedy.spaces.space import Space
from remedy.spaces.target import Loaded
from remedy.workers.detectors.choice import changes as changed_thresholds
from remedy.workers.detectors.choice import in_force
from remedy.workers.run import catalogue_of


def submit(asked: argparse.Namespace) -> int:
    """Run a study from its beginning."""
    check_workers(asked)
    home = Home.of(asked.home, PATIENCE)
    # Options are checked before the user's code is touched, and nothing is written before both are found right.
    options = totals(asked)
    if is_cluster(asked.address) and home.database is None:
        raise InputError(f"--address {asked.address!r} needs REMEDY_STORAGE: the study is worked on elsewhere")
    if asked.name is not None and home.study(asked.name).exists():
        again = f"remedy resume {asked.name}{where(asked)}"
        msg = f"--name {asked.name!r}: a study of this name exists; go on with it: {again}"
        raise InputError(msg)
    found = _checked(asked, home, options)
    name = _name(found.loaded.source.path) if asked.name is None else asked.name
    spec = dataclasses.replace(specify(asked, found, name, options), knowledge=taken(asked, home))
    space_of(found.remedies, spec, spec.closed)
    folder = home.study(spec.study)
    if is_cluster(asked.address):
        return send(asked, folder, spec)
    folder.save_spec(spec.to_json())
    return work(asked, home, folder, spec, found.remedies)


def _checked(asked: argparse.Namespace, home: Home, options: dict[str, Any]) -> Checked:
    from remedy.spaces.target import find
    from remedy.workers.probation import SHARE

    source = find(asked.target, asked.args, asked.remedies)
    Spec(study="check", source=source, **options)
    log = home.path / "logs" / "load.log"
    return checked(
        asked.target, asked.args, asked.goal, asked.seed, asked.run_timeout, log, thorough=True, share=SHARE,
        remedies=asked.remedies, tries=unrehearsed(Space(REMEDIES)),
    )  # fmt: skip


def totals(asked: argparse.Namespace) -> dict[str, Any]:
    """Return the numbers that a study is bounded by, as they were asked for."""
    names = ("seed", "seeds", "confirm_seeds", "fixes", "runs", "budget", "timeout", "run_timeout", "audit")
    return {name: getattr(asked, name) for name in names}


def specify(asked: argparse.Namespace, found: Checked, name: str, options: dict[str, Any]) -> Spec:
    """Join options and training into the study's specification."""
    training, tried = found.training, found.found.probation
    spec = Spec(
        study=name,
        source=found.loaded.source,
        metric=metric_name(training.metric),
        mode=training.mode or "max",
        goal=float(training.goal or 0),
        steps=found.found.setting.steps,
        preflight_steps=found.survey_steps + (tried.steps if tried else 0),
        probation=dataclasses.asdict(tried) if tried else None,
        only=tuple(asked.only),
        without=tuple(asked.without),
        suggested=found.found.suggested,
        preflight=tuple({**dataclasses.asdict(f), "suggests": list(f.suggests)} for f in found.found.findings),
        closed=found.found.closed,
        refused=found.found.refused,
        code=found.loaded.code,
        commit=commit_of(Path(found.loaded.source.path).parent),
        detectors=asked.detectors,
        thresholds=in_force(asked.detectors),
        **options,
    )
    return dataclasses.replace(spec, space=space_of(found.remedies, spec, spec.closed).describe())


def metric_name(metric: object) -> str:
    """Return what a metric is called: its own name, or that of the user's function."""
    return metric if isinstance(metric, str) else str(getattr(metric, "__name__", "metric"))


def _name(path: str) -> str:
    stem = "".join(letter if letter.isalnum() and letter.isascii() else "-" for letter in Path(path).stem).strip("-")
    return f"{stem[:60] or 'training'}-{uuid.uuid4().hex[:4]}"


def resume(asked: argparse.Namespace) -> int:
    """Go on with a study toward the same totals, or larger ones."""
    check_workers(asked)
    home = Home.of(asked.home, PATIENCE)
    folder = home.existing(asked.study)
    spec = Spec.from_json(folder.spec())
    changed: dict[str, Any] = {}
    for name in ("runs", "budget", "timeout", "fixes"):
        total, new = getattr(spec, name), getattr(asked, name)
        if new is not None and total is not None and new < total:
            msg = f"--{name} is {new:g}, less than the study's {total:g}; it may be the same or larger"
            raise InputError(msg)
        if new is not None:
            changed[name] = new
    spec = dataclasses.replace(spec, **changed)
    job = folder.job()
    if job:
        if asked.accept_changes:
            raise InputError("--accept-changes: a study on a cluster keeps the code it was sent; submit a new study")
        asked.address = asked.address or job["address"]
        return send(asked, folder, spec, again=True)
    if is_cluster(asked.address):
        raise InputError(f"study {spec.study!r} was not sent to a cluster; resume it where it was submitted")
    loaded = imported(spec, folder.log)
    spec = _accepted(spec, loaded, accept=asked.accept_changes)
    with folder.lease():
        folder.save_spec(spec.to_json())
    return work(asked, home, folder, spec, tuple(catalogue_of(loaded).values()))


def _accepted(spec: Spec, loaded: Loaded, *, accept: bool) -> Spec:
    """Return the specification with what changed since the study began, where that is accepted.

    Raises:
        InputError: something changed, and that is not accepted.
    """
    space, thresholds = _space(spec, loaded), in_force(spec.detectors)
    changes = [
        *_changed_code(spec.code, loaded.code),
        *_changed_space(spec.space, space),
        *changed_thresholds(spec.thresholds, thresholds),
    ]
    if not changes:
        return dataclasses.replace(spec, source=loaded.source)
    said = "; ".join(changes)
    if not accept:
        hint = "submit it as a new study, or go on all the same with --accept-changes"
        raise InputError(f"since study {spec.study!r} began, {said}; {hint}")
    finding = {
        "check": "changed_since_submit",
        "level": "warning",
        "message": f"the study went on although {said}: its runs are not all of the same training",
        "suggests": [],
    }
    return dataclasses.replace(
        spec,
        source=loaded.source,
        code=loaded.code,
        space=space,
        thresholds=thresholds,
        preflight=(*spec.preflight, finding),
    )


def _space(spec: Spec, loaded: Loaded) -> Mapping[str, Mapping[str, Mapping[str, str]]]:
    # A remedy that was asked for by name and is gone is a change, not a wrong name.
    known = catalogue_of(loaded)
    still = dataclasses.replace(spec, only=tuple(name for name in spec.only if name in known), without=())
    whole = space_of([remedy for remedy in known.values() if remedy.name not in spec.without], still, spec.closed)
    return whole.describe()


def _changed_code(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    names = [f"{Path(path).name} has changed" for path in now if path in before and before[path] != now[path]]
    names += [f"{Path(path).name} is imported, too" for path in now if path not in before]
    return names + [f"{Path(path).name} is imported no more" for path in before if path not in now]


def _changed_space(
    before: Mapping[str, Mapping[str, Mapping[str, str]]], now: Mapping[str, Mapping[str, Mapping[str, str]]]
) -> list[str]:
    old = {name: ranges for mine in before.values() for name, ranges in mine.items()}
    new = {name: ranges for mine in now.values() for name, ranges in mine.items()}
    said = [f"the space lost {name}" for name in old if name not in new]
    said += [f"the space gained {name}" for name in new if name not in old]
    return said + [f"the ranges of {name} are others" for name in new if name in old and old[name] != new[name]]
