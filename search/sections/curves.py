"""The curves of the untouched training and of the fixes, as a section of a report's page."""

from __future__ import annotations

from collections.abc import Mapping

from remedy.search.drawing import CURVES, Drawing
from remedy.search.findings import Findings
from remedy.search.markup import Html, tag
from remedy.search.sections.plate import plate

_KEY = (
    "A thin line is one run; where there are several fixes, of the untouched training only. A thick line is the mean "
    "over seeds, the band their lowest and highest value, where every run has one. A cross marks a verdict's step, "
    "a triangle at the top the first value not finite. What lies beyond the axis is drawn at its edge."
)


def curves(found: Findings, drawn: Mapping[str, Drawing], data: Mapping[str, str]) -> Html:
    """Return the section; nothing where there is no curve."""
    parts = [plate(found, drawn[name], data) for name in CURVES if name in drawn]
    return tag("section", tag("h2", "Curves"), tag("p", _KEY, look="soft"), *parts) if parts else Html()
