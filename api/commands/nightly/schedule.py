"""`nightly schedule`: prints or installs what runs a sweep each night."""

from __future__ import annotations

import argparse
import os
import re
import sys
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from remedy.commands.nightly import cron, kubernetes, systemd
from remedy.commands.nightly.job import NightJob
from remedy.search.nightly.sweep import read_sweep
from remedy.spaces.error import InputError

_AT = re.compile(r"([01]?[0-9]|2[0-3]):([0-5][0-9])")
_BY_NAME = ("REMEDY_STORAGE", "MLFLOW_TRACKING_URI", "REMEDY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN",
            "MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")  # fmt: skip
"""May hold secrets, or tell where they are used: taken along by name, never by value."""


def schedule(asked: argparse.Namespace) -> int:
    """Print what runs the sweep each night, or install it."""
    job = _job(asked)
    if asked.image is not None and asked.kind != "kubernetes":
        raise InputError(f"--image is for --as kubernetes; this is --as {asked.kind}")
    if asked.kind == "kubernetes":
        if asked.install:
            raise InputError(
                "--install is for cron and systemd; on Kubernetes apply what is printed: kubectl apply -f -"
            )
        sys.stdout.write(kubernetes.manifest(job, asked.image or kubernetes.image(), asked.home))
        return 0
    if asked.kind == "systemd":
        return systemd.install(job) if asked.install else systemd.show(job)
    return cron.install(job) if asked.install else cron.show(job)


def _job(asked: argparse.Namespace) -> NightJob:
    at = _AT.fullmatch(asked.at)
    if at is None:
        raise InputError(f"--at is {asked.at!r}; it may be HH:MM, 00:00 to 23:59")
    if asked.timezone is not None:
        _check_zone(asked.timezone)
    sweep = read_sweep(Path(asked.sweep))
    home = Path(asked.home or os.environ.get("REMEDY_HOME") or ".remedy").absolute()
    if "\n" in f"{sweep.path}{home}":
        raise InputError(f"{str(sweep.path)!r} and {str(home)!r} may not hold line breaks: a schedule has lines")
    needed = tuple(name for name in _BY_NAME if os.environ.get(name))
    return NightJob(sweep.name, sweep.path, home, int(at[1]), int(at[2]), asked.timezone, needed)


def _check_zone(name: str) -> None:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise InputError(f"--timezone is {name!r}; it may be a name such as Europe/Berlin or UTC") from None
