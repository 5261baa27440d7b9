"""What a night knows of a training besides its runs, and what of that differs between two nights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from remedy.search.spec import Spec
from remedy.workers.detectors.choice import detecting

UNSTEADY = "not the same twice"
"""Stands for a data hash where `data()` gives other samples each time it is called."""


@dataclass(frozen=True)
class NightFacts:
    """What decides a training's runs, by hash or by version.

    Attributes:
        commit: git commit of the training's folder, with `+` where it has changes; `none` outside of git.
        code: the hash of each of the user's files that it imports.
        data: the hash of samples of the training and validation data, and of their numbers.
        versions: of each package that was imported, and of Python.
        space: the hash of what is searched.
        yardstick: by what its runs are judged: metric, goal, seeds.
        device: what it is trained on.
    """

    commit: str = "none"
    code: Mapping[str, str] = field(default_factory=dict)
    data: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    space: str = ""
    yardstick: Mapping[str, Any] = field(default_factory=dict)
    device: str = ""

    @property
    def mark(self) -> str:
        """A hash of all that decides a run's result: runs of the same mark are alike."""
        return _hash([self.code, self.data, self.versions, self.yardstick, self.device])

    @property
    def kin(self) -> str:
        """A hash that is the same as long as a study can be carried on: training, space, our version, torch's."""
        ours = {name: self.versions.get(name) for name in ("remedy", "torch")}
        return _hash([self.code, self.data, self.space, self.yardstick, ours])

    def to_json(self) -> dict[str, Any]:
        """Return JSON-able data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> NightFacts:
        """Read what `to_json` wrote."""
        return cls(**{name: data[name] for name in cls.__dataclass_fields__ if name in data})


def yardstick(spec: Spec) -> dict[str, Any]:
    """Return by what a training's runs are judged; nights are compared only where it is the same."""
    detectors = _hash(detecting(spec.thresholds))  # the forecast never ends an untouched run
    return {"metric": spec.metric, "mode": spec.mode, "goal": spec.goal, "seed": spec.seed, "seeds": spec.seeds,
            "confirm_seeds": spec.confirm_seeds, "audit": spec.audit, "detectors": detectors}  # fmt: skip


def space_hash(spec: Spec) -> str:
    """Return a hash of what a study would search."""
    return _hash([spec.space, sorted(spec.only), sorted(spec.without)])


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Say what differs between the facts of two nights, the likeliest cause first."""
    was, is_now = NightFacts.from_json(before), NightFacts.from_json(now)
    # Of a training that could not be loaded only its own file is known.
    paths = {*was.code, *is_now.code} if is_now.versions else {*was.code} & {*is_now.code}
    said = [_changed(path, was.code, is_now.code) for path in sorted(paths)]
    if was.commit != is_now.commit and "none" not in (was.commit, is_now.commit):
        said.append(f"git commit {_short(was.commit)} -> {_short(is_now.commit)}")
    if was.data != is_now.data and was.data and is_now.data:
        said.append(f"the data: hash {was.data[:8]} -> {is_now.data[:8]}")
    for name in sorted({*was.versions, *is_now.versions} if was.versions and is_now.versions else ()):
        old, new = was.versions.get(name, "not imported"), is_now.versions.get(name, "not imported")
        said.append(f"{name} {old} -> {new}" if old != new else "")
    if was.device != is_now.device and was.device and is_now.device:
        said.append(f"the device: {was.device} -> {is_now.device}")
    return [line for line in said if line]


def unlike(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Say why two nights cannot be compared; empty where they can."""
    old, new = (dict(facts.get("yardstick") or {}) for facts in (before, now))
    said = [f"{key} {old[key]} -> {new[key]}" for key in new if key in old and old[key] != new[key]]
    said = [line if not line.startswith("detectors ") else "the detectors' thresholds are others" for line in said]
    return ", ".join(said)


def _changed(path: str, before: Mapping[str, str], now: Mapping[str, str]) -> str:
    if path not in before:
        return f"{path} is imported now"
    if path not in now:
        return f"{path} is imported no more"
    return f"{path} has changed" if before[path] != now[path] else ""


def _short(commit: str) -> str:
    return commit[:9] + ("+" if commit.endswith("+") else "")


def _hash(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def minimal_facts(path: str, sha256: str, commit: str) -> dict[str, Any]:
    """Return what is known of a training that could not be loaded."""
    return NightFacts(commit=commit, code={Path(path).name: sha256}).to_json()
