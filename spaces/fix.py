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
from remedy.spaces.python import Piece, script
from remedy.spaces.remedy import KEEP, Receipt, Remedy
from remedy.spaces.slot import Slot
from remedy.spaces.training import Training

SCHEMA = 1


class _Reader(yaml.SafeLoader):
    """Takes no aliases: with them a few lines grow to more than any memory holds."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(problem="aliases are not read", problem_mark=mark)
        return super().compose_node(parent, index)


class _Writer(yaml.SafeDumper):
    """Writes a list twice where it stands twice."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002  (the signature is yaml's)
        return True


def read_yaml(text: str) -> Any:
    """Read YAML of anybody's: plain data, no tags that make objects, no aliases.

    Raises:
        yaml.YAMLError: it is something else.
    """
    try:
        return yaml.load(text, _Reader)  # noqa: S506  (a safe loader)
    except (ValueError, RecursionError) as error:  # a day that is none, a number or a nesting without end
        raise yaml.YAMLError(str(error)) from None


@dataclass(frozen=True)
class Fix:
    """A combination of remedies with the evidence it was found with."""

    combination: Combination
    catalogue: Mapping[str, Remedy] = field(repr=False, compare=False)
    evidence: Mapping[str, Any] = field(default_factory=dict, compare=False)

    def apply(self, training: Training) -> Training:
        """Return the same training with the fix in it: every run built from it has the remedies applied."""
        return dataclasses.replace(training, fix=self)


def fix_text(params: Mapping[str, Any], evidence: Mapping[str, Any]) -> str:
    """Return what a fix file holds."""
    content = {"schema": SCHEMA, "remedies": dict(params), "evidence": dict(evidence)}
    text = yaml.dump(content, Dumper=_Writer, sort_keys=False)
    how = "remedy.load_fix(path).apply(training), or REMEDY_FIX=path python script.py"
    return f"# Found by remedy. Apply it: {how}\n{text}"


def python_text(
    combination: Combination, catalogue: Mapping[str, Remedy], receipts: Iterable[Receipt], about: Iterable[str]
) -> str:
    """Return a training script in plain Python with the fix in it, as the receipts of one of its runs show it."""
    told, pieces = {receipt.remedy: receipt.told for receipt in receipts}, []
    for name in combination.remedies.values():
        python = catalogue[name].python
        own = {key.split(".", 1)[1]: value for key, value in combination.items if key.startswith(f"{name}.")}
        code = python.code({**catalogue[name].defaults, **own}, told[name]) if python and name in told else None
        pieces.append(
            Piece(
                Combination.of({k: v for k, v in combination.items if v == name or k.startswith(f"{name}.")}).label,
                python,
                code,
            )
        )
    return script(pieces, about)


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
        content = read_yaml(path.read_text())
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
    for slot, name in params.items():
        if slot in set(Slot) and isinstance(name, str) and name not in (KEEP, *catalogue):
            ours = ", ".join(sorted(remedy.name for remedy in catalogue.values() if remedy.slot == slot))
            own = "one of your own: named in the study file, imported by the script, or remedy.load_fix(path, [it])"
            raise InputError(f"fix file {str(path)!r}: remedy {name!r} is unknown; it may be {ours}, or {own}")
    if not all(isinstance(key, str) for key in params):
        msg = f"fix file {str(path)!r}: remedies may have only text keys"
        raise InputError(msg)
    evidence = content.get("evidence")
    return Fix(checked(params, catalogue), catalogue, evidence if isinstance(evidence, dict) else {})
