"""What `remedy check` says of a script with a loop of its own, beside what it says of a function."""

import pytest
import torch

from remedy.spaces.script import Script
from remedy.workers.decision import decision
from remedy.workers.preflight import Preflight
from tests.workers import scripts

NEVER_ZEROED = """
    loss_fn(model(a), b).backward()
    optimizer.step()
"""
ZEROED_AFTERWARDS = """
    loss_fn(model(a), b).backward()
    optimizer.step()
    optimizer.zero_grad()
"""
ACCUMULATED = """
    (loss_fn(model(a), b) / 2).backward()
    if place % 2:
        optimizer.step()
        optimizer.zero_grad()
"""
SUBCLASSED = "model = nn.Sequential(nn.Linear(4, 16), nn.Dropout(0.2), nn.ReLU(), nn.BatchNorm1d(16), nn.Linear(16, 3))"


def found_of(place, *, thorough=False, **parts):
    path = scripts.written(place, scripts.text(epochs=3, **parts))
    _, told, result = scripts.learned_of(path, place, thorough=thorough)
    assert "found" in told, result
    return Preflight.from_json(told["found"])


def test_gradients_that_are_never_zeroed_are_an_error(tmp_path):
    found = found_of(tmp_path, step=NEVER_ZEROED)
    assert [(finding.check, finding.level) for finding in found.findings] == [("zero_grad", "error")]
    assert "optimizer.zero_grad() is missing" in found.findings[0].message


@pytest.mark.parametrize("step", [scripts.STEP, ZEROED_AFTERWARDS, ACCUMULATED])
def test_a_loop_that_zeroes_them_is_left_in_peace(tmp_path, step):
    found = found_of(tmp_path, step=step)
    assert found.findings == found.left_out == ()
    assert found.probation is None


def test_a_script_is_tried_for_some_hundred_steps_too(tmp_path):
    found = found_of(tmp_path, thorough=True)
    assert found.findings == found.left_out == found.probation.left_out == ()
    told = decision(found.probation, found.findings, converged=False)
    assert told.startswith("a bad recipe rather than a bug in the code: it learns 16 of its samples by heart in ")
    assert "of its own SGD (0.01)" in told


def test_a_script_with_a_bug_is_told_so(tmp_path):
    turned = "loss_fn = lambda outputs, targets: -nn.functional.cross_entropy(outputs, targets)"
    found = found_of(tmp_path, loss=turned, thorough=True)
    assert "loss_sign" in {finding.check for finding in found.findings}
    assert decision(found.probation, found.findings, converged=False).startswith("a bug in the code, the error above:")


@pytest.mark.parametrize("model", [scripts.MODEL, SUBCLASSED])
def test_it_trains_on_as_if_nothing_had_been_tried(tmp_path, model):
    """The weights that the script ends with are those it ends with under a survey that tries nothing."""
    after = "torch.save([p.detach() for p in model.state_dict().values()], sys.argv[1])"
    path = scripts.written(tmp_path, scripts.text(epochs=3, model=model, after=after))
    ended = []
    for name, thorough in (("plain", False), ("tried", True)):
        kept = tmp_path / name
        learned = scripts.learned_of(path, tmp_path, args=(str(kept),), thorough=thorough)
        assert isinstance(learned[0], Script)
        ended.append(torch.load(kept))
    assert all(torch.equal(one, other) for one, other in zip(*ended, strict=True))
