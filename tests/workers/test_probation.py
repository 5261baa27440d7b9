"""Some hundred steps tell a bug in the code from a bad recipe and from bad data, and change nothing."""

import dataclasses
import itertools
import json

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from remedy.spaces.assembly import assemble
from remedy.spaces.batches import split
from remedy.spaces.combination import Combination
from remedy.spaces.error import InputError
from remedy.spaces.target import Loaded, Source
from remedy.workers.decision import decision
from remedy.workers.easy import easy
from remedy.workers.loop import train
from remedy.workers.preflight import Preflight, preflight
from remedy.workers.probation import MOST, probation
from tests.workers import broken
from tests.workers import broken_model as b
from tests.workers.test_response import SOUND, Handmade, Tokens, images, normed, picture_net, turned


@pytest.fixture(autouse=True)
def _time_enough(monkeypatch):
    """What may be tried in some seconds, and in no more steps than such short trainings have, is tested apart."""

    def patient(parts, again, **_):
        return probation(parts, again, seconds=600.0, most=MOST)

    monkeypatch.setattr("remedy.workers.preflight.probation", patient)


def looked(training):
    return preflight(Loaded(Source("t.py", "training", ""), training, ()), training, 1, 0, thorough=True)


def decided(training, *, converged=False):
    found = looked(training)
    return decision(found.probation, found.findings, converged=converged)


def built(training):
    return assemble(training, Combination(), {}, seed=1, data_seed=0)


# ---------------------------------------------------------------- learning by heart


BUGS = {
    "weights that are all zero": b.all_zero,
    "weights that are all one": b.all_one,
    "frozen weights": b.frozen,
    "ReLUs that are asleep": b.asleep,
    "softmax over one unit": b.softmax_over_one_unit,
    "two sigmoids": b.sigmoid_before_logits,
    "no log-softmax": b.negative_logits,
    "relu of numbers": b.relu_of_numbers,
    "each with each": b.column_against_flat,
    "a loss of the wrong sign": turned,
}


@pytest.mark.parametrize("name", BUGS)
@pytest.mark.filterwarnings("ignore:Using a target size:UserWarning")
def test_what_learns_nothing_by_heart_has_a_bug(name):
    found = looked(BUGS[name]())
    told = decision(found.probation, found.findings, converged=False)
    assert told.startswith("a bug in the code")
    assert "neither 16 of its samples by heart nor" in told
    assert found.probation.steps <= MOST
    assert found.probation.left_out == ()


RECIPES = {
    "too fast": (broken.too_fast, "of its own SGD (0.3)"),
    "too slow": (broken.too_slow, "of its own SGD (0.001)"),
    "Adam too fast": (broken.adam_too_fast, "of its own Adam (0.3)"),
    "a first step that blows up": (b.blown_up, "of its own SGD (0.3)"),
    "a loss summed": (b.sum_of_losses, "of its own SGD (0.3)"),
}


@pytest.mark.parametrize("name", RECIPES)
def test_what_only_another_optimizer_learns_by_heart_has_a_bad_recipe(name):
    build, own = RECIPES[name]
    told = decided(build())
    assert told.startswith("a bad recipe rather than a bug in the code: it learns 16 of its samples by heart in ")
    assert "steps of Adam (0.001), but not in " in told
    assert own in told


def same_inputs():
    """Every sample looks like another one of another class."""
    inputs, labels = b.blobs()
    return b.training((inputs[:1].expand(384, 8).clone() + 0.001 * torch.randn(384, 1), labels), steps=40)


DATA = {"samples that look alike": same_inputs, "numbers far off": b.far_targets, "outliers": b.wild_targets}


@pytest.mark.parametrize("name", DATA)
def test_what_learns_only_easy_data_has_bad_data(name):
    told = decided(DATA[name]())
    assert told.startswith("the data or too small a model rather than a bug in the code: it learns")
    assert "easy inputs in" in told


def test_what_learns_both_with_its_own_optimizer_has_a_bad_recipe_or_strange_data():
    told = decided(b.wrong_labels())
    assert told.startswith("a bad recipe or misleading data rather than a bug in the code: it learns")
    assert ", and 4 easy inputs in" in told


def test_an_error_found_is_not_denied():
    told = decided(b.softmax_before_logits())
    assert told.startswith("the error above, or a bad recipe or misleading data: it learns 16 of its samples by heart")


# ---------------------------------------------------------------- one step, twenty steps


def upwards():
    return b.training(optimizer=lambda params: torch.optim.SGD(params, lr=0.01, maximize=True))


class Forgetful(nn.Module):
    """Draws numbers past the seed."""

    def __init__(self):
        super().__init__()
        self.body = b.stack()()
        self.noise = torch.Generator().manual_seed(next(COUNT))

    def forward(self, x):
        return self.body(x + 0.5 * torch.randn(x.shape, generator=self.noise))


COUNT = itertools.count()

FAULTS = {
    "up the loss": (upwards, "direction", "goes up the loss"),
    "a first step too far": (lambda: broken._regression(b.sgd(0.9)), "first_update", "times its own size"),
    "a first step of nothing": (
        lambda: b.training(loss=lambda o, t: 1e-12 * F.cross_entropy(o, t), optimizer=b.sgd(0.1)),
        "first_update", "changes no weight by more",
    ),
    "two nets in one": (b.stale_norms, "modes", "in evaluation mode"),
    "a draw past the seed": (lambda: b.training(model=Forgetful), "determinism", "the same seed gives other losses"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_said(name):
    build, check, told = FAULTS[name]
    found = looked(build())
    said = {finding.check: finding.message for finding in found.findings}
    assert check in said, (said, found.probation)
    assert told in said[check]


def unrelated():
    """Targets that have nothing to do with the inputs."""
    inputs, _ = b.blobs()
    return b.training((inputs, torch.randint(0, 4, (384,), generator=b.drawn(30))))


def test_inputs_that_tell_nothing_are_doubted():
    doubts = looked(unrelated()).probation.doubts
    assert [doubt.check for doubt in doubts] == ["signal", "known_data"]
    assert "no better on held-out samples" in doubts[0].message
    assert "look for the fault in the data, not in the code" in doubts[1].message


class BlindOutsideTraining(nn.Module):
    """Forgets its inputs wherever it is not trained."""

    def __init__(self):
        super().__init__()
        self.body = b.stack()()

    def forward(self, x):
        return self.body(x if self.training else torch.zeros_like(x))


@pytest.mark.parametrize("own", ["rows", "numbers"])
def test_code_that_does_not_learn_known_data_either_is_told_from_bad_data(own):
    build = {"rows": b.training, "numbers": b.numbers}[own]
    blind = lambda: nn.Sequential(Forgetting(), *b.stack(inputs=4, outputs=1)())  # noqa: E731
    model = BlindOutsideTraining if own == "rows" else blind
    doubts = {doubt.check: doubt.message for doubt in looked(build(model=model)).probation.doubts}
    assert "look for the fault in the code, above all in what validation does" in doubts["known_data"]


class Forgetting(nn.Module):
    def forward(self, x):
        return x if self.training else torch.zeros_like(x)


def renamed():
    """The labels of the validation samples are shifted by one."""
    inputs, labels = b.blobs()
    sets = TensorDataset(inputs[:256], labels[:256]), TensorDataset(inputs[256:], (labels[256:] + 1) % 4)
    return b.replace(b.training(), data=lambda: sets)


def test_labels_that_are_shifted_in_one_of_the_sets_are_named():
    found = looked(renamed())
    assert [doubt.check for doubt in found.probation.doubts] == ["renamed_classes"]
    assert "for validation, and so for 4 of 4 classes: their labels are shifted" in found.probation.doubts[0].message
    told = decision(found.probation, found.probation.doubts, converged=False)
    assert told.startswith("a bad recipe or misleading data rather than a bug in the code")


def test_a_signal_that_fades_is_no_bug_in_the_code():
    told = decided(b.training(model=b.stack(depth=12, activation=nn.Sigmoid), optimizer=b.sgd(0.01)))
    assert told.startswith("a net that cannot learn as it is built (see above), or a bug in the code: it learns")


def test_to_be_right_by_luck_before_the_first_step_is_not_to_learn():
    """Two easy inputs are often right at the start, also of a net that cannot learn."""

    def still(params):
        return torch.optim.SGD(params, lr=0.0)

    found = looked(b.binary(loss=nn.BCEWithLogitsLoss(), optimizer=still))
    assert all(made.learnt is None for made in (*found.probation.own[:1], *found.probation.easy[:1]))
    assert not any(made.learnt == 0 for made in (*found.probation.own, *found.probation.easy))


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_training_is_left_in_peace(name):
    found = looked(SOUND[name]())
    assert found.findings == ()
    assert found.left_out == found.probation.left_out == ()
    assert decision(found.probation, found.findings, converged=True).startswith("the code can learn: it learns 16 of")
    assert found.probation.doubts == ()
    assert found.probation.steps <= MOST / 2


# ---------------------------------------------------------------- easy data


def maps(width):
    """A map of classes, one-hot or as labels that stand side by side."""
    pictures, _ = images()
    levels = (pictures > torch.tensor([-9.0, 0.0, 0.5])[:width].reshape(1, -1, 1, 1)).float()
    one = F.one_hot(levels.sum(1).long() - 1, width).movedim(-1, 1).float()
    return pictures, one, levels


def map_net(width):
    return lambda: nn.Conv2d(1, width, 3, padding=1)


SHAPES = (
    b.training,
    lambda: b.training(maps(3)[:2], model=map_net(3), goal=0.95),
    lambda: b.training(maps(3)[::2], model=map_net(3), loss=nn.BCEWithLogitsLoss(), goal=0.95),
    b.numbers,
    lambda: b.binary(loss=nn.BCEWithLogitsLoss()),
    b.softmax_of_labels,
    b.square_of_classes,
    lambda: b.training(b.sentences(), model=Tokens),
    lambda: b.training(images(), model=picture_net),
)


@pytest.mark.parametrize("build", SHAPES)
def test_easy_data_are_one_to_one_and_of_the_shape_and_type_of_the_trainings(build):
    facts = built(build()).facts
    inputs, targets = easy(facts)
    assert len(inputs) == len(targets) == len(inputs.flatten(1).unique(dim=0)) == len(targets.unique(dim=0))
    assert inputs.shape[1:] == facts.inputs.shape[1:]
    assert targets.shape[1:] == facts.targets.shape[1:]
    assert (inputs.dtype, targets.dtype) == (facts.inputs.dtype, facts.targets.dtype)


def test_easy_words_are_those_of_the_training():
    facts = built(b.training(b.sentences(), model=lambda: b.Words(1.0))).facts
    inputs, _ = easy(facts)
    assert all(set(column.tolist()) <= set(own.tolist()) for column, own in zip(inputs.T, facts.inputs.T, strict=True))


def test_inputs_of_one_value_cannot_be_made_easy():
    inputs, labels = b.blobs()
    facts = built(b.training((inputs, labels))).facts
    facts = dataclasses.replace(facts, inputs=torch.zeros(9, 3, dtype=torch.long))
    with pytest.raises(InputError, match="too few values"):
        easy(facts)


# ---------------------------------------------------------------- nothing is changed


def records(training, look):
    parts = built(training)
    if look:
        shown = probation(parts, lambda: built(training), most=MOST)
        assert shown.own[0].learnt is not None
    seen = [(seen.step, seen.loss, seen.metric, seen.gradient_norm) for seen in train(training, parts)]
    return seen, [split(batch)[1].tolist() for batch in parts.epochs.loader], torch.get_rng_state().tolist()


@pytest.mark.parametrize(
    "build",
    [
        lambda: b.training(images(), model=picture_net, steps=30),
        lambda: normed(32),
        lambda: b.replace(b.training(steps=30), schedule=lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 30),
                          schedule_interval="step"),
        lambda: b.training(clip=lambda params: nn.utils.clip_grad_norm_(params, 1.0), precision="bfloat16"),
    ],
)  # fmt: skip
def test_the_same_parts_train_as_if_nothing_had_been_tried(build):
    assert records(build(), look=True) == records(build(), look=False)


def test_checks_that_take_too_long_are_left_out_and_nothing_is_decided():
    shown = probation(built(b.training()), seconds=0.0)
    assert shown.own == shown.easy == shown.findings == ()
    assert {told.split(" (")[0] for told in shown.left_out} >= {"first_update", "one_batch"}
    assert decision(shown, (), converged=False) == ""


@pytest.mark.parametrize("build", [broken.too_slow, b.all_zero, b.far_targets, b.softmax_before_logits, b.wrong_labels])
@pytest.mark.parametrize("steps", [40, 150, 400])
def test_no_more_steps_are_tried_than_one_run_has_and_what_is_not_decided_is_said(build, steps):
    made = dataclasses.replace(build(), steps=steps, epochs=None)
    shown = probation(built(made), lambda: built(made), seconds=600.0)
    assert shown.steps <= steps
    told = [name.split(" (")[0] for name in shown.left_out]
    if not shown.own:
        assert told[:1] == ["one_batch"]
        assert "steps that may be tried here" in shown.left_out[0]
        assert decision(shown, (), converged=False) == ""
    if shown.own and not shown.easy:
        assert "easy_data" in told


def test_a_loss_of_its_own_that_raises_leaves_its_checks_out():
    class Tired(nn.Module):
        calls = itertools.count()

        def forward(self, outputs, targets):
            if next(self.calls) > 40:
                raise ValueError("enough")
            return F.cross_entropy(outputs, targets)

    found = looked(b.training(loss=Tired()))
    assert any("enough" in told for told in found.probation.left_out)


def test_samples_that_are_no_numbers_are_not_tried():
    assert looked(b.holes()).probation.left_out == ("probation (the samples hold NaN or infinite values)",)


def test_it_comes_back_from_json():
    found = looked(b.wrong_labels())
    assert Preflight.from_json(json.loads(json.dumps(dataclasses.asdict(found)))) == found


def test_gradients_written_by_hand_are_copied_with_their_model():
    assert looked(b.training(model=b.stack(activation=Handmade))).probation.own[0].learnt is not None


def counted(**own):
    """Counts, learnt through the logarithm of their rate."""
    inputs, _ = b.curve()
    counts = torch.poisson((0.5 * inputs[:, :1] + 0.5).exp(), generator=b.drawn(40))
    return b.numbers((inputs, counts), loss=nn.PoissonNLLLoss(), metric="loss", goal=0.5, **own)


def test_a_loss_that_takes_something_else_for_right_is_not_judged_by_distance():
    found = looked(counted())
    assert any("not least where the outputs are the targets" in told for told in found.probation.left_out)
    assert decision(found.probation, found.findings, converged=False) == ""


class Mapped(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 1, 3, padding=1))

    def forward(self, x):
        return self.body(x)


def test_a_map_of_yes_and_no_has_easy_data_too():
    pictures, _ = images()
    masks = (F.avg_pool2d(pictures, 3, 1, 1) > 0).float()
    found = looked(b.training((pictures, masks), model=Mapped, loss=nn.BCEWithLogitsLoss(), goal=0.95))
    assert found.probation.left_out == ()
    assert found.probation.classes == 2
    assert "and 2 easy inputs in" in decision(found.probation, found.findings, converged=False)


def test_one_sample_is_too_few():
    inputs, labels = b.blobs()
    sets = TensorDataset(inputs[:4], labels[:4]), TensorDataset(inputs[4:8], labels[4:8])
    parts = built(b.replace(b.training(), data=lambda: sets, batch_size=2))
    parts.facts = dataclasses.replace(parts.facts, inputs=inputs[:1], targets=labels[:1])
    assert any("1 samples are too few" in told for told in probation(parts).left_out)
