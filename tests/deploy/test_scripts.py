"""The scripts do what they say, with a `remedy`, `srun` and `ray` that write down how they were called."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.deploy.deployed import DEPLOY, program, run

STUDY, NIGHTLY = DEPLOY / "docker/remedy-study", DEPLOY / "docker/remedy-nightly"


class Bin:
    """A folder of stand-ins; what they were called with is in `calls`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "bin"
        self.folder.mkdir()
        self.log = folder / "calls"
        self.log.touch()

    def add(self, name: str, body: str) -> None:
        path = self.folder / name
        path.write_text(f'#!/usr/bin/env bash\necho "{name} $*" >>{self.log}\n{body}\n')
        path.chmod(0o755)

    @property
    def calls(self) -> list[str]:
        return self.log.read_text().splitlines()

    @property
    def environment(self) -> dict[str, str]:
        return {"PATH": f"{self.folder}:/usr/bin:/bin", "HOME": str(self.folder.parent)}


@pytest.fixture
def stand_ins(tmp_path: Path) -> Bin:
    return Bin(tmp_path)


@pytest.mark.parametrize(("known", "verb"), [(0, "resume mine"), (2, "submit t.py:training --name mine --budget 9")])
@pytest.mark.parametrize(("said", "code"), [(0, 0), (3, 0), (4, 0), (2, 2), (5, 5), (130, 130)])
def test_a_study_is_begun_or_gone_on_with(stand_ins: Bin, known: int, verb: str, said: int, code: int) -> None:
    stand_ins.add("remedy", f'[ "$1" = show ] && exit {known}; exit {said}')
    run(STUDY, "mine", "t.py:training", "--budget", "9", env=stand_ins.environment, code=code)
    assert stand_ins.calls == ["remedy show mine", f"remedy {verb}"]


FAKE_REMEDY = """
case "$2" in
    run) exit {night} ;;
    report) while [ "$1" != --out ]; do shift; done; echo report >"$2"; exit {morning} ;;
esac"""


@pytest.mark.parametrize(("night", "morning", "code"), [(0, 0, 0), (0, 1, 1), (5, 1, 5), (2, 0, 2), (1, 1, 1)])
def test_a_night_is_reported_whatever_became_of_it(
    stand_ins: Bin, tmp_path: Path, night: int, morning: int, code: int
) -> None:
    stand_ins.add("remedy", FAKE_REMEDY.format(night=night, morning=morning))
    told = run(NIGHTLY, "once", "s.yaml", env=stand_ins.environment, code=code, cwd=tmp_path)
    assert told.stdout == "report\n"
    assert stand_ins.calls[0] == "remedy nightly run s.yaml"
    asked = [call.split()[5] for call in stand_ins.calls[1:]]
    assert sorted(asked) == ["html", "json", "junit", "md", "text"]
    assert {path.name for path in (tmp_path / "reports").iterdir()} == {
        f"morning.{e}" for e in ("html", "json", "md", "txt", "xml")
    }


def test_yesterdays_report_does_not_pass_for_todays(stand_ins: Bin, tmp_path: Path) -> None:
    stand_ins.add("remedy", "exit 5")
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports/morning.txt").write_text("all is well\n")
    told = run(NIGHTLY, "once", "s.yaml", env=stand_ins.environment, code=5, cwd=tmp_path)
    assert told.stdout == ""
    assert not list((tmp_path / "reports").iterdir())


def test_reports_go_where_they_are_asked_for(stand_ins: Bin, tmp_path: Path) -> None:
    stand_ins.add("remedy", FAKE_REMEDY.format(night=0, morning=0))
    run(NIGHTLY, "once", "s.yaml", env={**stand_ins.environment, "REMEDY_REPORTS": str(tmp_path / "a b" / "c")})
    assert (tmp_path / "a b/c/morning.xml").exists()


@pytest.mark.parametrize("at", ["25:00", "9:30", "12:60", "noon", ""])
def test_a_time_that_is_none_is_refused(stand_ins: Bin, at: str) -> None:
    done = run(NIGHTLY, "daily", at, "s.yaml", env=stand_ins.environment, code=None)
    assert done.returncode in {1, 2}
    assert "HH:MM" in done.stderr


def test_without_a_word_it_says_how_it_is_used() -> None:
    done = run(NIGHTLY, code=2)
    assert "remedy-nightly once SWEEP" in done.stderr
    assert "remedy-nightly daily HH:MM SWEEP" in done.stderr


def test_the_scheduler_waits_for_its_time_runs_the_night_and_ends_when_told(stand_ins: Bin, tmp_path: Path) -> None:
    stand_ins.add("remedy", FAKE_REMEDY.format(night=0, morning=1))
    # The clock says 01:29:59; `date -d` of a moment goes to the real one.
    stand_ins.add(
        "date", 'case "$*" in +%s) echo 100 ;; "--date today 01:30 +%s") echo 101 ;; *) echo 2000-01-01 ;; esac'
    )
    log = tmp_path / "log"
    with log.open("w") as out:
        process = subprocess.Popen(
            [NIGHTLY, "daily", "01:30", "s.yaml"], env=stand_ins.environment, stdout=out, stderr=out, cwd=tmp_path
        )
        try:
            end = time.monotonic() + 60
            while "red (exit code 1)" not in log.read_text() and time.monotonic() < end:
                time.sleep(0.1)
            assert "red (exit code 1)" in log.read_text()
            assert "remedy nightly run s.yaml" in stand_ins.calls
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
        finally:
            process.kill()
            process.wait()


def test_the_password_may_come_from_a_file(stand_ins: Bin, tmp_path: Path) -> None:
    stand_ins.add("remedy", f'echo "$REMEDY_STORAGE" >>{stand_ins.log}')
    (tmp_path / "storage").write_text("postgresql://u:p@h/d\n")
    run(STUDY, "mine", "t.py", env={**stand_ins.environment, "REMEDY_STORAGE_FILE": str(tmp_path / "storage")})
    assert stand_ins.calls[:4] == [
        "remedy show mine",
        "postgresql://u:p@h/d",
        "remedy resume mine",
        "postgresql://u:p@h/d",
    ]
    run(STUDY, "mine", "t.py", env={**stand_ins.environment, "REMEDY_STORAGE_FILE": "/nowhere"}, code=1)


# ---------------------------------------------------------------- Slurm


@pytest.fixture
def slurm(stand_ins: Bin) -> Bin:
    """Two nodes: `srun` runs the command once for each, `ray` tells what it was given, and what it knows."""
    stand_ins.add("scontrol", "printf 'node1\\nnode2\\n'")
    stand_ins.add(
        "srun",
        'while [[ $1 == --* ]]; do shift; done\n[ "$1" = hostname ] && { echo 10.1.2.3 10.9.9.9; exit; }\n'
        'for node in 0 1; do "$@" || exit; done',
    )
    stand_ins.add(
        "ray",
        'echo "knows storage=${REMEDY_STORAGE:-} address=$REMEDY_ADDRESS mode=$RAY_AUTH_MODE '
        'token=$(wc -c <"$RAY_AUTH_TOKEN_PATH") $(stat -c %a "$RAY_AUTH_TOKEN_PATH")" '
        f">>{stand_ins.log}",
    )
    return stand_ins


def test_slurm_starts_ray_on_every_node_and_tells_none_the_password(slurm: Bin, tmp_path: Path) -> None:
    environment = {
        **slurm.environment,
        "SLURM_JOB_ID": "77",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_JOB_NODELIST": "node[1-2]",
        "REMEDY_ROOT": str(tmp_path / "nowhere"),
        "REMEDY_STORAGE": "postgresql://u:p@h/d",
        "REMEDY_STORAGE_FILE": str(tmp_path / "storage"),
    }
    run("bash", DEPLOY / "slurm/remedy.sbatch", "mine", "a b.py:training", "--budget", "9", env=environment)
    rays = [call for call in slurm.calls if call.startswith("ray ")]
    assert len(rays) == 2
    assert rays[0] == rays[1]
    told = [call for call in slurm.calls if call.startswith("knows ")]
    assert told == 2 * ["knows storage= address=10.1.2.3:6379 mode=token token=64 600"]
    assert not list((tmp_path / ".remedy").iterdir()), "the token is gone with the job"
    words = rays[0].split()
    assert words[1:6] == ["symmetric-run", "--address", "10.1.2.3:6379", "--min-nodes", "2"]
    assert rays[0].endswith("-- remedy-study mine a b.py:training --budget 9")
    # Ray itself takes the arguments.
    code = (
        "import sys; from ray.scripts.symmetric_run import curate_and_validate_ray_start_args as c; "
        "from ray.scripts.scripts import start; start.make_context('start', ['--head', *c(sys.argv[1:])])"
    )
    run(program("python"), "-c", code, *words[2 : words.index("--")], env={**os.environ, "RAY_AUTH_MODE": "disabled"})


@pytest.mark.parametrize("missing", ["REMEDY_ROOT", "REMEDY_STORAGE_FILE"])
def test_slurm_says_what_it_wants(slurm: Bin, missing: str) -> None:
    environment = {"REMEDY_ROOT": "x", "REMEDY_STORAGE_FILE": "x", **slurm.environment}
    del environment[missing]
    done = run("bash", DEPLOY / "slurm/remedy.sbatch", "mine", "t.py", env=environment, code=None)
    assert done.returncode != 0
    assert missing in done.stderr
