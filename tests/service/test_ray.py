"""Workers, nodes and the head of a Ray cluster that go away in the midst of a study; shares of what a node has."""

import os
import signal

import pytest

from tests.service.kept import BAD_NODE, accounted

pytestmark = pytest.mark.timeout(600)


def test_a_run_whose_worker_is_killed_is_made_again(in_postgres, postgres, name, started, undisturbed):
    process = in_postgres.held(name, started, "--workers", 1, phase="confirm")
    (worker,) = in_postgres.standing()
    os.kill(worker, signal.SIGKILL)
    in_postgres.wait_for(name, lost(1), process)
    in_postgres.release()
    assert process.wait(120) == 0, process.communicate()
    account = accounted(in_postgres, name)
    assert (account.cut_off, account.lost) == (0, 1)
    assert (account.records, account.findings) == (undisturbed.records, undisturbed.findings)
    assert all("PATH" in text for text in in_postgres.environments())
    assert not [text for text in in_postgres.environments() if postgres.password in text or "REMEDY_STORAGE" in text]


def test_runs_of_a_node_that_is_taken_away_are_made_on_another(embedded, cluster, name, started, undisturbed):
    place = embedded.beside(cluster)
    process = place.held(name, started, "--address", cluster.address, "--workers", 1, "--resource", "spare",
                         phase="confirm")  # fmt: skip
    ((_, mark),) = place.standing().items()
    node = cluster.node_of(mark)
    node.kill()
    place.wait_for(name, lost(1), process)
    place.release()
    assert process.wait(240) == 0, process.communicate()
    cluster.replace(node)
    account = accounted(place, name)
    assert (account.cut_off, account.lost) == (0, 1)
    assert (account.records, account.findings) == (undisturbed.records, undisturbed.findings)


def test_a_node_on_which_runs_are_lost_one_after_the_other_gets_no_more(embedded, cluster, name, started, undisturbed):
    place = embedded.beside(cluster)
    # The cluster is full: two workers on the large node, one on the small one, and each begins a baseline run.
    process = place.held(name, started, "--address", cluster.address, "--workers", 3, "--resource", "spare=0.5")
    place.wait_for(name, lambda _: len(place.standing()) == 3, process)
    assert sorted(place.standing().values()).count(cluster.large.mark) == 2
    (place.controls / BAD_NODE).write_text(cluster.large.mark)  # whatever trains there from now on dies
    place.release()
    assert process.wait(240) == 0, process.communicate()
    with place.study(name) as folder:
        results = folder.runs().values()
    (bad,) = {result.node for result in results if str(result.outcome) == "lost"}
    assert bad not in {result.node for result in results if str(result.outcome) != "lost"}
    account = accounted(place, name)
    assert account.lost == 2
    assert account.report["runs"]["failed"] == 0
    assert (account.report["baseline"], account.fixes) == (undisturbed.report["baseline"], undisturbed.fixes)


@pytest.mark.parametrize("share", [("--gpus", 0.5), ("--resource", "accelerator=0.5")], ids=["gpu", "resource"])
def test_two_runs_share_what_one_node_has(embedded, cluster, name, started, share):
    place = embedded.beside(cluster)
    process = place.held(name, started, "--address", cluster.address, "--runs", 4, *share)
    place.wait_for(name, lambda _: len(place.standing()) == 2, process)
    assert set(place.standing().values()) == {cluster.large.mark}, "both on the one node that has it"
    place.release()
    assert process.wait(240) == 3, process.communicate()
    accounted(place, name)


def test_a_head_that_is_started_anew_has_lost_no_finished_run(
    in_postgres, cluster, mlflow_server, name, started, undisturbed
):
    place = in_postgres.beside(cluster, MLFLOW_TRACKING_URI=mlflow_server.url)
    process = place.held(name, started, "--address", cluster.dashboard, "--workers", 1, phase="confirm")
    with place.study(name) as folder:
        before = {number: result.to_json() for number, result in folder.runs().items()}
    cluster.restart()
    place.release()
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (5, "")
    assert err.splitlines()[-1].endswith(f"go on with: remedy resume {name}")
    place("resume", name)
    account = accounted(place, name)
    with place.study(name) as folder:
        after = {number: result.to_json() for number, result in folder.runs().items()}
    assert {number: after[number] for number in before} == before
    assert account.cut_off == 1
    assert (account.records, account.findings) == (undisturbed.records, undisturbed.findings)


def lost(count):
    """So many runs were lost."""
    return lambda folder: [str(result.outcome) for result in folder.runs().values()].count("lost") >= count
