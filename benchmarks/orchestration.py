#!/usr/bin/env python3
"""What a run costs beyond its training: studies of runs that train next to nothing, here and with Ray Tune.

usage: python benchmarks/orchestration.py [--runs N ...] [--repeats N] [--only WAY ...] [--json]

Every measurement is a process of its own with a Ray of its own and two workers; the ways take turns in each repeat, and
what is printed are medians over the repeats. A run trains a linear layer for one step. The cost of a run is the time
from the first run's beginning until the last is recorded, times the workers, over the runs, less that step's own time:
that of a plain loop, as the bare tasks take it. What a study costs once (Ray, workers, the report) is shown apart.

  remedy          a study as `submit` conducts it: Optuna's journal, results in files, the MLflow record (SQLite)
  remedy-isolate  the same, each run in a fresh process (`--isolate`)
  tune            Ray Tune at its defaults: results in files, Optuna's sampler on the same space with its journal
  tune-reused     the same with reuse_actors=True
  tune-empty      Ray Tune at its defaults with a function that does nothing, so that no worker imports torch
  tasks           bare Ray tasks: no search, no storage

Tune's studies, and those in fresh processes, are measured up to the length that takes minutes.
"""

# ruff: noqa: PLC0415, SLF001  (each way imports what it needs, in a process of its own; and it looks inside)
from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

WORKERS = 2
NOTHING = '''
import torch
from torch import nn
from torch.utils.data import TensorDataset

import remedy


def luck(outputs, targets):
    return float(outputs.double().sum().abs() * 1000 % 1)


def data():
    made = TensorDataset(torch.randn(8, 2), torch.tensor([0, 1] * 4))
    return made, made


def training():
    return remedy.Training(
        model=lambda: nn.Linear(2, 2), data=data, loss=nn.CrossEntropyLoss(),
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1),
        batch_size=8, steps=1, metric=luck, mode="max", goal=2.0,
    )


def idle(place, slot):
    @remedy.remedy(
        slot, name=f"idle_{place}", treats=["exploding_gradient"], invasiveness=1, source="made up",
        by=remedy.Float(0, 1),
    )
    def one(value, *, by: float = 0.5):
        """Change nothing."""
        return remedy.Change(value, f"nothing, by {by:g}")

    return one


# As many slots as the catalogue has, twice as many remedies: or a thousand runs would exhaust them.
SLOTS = """inputs targets sampling batch_size width depth residual activation normalisation dropout initialisation
objective class_weight label_smoothing logits optimizer learning_rate schedule weight_decay gradient""".split()
vars().update({f"idle_{place}": idle(place, SLOTS[place % len(SLOTS)]) for place in range(240)})
'''


@dataclass(frozen=True)
class Measured:
    """One study. Seconds; `cpu` is the controller's own, in milliseconds a run, `late` that of its last tenth.

    `lag` is how long after the last run's end the record was whole, and part of `working`.
    """

    way: str
    runs: int
    start: float
    working: float
    lag: float
    end: float
    own: float
    cpu: float
    late: float
    load: float
    made: Mapping[str, int]
    """How many runs there are afterwards, by where they were counted."""
    phases: Mapping[str, int] = field(default_factory=dict)


class Clock:
    """When runs began and ended, and what this process had taken of a core by then."""

    def __init__(self) -> None:
        self.born = time.time() - (time.monotonic() - _BORN)
        self.began: list[float] = []
        self.own: list[float] = []
        self.cpu: list[float] = []
        self.recorded = self.last = 0.0

    def ended(self, began: float, seconds: float) -> None:
        self.began.append(began)
        self.own.append(seconds)
        self.cpu.append(_cpu())
        self.last = time.time()

    def measured(self, way: str, runs: int, made: Mapping[str, int], phases: Mapping[str, int]) -> Measured:
        first = min(self.began)
        tenth = max(1, runs // 10)
        late = (self.cpu[-1] - self.cpu[-1 - tenth]) / tenth
        whole = max(self.recorded, self.last)
        return Measured(
            way, runs, start=first - self.born, working=whole - first, lag=whole - self.last, end=time.time() - whole,
            own=statistics.median(self.own), cpu=1000 * (self.cpu[-1] - self.cpu[0]) / (runs - 1), late=1000 * late,
            load=os.getloadavg()[0],
            made=made, phases=phases,
        )  # fmt: skip

    def whole(self) -> None:
        """Say that all is recorded."""
        self.recorded = time.time()


_BORN = time.monotonic()


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


# ---------------------------------------------------------------- the ways


def plain() -> float:
    """Train what `NOTHING` trains, without us; return the seconds."""
    import torch
    from torch import nn

    began = time.perf_counter()
    inputs, targets = torch.randn(8, 2), torch.tensor([0, 1] * 4)
    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    nn.functional.cross_entropy(model(inputs), targets).backward()
    optimizer.step()
    with torch.no_grad():
        model(inputs)
    return time.perf_counter() - began


def ours(place: Path, runs: int, *, isolate: bool) -> Measured:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    from remedy.search import rows
    from remedy.search.conduct import Study, space_of
    from remedy.search.home import Home
    from remedy.search.record import Record
    from remedy.search.spec import Spec
    from remedy.spaces.target import find, load

    clock, written = Clock(), 0

    class Watched(Record):
        """A record that notes when the last run was in the store."""

        def _write(self, row: rows.Row) -> rows.Row:
            nonlocal written
            done = super()._write(row)
            written += isinstance(row, rows.Child)
            if written == runs and isinstance(row, rows.Child):
                clock.whole()
            return done

    class Listener:
        def ended(self, _order: Any, _item: Any, result: Any) -> None:
            clock.ended(time.time() - result.seconds, result.seconds)

        def tick(self, _controller: Any) -> None:
            """Nothing to show."""

    file = place / "nothing.py"
    file.write_text(NOTHING)
    home = Home(place)
    spec = Spec("nothing", find(str(file)), metric="luck", goal=2.0, runs=runs, fixes=10_000)
    space = space_of(load(spec.source).remedies, spec, ())
    folder = home.study(spec.study)
    folder.save_spec(spec.to_json())
    record = Watched(f"sqlite:///{place}/mlflow.db", place, "nothing", folder.files)
    study = Study(spec, folder, space, record, [Listener()])

    def executor() -> Any:
        from remedy.workers.ray_executor import RayExecutor

        return RayExecutor(WORKERS, isolate=isolate)

    found = study.conduct(executor)
    ended = time.time()
    clock.recorded = clock.recorded or ended  # at least: the rest waits in a file
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{place}/mlflow.db")
    children, token = 0, None
    while True:
        page = client.search_runs(
            [record._store.experiment_id], "tags.remedy.kind = 'run' and attributes.status != 'RUNNING'",
            max_results=1000, page_token=token,
        )  # fmt: skip
        children, token = children + len(page), page.token
        if not token:
            break
    storage = JournalStorage(JournalFileBackend(str(folder.storage)))
    trials = storage.get_all_trials(storage.get_study_id_from_name(spec.study), deepcopy=False)
    made = {
        "optuna": sum("remedy.outcome" in trial.user_attrs and trial.state.is_finished() for trial in trials),
        "mlflow": children,
        "files": len(folder.numbers()),
    }
    measured = clock.measured("remedy-isolate" if isolate else "remedy", runs, made, phases(folder))
    if found["runs"]["total"] != runs:
        sys.exit(f"the study made {found['runs']['total']} runs, not {runs}")
    return Measured(**{**asdict(measured), "end": ended - max(clock.recorded, clock.last)})


def phases(folder: Any) -> dict[str, int]:
    counted: dict[str, int] = {}
    for item in folder.noted().values():
        counted[item["phase"]] = counted.get(item["phase"], 0) + 1
    return counted


class Sampled:
    """The same space for Tune; a class, because Tune pickles it with the state of its search."""

    def __init__(self, space: Any) -> None:
        self.space = space

    def __call__(self, trial: Any) -> None:
        self.space.sample(trial)

    def __reduce__(self) -> Any:
        return Sampled, (None,)  # a space is never needed again


def tuned(place: Path, runs: int, way: str) -> Measured:
    from remedy.workers import ray_cluster

    temp = ray_cluster.start(WORKERS, tempfile.gettempdir())
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend
    from ray import tune
    from ray.tune.search.optuna import OptunaSearch

    from remedy.spaces.space import Space
    from remedy.spaces.target import find, load

    clock = Clock()
    file = place / "nothing.py"
    file.write_text(NOTHING)
    space = Space(load(find(str(file))).remedies)

    def trainable(_config: Mapping[str, Any]) -> None:
        began = time.time()
        took = 0.0 if way == "tune-empty" else plain()
        tune.report({"value": began % 1, "began": began, "own": took})

    class Seen(tune.Callback):
        def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:  # noqa: ARG002
            clock.ended(trial.last_result["began"], trial.last_result["own"])

    storage = JournalStorage(JournalFileBackend(str(place / "optuna.journal")))
    search = OptunaSearch(Sampled(space), metric="value", mode="max", storage=storage, study_name="nothing")
    tuner = tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=search, num_samples=runs, metric="value", mode="max", reuse_actors=way == "tune-reused"
        ),
        run_config=tune.RunConfig(storage_path=str(place / "tune"), name="nothing", verbose=0, callbacks=[Seen()]),
    )
    results = tuner.fit()
    clock.whole()
    made = {
        "optuna": sum(t.state.is_finished() for t in storage.get_all_trials(0, deepcopy=False)),
        "results": len(results) - results.num_errors,
        "files": sum(file.stat().st_size > 0 for file in (place / "tune").glob("nothing/*/result.json")),
    }
    measured = clock.measured(way, runs, made, {})
    import ray

    ray.shutdown()
    shutil.rmtree(temp, ignore_errors=True)
    return measured


def tasks(place: Path, runs: int) -> Measured:  # noqa: ARG001
    from remedy.workers import ray_cluster

    temp = ray_cluster.start(WORKERS, tempfile.gettempdir())
    import ray

    clock = Clock()

    @ray.remote
    def run() -> tuple[float, float]:
        began = time.time()
        return began, plain()

    # As warm as the workers of the others when their first run begins: torch is imported.
    ray.get([ray.remote(_warm).remote() for _ in range(WORKERS)])
    under_way: list[Any] = []
    left = runs
    while left or under_way:
        while left and len(under_way) < WORKERS:
            under_way.append(run.remote())
            left -= 1
        ready, under_way = ray.wait(under_way, num_returns=1)
        for done in ready:
            clock.ended(*ray.get(done))
    clock.whole()
    measured = clock.measured("tasks", runs, {"results": len(clock.began)}, {})
    ray.shutdown()
    shutil.rmtree(temp, ignore_errors=True)
    return measured


def _warm() -> None:
    plain()
    time.sleep(1.0)  # so that each worker gets one


WAYS: Mapping[str, Callable[[Path, int], Measured]] = {
    "remedy": lambda place, runs: ours(place, runs, isolate=False),
    "remedy-isolate": lambda place, runs: ours(place, runs, isolate=True),
    "tune": lambda place, runs: tuned(place, runs, "tune"),
    "tune-reused": lambda place, runs: tuned(place, runs, "tune-reused"),
    "tune-empty": lambda place, runs: tuned(place, runs, "tune-empty"),
    "tasks": tasks,
}


# ---------------------------------------------------------------- the table


def taken(asked: argparse.Namespace) -> list[Measured]:
    """Measure every way in turn, each in a process of its own."""
    found = []
    repeats = dict(zip(asked.runs, asked.repeats, strict=True))
    for repeat in range(max(asked.repeats)):
        for runs in asked.runs:
            ways = [way for way in asked.only or WAYS if runs <= MOST.get(way, runs)]
            for way in ways[repeat % len(ways) :] + ways[: repeat % len(ways)]:
                if repeat < repeats[runs]:
                    found.append(once(way, runs))
                    print(line(found[-1]), file=sys.stderr, flush=True)
    return found


def once(way: str, runs: int) -> Measured:
    with tempfile.TemporaryDirectory(prefix="remedy-") as place:
        command = [sys.executable, __file__, "--measure", way, "--runs", str(runs), "--place", place]
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("REMEDY_", "MLFLOW_"))}
        with (Path(place) / "said").open("w") as said:
            done = subprocess.run(command, stdout=said, stderr=said, cwd=place, env={**clean, **SETTINGS}, check=False)
        text = (Path(place) / "said").read_text()
        if done.returncode:
            sys.exit(f"{way} with {runs} runs ended with {done.returncode}:\n{text[-3000:]}")
        return Measured(**json.loads((Path(place) / "measured.json").read_text()))


SETTINGS = {"OMP_NUM_THREADS": "1", "RAY_memory_monitor_refresh_ms": "0"}
MOST = {"remedy-isolate": 300, "tune-reused": 300, "tune": 30, "tune-empty": 30}
"""Longest studies of the ways whose thousand runs would take a quarter of an hour, or whose hundred."""


def line(one: Measured) -> str:
    each = WORKERS * 1000 * one.working / one.runs
    return f"{one.way} {one.runs}: {each:.0f} ms a run and worker, load {one.load:.1f}"


def rows(found: Sequence[Measured]) -> list[dict[str, Any]]:
    """Return a row for each way and number of runs: medians over the repeats."""
    plain_ms = 1000 * statistics.median([one.own for one in found if one.way == "tasks"] or [0.0])
    made = []
    for runs in dict.fromkeys(one.runs for one in found):
        for way in dict.fromkeys(one.way for one in found):
            mine = [one for one in found if (one.way, one.runs) == (way, runs)]
            if not mine:
                continue
            middle = {
                name: statistics.median(getattr(one, name) for one in mine)
                for name in ("start", "lag", "end", "cpu", "late", "load")
            }
            costs = sorted(WORKERS * 1000 * one.working / runs - plain_ms for one in mine)
            made.append(
                {
                    "way": way, "runs": runs, "cost_ms": statistics.median(costs), "least_ms": costs[0],
                    "most_ms": costs[-1], "repeats": len(mine), **middle,
                    "run_ms": 1000 * statistics.median(one.own for one in mine), "made": dict(mine[0].made),
                }
            )  # fmt: skip
    for row in made:
        ours = next((r["cost_ms"] for r in made if (r["way"], r["runs"]) == ("remedy", row["runs"])), None)
        row["times_remedy"] = row["cost_ms"] / ours if ours else None
    return made


COLUMNS = {"cpu": 7, "late": 7, "lag": 7, "start": 9, "end": 7, "load": 6}


def table(made: Sequence[Mapping[str, Any]]) -> list[str]:
    head = f"{'way':<16}{'runs':>6}{'ms a run':>10}{'least to most':>16}{'x remedy':>10}{'CPU':>7}"
    lines = [f"{head}{'late':>7}{'lag s':>7}{'start s':>9}{'end s':>7}{'load':>6}  repeats"]
    for row in made:
        span = f"{row['least_ms']:.0f} to {row['most_ms']:.0f}"
        times = "" if row["times_remedy"] is None else f"{row['times_remedy']:.2f}"
        figures = [f"{row[name]:>{width}.1f}" for name, width in COLUMNS.items()]
        lines.append(
            f"{row['way']:<16}{row['runs']:>6}{row['cost_ms']:>10.1f}{span:>16}{times:>10}{''.join(figures)}"
            f"  {row['repeats']}"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--runs", type=int, nargs="+", default=[10, 100, 1000], metavar="N", help="sizes of the studies"
    )
    parser.add_argument(
        "--repeats", type=int, nargs="+", default=[3, 3, 1], metavar="N", help="for each size (default: 3 3 1)"
    )
    parser.add_argument("--only", nargs="+", choices=WAYS, metavar="WAY", help=f"of {', '.join(WAYS)}")
    parser.add_argument("--json", action="store_true", help="print JSON and nothing else on standard output")
    parser.add_argument("--measure", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--place", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.measure:
        measured = WAYS[asked.measure](asked.place, asked.runs[0])
        (asked.place / "measured.json").write_text(json.dumps(asdict(measured)))
        return
    asked.repeats = (asked.repeats + asked.repeats[-1:] * len(asked.runs))[: len(asked.runs)]
    if min(asked.runs) < 5 or min(asked.repeats) < 1:
        parser.error("--runs may be 5 or more, --repeats 1 or more")
    found = taken(asked)
    made = rows(found)
    if asked.json:
        print(json.dumps({"workers": WORKERS, "cores": os.cpu_count(), "rows": made}, indent=1))
        return
    print(f"{WORKERS} workers on {os.cpu_count()} cores, medians. `CPU`: the controller's own, in milliseconds a run;")
    print("`late`: the same in the last tenth of a study. `lag`: from the last run's end until all is recorded")
    print("\n".join(table(made)))


if __name__ == "__main__":
    main()
