"""Options that several commands share. Nothing heavy is imported here: every command builds its parser."""

from __future__ import annotations

import argparse


def goal_and_seed(own: argparse.ArgumentParser) -> None:
    """Add what every command that trains has."""
    own.add_argument(
        "--goal",
        help="metric that counts as converged, in place of the training's: 0.9, 'loss<=0.1'; needed for a script, of "
        "what it gives to remedy.report: 'accuracy>=0.9'",
    )
    own.add_argument("--seed", type=int, metavar="N", help="the one seed; all others derive from it (default: 0)")
    own.add_argument("--run-timeout", type=float, metavar="SECONDS", help="most seconds of one run")


def of_search(own: argparse.ArgumentParser) -> None:
    """Add what bounds and directs a search."""
    own.add_argument("--runs", type=int, metavar="N", help="most runs of every phase (default: 150)")
    own.add_argument("--budget", type=float, metavar="N", help="most full-run equivalents of optimizer steps")
    own.add_argument("--timeout", type=float, metavar="SECONDS", help="most seconds of the study")
    own.add_argument("--seeds", type=int, metavar="N", help="baseline runs (default: 3, the least)")
    own.add_argument(
        "--confirm-seeds", type=int, metavar="N", help="fresh seeds a fix is confirmed on (default: 5, the least)"
    )
    own.add_argument("--fixes", type=int, metavar="N", help="minimal fixes wanted (default: 3)")
    own.add_argument(
        "--audit",
        type=float,
        metavar="SHARE",
        help="share of the runs that a detector would stop which go on to the "
        "end, so that the report says how many of them would have converged (default: 0)",
    )
    own.add_argument(
        "--no-knowledge",
        dest="knowledge",
        action="store_const",
        const=False,
        help="leave out what past studies taught (`remedy knowledge`) when remedies are put in order",
    )
    own.add_argument("--only", action="append", metavar="REMEDY", help="search only this remedy; repeatable")
    own.add_argument("--without", action="append", metavar="REMEDY", help="leave this remedy out; repeatable")


def of_workers(own: argparse.ArgumentParser) -> None:
    """Add what says where and how runs are trained."""
    own.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="runs at a time; 0: one after the other in this process (default: one for each core, on a cluster as many "
        "as it has room for)",
    )
    own.add_argument(
        "--gpus", type=float, metavar="SHARE", help="GPU share of one run (default: shared evenly where there are GPUs)"
    )
    own.add_argument(
        "--resource",
        action="append",
        metavar="NAME=AMOUNT",
        help="what else a run takes of a cluster's node; repeatable",
    )
    own.add_argument(
        "--address",
        help="Ray cluster to work on: http://HEAD:8265 sends the study there as a job, HOST:6379 only its runs "
        "(default: REMEDY_ADDRESS, or a Ray of our own on this machine)",
    )
    own.add_argument(
        "--isolate",
        action="store_const",
        const=True,
        help="train each run in a fresh process, made ready beforehand, so that nothing a run leaves behind reaches "
        "another (with --workers 0 too: one after the other, each in a process of its own)",
    )
    own.add_argument(
        "--detach", action="store_true", help="with http://HEAD:8265: do not follow the study once it has begun"
    )
