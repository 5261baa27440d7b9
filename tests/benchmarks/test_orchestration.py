"""The orchestration benchmark at its smallest: every run was made, and is where it is said to be kept."""

import json
import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "orchestration.py"
RUNS = 6


def test_every_run_is_made_and_recorded() -> None:
    ways = ["remedy", "remedy-isolate", "tune-reused", "tasks"]
    command = [sys.executable, SCRIPT, "--runs", str(RUNS), "--repeats", "1", "--only", *ways, "--json"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=800, env={**os.environ})
    assert done.returncode == 0, done.stderr
    rows = {row["way"]: row for row in json.loads(done.stdout)["rows"]}
    assert list(rows) == ways
    for way in ("remedy", "remedy-isolate"):
        assert rows[way]["made"] == {"optuna": RUNS, "mlflow": RUNS, "files": RUNS}
    assert rows["tune-reused"]["made"] == {"optuna": RUNS, "results": RUNS, "files": RUNS}
    assert rows["tasks"]["made"] == {"results": RUNS}
    for row in rows.values():
        assert row["least_ms"] <= row["cost_ms"] <= row["most_ms"]
        assert row["cpu"] > 0
    assert rows["remedy"]["times_remedy"] == 1


def test_what_it_does_not_know_it_says() -> None:
    done = subprocess.run([sys.executable, SCRIPT, "--runs", "1"], check=False, capture_output=True, text=True)
    assert done.returncode == 2
    assert "--runs may be 5 or more" in done.stderr
