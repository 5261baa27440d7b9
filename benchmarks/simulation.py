#!/usr/bin/env python3
"""What one controller can do: thousands of runs on hundreds of simulated workers, through all that is ours.

usage: python benchmarks/simulation.py [--runs N] [--workers N] [--only PART ...] [--json]

Real: agenda, Optuna, its storage, saved results, report, MLflow. Simulated: runs (they take time on a clock that jumps;
their results are made up, as large as real ones) and Ray. Each part has a process of its own:

  sweep       20 studies one after the other, each with a twentieth of the runs and of the workers
  single      one study with all runs on all workers; half of its remedies are made up, else it would end sooner
  postgresql  a tenth of the runs in one study, trials and results in PostgreSQL (a server of its own, without fsync)
  mlflow      the record's own thread, into SQLite and into an `mlflow server`
  saturation  a fifth of the runs in one study at ever shorter runs, where the controller's own time counts on the clock

Times are wall times of this machine, with the CPU time of the controller's thread beside them. `sequence` is a hash of
the runs in the order in which they ended: the same everywhere, except where the controller's time counts.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).parents[1]))  # the tests have a PostgreSQL server

from simulation_parts import GOAL, STEPS, Clock, Meter, Workers, answer, more_remedies, spread

from remedy.search import conduct
from remedy.search.agenda import Agenda
from remedy.search.child import child
from remedy.search.conduct import Study
from remedy.search.controller import Controller
from remedy.search.database import Database
from remedy.search.home import Home, StudyFolder
from remedy.search.record import Record
from remedy.search.spec import Spec
from remedy.search.study import Trials
from remedy.spaces.catalogue import REMEDIES
from remedy.spaces.space import Space
from remedy.spaces.target import Source
from remedy.workers.order import Phase, WorkOrder

SWEEP = 20
OWN = 60
MLFLOW_RUNS = 300
SECONDS = (1.0, 3.0, 10.0, 30.0)
SOURCE = Source(__file__, "training", "0" * 64)
Figures = dict[str, Any]


class NoRecord(Record):
    """Makes the rows that MLflow would get, and counts their points: the store is measured by itself."""

    def __init__(self) -> None:
        super().__init__("sqlite://", Path(), "simulated")
        self.points = 0

    def begin(self, *_args: Any) -> None:
        """Nothing to open."""

    def run(self, order: WorkOrder, result: Any, space_slots: Any, fix: str | None) -> None:
        self.points += len(child("simulated", order, result, space_slots, fix).metrics)

    def finish(self, *_args: Any) -> None:
        """Nothing to write."""


# ---------------------------------------------------------------- studies


def conducted(folder: StudyFolder, space: Space, meter: Meter, workers: Workers, **asked: Any) -> Study:
    """Conduct a study on simulated workers."""
    spec = Spec(**{"study": folder.name, "source": SOURCE, "goal": GOAL, "steps": STEPS, **asked})
    study = Study(spec, folder, space, NoRecord(), [meter])
    folder.save_spec(spec.to_json())
    # Reports are saved every two seconds of the simulated time, in which the study would take place.
    with meter.watching(), mock.patch.object(conduct, "time", workers.clock):
        study.conduct(lambda: workers)
    return study


def told(meter: Meter, studies: list[Study], began: float, memory: float) -> Figures:
    """Return the figures that all parts share."""
    marks = [mark for mark in (100, 1000, 10_000) if mark < len(meter.runs)]
    stretches = zip([0, *marks], [*marks, len(meter.runs)], strict=True)
    taken = time.perf_counter() - began
    writes = sum(meter.calls[name] for name in ("create_new_trial", "set_trial_user_attr", "set_trial_state_values"))
    return {
        "runs": len(meter.runs),
        "studies": len(studies),
        "sequence": meter.sequence,
        "asked": meter.asked,
        "seconds": taken,
        "controller_ms": {"wall": spread(meter.totals(0)), "cpu": spread(meter.totals(1))},
        "curve_ms": [{"from": a, "to": b, "parts": meter.by_part(a, b)} for a, b in stretches if b > a],
        "after_the_last_run_s": sum(meter.rest().values()),
        "storage_writes_per_run": writes / len(meter.runs),
        "reports_saved": meter.calls["save"],
        "mlflow_points_per_run": sum(s.record.points for s in studies if isinstance(s.record, NoRecord))
        / len(meter.runs),
        "memory_mib": {"before": memory, "peak": peak()},
    }


def sweep(runs: int, workers: int, place: Path) -> Figures:
    memory, began, meter, clocks = peak(), time.perf_counter(), Meter(), 0.0
    studies = []
    for number in range(SWEEP):
        clock = Clock()
        pool = Workers(max(1, workers // SWEEP), 60.0, clock)
        folder = Home(place).study(f"night-{number}")
        studies.append(
            conducted(folder, Space(tuple(REMEDIES)), meter, pool, runs=max(1, runs // SWEEP), seed=number, fixes=3)
        )
        clocks += clock.now()
    return {**told(meter, studies, began, memory), "simulated_s": clocks, "disk_mib": sizes(place)}


def single(runs: int, workers: int, place: Path) -> Figures:
    memory, began, meter = peak(), time.perf_counter(), Meter()
    folder = Home(place).study("single")
    pool = Workers(workers, 60.0, Clock())
    study = conducted(folder, wide(), meter, pool, runs=runs, confirm_seeds=20)
    found = {**told(meter, [study], began, memory), "simulated_s": pool.clock.now(), "disk_mib": sizes(place)}
    return {**found, "resume_s": resumed(study)}


def wide() -> Space:
    """The catalogue and as many again of one's own."""
    return Space((*REMEDIES, *more_remedies(OWN)))


def resumed(study: Study) -> float:
    """Return the seconds until a new controller knows what the old one knew."""
    began = time.perf_counter()
    trials = Trials(study.folder.storage, study.spec.study, study.space, study.spec.seed)
    agenda = Agenda(study.spec, study.space)
    Controller(agenda, trials, study.folder, Workers(1, 1.0, Clock()), []).restore()
    return time.perf_counter() - began


def postgresql(runs: int, workers: int, place: Path) -> Figures:
    with server() as (url, size):
        if not url:
            return {"skipped": "no PostgreSQL here"}
        memory, began, meter, before = peak(), time.perf_counter(), Meter(), size()
        folder = Home(place, Database(url, 60.0)).study("postgresql")
        pool = Workers(workers, 60.0, Clock())
        study = conducted(folder, wide(), meter, pool, runs=max(1, runs // 10), confirm_seeds=20)
        found = {**told(meter, [study], began, memory), "simulated_s": pool.clock.now()}
        return {**found, "disk_mib": {"database": size() - before}, "resume_s": resumed(study)}


@contextlib.contextmanager
def server() -> Iterator[tuple[str, Callable[[], float]]]:
    """A PostgreSQL server, and how many MiB its database has; an empty address where there is none."""
    try:
        from tests.postgres import running_postgres  # noqa: PLC0415  (needs pytest)
    except ImportError:  # the tests, or pytest, are not here
        yield "", lambda: 0.0
        return
    try:
        with running_postgres() as running:
            size = "SELECT pg_database_size('remedy') / 1048576.0"
            yield running.url(), lambda: float(running.sql(size))
    except BaseException as error:
        if type(error).__name__ != "Skipped":
            raise
        yield "", lambda: 0.0


def saturation(runs: int, workers: int, place: Path) -> Figures:
    """Return, for each duration of a run, which share of the workers' time was spent on runs, of what it could be."""
    found = {}
    for seconds in SECONDS:
        elapsed, made = {}, 0
        for charged in (False, True):
            pool, meter = Workers(workers, seconds, Clock(charged)), Meter()
            folder = Home(place).study(f"every-{seconds:g}-{'charged' if charged else 'free'}")
            conducted(folder, wide(), meter, pool, runs=max(1, runs // 5), confirm_seeds=20)
            elapsed[charged], made = pool.clock.now(), len(meter.runs)
        found[f"{seconds:g}"] = {"free_s": elapsed[False], "charged_s": elapsed[True], "runs": made}
    return {"seconds_of_a_run": found}


# ---------------------------------------------------------------- the record


def mlflow(runs: int, workers: int, place: Path) -> Figures:  # noqa: ARG001  (the thread that writes is one)
    number = min(MLFLOW_RUNS, runs)
    found = {"SQLite": recorded(f"sqlite:///{place}/mlflow.db", place / "direct", number)}
    with tracking_server(place) as uri:
        found["mlflow server on SQLite"] = recorded(uri, place / "server", number)
    return found


def recorded(uri: str, place: Path, number: int) -> Figures:
    """Write so many runs; return how fast they went in."""
    place.mkdir(parents=True)
    record = Record(uri, place, "simulated")
    record.begin("simulated", {"seed": "0"}, {"remedy.study": "simulated"}, None, None)
    while record.parent_run_id is None:
        if record.failures:
            raise RuntimeError(record.failures)
        time.sleep(0.05)
    slots = [str(slot) for slot in Space(tuple(REMEDIES)).slots]
    made = []
    for n in range(number):
        order = WorkOrder(n, SOURCE, dict(REMEDIES[n % len(REMEDIES)].first()), n, 0, Phase.CONFIRM)
        made.append((order, answer(order)))
    began = time.perf_counter(), time.process_time(), time.thread_time()
    for order, result in made:
        record.run(order, result, slots, None)
    while record.waiting:
        time.sleep(0.02)
    seconds = time.perf_counter() - began[0]
    cpu = time.process_time() - began[1] - (time.thread_time() - began[2])
    record.close()
    points = sum(len(child("simulated", *pair, slots, None).metrics) for pair in made)
    return {
        "runs": number,
        "runs_per_s": number / seconds,
        "points_per_s": points / seconds,
        "ms_per_run": 1000 * seconds / number,
        "cpu_ms_per_run": 1000 * cpu / number,
    }


@contextlib.contextmanager
def tracking_server(place: Path) -> Iterator[str]:
    """Run an `mlflow server`; yield its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    store = ["--backend-store-uri", f"sqlite:///{place}/served.db", "--artifacts-destination", str(place / "artifacts")]
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1", *store]
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (place / "server.log").open("wb") as log:
        process = subprocess.Popen(
            command, env={**os.environ, **quiet}, stdout=log, stderr=log, cwd=place, start_new_session=True
        )
    try:
        until = time.monotonic() + 120
        while True:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                break
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError((place / "server.log").read_text()[-2000:])
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


# ---------------------------------------------------------------- what is said


def peak() -> float:
    """The most memory this process ever had, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def sizes(place: Path) -> dict[str, float]:
    """MiB on the disk: the journals, the saved results, all else."""
    found = {"journal": 0.0, "results": 0.0, "else": 0.0}
    for path in place.rglob("*"):
        if path.is_file():
            kind = "journal" if path.name == "optuna.journal" else "results" if path.parent.name == "runs" else "else"
            found[kind] += path.stat().st_size / 2**20
    return found


def show(name: str, found: Figures) -> None:
    """Print what a part found."""
    print(f"\n{name}")
    if "skipped" in found:
        print(f"  left out: {found['skipped']}")
    elif name == "mlflow":
        print(f"  {'store':<26}{'runs/s':>8}{'points/s':>10}{'ms/run':>8}{'CPU':>7}")
        for store, row in found.items():
            print(
                f"  {store:<26}{row['runs_per_s']:>8.1f}{row['points_per_s']:>10,.0f}{row['ms_per_run']:>8.1f}"
                f"{row['cpu_ms_per_run']:>7.1f}"
            )
    elif name == "saturation":
        print(f"  {'a run takes':<14}{'runs':>6}{'study, s':>10}{'if the controller took no time':>33}{'ratio':>8}")
        for seconds, row in found["seconds_of_a_run"].items():
            ratio = row["charged_s"] / row["free_s"]
            print(f"  {seconds + ' s':<14}{row['runs']:>6}{row['charged_s']:>10.1f}{row['free_s']:>33.1f}{ratio:>8.2f}")
    else:
        show_studies(found)


def show_studies(found: Figures) -> None:
    wall, cpu = (found["controller_ms"][kind] for kind in ("wall", "cpu"))
    print(
        f"  {found['runs']:,} runs in {found['studies']} studies, {found['asked']} combinations asked of Optuna; ",
        end="",
    )
    print(f"sequence {found['sequence']}; {found['simulated_s']:,.0f} s simulated in {found['seconds']:.0f} s")
    print("  controller, ms/run: ", end="")
    print(
        "; ".join(
            f"{k} {v['mean']:.1f}, p50 {v['p50']:.1f}, p99 {v['p99']:.1f}" for k, v in (("wall", wall), ("CPU", cpu))
        )
    )
    spans = [f"{row['from'] + 1}-{row['to']}" for row in found["curve_ms"]]
    print(f"  {'ms/run (CPU)':<22}" + "".join(f"{span:>18}" for span in spans))
    parts = list(found["curve_ms"][0]["parts"])
    for part in parts:
        cells = [row["parts"][part] for row in found["curve_ms"]]
        if any(cell["wall"] >= 0.005 for cell in cells):
            print(f"  {part:<22}" + "".join(f"{c['wall']:>10.2f} ({c['cpu']:5.2f})" for c in cells))
    sums = [[sum(row["parts"][part][kind] for part in parts) for kind in ("wall", "cpu")] for row in found["curve_ms"]]
    print(f"  {'all':<22}" + "".join(f"{wall:>10.2f} ({cpu:5.2f})" for wall, cpu in sums))
    print(
        f"  {found['storage_writes_per_run']:.1f} writes to the storage, {found['mlflow_points_per_run']:.0f} points "
        f"for MLflow a run; {found['reports_saved']} reports saved; {found['after_the_last_run_s']:.1f} s after it"
    )
    memory, disk = found["memory_mib"], found["disk_mib"]
    print(f"  memory {memory['peak']:,.0f} MiB at most, {memory['before']:,.0f} before; MiB on disk: ", end="")
    print(", ".join(f"{kind} {size:,.0f}" for kind, size in disk.items()), end="")
    print(f"; resumed in {found['resume_s']:.1f} s" if "resume_s" in found else "")


PARTS: dict[str, Callable[[int, int, Path], Figures]] = {
    "sweep": sweep,
    "single": single,
    "postgresql": postgresql,
    "mlflow": mlflow,
    "saturation": saturation,
}


def measured(name: str, runs: int, workers: int) -> Figures:
    """Measure one part, in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="remedy-simulation-") as place:
        return PARTS[name](runs, workers, Path(place))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=512)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    found = {}
    for name in asked.only:
        # A process of its own: what one part leaves in memory is not the next one's.
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as alone:
            found[name] = alone.submit(measured, name, asked.runs, asked.workers).result()
        if not asked.json:
            show(name, found[name])
            sys.stdout.flush()
    if asked.json:
        print(json.dumps({"runs": asked.runs, "workers": asked.workers, **found}, indent=1))


if __name__ == "__main__":
    main()
