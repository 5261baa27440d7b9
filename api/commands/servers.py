"""The servers that a study may use, as `remedy doctor` asks them: where one is wrong, a sentence says how."""

from __future__ import annotations

import base64
import json
import os
import re
import socket
from collections.abc import Mapping
from http.client import HTTPException
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit
from urllib.request import Request

from packaging.requirements import Requirement

from remedy.search.links import redact
from remedy.spaces.error import InfrastructureError, InputError
from remedy.workers.opener import OPENER

PATIENCE = 5.0
"""Seconds for one answer."""
_MOST = 4 * 1024**2
_USER = "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD (or MLFLOW_TRACKING_TOKEN)"


def promises() -> list[Requirement]:
    """Return what remedy needs, as its own metadata say it."""
    needs = map(Requirement, metadata.requires("remedy") or ())
    return [one for one in needs if one.marker is None or one.marker.evaluate({"extra": ""})]


# ---------------------------------------------------------------- MLflow


def mlflow(uri: str) -> str:
    """Look at an MLflow server: whether it answers, knows us, and is of a version that we work with.

    Raises:
        InfrastructureError: it cannot be used.
    """
    uri, where = uri.rstrip("/"), f"MLflow at {redact(uri)}"
    parts = urlsplit(uri)
    headers = {**_who(parts), "Content-Type": "application/json"}
    known = "Authorization" in headers
    _ask(f"{uri}/health", {}, where, "is the server up?")
    # Who says to be well may yet refuse everybody.
    code, said = _ask(
        f"{uri}/api/2.0/mlflow/experiments/search", headers, where, "it only says to be well", b'{"max_results": 1}'
    )
    if code == 401:
        todo = f"does not take what {_USER} say (401)" if known else f"wants to know who asks (401): set {_USER}"
        raise InfrastructureError(f"{where} {todo}")
    if code == 403 and "Invalid Host" in said:
        host = parts.netloc.rpartition("@")[2]
        raise InfrastructureError(
            f"{where} refuses the name it was called by (403 Invalid Host header, and /health is fine): start it with "
            f"--allowed-hosts '{host},localhost:*,127.0.0.1:*'; what stands there replaces what it allows by itself"
        )
    if code == 403:
        raise InfrastructureError(f"{where} lets this user read no experiments (403): {_reason(said)}")
    if code != 200 or not isinstance(_json(said), dict):
        raise InfrastructureError(f"{where} answers {code} to a plain question: {_reason(said)}; is it MLflow?")
    code, version = _ask(f"{uri}/version", headers, where, "")
    return _of_version(where, version.strip() if code == 200 else "")


def _of_version(where: str, version: str) -> str:
    if not re.fullmatch(r"\d[\w.+-]*", version):
        return f"{where} takes our calls (and does not say its version)"
    ours = metadata.version("mlflow")
    promised = next((one.specifier for one in promises() if one.name == "mlflow"), None)
    if promised is not None and not promised.contains(version, prereleases=True):
        raise InfrastructureError(f"{where} is version {version}; remedy works with {promised}, and {ours} is here")
    return f"{where} is version {version}{'' if version == ours else f' ({ours} is here)'} and takes our calls"


def _who(uri: SplitResult) -> dict[str, str]:
    """Say who asks as MLflow's own client does: by the environment, else by the address."""
    if token := os.environ.get("MLFLOW_TRACKING_TOKEN"):
        return {"Authorization": f"Bearer {token}"}
    user, password = os.environ.get("MLFLOW_TRACKING_USERNAME"), os.environ.get("MLFLOW_TRACKING_PASSWORD", "")
    if not user:
        user, password = unquote(uri.username or ""), unquote(uri.password or "")
    pair = base64.b64encode(f"{user}:{password}".encode()).decode()
    return {"Authorization": f"Basic {pair}"} if user else {}


# ---------------------------------------------------------------- Ray


def checked(address: str) -> str:
    """Return the address of a Ray cluster.

    Raises:
        InputError: it is of no form that Ray has.
    """
    may_be = "it may be http://HOST:8265 (its dashboard) or HOST:6379 (its head)"
    try:
        parts = urlsplit(address if "://" in address else f"//{address}")
        right = parts.hostname and (parts.port or parts.scheme) and parts.scheme in ("", "http", "https")
    except ValueError:
        right = False
    if not right:
        raise InputError(f"the address of the Ray cluster is {redact(address)!r}; {may_be}")
    return address.rstrip("/")


def ray(address: str) -> str:
    """Look at a Ray cluster: whether it answers, takes our token, is of our version, and what it has.

    Raises:
        InfrastructureError: it cannot be used.
    """
    if "://" not in address:
        return _head(address)
    where = f"Ray at {redact(address)}"
    token, source = _token()
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    hint = "is the head up, with ray[default] and --dashboard-host=0.0.0.0 (or is the port forwarded)?"
    code, said = _ask(f"{address}/api/version", headers, where, hint)
    if code in (401, 403):
        todo = "RAY_AUTH_TOKEN, the file that RAY_AUTH_TOKEN_PATH names, or ~/.ray/auth_token has to hold the cluster's"
        what = f"does not take the token from {source}" if token else "wants a token, and there is none here"
        raise InfrastructureError(f"{where} {what} ({code}): {todo}")
    found = _json(said)
    if code != 200 or not isinstance(found, dict) or "ray_version" not in found:
        raise InfrastructureError(f"{where} answers {code}, and not as Ray's dashboard does; is it the right port?")
    ours = metadata.version("ray")
    if found["ray_version"] != ours:
        raise InfrastructureError(f"{where} is Ray {found['ray_version']}, and {ours} is here; the two must be equal")
    open_to_all = _json(_ask(f"{address}/api/authentication_mode", {}, where, "")[1])
    warning = ""
    if isinstance(open_to_all, dict) and open_to_all.get("authentication_mode") == "disabled":
        warning = ". It asks nobody for a token: whoever reaches it can run code there (RAY_AUTH_MODE=token ends that)"
    return f"{where} is Ray {ours}: {_size(address, headers, where)}{warning}"


def _size(address: str, headers: Mapping[str, str], where: str) -> str:
    code, said = _ask(f"{address}/api/v0/nodes?detail=true&limit=10000", headers, where, "")
    try:
        nodes = json.loads(said)["data"]["result"]["result"]
        alive = [node["resources_total"] for node in nodes if node["state"] == "ALIVE"]
    except (ValueError, KeyError, TypeError):
        raise InfrastructureError(f"{where} does not say which nodes it has: it answers {code}") from None
    cpus, gpus = (sum(float(node.get(kind, 0)) for node in alive) for kind in ("CPU", "GPU"))
    if cpus < 1:
        raise InfrastructureError(f"{where} has no CPU to run on ({len(alive)} nodes alive); add nodes to it")
    dead = f" ({len(nodes) - len(alive)} dead)" if len(nodes) > len(alive) else ""
    has = f"{gpus:g} GPUs" if gpus else "no GPU (trainings there run on CPUs)"
    return f"{len(alive)} node{'s' * (len(alive) != 1)} alive{dead}, {cpus:g} CPUs, {has}"


def _head(address: str) -> str:
    host, port = (parts := urlsplit(f"//{address}")).hostname, parts.port
    try:
        socket.create_connection((str(host), int(port or 0)), PATIENCE).close()
    except OSError as error:
        raise InfrastructureError(f"Ray at {address} {_why(error)}; is the head up, and the port right?") from None
    return f"something listens at {address}; http://{host}:8265 (its dashboard) in its place tells token and nodes"


def _token() -> tuple[str, str]:
    """Return the token that Ray's client would send, and where it stands."""
    if token := os.environ.get("RAY_AUTH_TOKEN", "").strip():
        return token, "RAY_AUTH_TOKEN"
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    path = Path(named) if named else Path.home() / ".ray" / "auth_token"
    try:
        return path.read_text().strip(), f"{'RAY_AUTH_TOKEN_PATH, ' if named else ''}{path}"
    except (OSError, UnicodeDecodeError) as error:
        if named:
            raise InfrastructureError(f"RAY_AUTH_TOKEN_PATH names {named}, which cannot be read: {error}") from None
    return "", ""


# ---------------------------------------------------------------- HTTP


def _ask(url: str, headers: Mapping[str, str], where: str, hint: str, query: bytes | None = None) -> tuple[int, str]:
    parts = urlsplit(url)
    plain = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))  # urllib takes no password there
    try:
        asked = Request(plain, query, dict(headers))  # noqa: S310  (http or https: looked at before)
        with OPENER.open(asked, timeout=PATIENCE) as answer:
            return answer.status, answer.read(_MOST).decode(errors="replace")
    except HTTPError as error:
        with error:
            return error.code, error.read(_MOST).decode(errors="replace")
    except (OSError, HTTPException, ValueError) as error:
        raise InfrastructureError(f"{where} {_why(error)}; {hint}".rstrip("; ")) from None


def _why(error: Exception) -> str:
    reason = error.reason if isinstance(error, URLError) else error
    if isinstance(reason, ConnectionRefusedError):
        return "cannot be reached: nothing listens there"
    if isinstance(reason, TimeoutError):
        return f"does not answer within {PATIENCE:g} s"
    if isinstance(reason, socket.gaierror):
        return "cannot be reached: the name of its host is not known here"
    return f"does not answer as it should: {reason or type(reason).__name__}"


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _reason(said: str) -> str:
    found = _json(said)
    text = found.get("message", "") if isinstance(found, dict) else re.sub(r"<[^>]*>", " ", said)
    return " ".join(str(text).split())[:300] or "it gives no reason"
