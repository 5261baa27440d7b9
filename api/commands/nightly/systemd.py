"""A systemd service and timer, of the user's own, that run a sweep each night."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from remedy.commands.nightly.job import LONGEST, NightJob, configuration
from remedy.search.files import write_text
from remedy.spaces.error import InfrastructureError

_STAY = 'loginctl enable-linger "$USER"      nights go on when you are logged out'


def show(job: NightJob) -> int:
    """Print the units, with where they belong."""
    for name, text in _units(job).items():
        sys.stdout.write(f"# {_folder() / name}\n{text}\n")
    sys.stderr.write(f"next: the same command with --install writes and starts them\n      {_STAY}{job.wanted}\n")
    return 0


def install(job: NightJob) -> int:
    """Write the units and start the timer.

    Raises:
        InfrastructureError: systemd does not take them.
    """
    for name, text in _units(job).items():
        write_text(_folder() / name, text)
        sys.stdout.write(f"wrote {_folder() / name}\n")
    for asked in (["daemon-reload"], ["enable", "--now", f"{job.unit}.timer"]):
        _systemctl(asked)
    sys.stdout.write(f"started {job.unit}.timer\n")
    sys.stdout.write(f"next: systemctl --user list-timers      see it\n      {_STAY}{job.wanted}\n")
    return 0


def _folder() -> Path:
    return configuration() / "systemd" / "user"


def _units(job: NightJob) -> dict[str, str]:
    return {f"{job.unit}.service": _service(job), f"{job.unit}.timer": _timer(job)}


def _systemctl(arguments: list[str]) -> None:
    command = ["systemctl", "--user", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        said = done.stderr.strip()[:200] if done.returncode else ""
        code = done.returncode
    except (OSError, subprocess.TimeoutExpired) as error:
        said, code = str(error), 1
    if code:
        raise InfrastructureError(f"the units are written, but `{' '.join(command)}` did not work: {said}")


def _service(job: NightJob) -> str:
    call = " ".join(map(_quoted, job.command))
    sweep = _quoted(str(job.sweep))
    needed = f"EnvironmentFile={_escaped(str(job.environment))}\n" if job.needed else ""
    return (
        "[Unit]\n"
        f"Description=remedy: a night of the sweep {job.name}, and its morning report\n"
        "\n[Service]\n"
        "Type=oneshot\n"
        f"WorkingDirectory={_escaped(str(job.sweep.parent))}\n"
        f"{needed}"
        f"Environment={_quoted(f'REMEDY_HOME={job.home}')}\n"
        # The minus: whatever became of the night, its report is written, and says so by its exit code.
        f"ExecStart=-{call} run {sweep}\n"
        f"ExecStart={call} report {sweep}\n"
        f"TimeoutStartSec={LONGEST}\n"
        "KillMode=mixed\n"
        "Nice=10\n"
    )


def _timer(job: NightJob) -> str:
    zone = f" {job.zone}" if job.zone else ""
    return (
        "[Unit]\n"
        f"Description=remedy: the sweep {job.name}, each night\n"
        "\n[Timer]\n"
        f"OnCalendar=*-*-* {job.hour:02}:{job.minute:02}:00{zone}\n"
        # A machine that was off at night makes up for it.
        "Persistent=true\n"
        "\n[Install]\n"
        "WantedBy=timers.target\n"
    )


def _escaped(text: str) -> str:
    return text.replace("%", "%%")


def _quoted(text: str) -> str:
    """Quote a word as systemd reads it."""
    bare = re.fullmatch(r"[A-Za-z0-9_./=:@+,-]+", text) is not None
    escaped = _escaped(text).replace("\\", "\\\\").replace('"', '\\"').replace("$", "$$")
    return escaped if bare else f'"{escaped}"'
