"""The command line. Nothing heavy is imported here: `remedy --help` answers at once."""

from __future__ import annotations

import argparse
import errno
import importlib
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from remedy.commands import options
from remedy.commands.nightly import options as nightly

EXIT_FAULT, EXIT_BAD_INPUT, EXIT_INFRASTRUCTURE, EXIT_INTERRUPTED = 1, 2, 5, 130
_OF_A_PATH = {
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ENOENT,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.EEXIST,
    errno.ENAMETOOLONG,
}

_ABOUT = "Find out which fix makes a broken neural-network training converge, and prove it on fresh seeds."
_TARGET = (
    "file.py:function or package.module:function that returns a remedy.Training (function: training by default); a "
    "script with a loop of its own that calls remedy.prepare and remedy.report, its arguments after --; or a study "
    "file (YAML) with the key target and any of these options"
)
_EXITS = """exit codes:
  0    at least one fix was confirmed (other commands: the work was done)
  2    bad input, or every baseline run failed by the training's own code
  3    finished without a fix
  4    every baseline run converges: nothing to repair
  5    infrastructure failed
  130  interrupted; go on with `remedy resume STUDY`"""


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence, and where help is."""

    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_BAD_INPUT, f"remedy: {message}; see `{self.prog} --help`\n")


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    top = _Parser(
        prog="remedy", description=_ABOUT, epilog=_EXITS, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    top.add_argument("--version", action="store_true", help="print the version and end")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", title="commands")

    _inspecting(commands)
    _studying(commands)
    _viewing(commands)
    nightly.add(commands, _command)
    return top


def _command(
    commands: Any, name: str, module: str, about: str, *, json: bool = True, home: bool = True
) -> argparse.ArgumentParser:
    own: argparse.ArgumentParser = commands.add_parser(
        name,
        help=about,
        description=about[0].upper() + about[1:] + ".",
        epilog=_EXITS if name == "submit" else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    own.set_defaults(module=module, function=name)
    if home:
        own.add_argument("--home", metavar="DIR", help="where state lies (default: REMEDY_HOME, or .remedy here)")
    if json:
        own.add_argument("--json", action="store_true", help="print JSON and nothing else on standard output")
    return own


def _inspecting(commands: Any) -> None:
    own = _command(commands, "check", "inspect", "pre-flight checks and one watched baseline run; no search")
    own.add_argument("target", metavar="TARGET", help=_TARGET)
    options.goal_and_seed(own)
    own = _command(commands, "plan", "inspect", "say what submit would do and cost; writes nothing")
    own.add_argument("target", metavar="TARGET", help=_TARGET)
    options.goal_and_seed(own)
    options.of_search(own)


def _studying(commands: Any) -> None:
    own = _command(commands, "submit", "submit", "run a study: baseline, search, confirmation, minimisation, report")
    own.add_argument("target", metavar="TARGET", help=_TARGET)
    options.goal_and_seed(own)
    options.of_search(own)
    own.add_argument("--name", help="name of the study (default: made from the file's name)")
    options.of_workers(own)
    own = _command(commands, "run", "inspect", "one watched run, of the baseline or with a fix")
    own.add_argument("target", metavar="TARGET", help=_TARGET)
    own.add_argument("--fix", metavar="FILE", help="fix file that `remedy export` or a study wrote")
    options.goal_and_seed(own)
    own = _command(commands, "resume", "submit", "go on with a study toward the same totals, or larger ones")
    own.add_argument("study", metavar="STUDY")
    own.add_argument("--runs", type=int, metavar="N", help="new total of runs")
    own.add_argument("--budget", type=float, metavar="N", help="new total of full-run equivalents")
    own.add_argument("--timeout", type=float, metavar="SECONDS", help="new total of seconds")
    own.add_argument("--fixes", type=int, metavar="N", help="new number of minimal fixes wanted")
    own.add_argument(
        "--accept-changes", action="store_true", help="go on although the training's code or the space has changed"
    )
    options.of_workers(own)
    own = _command(commands, "stop", "control", "ask the controller of a study to end it; it can be resumed")
    own.add_argument("study", metavar="STUDY")
    own.add_argument("--now", action="store_true", help="end it without waiting for the runs under way")
    own = _command(commands, "delete", "control", "delete a study's files (its MLflow record stays)")
    own.add_argument("study", metavar="STUDY")
    own = _command(
        commands, "conduct", "cluster", "what the job of a study runs on a cluster's head", json=False, home=False
    )
    own.add_argument("study", metavar="STUDY")


def _viewing(commands: Any) -> None:
    _command(commands, "list", "views", "list the studies")
    own = _command(commands, "show", "views", "show a study and its runs, or one run with its curves and traceback")
    own.add_argument("study", metavar="STUDY")
    own.add_argument("--run", type=int, metavar="N", help="number of the run")
    own = _command(commands, "watch", "following", "show how a study goes until it ends, wherever it is worked on")
    own.add_argument("study", metavar="STUDY")
    own = _command(commands, "wait", "following", "wait until a study ends; the exit code is the study's")
    own.add_argument("study", metavar="STUDY")
    own.add_argument("--timeout", type=float, metavar="SECONDS", help="give up waiting after so long (exit code 5)")
    own = _command(commands, "logs", "views", "print what the training's code printed", json=False)
    own.add_argument("study", metavar="STUDY")
    own.add_argument("--run", type=int, metavar="N", help="number of the run (default: all)")
    own = _command(commands, "report", "views", "the findings of a study", json=False)
    own.add_argument("study", metavar="STUDY")
    own.add_argument("--format", choices=["text", "json", "md", "html"], default="text", help="default: text")
    own.add_argument("--out", metavar="FILE", help="write to a file instead of standard output")
    own = _command(commands, "export", "views", "write a found fix as a file that your own code applies", json=False)
    own.add_argument("study", metavar="STUDY")
    own.add_argument(
        "--fix", type=int, default=1, metavar="N", help="which of the study's fixes (default: 1, the best)"
    )
    own.add_argument(
        "--as",
        dest="form",
        choices=["yaml", "python"],
        default="yaml",
        help="yaml: a file that remedy applies (the default); python: code that makes the same change without remedy",
    )
    own.add_argument("--out", metavar="FILE", help="default: fix.yaml, or fix.py")
    own = _command(commands, "remedies", "catalogue", "the catalogue of remedies, with sources", home=False)
    own.add_argument("target", nargs="?", metavar="TARGET", help="with those that this training, or study file, names")
    own.add_argument("--slot", help="only remedies of this slot")
    own.add_argument("--symptom", help="only remedies that treat this symptom")
    _command(commands, "symptoms", "catalogue", "the symptoms that are recognised, with their meaning", home=False)
    own = _command(commands, "knowledge", "knowledge", "what past studies taught: symptom x remedy, converged k of n")
    own.add_argument("--symptom", help="only this symptom")
    own = _command(commands, "ui", "ui", "start MLflow's pages on the right store, and print the address", json=False)
    own.add_argument("--port", type=int, default=5000, help="default: 5000")
    own.add_argument("--study", metavar="STUDY", help="print the links of this study only")
    own = _command(commands, "doctor", "doctor", "say which part is wrong: packages, home, storage, MLflow, Ray, GPUs")
    own.add_argument(
        "--address", help="Ray cluster to look at: http://HEAD:8265 or HOST:6379 (default: REMEDY_ADDRESS)"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code. Errors the user can cause are one sentence on standard error."""
    asked = read(list(sys.argv[1:] if argv is None else argv))
    if asked.version:
        from importlib.metadata import version

        sys.stdout.write(f"remedy {version('remedy')}\n")
        return 0
    if asked.command is None:
        parser().print_help()
        return EXIT_BAD_INPUT
    return _guarded(asked)


def read(argv: list[str]) -> argparse.Namespace:
    """Read the command line; what follows `--` is for the script that is named before it."""
    own, dashes, rest = argv, "", []
    if "--" in argv:
        place = argv.index("--")
        own, dashes, rest = argv[:place], "--", argv[place + 1 :]
    asked = parser().parse_args(own)
    if dashes and not hasattr(asked, "target"):
        parser().error(f"{asked.command or 'remedy'} takes no arguments after --; they are for a script")
    if hasattr(asked, "target"):
        asked.args = rest if dashes else None
    return asked


def _guarded(asked: argparse.Namespace) -> int:
    from remedy.spaces.error import InfrastructureError, InputError, TimeLimit

    try:
        return _called(asked)
    except (InputError, TimeLimit) as error:
        code, said = EXIT_BAD_INPUT, str(error)
    except InfrastructureError as error:
        code, said = EXIT_INFRASTRUCTURE, str(error)
    except KeyboardInterrupt:
        code, said = EXIT_INTERRUPTED, "interrupted"
    except BrokenPipeError:
        # The reader (head, less) went away; Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        code = EXIT_BAD_INPUT if error.errno in _OF_A_PATH else EXIT_INFRASTRUCTURE
        said = f"{error.strerror or error}" + (f": {error.filename}" if error.filename else "")
    except Exception:  # noqa: BLE001  (a fault of ours: the user gets a sentence, we get the traceback)
        handle, path = tempfile.mkstemp(prefix="remedy-", suffix=".log")
        with os.fdopen(handle, "w") as log:
            traceback.print_exc(file=log)
        code, said = EXIT_FAULT, f"a fault of remedy's own; please report it with {path}"
    sys.stderr.write(f"remedy: {said}\n")
    return code


def _called(asked: argparse.Namespace) -> int:
    if getattr(asked, "target", None) is not None:
        from remedy.studyfile import complete

        complete(asked)
    function: Callable[[Any], int] = getattr(importlib.import_module(f"remedy.commands.{asked.module}"), asked.function)
    return function(asked)


if __name__ == "__main__":
    sys.exit(main())
