"""A line in the user's crontab that runs a sweep each night."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from remedy.commands.nightly.job import NightJob
from remedy.spaces.error import InfrastructureError


def show(job: NightJob) -> int:
    """Print the line."""
    sys.stdout.write("\n".join(_lines(job)) + "\n")
    sys.stderr.write(f"next: the same command with --install puts it into your crontab{job.wanted}\n")
    return 0


def install(job: NightJob) -> int:
    """Put the line into the user's crontab, in place of the sweep's earlier one."""
    lines, before = _lines(job), _crontab(["-l"])
    kept = re.sub(rf"(?ms)^{re.escape(lines[0])}\n.*?^{re.escape(lines[2])}\n", "", before)
    after = kept + ("\n" if kept and not kept.endswith("\n") else "") + "\n".join(lines) + "\n"
    _crontab(["-"], after)
    sys.stdout.write(f"{'replaced' if kept != before else 'added'} {job.unit} in your crontab\n")
    sys.stdout.write(f"next: crontab -l      see it{job.wanted}\n")
    return 0


def _lines(job: NightJob) -> list[str]:
    return [f"# remedy nightly {job.name}: begin", _line(job), f"# remedy nightly {job.name}: end"]


def _line(job: NightJob) -> str:
    when, guard = f"{job.minute} {job.hour} * * *", ""
    if job.zone is not None:
        # Many crons know no zones but the machine's. So it looks each hour what time it is there.
        minute = (job.minute - _offset_minutes(job.zone)) % 60
        when = f"{minute} * * * *"
        guard = f'[ "$(TZ={shlex.quote(job.zone)} date +%H:%M)" = {job.hour:02}:{job.minute:02} ] && '
    sweep, call = shlex.quote(str(job.sweep)), shlex.join(job.command)
    source = f"set -a; . {shlex.quote(str(job.environment))}; set +a; " if job.needed else ""
    log = shlex.quote(str(job.home / "logs" / f"nightly-{job.name}.out"))
    folder, logs = shlex.quote(str(job.sweep.parent)), shlex.quote(str(job.home / "logs"))
    body = f"{source}export REMEDY_HOME={shlex.quote(str(job.home))}; "
    # What cron's line prints is mailed, where mail is set up: the report, and that alone.
    body += f"{call} run {sweep} >>{log} 2>&1; {call} report {sweep} 2>&1 | tee -a {log}"
    line = f"{when} {guard}mkdir -p {logs} && cd {folder} && {{ {body}; }}"
    return line.replace("%", r"\%")  # to cron a bare percent sign is the end of the line


def _offset_minutes(zone: str) -> int:
    """Return by how many minutes a zone is off the machine's own, less whole hours."""
    now = datetime.now(UTC)
    there, here = now.astimezone(ZoneInfo(zone)).utcoffset(), now.astimezone().utcoffset()
    return round(((there or timedelta()) - (here or timedelta())).total_seconds() / 60) % 60


def _crontab(arguments: list[str], text: str | None = None) -> str:
    try:
        done = subprocess.run(
            ["crontab", *arguments], input=text, capture_output=True, text=True, timeout=30, check=False  # noqa: S607
        )  # fmt: skip
    except OSError as error:
        msg = f"crontab cannot be called: {error.strerror}; install cron, or use --as systemd"
        raise InfrastructureError(msg) from None
    # `crontab -l` ends with 1 where there is none yet.
    if done.returncode and not (arguments == ["-l"] and "no crontab" in done.stderr):
        raise InfrastructureError(f"crontab {arguments[0]} ended with {done.returncode}: {done.stderr.strip()[:200]}")
    return done.stdout if not done.returncode else ""
