"""A database, a tracking server or a disk that goes away in the midst of a study: nothing is lost or doubled."""

import contextlib
import json
import os
import subprocess
import time

import pytest

from remedy.search.outbox import SPOOL
from tests.service.kept import Place, accounted, runs, until


def test_postgresql_that_crashes_and_comes_back_is_waited_for(
    in_postgres, postgres, name, started, undisturbed, tmp_path
):
    said = tmp_path / "said"
    with said.open("w") as stderr:
        process = in_postgres.held(name, started, stderr=stderr)
    postgres.kill()
    try:
        in_postgres.release()
        until(lambda: "is away" in said.read_text(), process)
    finally:
        postgres.start()
    assert process.wait(120) == 0, said.read_text()
    assert postgres.password not in said.read_text()
    account = accounted(in_postgres, name)
    assert (account.cut_off, account.lost) == (0, 0)
    assert (account.records, account.findings) == (undisturbed.records, undisturbed.findings)


def test_a_controller_whose_lease_was_taken_over_writes_nothing_more(in_postgres, postgres, name, started, undisturbed):
    first = in_postgres.held(name, started, phase="confirm")
    postgres.kill()  # it forgets who held what
    postgres.start()
    before = set(in_postgres.standing())
    second = started(in_postgres.start("resume", name, "--workers", 0))
    until(lambda: set(in_postgres.standing()) - before, second)
    in_postgres.release()
    out, err = first.communicate(timeout=120)
    assert (first.returncode, out) == (5, "")
    assert f"remedy: study {name!r} was taken over by another process" in err.splitlines()[-1]
    assert f"go on with: remedy resume {name}" in err.splitlines()[-1]
    assert second.wait(120) == 0, second.communicate()
    account = accounted(in_postgres, name)
    assert account.cut_off == 1
    assert (account.records, account.findings) == (undisturbed.records, undisturbed.findings)


def test_what_mlflow_did_not_take_while_it_was_away_is_written_when_it_is_back(
    in_postgres, mlflow_server, name, started, undisturbed
):
    place = Place(in_postgres.line, {**in_postgres.environment, "MLFLOW_TRACKING_URI": mlflow_server.url})
    process = place.held(name, started)
    until(lambda: place.in_mlflow(name), process)
    mlflow_server.stop()
    since = time.monotonic()
    place.release()
    place.wait_for(name, runs(4), process)
    place.hold()
    place.wait_for(name, lambda folder: (folder.files.read(SPOOL) or "").count("\n") >= 4, process)
    until(lambda: time.monotonic() - since > 20, process)
    mlflow_server.start()
    place.release()
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, (out, err)
    account = accounted(place, name)
    assert (account.cut_off, account.lost) == (0, 0)
    assert (account.records, account.findings) == (undisturbed.records, undisturbed.findings)


@pytest.fixture
def disk(tmp_path):
    """A small file system of its own."""
    path = tmp_path / "disk"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m", "none", path]
    mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    if mounted.returncode:
        why = f"nothing can be mounted here: {mounted.stderr.strip()}"
        if os.environ.get("CI") and os.geteuid() == 0:
            pytest.fail(why)
        pytest.skip(why)
    yield path
    subprocess.run(["umount", "--lazy", path], check=True)


def test_a_disk_that_is_full_ends_a_study_that_goes_on_when_there_is_room(embedded, disk, name, started, undisturbed):
    place = Place(type(embedded.line)(embedded.line.place, disk / "home"))
    process = place.held(name, started, "--workers", 0, "--json", phase="confirm")
    until(lambda: place.in_mlflow(name), process)
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as full, contextlib.suppress(OSError):
        while True:
            full.write(bytes(4096))
    place.release()
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (5, "")
    last = err.splitlines()[-1]
    assert last.startswith("remedy: No space left on device: "), err
    assert last.endswith(f"what was recorded stays, go on with: remedy resume {name}")
    assert "Traceback" not in err
    again = place("resume", name, "--workers", 0, code=5)
    assert "No space left on device" in again.err
    ballast.unlink()
    assert json.loads(place("resume", name, "--workers", 0, "--json").out)["exit_code"] == 0
    account = accounted(place, name)
    assert (account.records, account.findings) == (undisturbed.records, undisturbed.findings)
