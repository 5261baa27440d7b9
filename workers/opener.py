"""Calls over HTTP that carry a secret, and go to nobody but whom they were made to."""

from __future__ import annotations

from urllib.request import HTTPRedirectHandler, build_opener


class _Staying(HTTPRedirectHandler):
    """Goes nowhere else: urllib would take the token along."""

    def redirect_request(self, *_: object) -> None:
        return None


OPENER = build_opener(_Staying)
"""An answer that points elsewhere is raised as an HTTPError."""
