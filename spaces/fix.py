"""The fix file: what a study found, as YAML that the user's own code applies."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from remedy.spaces.catalogue import REMEDIES
from remedy.spaces.combination import Combination, checked
from remedy.spaces.error import InputError
from remedy.spaces.remedy import Remedy
from remedy.spaces.training import Training

SCHEMA = 1


@dataclass(frozen=True)
class Fix:
    """A combination of remedies with the evidence it was found with."""

    combination: Combination
    catalogue: Mapping[str, Remedy] = field(repr=False, compare=False)
    evidence: Mapping[str, Any] = field(default_factory=dict, compare=False)

    def apply(self, training: Training) -> Training:
        """Return the same training with the fix in it: every run built from it has the remedies applied."""
        return dataclasses.replace(training, fix=self)


def write_fix(path: Path, params: Mapping[str, Any], evidence: Mapping[str, Any]) -> None:
    """Write a fix file, whole or not at all."""
    text = yaml.safe_dump({"schema": SCHEMA, "remedies": dict(params), "evidence": dict(evidence)}, sort_keys=False)
    beside = path.with_name(path.name + ".part")
    beside.write_text("# Found by remedy. Apply it: remedy.load_fix(path).apply(training)\n" + text)
    beside.replace(path)


def load_fix(path: str | Path, remedies: Iterable[Remedy] = ()) -> Fix:
    """Read and check a fix file.

    Args:
        path: the file that `remedy export` wrote.
        remedies: own remedies beside the catalogue's.

    Raises:
        InputError: no such file, no YAML, another schema, or remedies that do not exist.
    """
    path = Path(path)
    try:
        content = yaml.safe_load(path.read_text())
    except OSError as error:
        msg = f"fix file {str(path)!r} cannot be read: {error.strerror}"
        raise InputError(msg) from None
    except (yaml.YAMLError, UnicodeDecodeError):
        msg = f"fix file {str(path)!r} is no YAML; it may be a file that remedy export wrote"
        raise InputError(msg) from None
    if not isinstance(content, dict) or not isinstance(content.get("remedies"), dict):
        msg = f"fix file {str(path)!r} has no remedies; it may be a file that remedy export wrote"
        raise InputError(msg)
    if content.get("schema") != SCHEMA:
        msg = f"fix file {str(path)!r} has schema {content.get('schema')!r}; this version reads {SCHEMA}"
        raise InputError(msg)
    catalogue = {remedy.name: remedy for remedy in (*REMEDIES, *remedies)}
    params = content["remedies"]
    if not all(isinstance(key, str) for key in params):
        msg = f"fix file {str(path)!r}: remedies may have only text keys"
        raise InputError(msg)
    evidence = content.get("evidence")
    return Fix(checked(params, catalogue), catalogue, evidence if isinstance(evidence, dict) else {})
