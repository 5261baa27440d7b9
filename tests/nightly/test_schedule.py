"""What `nightly schedule` prints and installs: read by the tools that will read it, and run as cron runs it."""

import os
import re
import subprocess
import zoneinfo
from datetime import datetime, timedelta
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from remedy.cli import main
from tests.deploy.deployed import program, run
from tests.nightly.conftest import Nights

HOSTILE = 'a b%c\'s "d" $HOME'
SECRET = "postgresql://remedy:hunter2@db/optuna"


@pytest.fixture
def said(nights: Nights, monkeypatch, capsys):
    """Calls `nightly schedule` for a sweep in a folder with a strange name; returns what it printed."""
    place = nights.place / HOSTILE
    place.mkdir()
    sweep = nights.sweep({"target": "gone.py"})
    sweep = sweep.rename(place / sweep.name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(nights.place / "config"))
    monkeypatch.delenv("TZ", raising=False)

    def call(*options, code=0):
        capsys.readouterr()
        assert main(["nightly", "schedule", str(sweep), "--home", str(nights.home), *options]) == code
        return capsys.readouterr()

    return call


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Puts a program in place of the machine's own, which would change the account of whoever runs the tests."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    def add(name, body):
        (folder / name).write_text(f'#!/bin/sh\necho "{name} $*" >>{folder}/calls\n{body}\n')
        (folder / name).chmod(0o755)
        return folder / "calls"

    return add


# ---------------------------------------------------------------- cron


def fields(line):
    minute, hour, rest = re.fullmatch(r"(\d+) (\*|\d+) \* \* \* (.*)", line).groups()
    # To cron a bare % ends the line, and \% stands for one.
    assert not re.search(r"(?<!\\)%", rest)
    return int(minute), hour, rest.replace(r"\%", "%")


def test_the_crontab_line_runs_the_night_and_prints_the_report_alone(said, nights: Nights):
    begin, line, over = said("--at", "1:30").out.splitlines()
    assert (begin, over) == ("# remedy nightly team: begin", "# remedy nightly team: end")
    minute, hour, command = fields(line)
    assert (minute, hour) == (30, "1")
    bare = {"HOME": str(nights.place), "PATH": "/usr/bin:/bin"}
    bare |= {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
    done = subprocess.run(
        ["/bin/sh", "-c", command], cwd="/", env=bare, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.stderr == ""
    assert done.stdout.startswith("1 training: 0 healthy, 0 newly broken, 0 fixed; 1 not run\n"), "this is mailed"
    log = (nights.home / "logs/nightly-team.out").read_text()
    assert "[1/1] gone: not run: target file" in log
    assert done.stdout in log


@pytest.mark.parametrize("zone", ["Europe/Berlin", "Asia/Kolkata", "America/St_Johns", "UTC"])
def test_with_a_zone_the_line_runs_once_a_day_at_that_time_there(said, zone, stand_in):
    minute, hour, command = fields(said("--at", "02:15", "--timezone", zone).out.splitlines()[1])
    assert hour == "*"
    guard = command.split(" && ")[0]
    stand_in("date", 'exec /usr/bin/date --date "@$NOW" "$@"')
    begun = []
    local = datetime(2026, 11, 21, tzinfo=datetime.now().astimezone().tzinfo)
    for hours in range(24):
        now = local + timedelta(hours=hours, minutes=minute)
        environment = {**os.environ, "NOW": str(int(now.timestamp()))}
        if subprocess.run(["/bin/sh", "-c", guard], env=environment, check=False).returncode == 0:
            begun.append(now.astimezone(zoneinfo.ZoneInfo(zone)))
    assert [f"{moment:%H:%M}" for moment in begun] == ["02:15"]


def test_installed_twice_it_is_there_once_and_other_lines_stay(said, stand_in, tmp_path, monkeypatch):
    table = tmp_path / "crontab"
    known = f"[ -f {table} ] && cat {table}"
    body = f"""[ "$1" = - ] && cat >{table} || {{ {known} || {{ echo "no crontab for me" >&2; exit 1; }}; }}"""
    stand_in("crontab", body)
    assert said("--at", "01:30", "--install").out.startswith("added remedy-nightly-team in your crontab\n")
    table.write_text("MAILTO=me@example.org\n" + table.read_text() + "0 4 * * * other")
    monkeypatch.setenv("REMEDY_STORAGE", SECRET)
    told = said("--at", "02:45", "--install").out
    assert told.startswith("replaced ")
    assert "REMEDY_STORAGE=..." in told
    lines = table.read_text().splitlines()
    assert lines[:2] == ["MAILTO=me@example.org", "0 4 * * * other"]
    assert [line.split(" ")[:2] for line in lines if line.endswith("}")] == [["45", "2"]]
    assert "hunter2" not in told + table.read_text()
    assert "config/remedy/environment" in table.read_text()


def test_without_cron_it_says_so(said, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    err = said("--at", "01:30", "--install", code=5).err
    assert err == "remedy: crontab cannot be called: No such file or directory; install cron, or use --as systemd\n"


# ---------------------------------------------------------------- systemd


def units(text):
    """The units that were printed, by name."""
    parts = re.split(r"^# (/\S.*)$", text, flags=re.MULTILINE)[1:]
    return {Path(name).name: body.strip() + "\n" for name, body in zip(parts[::2], parts[1::2], strict=True)}


@pytest.mark.parametrize("zone", [None, "Europe/Berlin"])
def test_systemd_takes_the_units(said, tmp_path, zone, monkeypatch):
    monkeypatch.setenv("REMEDY_STORAGE", SECRET)
    told = said("--at", "01:30", "--as", "systemd", *(["--timezone", zone] if zone else [])).out
    assert "hunter2" not in told
    found = units(told)
    assert set(found) == {"remedy-nightly-team.service", "remedy-nightly-team.timer"}
    for name, text in found.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    done = run(program("systemd-analyze"), "verify", "--user", "--man=no", *(tmp_path / name for name in found))
    assert done.stderr == ""
    when = re.search(r"^OnCalendar=(.*)$", found["remedy-nightly-team.timer"], re.MULTILINE)[1]
    calendar = run(program("systemd-analyze"), "calendar", when).stdout
    assert re.search(r"Normalized form: \*-\*-\* 01:30:00" + (f" {zone}" if zone else ""), calendar)
    service = found["remedy-nightly-team.service"]
    starts = re.findall(r"^ExecStart=(.*)$", service, re.MULTILINE)
    assert [start[0] for start in starts] == ["-", "/"], "the report is made whatever became of the night, and counts"
    assert "$$HOME" in starts[0], "systemd replaces no variable in the name of a folder"
    assert "%%c" in starts[0]
    assert int(re.search(r"^TimeoutStartSec=(\d+)$", service, re.MULTILINE)[1]) < 24 * 3600
    assert f"EnvironmentFile={os.environ['XDG_CONFIG_HOME']}/remedy/environment" in service


def test_installed_units_are_started(said, stand_in, nights: Nights):
    calls = stand_in("systemctl", "exit 0")
    told = said("--at", "01:30", "--as", "systemd", "--install").out
    folder = nights.place / "config/systemd/user"
    assert {path.name for path in folder.iterdir()} == {"remedy-nightly-team.service", "remedy-nightly-team.timer"}
    assert calls.read_text().splitlines() == [
        "systemctl --user daemon-reload",
        "systemctl --user enable --now remedy-nightly-team.timer",
    ]
    assert "started remedy-nightly-team.timer" in told
    stand_in("systemctl", "echo 'Failed to connect to bus' >&2; exit 1")
    err = said("--at", "01:30", "--as", "systemd", "--install", code=5).err
    assert err == (
        "remedy: the units are written, but `systemctl --user daemon-reload` did not work: Failed to connect to bus\n"
    )


# ---------------------------------------------------------------- Kubernetes


@pytest.mark.parametrize("name", ["team", "Vision.2026_", "x" * 40])
@pytest.mark.parametrize("version", ["1.32.0", kubernetes_validate.latest_version()])
def test_kubernetes_takes_the_cron_job(nights: Nights, capsys, monkeypatch, name, version):
    monkeypatch.setenv("REMEDY_STORAGE", SECRET)
    sweep = nights.sweep({"target": "gone.py"}, sweep=name)
    asked = ["--at", "01:30", "--as", "kubernetes", "--timezone", "Europe/Berlin"]
    assert main(["nightly", "schedule", str(sweep), *asked]) == 0
    told = capsys.readouterr().out
    assert "hunter2" not in told
    job = yaml.safe_load(told)
    kubernetes_validate.validate(job, version, strict=True)
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,50}[a-z0-9])?", job["metadata"]["name"])
    assert re.fullmatch(r"[A-Za-z0-9]([\w.-]{0,61}[A-Za-z0-9])?", job["metadata"]["labels"]["sweep"])
    spec = job["spec"]
    assert (spec["schedule"], spec["timeZone"], spec["concurrencyPolicy"]) == ("30 1 * * *", "Europe/Berlin", "Forbid")
    assert spec["jobTemplate"]["spec"]["activeDeadlineSeconds"] < 24 * 3600
    (container,) = spec["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    assert container["command"][-1] == f"remedy nightly run {sweep}; remedy nightly report {sweep}"
    assert container["env"] == [
        {"name": "REMEDY_STORAGE", "valueFrom": {"secretKeyRef": {"name": "remedy", "key": "REMEDY_STORAGE"}}}
    ]
    assert not container["image"].endswith(":latest")


def test_the_zone_of_a_cron_job_is_said(said):
    assert yaml.safe_load(said("--at", "23:05", "--as", "kubernetes").out)["spec"]["timeZone"] == "Etc/UTC"


# ---------------------------------------------------------------- wrong input


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--at", "25:00"], "--at is '25:00'; it may be HH:MM, 00:00 to 23:59"),
        (["--at", "1:5"], "--at is '1:5'; it may be HH:MM"),
        (["--at", "01:30", "--timezone", "Mars/Base"], "--timezone is 'Mars/Base'; it may be a name such as"),
        (["--at", "01:30", "--timezone", "../etc"], "--timezone is '../etc'; it may be"),
        (["--at", "01:30", "--as", "kubernetes", "--install"], "--install is for cron and systemd"),
        (["--at", "01:30", "--image", "x:1"], "--image is for --as kubernetes; this is --as cron"),
    ],
)
def test_wrong_input_is_one_sentence(said, options, told):
    err = said(*options, code=2).err
    assert err.startswith(f"remedy: {told}")
    assert err.count("\n") == 1
