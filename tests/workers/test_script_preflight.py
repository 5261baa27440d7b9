"""What `remedy check` says of a script with a loop of its own, beside what it says of a function."""

import pytest
import torch

from remedy.spaces.script import Script
from remedy.workers.decision import decision
from remedy.workers.preflight import Preflight
from tests.workers import scripts

SUBCLASSED = "model = nn.Sequential(nn.Linear(4, 16), nn.Dropout(0.2), nn.ReLU(), nn.BatchNorm1d(16), nn.Linear(16, 3))"
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


ZEROED_BETWEEN = """
    loss_fn(model(a), b).backward()
    optimizer.zero_grad()
    optimizer.step()
"""
CUT = """
    optimizer.zero_grad()
    loss_fn(model(a).detach().requires_grad_(), b).backward()
    optimizer.step()
"""
SHUFFLED = """
    optimizer.zero_grad()
    loss_fn(model(a), b[torch.randperm(len(b))]).backward()
    optimizer.step()
"""
SHUFFLED_TOGETHER = """
    order = torch.randperm(len(b))
    optimizer.zero_grad()
    loss_fn(model(a[order]), b[order]).backward()
    optimizer.step()
"""
MIXED_UP = """
    order = torch.randperm(len(b))
    outputs = model(0.9 * a + 0.1 * a[order])
    optimizer.zero_grad()
    (0.9 * loss_fn(outputs, b) + 0.1 * loss_fn(outputs, b[order])).backward()
    optimizer.step()
"""
CLIPPED = """
    optimizer.zero_grad()
    scaler.scale(loss_fn(model(a), b)).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    scaler.step(optimizer)
    scaler.update()
"""
CLIPPED_UNSCALED = CLIPPED.replace("    torch.nn", "    scaler.unscale_(optimizer)\n    torch.nn")
SCALED = """
    scaler = torch.amp.GradScaler("cpu")
    model, loss_fn, optimizer, loader, check, scaler = remedy.prepare(model, loss_fn, optimizer, loader, check, scaler)
"""
FAULTS = {
    "zeroed between": ({"step": ZEROED_BETWEEN}, "zero_grad", "comes after loss.backward() and before"),
    "cut": ({"step": CUT}, "no_gradient", "hang on no weight"),
    "shuffled apart": ({"step": SHUFFLED}, "shuffled_apart", "in another order than its inputs"),
    "clipped too soon": ({"step": CLIPPED, "prepare": SCALED}, "clipped_scaled", "GradScaler's factor (65536)"),
    "left in evaluation mode": (
        {"loop": scripts.LOOP.replace("        model.train()\n", ""), "model": SUBCLASSED},
        "mode",
        "20 of 30 backward passes are made in evaluation mode, from the first validation on",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_of_the_loop_is_an_error_and_not_acquitted(tmp_path, name):
    parts, check, told = FAULTS[name]
    found = found_of(tmp_path, **parts)
    assert [(finding.check, finding.level) for finding in found.findings] == [(check, "error")]
    assert told in found.findings[0].message


def test_a_script_that_never_trains_in_training_mode_may_mean_it(tmp_path):
    loop = scripts.LOOP.replace("model.train()", "model.eval()")
    found = found_of(tmp_path, loop=loop, model=SUBCLASSED)
    assert [(finding.check, finding.level) for finding in found.findings] == [("mode", "warning")]


def found_of(place, *, thorough=False, **parts):
    path = scripts.written(place, scripts.text(epochs=3, **parts))
    _, told, result = scripts.learned_of(path, place, thorough=thorough)
    assert "found" in told, result
    return Preflight.from_json(told["found"])


def test_gradients_that_are_never_zeroed_are_an_error(tmp_path):
    found = found_of(tmp_path, step=NEVER_ZEROED)
    assert [(finding.check, finding.level) for finding in found.findings] == [("zero_grad", "error")]
    assert "optimizer.zero_grad() is missing" in found.findings[0].message


@pytest.mark.parametrize("step", [scripts.STEP, ZEROED_AFTERWARDS, ACCUMULATED, SHUFFLED_TOGETHER, MIXED_UP])
def test_a_loop_that_zeroes_them_is_left_in_peace(tmp_path, step):
    found = found_of(tmp_path, step=step)
    assert found.findings == found.left_out == ()
    assert found.probation is None


def test_a_script_is_tried_for_some_hundred_steps_too(tmp_path):
    found = found_of(tmp_path, thorough=True)
    assert found.findings == found.left_out == found.probation.left_out == ()
    told = decision(found.probation, found.findings, converged=False, script=True)
    assert told.startswith("a bad recipe rather than a bug in model, loss or optimizer (the loop itself was not tried)")
    assert "it learns 16 of its samples by heart in " in told
    assert "of its own SGD (0.01)" in told


def test_a_script_with_a_bug_is_told_so(tmp_path):
    turned = "loss_fn = lambda outputs, targets: -nn.functional.cross_entropy(outputs, targets)"
    found = found_of(tmp_path, loss=turned, thorough=True)
    assert "loss_sign" in {finding.check for finding in found.findings}
    assert decision(found.probation, found.findings, converged=False).startswith("a bug in the code, the error above:")


def test_a_loop_with_a_scaler_that_unscales_first_is_left_in_peace(tmp_path):
    assert found_of(tmp_path, step=CLIPPED_UNSCALED, prepare=SCALED).findings == ()


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
