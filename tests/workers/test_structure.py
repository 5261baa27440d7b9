"""Structural faults are said before a run, with the remedies that mend them; sound trainings are left in peace."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from remedy.spaces.target import Loaded, Source
from remedy.workers.preflight import preflight
from tests.workers import broken_model as b

FAULTS = {
    b.softmax_over_one_unit: ("objective", "over one unit, which is always 1", "match_objective"),
    b.relu_under_a_log_loss: ("objective", "ends in relu, which gives neither", "match_objective"),
    b.linear_under_a_log_loss: ("objective", "ends in no activation, but the loss takes", "match_objective"),
    b.tanh_under_a_log_loss: ("objective", "ends in tanh", "match_objective"),
    b.sigmoid_before_logits: ("objective", "ends in sigmoid, but the loss takes logits", "match_objective"),
    b.entropy_of_one_column: ("objective", "CrossEntropyLoss is for exclusive classes", "match_objective"),
    b.relu_before_logits: ("objective", "ends in relu", "match_objective"),
    b.sigmoid_with_categorical: ("objective", "ends in sigmoid, but the loss takes", "match_objective"),
    b.softmax_of_the_batch: ("objective", "ends in softmax", "match_objective"),
    b.negative_logits: ("objective", "the loss takes what log_softmax gives", "match_objective"),
    b.softmax_of_labels: ("objective", "one label can be near 1 only", "match_objective"),
    b.relu_of_numbers: ("objective", "ends in relu, which cannot reach every target", "match_objective"),
    b.sigmoid_of_numbers: ("objective", "ends in sigmoid, which cannot reach every target", "match_objective"),
    b.column_against_flat: ("objective", "each with each", "match_objective"),
    b.softmax_before_logits: ("softmax_before_loss", "another one", "fused_cross_entropy"),
    b.sum_of_losses: ("reduction", "a sum over the batch", "mean_reduction"),
    b.sum_of_squares: ("reduction", "a sum over the batch", "mean_reduction"),
    b.far_inputs: ("input_scale", "inputs have mean", "robust_scale"),
    b.far_targets: ("target_scale", "targets have mean", "standardise_targets"),
    b.far_mean: ("target_scale", "targets have mean", "output_prior"),
    b.targets_with_a_graph: ("targets_with_gradient", "require a gradient", "detach_targets"),
    b.in_class_order: ("order", "SequentialSampler", "shuffle"),
    b.frozen: ("frozen", "parameter(s) are frozen", "unfreeze"),
    b.all_zero: ("equal_weights", "are the same", "default_weights"),
    b.all_one: ("equal_weights", "are the same", "default_weights"),
    b.standard_normal: ("weight_scale", "far from the usual size", "default_weights"),
    b.tiny_weights: ("weight_scale", "far from the usual size", "lsuv"),
    b.overdropped: ("dropout", "less than half", "dropout_off"),
    b.half_weights: ("half_weights", "half precision", "full_precision"),
    b.underflow: ("half_precision", "not scaled", "loss_scaling"),
}  # fmt: skip


def findings(training):
    return preflight(Loaded(Source("t.py", "training", ""), training, ()), training, 1, 0).findings


@pytest.mark.parametrize("build", FAULTS, ids=lambda build: build.__name__)
@pytest.mark.filterwarnings("ignore:Using a target size:UserWarning")
def test_a_fault_is_said_with_its_remedy(build):
    check, told, remedy = FAULTS[build]
    found = {finding.check: finding for finding in findings(build())}
    assert check in found, found
    assert told in found[check].message
    assert remedy in found[check].suggests


def one_hot():
    inputs, labels = b.blobs()
    return inputs, F.one_hot(labels, 4).float()


SOUND = {
    "logits": b.training,
    "softmax, clipped": lambda: b.training(model=b.stack(nn.Softmax(dim=1)), loss=b.clipped),
    "log-softmax": lambda: b.training(model=b.stack(nn.LogSoftmax(dim=1)), loss=nn.NLLLoss()),
    "one-hot": lambda: b.training(one_hot()),
    "squares of probabilities": lambda: b.training(one_hot(), model=b.stack(nn.Softmax(dim=1)), loss=nn.MSELoss()),
    "margin": lambda: b.training(loss=nn.MultiMarginLoss()),
    "sigmoid": lambda: b.binary(nn.Sigmoid()),
    "binary logits": lambda: b.binary(loss=nn.BCEWithLogitsLoss()),
    "squares of a sigmoid": lambda: b.binary(nn.Sigmoid(), loss=nn.MSELoss()),
    "numbers": b.numbers,
    "numbers above zero": lambda: b.numbers(
        (b.curve()[0], b.curve()[1].abs()), model=b.stack(nn.ReLU(), inputs=4, outputs=1)
    ),
    "words": lambda: b.training(b.sentences(), model=lambda: b.Words(1.0)),
}


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_training_is_left_in_peace(name):
    quiet = [
        finding for finding in findings(SOUND[name]()) if finding.check not in ("loss_from_probabilities", "flat_loss")
    ]
    assert quiet == []


def test_nothing_is_changed_by_looking():
    training = b.relu_before_logits()
    model = b.stack(nn.ReLU(), width=6)()
    inputs, before = torch.randn(5, 8), None
    before = model(inputs)
    made = b.replace(training, model=lambda: model)
    findings(made)
    assert torch.equal(model(inputs), before)
    assert "forward" not in model.__dict__
