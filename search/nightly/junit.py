"""The morning report as JUnit XML, for CI: one test case for each training."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree as ET

from remedy.search.nightly.check import Status

_STRANGE = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def morning_junit(found: Mapping[str, Any]) -> str:
    """Write the report as JUnit XML.

    Newly broken is a failure, not run is an error; what was broken before is skipped: it is known, and a
    pipeline that is red every morning is looked at by nobody. A night that did not end is an error of its own.
    """
    rows, cases = found["trainings"], []
    for row in rows:
        case = _case(found["sweep"], row["name"])
        status, what = row["status"], _told(row)
        if status == Status.NEWLY_BROKEN:
            _add(case, "failure", what, status)
        elif status == Status.NOT_RUN:
            _add(case, "error", what, status)
        elif status == Status.BROKEN:
            _add(case, "skipped", f"known: broken since {row['since']['night']}. {what}")
        else:
            ET.SubElement(case, "system-out").text = _clean(f"{status}. {what}")
        cases.append(case)
    if found["state"] != "finished":
        case = _case(found["sweep"], "the night")
        _add(case, "error", found["verdict"], found["state"])
        cases.append(case)
    counts = {
        "tests": len(cases),
        "failures": sum(case.find("failure") is not None for case in cases),
        "errors": sum(case.find("error") is not None for case in cases),
        "skipped": sum(case.find("skipped") is not None for case in cases),
        "time": f"{found['budget']['seconds'] or 0:.1f}",
    }
    numbers = {name: str(value) for name, value in counts.items()}
    suites = ET.Element("testsuites", {"name": "remedy nightly", **numbers})
    suite = ET.SubElement(
        suites, "testsuite", {"name": f"{found['sweep']} {found['night']}", "hostname": "remedy", **numbers}
    )
    suite.extend(cases)
    ET.indent(suites)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(suites, encoding="unicode") + "\n"


def _case(sweep: str, name: str) -> ET.Element:
    return ET.Element("testcase", {"classname": _clean(f"remedy.{sweep}"), "name": _clean(name), "time": "0"})


def _add(case: ET.Element, kind: str, message: str, status: str = "") -> None:
    said = {"message": _clean(message), **({"type": status} if status else {})}
    ET.SubElement(case, kind, said).text = _clean(message)


def _told(row: Mapping[str, Any]) -> str:
    tonight, since = row["tonight"], row["since"]
    parts = [f"{tonight['converged']} of {tonight['runs']} runs converged"] if tonight else []
    parts += [row["said"]] if row["said"] else []
    parts += [f"What differs from {since['before']}: {'; '.join(since['differed'])}"] if since["differed"] else []
    if row["best_fix"]:
        parts.append(f"best fix: {row['best_fix']['label']}")
    return ". ".join(parts)


def _clean(text: object) -> str:
    """Take out what XML cannot hold."""
    return _STRANGE.sub("\N{REPLACEMENT CHARACTER}", str(text))
