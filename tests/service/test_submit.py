"""A study sent to a Ray cluster, with PostgreSQL and an MLflow server: seen and steered from anywhere."""

import pytest

from tests.conftest import CommandLine
from tests.service.kept import Place, accounted, kill, under_way
from tests.workers import scripts

pytestmark = pytest.mark.timeout(600)


def test_a_study_on_a_cluster_is_the_same_as_here_and_steered_from_anywhere(
    in_postgres, cluster, mlflow_server, postgres, name, started, undisturbed, tmp_path, stored
):
    here = in_postgres.beside(cluster, MLFLOW_TRACKING_URI=mlflow_server.url)
    (tmp_path / "elsewhere").mkdir()
    elsewhere = Place(CommandLine(tmp_path / "elsewhere", tmp_path / "nothing"), here.environment)

    process = here.held(name, started, "--address", cluster.dashboard, "--workers", 2)
    kill(process)  # who follows it; the study goes on
    here.wait_for(name, lambda folder: reported_runs(folder) == len(folder.numbers()), None)
    before = stored(elsewhere, but="progress.json")
    assert {row["study"]: row["state"] for row in elsewhere("list", "--json").json}[name] == "running"
    for command in ("show", "report", "logs"):
        elsewhere(command, name)
    assert "is still running" in elsewhere("wait", name, "--timeout", 1, code=5).err
    assert stored(elsewhere, but="progress.json") == before
    elsewhere("stop", name)
    here.release()
    elsewhere("wait", name, code=3)

    elsewhere("resume", name, "--detach")
    with here.study(name) as folder:
        here.wait_for(name, lambda _: under_way("confirm")(folder), None)
    here.hold()
    here.wait_for(name, lambda _: here.standing(), None)
    assert "was ended" in elsewhere("stop", name, "--now").out
    here.release()
    assert elsewhere("wait", name, code=5).err.splitlines()[-1].endswith(f"go on with: remedy resume {name}")

    elsewhere("resume", name)
    account = accounted(here, name)
    assert account.findings[0] == undisturbed.findings[0]
    assert account.fixes == undisturbed.fixes
    made = {_key(what): came for what, came in account.records}
    assert [made[_key(what)] for what, came in undisturbed.records] == [came for _, came in undisturbed.records]

    texts = here.environments()
    assert len(texts) >= 2
    assert all("PATH" in text for text in texts)
    secrets = (postgres.password, "REMEDY_STORAGE", "MLFLOW_TRACKING", "not-for-workers")
    assert not [text for text in texts for secret in secrets if secret in text]

    elsewhere("delete", name)
    assert name not in elsewhere("list").out
    assert name in [run.info.run_name for run in here.in_mlflow(name)], "the record stays"


OWN = '''
import remedy


@remedy.remedy("learning_rate", treats=["non_finite"], invasiveness=1, source="our team")
def a_tenth(optimizer) -> remedy.Change:
    """Learns at a tenth of the rate."""
    for group in optimizer.param_groups:
        group["lr"] /= 10
    return remedy.Change(optimizer, "a tenth of the learning rate")
'''


def test_remedies_of_ones_own_travel_with_the_training(in_postgres, cluster, mlflow_server, name):
    here = in_postgres.beside(cluster, MLFLOW_TRACKING_URI=mlflow_server.url)
    here.write("train")
    (here.line.place / "own.py").write_text(OWN)
    (here.line.place / "study.yaml").write_text("target: train.py\nremedies: [own.py]\nonly: [a_tenth]\nfixes: 1\n")
    report = here("submit", "study.yaml", "--name", name, "--address", cluster.dashboard, "--json").json
    assert report["fixes"][0]["remedies"] == {"learning_rate": "a_tenth"}
    here("export", name, "--as", "python")
    assert "NOT IN HERE: a_tenth" in (here.line.place / "fix.py").read_text()
    here("delete", name)


@pytest.mark.timeout(1500)
def test_remedies_of_ones_own_travel_with_a_script(in_postgres, cluster, mlflow_server, name):
    here = in_postgres.beside(cluster, MLFLOW_TRACKING_URI=mlflow_server.url)
    scripts.written(here.line.place, scripts.text(epochs=10))
    own = OWN.replace("a_tenth", "thirty_times").replace("/= 10", "*= 30").replace("a tenth of", "thirty times")
    (here.line.place / "own.py").write_text(own)
    content = "target: train.py\nremedies: [own.py]\ngoal: accuracy>=0.85\nonly: [thirty_times]\nfixes: 1\n"
    (here.line.place / "study.yaml").write_text(content)
    asked = ("submit", "study.yaml", "--name", name, "--address", cluster.dashboard, "--workers", 2, "--json")
    report = here.line(*asked, timeout=1400, **here.environment).json
    assert report["fixes"][0]["remedies"] == {"learning_rate": "thirty_times"}
    here("delete", name)


def reported_runs(folder):
    """How many runs its report knows."""
    report = folder.report()
    return report and report["runs"]["total"]


def _key(what):
    return str((what["params"], what["seed"]))
