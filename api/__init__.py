"""remedy: finds out which fix makes a broken neural-network training converge, and proves it.

The names below are imported when they are first used, so that `import remedy` and `remedy --help` cost nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from remedy.spaces.assembly import assemble
    from remedy.spaces.distribution import Choice, Float, Int
    from remedy.spaces.error import InputError
    from remedy.spaces.facts import Facts
    from remedy.spaces.fix import Fix, load_fix
    from remedy.spaces.objective import Criterion, Objective
    from remedy.spaces.python import Python
    from remedy.spaces.remedy import Change, Inapplicable, Remedy, remedy
    from remedy.spaces.schedule import Schedule
    from remedy.spaces.slot import Slot
    from remedy.spaces.symptom import Symptom
    from remedy.spaces.training import Training
    from remedy.workers.door import prepare, report

_HOMES = {
    "Change": "remedy.spaces.remedy",
    "Choice": "remedy.spaces.distribution",
    "Criterion": "remedy.spaces.objective",
    "Facts": "remedy.spaces.facts",
    "Fix": "remedy.spaces.fix",
    "Float": "remedy.spaces.distribution",
    "Inapplicable": "remedy.spaces.remedy",
    "InputError": "remedy.spaces.error",
    "Int": "remedy.spaces.distribution",
    "Objective": "remedy.spaces.objective",
    "Python": "remedy.spaces.python",
    "Remedy": "remedy.spaces.remedy",
    "Schedule": "remedy.spaces.schedule",
    "Slot": "remedy.spaces.slot",
    "Symptom": "remedy.spaces.symptom",
    "Training": "remedy.spaces.training",
    "assemble": "remedy.spaces.assembly",
    "load_fix": "remedy.spaces.fix",
    "prepare": "remedy.workers.door",
    "remedy": "remedy.spaces.remedy",
    "report": "remedy.workers.door",
}

__all__ = [
    "Change",
    "Choice",
    "Criterion",
    "Facts",
    "Fix",
    "Float",
    "Inapplicable",
    "InputError",
    "Int",
    "Objective",
    "Python",
    "Remedy",
    "Schedule",
    "Slot",
    "Symptom",
    "Training",
    "assemble",
    "load_fix",
    "prepare",
    "remedy",
    "report",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        msg = f"module 'remedy' has no attribute {name!r}"
        raise AttributeError(msg)
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
