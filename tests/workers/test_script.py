"""Door B: a script with its own loop, watched and remedied without knowing of it."""

import math
import os
import subprocess
import sys
import textwrap

import pytest

from remedy.spaces.outcome import Outcome
from remedy.spaces.script import Script
from remedy.spaces.target import find
from remedy.workers.order import Phase, WorkOrder
from remedy.workers.run import perform
from tests.workers import scripts

DOOR_A = """
    import torch
    from torch import nn
    from torch.utils.data import TensorDataset
    import remedy

    def data():
        x = torch.randn(400, 4, generator=torch.Generator().manual_seed(0))
        y = x[:, :3].argmax(1)
        return TensorDataset(x[:320], y[:320]), TensorDataset(x[320:], y[320:])

    def training():
        return remedy.Training(
            model=lambda: {model},
            data=data,
            loss=nn.CrossEntropyLoss(),
            optimizer=lambda parameters: {optimizer},
            batch_size=32,
            epochs=20,
            metric="accuracy",
            goal=0.9,
        )
"""
KNOWN = Script(metric="accuracy", goal=0.9, steps=200, reports=tuple(range(10, 201, 10)))
BOTH = {
    "slow": ("nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))", "torch.optim.SGD({}, lr=0.01)"),
    "with dropout": (
        "nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 3))",
        "torch.optim.SGD({}, lr=0.05, momentum=0.9)",
    ),
    "blown up": ("nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 3))", "torch.optim.SGD({}, lr=300.0)"),
    "functional": (
        (
            "type('Net', (nn.Module,), {{'__init__': lambda s: (nn.Module.__init__(s), "
            "setattr(s, 'a', nn.Linear(4, 8)), setattr(s, 'b', nn.Linear(8, 3)), None)[-1], "
            "'forward': lambda s, x: s.b(torch.relu(s.a(x)))}})()"
        ),
        "torch.optim.Adam({}, lr=0.01)",
    ),
}


def door_b(place, seed=0, params=None, phase=Phase.BASELINE, script=KNOWN, **parts):
    path = scripts.written(place, scripts.text(**parts))
    result, _, log = scripts.forked(scripts.order_of(path, script, params, seed, phase=phase), place)
    assert result is not None, log
    return result


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("seed", [0, 1])
def test_both_doors_give_the_same_run(tmp_path, kind, seed):
    model, optimizer = BOTH[kind]
    path = scripts.written(
        tmp_path,
        textwrap.dedent(DOOR_A).format(model=model.format(), optimizer=optimizer.format("parameters")),
        "a.py",
    )
    one = perform(WorkOrder(0, find(str(path)), {}, seed, 0, Phase.BASELINE))
    other = door_b(
        tmp_path,
        seed,
        model=f"model = {model.format()}",
        optimizer=f"optimizer = {optimizer.format('model.parameters()')}",
    )
    # As texts, in which NaN equals NaN; to the last bit all the same.
    for name in ("first_losses", "outcome", "verdict", "notes", "steps", "curves", "metric", "goal_step", "setting"):
        assert repr(getattr(one, name)) == repr(getattr(other, name)), name


def test_the_seed_decides_weights_and_not_the_data(tmp_path):
    noted = "print('data', torch.randn(2).tolist())"
    model = f"{noted}\n{scripts.MODEL}\nprint('weight', model[0].weight[0].tolist())"
    said = []
    for seed in (0, 0, 1):
        path = scripts.written(tmp_path, scripts.text(model=model, epochs=1))
        said.append(scripts.forked(scripts.order_of(path, KNOWN, seed=seed), tmp_path)[2].splitlines()[:2])
    assert said[0] == said[1]
    assert said[0][0] == said[2][0]
    assert said[0][1] != said[2][1]


def test_outside_a_study_nothing_is_changed(tmp_path):
    code = """
        import time
        began = time.perf_counter()
        import remedy
        parts = object(), object(), None, object()
        given = remedy.prepare(*parts)
        remedy.report(accuracy=0.3)
        took = time.perf_counter() - began
        import sys
        assert type(given) is tuple and all(a is b for a, b in zip(given, parts, strict=True))
        assert remedy.prepare(parts[0]) is parts[0]
        assert not [name for name in sys.modules if name.startswith(("torch", "remedy.spaces", "optuna", "ray"))]
        assert took < 1, took
    """
    clean = {name: value for name, value in os.environ.items() if name != "REMEDY_FIX"}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], env=clean, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


ACCUMULATING = """
    (loss_fn(model(a), b) / 2).backward()
    if place % 2:
        optimizer.step()
        optimizer.zero_grad()
"""
TWO_BACKWARDS = """
    optimizer.zero_grad()
    loss_fn(model(a), b).backward()
    loss_fn(model(a.flip(0)), b.flip(0)).backward()
    optimizer.step()
"""
SCALED = """
    optimizer.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        loss = loss_fn(model(a), b)
    scaler.scale(loss).backward()
    if epoch == 0 and place == 3:
        model[0].weight.grad[0, 0] = float("inf")
    scaler.step(optimizer)
    scaler.update()
"""


def test_accumulated_gradients_are_one_step(tmp_path):
    result = door_b(tmp_path, step=ACCUMULATING, script=Script(metric="accuracy", goal=0.9, steps=100))
    assert result.outcome is Outcome.MISSED
    assert result.steps == 100
    assert len(result.curves["metric"]) == 20
    assert [step for step, _ in result.curves["metric"]] == list(range(5, 101, 5))


def test_losses_of_several_backward_passes_belong_to_one_step(tmp_path):
    result = door_b(tmp_path, step=TWO_BACKWARDS)
    once = door_b(tmp_path)
    assert result.steps == once.steps == 200
    # The second loss is of the same samples with the same weights: the mean of the first window is that of one pass.
    assert math.isclose(result.curves["loss"][0][1], once.curves["loss"][0][1], rel_tol=1e-5)
    assert math.isclose(result.curves["gradient_norm"][0][1], 2 * once.curves["gradient_norm"][0][1], rel_tol=1e-5)


def test_a_scaled_step_is_seen_unscaled_and_a_skipped_one_not_at_all(tmp_path):
    prepare = "scaler = torch.amp.GradScaler('cpu', init_scale=1024.0)\n" + scripts.PREPARE.replace(
        "check", "check, scaler", 2
    ).replace("loader, check, scaler, scaler", "loader, check, scaler")
    scaled = door_b(tmp_path, step=SCALED, prepare=prepare)
    plain = door_b(tmp_path)
    assert scaled.steps == 199  # the step with the infinite gradient was left out by the scaler
    assert scaled.outcome is Outcome.MISSED
    assert scaled.verdict is None
    first = scaled.curves["gradient_norm"][0][1], plain.curves["gradient_norm"][0][1]
    assert math.isclose(*first, rel_tol=0.05)


def test_a_gradient_rule_sees_gradients_that_are_not_scaled(tmp_path):
    prepare = "scaler = torch.amp.GradScaler('cpu', init_scale=1024.0)\n" + scripts.PREPARE
    noted = "before = [p.detach().clone() for p in model.parameters()]\n" + textwrap.dedent(SCALED).replace(
        "epoch == 0", "False"
    )
    noted += "moved = sum(float((p.detach() - q).square().sum()) for p, q in zip(model.parameters(), before)) ** 0.5\n"
    noted += "print('moved', moved)\n"
    path = scripts.written(tmp_path, scripts.text(step=noted, prepare=prepare, epochs=2))
    params = {"gradient": "clip_norm", "clip_norm.max_norm": 0.1}
    result, _, log = scripts.forked(scripts.order_of(path, KNOWN, params), tmp_path)
    assert result.outcome is Outcome.MISSED, (result, log)
    moved = [float(line.split()[1]) for line in log.splitlines() if line.startswith("moved")]
    assert len(moved) == 20
    assert max(moved) == pytest.approx(0.01 * 0.1, rel=1e-3), "the learning rate times the norm allowed"


def test_what_is_validated_is_no_observation(tmp_path):
    loop = scripts.LOOP.replace("right +=", "loss_fn(outputs * 1e30, b); right +=")
    result = door_b(tmp_path, loop=loop)
    plain = door_b(tmp_path)
    assert result.curves["loss"] == plain.curves["loss"]
    assert result.outcome is Outcome.MISSED


def test_a_validation_with_gradients_on_is_none_of_training_either(tmp_path):
    loop = scripts.LOOP.replace("with torch.no_grad():", "if True:").replace(
        "right +=", "loss_fn(outputs * 1e30, b); right +="
    )
    assert door_b(tmp_path, loop=loop).curves["loss"] == door_b(tmp_path).curves["loss"]


def test_who_forgets_to_go_back_to_training_is_watched_all_the_same(tmp_path):
    plain = door_b(tmp_path)
    forgotten = door_b(tmp_path, loop=scripts.LOOP.replace("model.train()", "pass"))
    assert forgotten.curves["loss"] == plain.curves["loss"]
    assert forgotten.curves["metric"] == plain.curves["metric"]


def test_statistics_of_the_validation_without_its_loader(tmp_path):
    prepare = scripts.PREPARE.replace(", check", "")
    alone = door_b(tmp_path, prepare=prepare)
    known = door_b(tmp_path)
    assert alone.curves["top_class_share"] == known.curves["top_class_share"]
    assert alone.curves["metric"] == known.curves["metric"]


ENDS = {
    "break": ("    remedy.report(accuracy=right / len(held))\n        if epoch == 2: break", Outcome.MISSED, 30),
    "sys.exit(0)": (
        "    remedy.report(accuracy=right / len(held))\n        if epoch == 2: sys.exit(0)",
        Outcome.MISSED,
        30,
    ),
    "sys.exit(1)": (
        "    remedy.report(accuracy=right / len(held))\n        if epoch == 2: sys.exit(1)",
        Outcome.FAILED,
        30,
    ),
    "raise": (
        "    remedy.report(accuracy=right / len(held))\n        if epoch == 2: raise ValueError('three')",
        Outcome.FAILED,
        30,
    ),
}


@pytest.mark.parametrize("how", ENDS)
def test_the_script_may_end_itself(tmp_path, how):
    line, outcome, steps = ENDS[how]
    result = door_b(tmp_path, loop=scripts.LOOP.replace("    remedy.report(accuracy=right / len(held))", line))
    assert result.outcome is outcome, result.reason
    assert result.steps == steps
    if how == "raise":
        assert "ValueError: three (train.py, line" in result.reason
        assert "raise ValueError('three')" in result.trace


SWALLOWED = """
    try:
        optimizer.zero_grad()
        loss_fn(model(a), b).backward()
        optimizer.step()
    {handler}
        pass
    finally:
        last = (epoch, place)
"""
ROUND_ALL = """
import atexit
atexit.register(print, 'STILL HERE')
while True:
    try:
{loop}
        break
    except:
        print('STILL HERE')
"""


@pytest.mark.parametrize("handler", ["except Exception:", "except:", "except BaseException:", "all of it"])
def test_nothing_goes_on_after_a_verdict(tmp_path, handler):
    step = scripts.STEP if handler == "all of it" else SWALLOWED.format(handler=handler)
    far = scripts.OPTIMIZER.replace("0.01", "1e20")
    content = scripts.text(step=step, after="print('STILL HERE')", optimizer=far)
    if handler == "all of it":
        before, begin, loop = content.partition("for epoch in")
        content = before + ROUND_ALL.format(loop=textwrap.indent(begin + loop, " " * 8))
    path = scripts.written(tmp_path, content)
    result, _, log = scripts.forked(scripts.order_of(path, KNOWN), tmp_path)
    assert result.outcome is Outcome.COLLAPSED, (result, log)
    assert result.steps == result.verdict.step < 200
    assert "STILL HERE" not in log


def test_arguments_reach_the_script(tmp_path):
    path = scripts.written(tmp_path, scripts.text(after="print(sys.argv[1:], __name__)", epochs=1))
    order = scripts.order_of(path, KNOWN, args=("--lr", "0.1", "a b"))
    _, _, log = scripts.forked(order, tmp_path)
    assert "['--lr', '0.1', 'a b'] __main__" in log
    assert order.source.name == f"{path} -- --lr 0.1 'a b'"


def test_one_run_shows_what_cannot_be_read_off(tmp_path):
    path = scripts.written(tmp_path, scripts.text(epochs=3))
    script, told, result = scripts.learned_of(path, tmp_path)
    assert result.outcome is Outcome.MISSED
    assert (script.steps, script.metric, script.mode, script.goal) == (30, "accuracy", "max", 0.9)
    assert script.reports == (10, 20, 30)
    assert set(script.closed) == {"batch_size", "averaging", "precision", "budget"}
    assert told["found"]["setting"]["kind"] == "class index"
    assert told["found"]["classes"] == 3
    assert list(told["code"]) == ["train.py"]


SCHEDULED = """
    scheduler = {scheduler}
    model, loss_fn, optimizer, scheduler, loader, check = remedy.prepare(
        model, loss_fn, optimizer, scheduler, loader, check)
"""
STEP_LR = "torch.optim.lr_scheduler.StepLR(optimizer, 5, 0.1)"


def test_a_scheduler_follows_a_new_optimizer(tmp_path):
    prepare = SCHEDULED.format(scheduler=STEP_LR)
    loop = scripts.LOOP + "        scheduler.step()\n"
    plain = door_b(tmp_path, prepare=prepare, loop=loop)
    params = {"optimizer": "adam", "adam.lr": 0.02, "adam.beta2": 0.999}
    result = door_b(tmp_path, prepare=prepare, loop=loop, params=params)
    for run, rate in ((plain, 0.01), (result, 0.02)):
        rates = dict(run.curves["learning_rate"])
        assert [rates[step] for step in (50, 60, 110, 160)] == pytest.approx(
            [rate, rate * 0.1, rate * 0.01, rate * 0.001]
        )
    params = {"learning_rate": "scale_up", "scale_up.factor": 10.0}
    scaled = door_b(tmp_path, prepare=prepare, loop=loop, params=params)
    assert dict(scaled.curves["learning_rate"])[110] == pytest.approx(0.001)


def test_a_remedys_schedule_is_stepped_and_the_scripts_own_left_out(tmp_path):
    prepare = SCHEDULED.format(scheduler=STEP_LR)
    loop = scripts.LOOP + "        scheduler.step(); assert scheduler.get_last_lr()\n"
    result = door_b(tmp_path, prepare=prepare, loop=loop, params={"schedule": "cosine"})
    rates = dict(result.curves["learning_rate"])
    assert rates[100] == pytest.approx(0.005, rel=0.05)
    assert rates[200] == pytest.approx(0.0, abs=1e-6)


def test_a_strange_scheduler_closes_the_slots_of_the_learning_rate(tmp_path):
    strange = "torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=40)"
    path = scripts.written(
        tmp_path,
        scripts.text(
            prepare=SCHEDULED.format(scheduler=strange), loop=scripts.LOOP + "        scheduler.step()\n", epochs=2
        ),
    )
    script, _, result = scripts.learned_of(path, tmp_path)
    assert result.outcome is Outcome.MISSED, result
    assert script.interval == "epoch"
    assert {slot for slot, why in script.closed.items() if "OneCycleLR sets its own" in why} == {
        "optimizer", "learning_rate", "schedule",
    }  # fmt: skip


def test_a_scheduler_that_was_not_handed_over_is_seen(tmp_path):
    hidden = f"scheduler = {STEP_LR}\n" + scripts.PREPARE
    path = scripts.written(
        tmp_path, scripts.text(prepare=hidden, loop=scripts.LOOP + "        scheduler.step()\n", epochs=2)
    )
    script, _, _ = scripts.learned_of(path, tmp_path)
    assert "was not given" in script.closed["schedule"]


REFUSED = {
    "no prepare": ({"prepare": "if False: remedy.prepare()"}, "remedy.report is called before remedy.prepare"),
    "neither": ({"prepare": "if False: remedy.prepare()", "loop": "print(epochs)"}, "never called remedy.prepare"),
    "no report": ({"loop": scripts.LOOP.replace("remedy.report", "dict")}, "never called remedy.report"),
    "two optimizers": (
        {"prepare": "remedy.prepare(model, loss_fn, optimizer, torch.optim.SGD(model.parameters(), 1.0), loader)"},
        "2 of the kind optimizer (SGD and SGD)",
    ),
    "a second optimizer": (
        {
            "optimizer": (
                "optimizer = torch.optim.SGD(model[0].parameters(), lr=0.01)\n"
                "other = torch.optim.Adam(model[2].parameters())"
            ),
            "step": scripts.STEP + "    other.step(); other.zero_grad()\n",
        },
        "2.weight, 2.bias: trained past the optimizer that remedy.prepare was given",
    ),
    "two models": ({"prepare": "remedy.prepare(model, nn.Linear(2, 2), loss_fn, optimizer, loader)"}, "two modules"),
    "no loader": ({"prepare": "remedy.prepare(model, loss_fn, optimizer)"}, "was not given the DataLoader"),
    "a number": ({"prepare": "remedy.prepare(model, loss_fn, optimizer, loader, 3)"}, "argument 5"),
    "wrapped": ({"prepare": "remedy.prepare(nn.DataParallel(model), loss_fn, optimizer, loader)"}, "a DataParallel"),
    "LBFGS": ({"optimizer": "optimizer = torch.optim.LBFGS(model.parameters())"}, "LBFGS"),
    "another metric": ({"loop": scripts.LOOP.replace("accuracy=", "f1=")}, "the script reports f1"),
    "no number": ({"loop": scripts.LOOP.replace("accuracy=right", "accuracy='much', part=right")}, "accuracy=str"),
    "prepared twice": ({"prepare": scripts.PREPARE + "\nremedy.prepare(model)"}, "a second time"),
    "swallowed": ({"prepare": "try:\n    remedy.prepare(model)\nexcept BaseException: pass"}, "was not given the loss"),
    "no step": ({"step": "loss_fn(model(a), b)"}, "no optimizer step"),
    "another loss": ({"step": scripts.STEP.replace("loss_fn", "nn.functional.cross_entropy")}, "never called the loss"),
    "met by guessing": ({"epochs": 1}, "met by guessing"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_is_said_in_one_sentence(tmp_path, what):
    parts, said = REFUSED[what]
    path = scripts.written(tmp_path, scripts.text(**{"epochs": 1, **parts}))
    goal = "accuracy>=0.2" if what == "met by guessing" else "accuracy>=0.9"
    _, told, result = scripts.learned_of(path, tmp_path, goal)
    assert result.outcome is Outcome.FAILED
    assert told["bad_input"], result.trace
    assert said in result.reason
    assert "\n" not in result.reason
