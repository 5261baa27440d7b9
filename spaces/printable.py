"""Texts of others, made fit for a terminal, a page and a note."""

from __future__ import annotations

import re

_STRANGE = r"\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufffe\uffff"
_CONTROLS = re.compile(rf"[\x00-\x1f{_STRANGE}]+")
_NO_COLOUR = re.compile(rf"(\x1b\[[0-9;]*m)|[\x00-\x08\x0b\x0c\x0e-\x1f{_STRANGE}]")  # tabs, ends of lines: kept


def printable(text: object) -> str:
    """Return a text as one line without what a terminal obeys or what turns the order of letters around."""
    return _CONTROLS.sub(" ", str(text))


def in_colour(text: str) -> str:
    """Return a text of many lines with its colours, and without whatever else a terminal obeys."""
    return _NO_COLOUR.sub(lambda found: found[1] or "", text)
