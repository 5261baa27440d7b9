"""A study as it is kept: what Optuna, the results and MLflow have of it, and that these agree."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from remedy.search.home import Home, StudyFolder
from remedy.search.outbox import SPOOL
from remedy.search.study import opened
from remedy.spaces.combination import Combination
from remedy.workers.result import RunResult
from tests.conftest import Answer, CommandLine, end
from tests.service.cluster import Cluster

PATIENCE = 240.0
OPTIONS = ("--only", "scale_down", "--only", "dropout_on", "--fixes", 1, "--no-knowledge")
"""The control, the remedy that repairs it, the baseline, its confirmation, the proof: 15 runs."""
EXPLODING = "loss=slow, steps=40, goal=0.75, optimizer=lambda parameters: torch.optim.SGD(parameters, lr=30)"
"""Not a number after some 30 steps, on every seed; it learns with a tenth of its learning rate."""
PHASES = ("search", "baseline", "confirm", "minimise")
"""In the order in which a study has the first run of each."""
BAD_NODE = "bad-node"
# A run takes 0.2 s. While there is a file `hold` among the controls it stands still, and says where.
SLOW = """
    import os
    import time
    from pathlib import Path

    CONTROLS = Path({controls!r})
    NODE = os.environ.get("REMEDY_TEST_RAY", "")

    def slow(outputs, targets):
        if NODE and (CONTROLS / "bad-node").exists() and (CONTROLS / "bad-node").read_text() == NODE:
            os.kill(os.getpid(), 9)
        time.sleep(0.001)
        while (CONTROLS / "hold").exists():
            if not (CONTROLS / f"held-{{os.getpid()}}").exists():
                said = Path("/proc/self/environ").read_text() + str(dict(os.environ))
                (CONTROLS / f"environment-{{os.getpid()}}").write_text(said)
                (CONTROLS / f"part-{{os.getpid()}}").write_text(NODE)
                (CONTROLS / f"part-{{os.getpid()}}").rename(CONTROLS / f"held-{{os.getpid()}}")
            time.sleep(0.01)
        return nn.functional.cross_entropy(outputs, targets)
"""


Done = Callable[[StudyFolder], Any]


@dataclass(frozen=True)
class Place:
    """A user's working directory, with an environment that says where studies lie."""

    line: CommandLine
    environment: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, *args: object, code: int | None = 0, **environment: str) -> Answer:
        """Run a command to its end."""
        return self.line(*args, code=code, **{**self.environment, **environment})

    def start(self, *args: object, **environment: str) -> subprocess.Popen[str]:
        """Start a command, in a process group of its own."""
        return self.line.start(*args, **{**self.environment, **environment})

    def write(self, name: str = "exploding", change: str = EXPLODING, before: str = "") -> Path:
        """Write the training."""
        self.controls.mkdir(exist_ok=True)
        return self.line.write(name, change, SLOW.format(controls=str(self.controls)) + before)

    @property
    def controls(self) -> Path:
        """The folder in which a test tells trainings what to do, wherever they run."""
        return self.line.place.parent / "controls"

    def hold(self) -> None:
        """Let every run stand still."""
        self.controls.mkdir(exist_ok=True)
        (self.controls / "hold").touch()

    def held(
        self, name: str, started: Callable[[Any], Any], *more: object, phase: str = "", **environment: str
    ) -> subprocess.Popen[str]:
        """Submit a study, and wait until a run of a phase, or its first one, stands still."""
        options = (*OPTIONS, "--name", name, *(more or ("--workers", 0)))
        process: subprocess.Popen[str] = started(self.start("submit", self.write(), *options, **environment))
        self.wait_for(name, under_way(phase) if phase else (lambda folder: folder.exists()), process)
        self.hold()  # only now: what is checked beforehand runs, too
        self.wait_for(name, lambda folder: (not phase or under_way(phase)(folder)) and self.standing(), process)
        return process

    def release(self) -> None:
        """Let them go on."""
        (self.controls / "hold").unlink(missing_ok=True)
        for path in self.controls.glob("held-*"):
            path.unlink()

    def standing(self) -> dict[int, str]:
        """The processes in which a run stands still, and what their Ray node is called."""
        return {int(path.name.removeprefix("held-")): path.read_text() for path in self.controls.glob("held-*")}

    def environments(self) -> list[str]:
        """What the environment was of the processes in which runs stood still."""
        return [path.read_text() for path in self.controls.glob("environment-*")]

    def beside(self, cluster: Cluster, **environment: str) -> Place:
        """Return the place with what lets it into a cluster."""
        return Place(self.line, {**self.environment, **cluster.environment, **environment})

    @property
    def tracking_uri(self) -> str:
        """Where MLflow's record is."""
        return self.environment.get("MLFLOW_TRACKING_URI") or f"sqlite:///{self.line.home}/mlflow.db"

    def in_mlflow(self, name: str) -> list[Any]:
        """The runs in MLflow that stand for a study."""
        from mlflow import MlflowClient

        client = MlflowClient(self.tracking_uri)
        known = [found.experiment_id for found in client.search_experiments()]
        return list(client.search_runs(known, f"tags.remedy.kind = 'study' and tags.remedy.study = '{name}'"))

    def children(self, name: str) -> list[Any]:
        """What MLflow has of the runs of a study."""
        from mlflow import MlflowClient

        found = []
        for parent in self.in_mlflow(name):
            mine = f"tags.mlflow.parentRunId = '{parent.info.run_id}'"
            found += MlflowClient(self.tracking_uri).search_runs([parent.info.experiment_id], mine, max_results=1000)
        return found

    @contextlib.contextmanager
    def study(self, name: str) -> Iterator[StudyFolder]:
        """What is kept of a study, seen from this process."""
        storage = self.environment.get("REMEDY_STORAGE")
        if storage is None:
            yield Home(self.line.home).study(name)
            return
        from remedy.search.database import Database

        database = Database(storage, patience=30.0)
        try:
            yield Home(self.line.home, database).study(name)
        finally:
            database.close()

    def wait_for(self, name: str, done: Done, process: subprocess.Popen[str] | None) -> None:
        """Wait until something can be seen of a study while its process lives."""
        with self.study(name) as folder:
            until(lambda: done(folder), process)

    def kill_when(self, name: str, done: Done, process: subprocess.Popen[str]) -> None:
        """`kill -9`, at a moment in which something can be seen of a study."""
        with self.study(name) as folder:

            def caught() -> bool:
                if not done(folder):
                    return False
                os.killpg(process.pid, signal.SIGSTOP)  # or it is over before it is killed
                if done(folder):
                    return True
                os.killpg(process.pid, signal.SIGCONT)
                return False

            until(caught, process)
        kill(process)


def until(done: Callable[[], Any], process: subprocess.Popen[str] | None = None, patience: float = PATIENCE) -> None:
    """Wait until something is so, while a process lives."""
    late = time.monotonic() + patience
    while not done():
        assert process is None or process.poll() is None, (process.returncode, *process.communicate())
        assert time.monotonic() < late, "it took too long"
        time.sleep(0.02)


def runs(count: int) -> Callable[[StudyFolder], bool]:
    """So many runs have ended."""
    return lambda folder: len(folder.numbers()) >= count


def under_way(phase: str) -> Callable[[StudyFolder], bool]:
    """A run of this phase is under way."""

    def look(folder: StudyFolder) -> bool:
        noted = folder.noted()
        return bool(noted) and noted[max(noted)]["phase"] == phase and not folder.has_run(max(noted))

    return look


def reported(folder: StudyFolder) -> bool:
    """Its findings are written down."""
    report = folder.report()
    return report is not None and report["reason"] is None


def kill(process: subprocess.Popen[str]) -> None:
    """`kill -9`, the process and all that it started."""
    end(process)
    assert process.returncode == -signal.SIGKILL, "it had ended before"


@dataclass(frozen=True)
class Account:
    """What a study came to."""

    report: dict[str, Any]
    records: list[Any]
    """What each run was and came to, in order, without when and where, and without those that were lost."""
    cut_off: int
    """Runs that ended with their controller; they have no result anywhere."""

    @property
    def lost(self) -> int:
        """Runs lost to infrastructure."""
        return int(self.report["runs"]["lost"])

    @property
    def fixes(self) -> list[dict[str, Any]]:
        """The fixes, without where they lie, and how long their runs took."""
        fixes = [{key: value for key, value in fix.items() if key != "fix_file"} for fix in self.report["fixes"]]
        return [{**fix, "recipe": {**fix["recipe"], "seconds_to_goal": None}} for fix in fixes]

    @property
    def findings(self) -> tuple[Any, ...]:
        """What a study found, without where it lies and how long it took."""
        found = self.report
        return found["baseline"], self.fixes, found["remedies"], found["exit_code"], found["reason"]


def accounted(place: Place, name: str) -> Account:
    """Hold what Optuna, the results and MLflow have of a study against each other: nothing missing, nothing twice."""
    for _ in range(3):
        with place.study(name) as folder:
            if folder.files.read(SPOOL) is None:
                break
        place("resume", name)  # a machine that is very busy may have left something for MLflow to take
    with place.study(name) as folder:
        results, noted, report = folder.runs(), folder.noted(), folder.report()
        trials = _trials(folder)
    assert report is not None
    items = {n: trial for n, trial in trials.items() if "remedy.item" in trial.user_attrs}
    assert all(trial.state.is_finished() for trial in trials.values()), "a trial was left open"
    told = {n: trial.user_attrs["remedy.outcome"] for n, trial in items.items()}
    without = {n: trial for n, trial in items.items() if n not in results}
    assert all((told[n], trial.state) == ("lost", TrialState.FAIL) for n, trial in without.items())
    outcomes = {n: str(result.outcome) for n, result in results.items()}
    assert {n: told[n] for n in outcomes} == outcomes
    assert set(results) <= set(noted)
    assert Counter(outcomes.values()) == Counter({k: v for k, v in report["runs"].items() if v and k != "total"})
    assert report["runs"]["total"] == len(results)
    stood = {n: result for n, result in results.items() if outcomes[n] not in ("lost", "stopped")}
    made = [(Combination.of(noted[n]["params"]).key, noted[n]["seed"]) for n in stood]
    assert len(made) == len(set(made)), "a run was made twice"
    _recorded(place, name, report, outcomes)
    account = Account(report, [_record(noted[n], result) for n, result in stood.items()], len(without))
    cut, lost = account.cut_off, account.lost
    print(f"{name}: {len(stood)} runs; made again: {cut} cut off, {lost} lost; none missing, none doubled")
    return account


def _record(noted: Mapping[str, Any], result: RunResult) -> tuple[dict[str, Any], dict[str, Any]]:
    where = ("number", "seconds", "node", "log")
    what = {key: value for key, value in noted.items() if key != "run"}
    return what, {key: value for key, value in result.to_json().items() if key not in where}


def _trials(folder: StudyFolder) -> dict[int, FrozenTrial]:
    storage = opened(folder.storage)
    try:
        found = storage.get_all_trials(storage.get_study_id_from_name(folder.name))
        return {trial.number: trial for trial in found}
    finally:
        storage.remove_session()
        if isinstance(storage, RDBStorage):
            storage.engine.dispose()


def _recorded(place: Place, name: str, report: Mapping[str, Any], outcomes: Mapping[int, str]) -> None:
    parents = place.in_mlflow(name)
    assert [run.info.run_id for run in parents] == [report["mlflow"]["parent_run_id"]]
    assert parents[0].info.status in ("FINISHED", "KILLED")
    assert parents[0].data.tags["remedy.exit_code"] == str(report["exit_code"])
    children = place.children(name)
    assert all(run.info.status != "RUNNING" for run in children), "a run was left half recorded"
    recorded = sorted((int(run.data.tags["remedy.run"]), run.data.tags["remedy.outcome"]) for run in children)
    assert recorded == sorted(outcomes.items())
