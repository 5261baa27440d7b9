"""`--workers 0` and Ray with one worker give the same records for the same seed."""

import json

DROPPED = """
    def model():
        return nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 3))
"""
TIMES = {"seconds"}


def records(remedy, workers):
    """Everything a study left behind that is not a time or a place."""
    target = remedy.place / "dropped.py"
    if not target.exists():
        remedy.write("dropped", "model=model, goal=0.8", DROPPED)
    name = f"with-{workers}"
    options = ("--only", "sgd_momentum", "--only", "tanh", "--only", "clip_norm", "--runs", 24, "--seed", 3)
    options += ("--no-knowledge",)  # the second study begins as the first did
    report = remedy("submit", target, "--name", name, "--workers", workers, *options, "--json").json
    runs = remedy("show", name, "--json").json["runs"]
    files = [json.loads(path.read_text()) for path in remedy.runs(name)]
    return report, runs, [{key: value for key, value in file.items() if key not in TIMES} for file in files]


def test_both_executors_give_the_same_records(remedy, contract):
    here, ray = records(remedy, 0), records(remedy, 1)
    contract(here[0], 0)
    contract(ray[0], 0)
    assert len(here[1]) > 10
    assert here[1] == ray[1]
    assert here[2] == ray[2], "every curve, every receipt, every verdict"
    for part in ("baseline", "remedies", "runs", "preflight", "seed", "goal", "reason"):
        assert here[0][part] == ray[0][part]
    times = {"seconds"}
    assert {k: v for k, v in here[0]["cost"].items() if k not in times} == {
        k: v for k, v in ray[0]["cost"].items() if k not in times
    }
