"""The options of `remedy nightly`. Nothing heavy is imported here: every command builds its parser."""

from __future__ import annotations

import argparse
from typing import Any, Protocol

_ABOUT = """Many trainings by schedule, compared with the nights before.

Each night runs the untouched trainings, reruns on fresh seeds whatever came out otherwise than before, tries last
night's best fix on what is broken, and lets explorers search for fixes with what is left of the budget. In the morning
`report` says on one screen what broke, since when, what differed, and what repairs it.

A sweep file (YAML):

  sweep: vision                          # its name
  trainings:
    - target: train.py:training          # from where this file lies; or package.module:function
    - {target: small.py, name: small, goal: 0.9, seed: 0, weight: 2, run_timeout: 600, only: [...], without: [...],
       remedies: [own.py]}
  budget: 60                             # full runs for each training and night; who needs less leaves it to the others
  timeout: 28800                         # most seconds of a night (default: no limit)
  workers: 2                             # and gpus, address, resource, isolate (true): as the options of submit

also: seeds (3), confirm_seeds (5), fixes (3), run_timeout, stale_after (26: hours after which another night was due),
audit (0.05: the share of early stops that go on to the end), detectors and
forecast (as in a study file; for a training, too)"""
_EXITS = """exit codes:
  0    the work was done (report: nobody has to look at it)
  1    report: a regression was confirmed, a training did not run, or the night did not end
  2    bad input, or another process runs this sweep
  5    infrastructure failed; go on with the same command
  130  interrupted; go on with the same command"""
_NEXT = """usual:
  remedy nightly run sweep.yaml
  remedy nightly report sweep.yaml --format html --out morning.html
  remedy nightly schedule sweep.yaml --at 01:30 --as systemd --install"""
_SWEEP = "sweep file (see `remedy nightly --help`)"


class Command(Protocol):
    """Adds a command with the options that all have."""

    def __call__(
        self, commands: Any, name: str, module: str, about: str, *, json: bool = True, home: bool = True
    ) -> argparse.ArgumentParser:
        """Return its parser."""


def add(commands: Any, command: Command) -> None:
    """Add `nightly run`, `nightly report` and `nightly schedule`."""
    own = commands.add_parser(
        "nightly",
        help="many trainings by schedule, compared with the nights before: run, report, schedule",
        description=_ABOUT,
        epilog=f"{_NEXT}\n\n{_EXITS}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    nights = own.add_subparsers(dest="nightly", metavar="COMMAND", title="commands", required=True)
    _run(command(nights, "run", "nightly.run", "run one night of a sweep, or go on with one that was cut off"))
    _report(command(nights, "report", "nightly.report", "the morning report of a sweep", json=False))
    about = "print or install what runs a sweep and its report each night"
    _schedule(command(nights, "schedule", "nightly.schedule", about, json=False))
    for made in nights.choices.values():
        made.epilog = _EXITS


def _run(own: argparse.ArgumentParser) -> None:
    own.add_argument("sweep", metavar="SWEEP", help=_SWEEP)
    own.add_argument("--night", metavar="DATE", help="the night's name (default: today, or the night that was cut off)")
    own.add_argument(
        "--again",
        action="store_true",
        help="run a night that has ended once more (default: the last); runs of the same code are not made twice",
    )
    own.add_argument("--workers", type=int, metavar="N", help="as for submit (default: as the sweep file says)")
    own.add_argument("--gpus", type=float, metavar="SHARE", help="GPU share of one run")
    own.add_argument("--resource", action="append", metavar="NAME=AMOUNT", help="what else a run takes; repeatable")
    own.add_argument(
        "--isolate", action="store_const", const=True, help="train each run in a fresh process, made ready beforehand"
    )
    own.add_argument(
        "--address",
        help="Ray cluster: http://HEAD:8265 sends the night there as a job and follows it, HOST:6379 only its runs "
        "(default: REMEDY_ADDRESS, or a Ray of our own on this machine)",
    )


def _report(own: argparse.ArgumentParser) -> None:
    own.add_argument("sweep", metavar="SWEEP", help="sweep file, or the sweep's name")
    own.add_argument(
        "--night", metavar="DATE", help="default: the latest, or today's where that was due and did not run"
    )
    formats = ["text", "json", "md", "html", "junit"]
    own.add_argument("--format", choices=formats, default="text", help="default: text; junit: XML for CI")
    own.add_argument("--out", metavar="FILE", help="write to a file instead of standard output")


def _schedule(own: argparse.ArgumentParser) -> None:
    own.add_argument("sweep", metavar="SWEEP", help=_SWEEP)
    own.add_argument("--at", required=True, metavar="HH:MM", help="when a night begins")
    own.add_argument(
        "--timezone", metavar="ZONE", help="such as Europe/Berlin (default: the machine's; Kubernetes: UTC)"
    )
    own.add_argument(
        "--as",
        dest="kind",
        choices=["cron", "systemd", "kubernetes"],
        default="cron",
        help="a crontab line, a service and timer of your own, or a CronJob (default: cron)",
    )
    own.add_argument("--image", help="kubernetes: the container image (default: remedy:VERSION-rayVERSION)")
    own.add_argument(
        "--install", action="store_true", help="install and start it for this user (cron, systemd), not only print it"
    )
