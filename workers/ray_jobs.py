"""Studies as jobs of a Ray cluster, by its Jobs API: what is sent there, and how a job stands."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.error import HTTPError
from urllib.request import Request

from remedy.spaces.error import InfrastructureError, InputError
from remedy.workers.opener import OPENER

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

_ASK_SECONDS = 5.0
_LAST_LINES = 15
OVER = ("STOPPED", "SUCCEEDED", "FAILED")


def token() -> str:
    """Return the cluster's token, from where Ray looks for it; empty where there is none."""
    said = os.environ.get("RAY_AUTH_TOKEN", "")
    path = os.environ.get("RAY_AUTH_TOKEN_PATH") or str(Path.home() / ".ray" / "auth_token")
    try:
        return (said or Path(path).read_text(encoding="utf-8")).strip()
    except OSError:
        return ""


def check(address: str) -> str:
    """Ask a cluster for its Ray version, quickly: Ray itself hangs where the token is wrong.

    Raises:
        InputError: `address` is no http address.
        InfrastructureError: nobody answers there, or it wants another token.
    """
    may_be = "it may be such as http://ray-head:8265"
    if "@" in address:  # it is kept with the study, and said
        raise InputError(f"the address holds a user or a password; {may_be}, and RAY_AUTH_TOKEN the secret")
    if not address.startswith(("http://", "https://")):
        raise InputError(f"address is {address!r}; {may_be}")
    secret = token()
    headers = {"Authorization": f"Bearer {secret}"} if secret else {}
    try:
        asked = Request(f"{address.rstrip('/')}/api/version", headers=headers)  # noqa: S310  (http or https)
        with OPENER.open(asked, timeout=_ASK_SECONDS) as answer:
            return str(json.load(answer).get("ray_version", ""))
    except HTTPError as error:
        error.close()
        if error.code in (401, 403):
            which = "refuses the token" if secret else "wants a token"
            hint = "set RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH to the cluster's"
            raise InfrastructureError(f"the Ray cluster at {address} {which}; {hint}") from None
        raise InfrastructureError(f"what answers at {address} is no Ray dashboard ({error.code})") from None
    except (OSError, ValueError) as error:
        why = getattr(error, "reason", error)
        raise InfrastructureError(
            f"the Ray cluster at {address} cannot be reached: {why}; see `remedy doctor`"
        ) from None


class Jobs:
    """The jobs of one cluster.

    Raises:
        InfrastructureError: the cluster cannot be reached, or wants another token.
    """

    def __init__(self, address: str) -> None:
        """Reach the cluster."""
        check(address)
        self.address = address
        os.environ.setdefault("RAY_AUTH_MODE", "token" if token() else "disabled")
        self._client = _client(address)

    def submit(self, submission: str, entrypoint: str, folder: Path, environment: dict[str, str]) -> None:
        """Send the folder and have the command started in it."""
        with _said(self.address, f"job {submission}"):
            self._client.submit_job(
                entrypoint=entrypoint,
                submission_id=submission,
                runtime_env={"working_dir": str(folder), "env_vars": environment},
                metadata={"remedy.study": submission},
            )

    def status(self, submission: str) -> tuple[str, str]:
        """Return (status, message) of a job; ("", "") where the cluster knows none of this name."""
        try:
            info = self._client.get_job_info(submission)
        except RuntimeError:
            return "", ""
        return str(info.status), " ".join((info.message or "").split())[:300]

    def logs(self, submission: str) -> str:
        """Return the last lines that a job printed."""
        try:
            return "\n".join(self._client.get_job_logs(submission).splitlines()[-_LAST_LINES:])
        except RuntimeError:
            return ""

    def stop(self, submission: str) -> None:
        """End a job."""
        with _said(self.address, f"job {submission}"):
            self._client.stop_job(submission)


def _client(address: str) -> JobSubmissionClient:
    from ray.job_submission import JobSubmissionClient  # noqa: PLC0415  (half a second, after the address was asked)

    for name in (
        "ray.dashboard.modules.dashboard_sdk",
        "ray._private.runtime_env.packaging",
    ):  # uploads: nobody's concern
        logging.getLogger(name).setLevel(logging.ERROR)
    with _said(address, "it"):
        return JobSubmissionClient(address)


@contextmanager
def _said(address: str, what: str) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, ConnectionError, OSError, ValueError) as error:
        line = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise InfrastructureError(f"the Ray cluster at {address} did not take {what}: {line.strip()[:300]}") from None
