"""The kinds of training in the corpus: which calibrate the detectors, and which only judge them.

The two halves were fixed before a detector was changed, and share no kind: the judging half has other nets, data or
optimizers, and families of its own (convolutions, breast cancer, LSTM, gradients that do not arrive, several labels).
A third set, which judges last, is in corpus_final.py.
Names say what a training is meant to show; whether a run is doomed is decided by its end alone.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import corpus_final as last
import corpus_parts as made
import torch
from corpus_parts import Recurrent, Transformer, adam, adamw, mlp, of, sgd
from torch import Tensor, nn

import remedy


class Role(StrEnum):
    """What a kind's runs may be used for."""

    CALIBRATE = "calibrate"
    JUDGE = "judge"
    FINAL = "final"


@dataclass(frozen=True)
class Kind:
    """One kind of training; `training` takes the run's seed, which only a search's configuration depends on."""

    name: str
    role: Role
    training: Callable[[int], remedy.Training]
    seeds: int = 10
    search: bool = False


def digits(model: Callable[[], nn.Module], **more: Any) -> remedy.Training:
    return of(model, made.digits, **more)


def raw(model: Callable[[], nn.Module], **more: Any) -> remedy.Training:
    return of(model, lambda: made.digits(scale=1.0), **more)


def real(model: Callable[[], nn.Module], data: Callable[[], Any], **more: Any) -> remedy.Training:
    return of(model, data, **{"loss": nn.MSELoss(), "metric": "r2", "goal": 0.7, **more})


def softmax() -> nn.Module:
    return nn.Softmax(dim=1)


def leaky() -> nn.Module:
    return nn.LeakyReLU(1 / 3)


def orthogonal(weight: Tensor) -> Any:
    return nn.init.orthogonal_(weight, nn.init.calculate_gain("leaky_relu", 1 / 3))


# ---------------------------------------------------------------- those that calibrate

CALIBRATING: dict[str, Callable[[], remedy.Training]] = {
    # doomed, by and large: cases.md A, B, C, C', D, E, F and more
    "clipped_wide": lambda: raw(
        mlp((64, 1024, 10), last=softmax), loss=made.clipped_cross_entropy, optimizer=adam(0.03),
        schedule=made.warmup(200), schedule_interval="step", batch_size=16,
    ),
    "clipped_deep_leaky": lambda: of(
        mlp((64, *[64] * 30, 10), leaky, orthogonal, softmax), lambda: made.digits(per_class=made.IMBALANCED),
        loss=made.clipped_cross_entropy, optimizer=adam(0.01), schedule=made.warmup(200), schedule_interval="step",
        batch_size=32, sampler=made.oversampled, goal=0.81,
    ),
    "double_softmax_slow": lambda: digits(mlp((64, 128, 128, 10), last=softmax), optimizer=sgd(0.01)),
    "double_softmax_hot": lambda: digits(mlp((64, *[128] * 4, 10), last=softmax), optimizer=adam(0.03)),
    "dead_momentum": lambda: digits(mlp((64, *[64] * 5, 10)), optimizer=sgd(0.3, 0.9)),
    "logarithm_of_zero": lambda: raw(
        mlp((64, 512, 10), last=made.NaiveSoftmax), loss=made.naive_cross_entropy, optimizer=adam(0.05), batch_size=16,
    ),
    "deep_sigmoid": lambda: digits(mlp((64, *[64] * 12, 10), nn.Sigmoid, nn.init.xavier_normal_)),
    "hot_tanh": lambda: digits(mlp((64, *[64] * 3, 10), nn.Tanh), optimizer=adam(0.3)),
    "hot_leaky_logits": lambda: digits(mlp((64, *[64] * 6, 10), leaky), optimizer=sgd(1.0, 0.9)),
    "hot_relu_adam": lambda: of(mlp((20, *[64] * 4, 8)), made.clouds, optimizer=adam(0.2), goal=0.8),
    "all_weights_equal": lambda: digits(mlp((64, 64, 64, 10), start=made.constant(0.05)), optimizer=adam(0.003)),
    "weights_all_zero": lambda: digits(mlp((64, 64, 64, 10), start=made.constant(0.0)), optimizer=sgd(0.1)),
    "weights_far_too_large": lambda: digits(mlp((64, 64, 64, 10), nn.Tanh, made.normal(3.0)), optimizer=sgd(0.01)),
    "labels_shuffled": lambda: of(mlp((20, 64, 8)), lambda: made.shuffled(made.clouds()), goal=0.8),
    "too_small_rate": lambda: digits(mlp((64, 64, 64, 10)), optimizer=adam(1e-6)),
    "rather_small_rate": lambda: digits(mlp((64, 64, 64, 10)), optimizer=sgd(3e-3)),
    "far_too_much_decay": lambda: digits(mlp((64, 64, 64, 10)), optimizer=adam(1e-3, weight_decay=0.3)),
    "recurrent_hot": lambda: of(
        lambda: Recurrent(nn.RNN, 4, 4, gain=1.5), lambda: made.remembered(20), optimizer=sgd(1.0), goal=0.9,
    ),
    "transformer_hot": lambda: of(
        lambda: Transformer(8, 8, every=True, pre=False), made.next_symbols, optimizer=adam(0.05), batch_size=32,
        goal=0.8, steps=200,
    ),
    "regression_dead": lambda: real(
        mlp((10, *[32] * 4, 1)), lambda: made.table("diabetes"), optimizer=adam(1.0), goal=0.3,
    ),
    "regression_overflow": lambda: real(
        mlp((3, 64, 64, 1)), lambda: made.scaled_targets(made.waves(), 300.0), optimizer=sgd(0.01),
    ),
    "regression_far_targets": lambda: real(
        mlp((3, 32, 32, 1), nn.Tanh), lambda: made.scaled_targets(made.waves(1.0), 50.0, 500.0), optimizer=adam(1e-3),
    ),
    "regression_hot": lambda: real(mlp((3, 64, 64, 1), nn.Tanh), made.waves, optimizer=adam(0.3)),
    # healthy, by and large
    "healthy_digits": lambda: digits(mlp((64, 64, 64, 10))),
    "healthy_spirals": lambda: of(mlp((2, 64, 64, 3)), made.spirals, optimizer=adam(0.01), steps=500, goal=0.8),
    "noisy_wide": lambda: digits(mlp((64, 512, 512, 10)), optimizer=adam(0.03), batch_size=16, goal=0.8),
    "noisy_momentum": lambda: digits(mlp((64, 64, 64, 10), nn.Tanh), optimizer=sgd(0.3, 0.9)),
    "batch_of_two": lambda: digits(mlp((64, 64, 10)), optimizer=sgd(0.02), batch_size=2, steps=1500, goal=0.85),
    "slow_learner": lambda: digits(mlp((64, 64, 64, 10)), optimizer=sgd(0.02), steps=1500, goal=0.85),
    "late_tanh": lambda: digits(
        mlp((64, 64, 64, 64, 10), nn.Tanh, made.normal(0.01)), optimizer=sgd(0.1, 0.9), steps=900,
    ),
    "late_parity": lambda: of(mlp((30, 128, 2)), lambda: made.parity(30, 3), steps=1000, goal=0.9),
    "late_modular": lambda: of(
        mlp((46, 192, 23)), lambda: made.modular(23, 0.1), optimizer=adamw(1e-2, 0.5), steps=700, batch_size=128,
        goal=0.8,
    ),
    "late_memory": lambda: of(
        lambda: Recurrent(nn.GRU, 4, 4), lambda: made.remembered(16), optimizer=adam(3e-3), batch_size=32, steps=550,
        goal=0.8,
    ),
    "warmup_hot": lambda: digits(
        mlp((64, 256, 256, 10)), optimizer=adam(0.03), schedule=made.warmup(150), schedule_interval="step", goal=0.8,
    ),
    "one_cycle_leaky": lambda: digits(
        mlp((64, *[64] * 6, 10), leaky), optimizer=sgd(0.05, 0.9), schedule=made.one_cycle(0.15, 500),
        schedule_interval="step", steps=500, goal=0.7,
    ),
    "imbalanced": lambda: of(
        mlp((20, 64, 64, 8)), lambda: made.clouds(rare=0.08), metric="balanced_accuracy", goal=0.6,
        optimizer=adam(2e-3),
    ),
    "healthy_transformer": lambda: of(
        lambda: Transformer(8, 8, every=True), made.next_symbols, batch_size=32, steps=200, goal=0.8,
        optimizer=adam(3e-3),
    ),
    "healthy_regression": lambda: real(mlp((3, 64, 64, 1), nn.Tanh), made.waves, optimizer=adam(5e-3), steps=500),
    "late_regression": lambda: real(
        mlp((3, 64, 64, 64, 1), nn.Tanh, made.normal(0.014)), made.waves, optimizer=sgd(0.08, 0.9), steps=700,
    ),
    "large_batch": lambda: digits(mlp((64, 128, 10)), optimizer=sgd(0.5, 0.9), batch_size=512, steps=150),
}  # fmt: skip

# ---------------------------------------------------------------- those that only judge

JUDGING: dict[str, Callable[[], remedy.Training]] = {
    # doomed, by and large
    "clipped_momentum": lambda: raw(
        mlp((64, 512, 512, 10), last=softmax), loss=made.clipped_cross_entropy, optimizer=sgd(0.03, 0.9), batch_size=16,
    ),
    "clipped_binary_raw": lambda: of(
        mlp((30, 64, 64, 1), last=nn.Sigmoid), lambda: made.binary(made.table("breast_cancer", raw=True)),
        loss=made.clipped_binary, optimizer=adam(0.03), batch_size=32, goal=0.85,
    ),
    "softmax_over_one": lambda: of(
        mlp((30, 32, 1), last=softmax), lambda: made.binary(made.table("breast_cancer")),
        loss=made.clipped_binary, batch_size=32, steps=300, goal=0.9,
    ),
    "relu_over_logits": lambda: digits(mlp((64, 64, 64, 10), last=nn.ReLU), optimizer=adam(0.02)),
    "conv_dead": lambda: digits(made.cnn(16, 4), optimizer=sgd(0.4, 0.9), steps=300),
    "conv_summed_loss": lambda: digits(
        made.cnn(16, 2), loss=nn.CrossEntropyLoss(reduction="sum"), optimizer=sgd(0.05, 0.9), steps=300,
    ),
    "conv_double_softmax": lambda: digits(
        lambda: nn.Sequential(made.cnn(16, 3)(), nn.Softmax(dim=1)), optimizer=adam(0.02), steps=300,
    ),
    "deep_tanh_small": lambda: of(
        mlp((20, *[48] * 16, 8), nn.Tanh, made.normal(0.02)), made.clouds, optimizer=sgd(0.1, 0.9), goal=0.8,
    ),
    "deep_relu_adam": lambda: of(mlp((20, *[64] * 10, 8)), made.clouds, optimizer=adam(0.05), goal=0.8),
    "very_deep_gelu": lambda: digits(mlp((64, *[48] * 16, 10), nn.GELU, made.normal(0.03)), optimizer=adam(1e-3)),
    "sigmoid_unscaled": lambda: raw(mlp((64, 64, 64, 10), nn.Sigmoid, made.normal(1.0)), optimizer=sgd(0.5)),
    "gradient_cut": lambda: digits(
        lambda: nn.Sequential(mlp((64, 64, 64), nn.ReLU, made.normal(0.01))(), made.Branch(nn.Linear(64, 10))),
        optimizer=sgd(0.05),
    ),
    "memory_too_long": lambda: of(
        lambda: Recurrent(nn.RNN, 4, 4), lambda: made.remembered(40), optimizer=adam(1e-3), batch_size=32, goal=0.9,
        steps=300,
    ),
    "lstm_hot": lambda: of(
        lambda: Recurrent(nn.LSTM, 2, 2), lambda: made.counted(15), optimizer=adam(2.0), batch_size=32, goal=0.8,
        steps=300,
    ),
    "transformer_post_norm_hot": lambda: of(
        lambda: Transformer(6, 6, every=True, pre=False, layers=3), made.repeated, optimizer=adam(0.02), batch_size=32,
        goal=0.6, steps=150,
    ),
    "transformer_momentum_hot": lambda: of(
        lambda: Transformer(8, 8, every=True), made.next_symbols, optimizer=sgd(3.0, 0.9), batch_size=32, goal=0.8,
        steps=150,
    ),
    "labels_shuffled_digits": lambda: of(
        mlp((64, 128, 10)), lambda: made.shuffled(made.digits()), optimizer=adam(3e-3), goal=0.87,
    ),
    "small_rate_clouds": lambda: of(mlp((20, 64, 64, 8)), made.clouds, optimizer=sgd(1e-3), goal=0.8),
    "regression_negative_relu": lambda: real(
        mlp((8, 32, 32, 1), last=nn.ReLU), lambda: made.scaled_targets(made.plane(), 1.0, -6.0), optimizer=adam(0.01),
    ),
    "regression_far_plane": lambda: real(
        mlp((13, 64, 64, 1)), lambda: made.scaled_targets(made.plane(13), 1000.0, 5000.0), optimizer=sgd(0.05, 0.9),
    ),
    "regression_sigmoid_output": lambda: real(
        mlp((3, 64, 1), nn.Tanh, last=nn.Sigmoid), lambda: made.scaled_targets(made.waves(), 20.0, 100.0),
        optimizer=adam(0.01),
    ),
    "regression_hot_relu": lambda: real(mlp((8, *[64] * 4, 1)), made.plane, optimizer=adam(0.5)),
    "many_labels_hot": lambda: of(
        mlp((16, *[64] * 4, 6)), made.labelled, loss=nn.BCEWithLogitsLoss(), optimizer=adam(0.5), goal=0.85,
    ),
    # healthy, by and large
    "healthy_conv": lambda: digits(made.cnn(16, 2), optimizer=adam(3e-3), steps=300),
    "healthy_conv_norm_hot": lambda: digits(made.cnn(16, 3, norm=True), optimizer=adam(0.05), steps=300, goal=0.8),
    "healthy_cancer": lambda: of(
        mlp((30, 32, 1)), lambda: made.binary(made.table("breast_cancer")), loss=nn.BCEWithLogitsLoss(),
        optimizer=adam(3e-3), batch_size=32, steps=300, goal=0.9,
    ),
    "healthy_many_labels": lambda: of(
        mlp((16, 64, 6)), made.labelled, loss=nn.BCEWithLogitsLoss(), optimizer=adam(5e-3), goal=0.85,
    ),
    "noisy_tiny_batch": lambda: of(
        mlp((20, 64, 64, 8)), made.clouds, optimizer=sgd(0.02, 0.9), batch_size=4, steps=1000, goal=0.7,
    ),
    "noisy_large_start": lambda: digits(mlp((64, 64, 64, 10), start=made.normal(0.5)), optimizer=adam(0.01), goal=0.8),
    "slow_rmsprop": lambda: of(
        mlp((20, 64, 64, 8)), made.clouds, optimizer=lambda p: torch.optim.RMSprop(p, lr=1e-4), steps=1200, goal=0.8,
    ),
    "late_deep_tanh": lambda: of(
        mlp((20, 64, 64, 64, 8), nn.Tanh, made.normal(0.01)), made.clouds, optimizer=sgd(0.05, 0.9), steps=600,
        goal=0.8,
    ),
    "late_deep_linear": lambda: digits(
        mlp((64, 48, 48, 48, 10), nn.Identity, made.normal(0.013)), optimizer=sgd(0.1, 0.9), steps=700, goal=0.6,
    ),
    "late_parity_tanh": lambda: of(
        mlp((14, 100, 2), nn.Tanh), lambda: made.parity(14, 4), optimizer=adam(3e-3), steps=900, goal=0.8,
    ),
    "late_parity_momentum": lambda: of(
        mlp((20, 200, 1)), lambda: made.binary(made.parity(20, 3)), loss=nn.BCEWithLogitsLoss(),
        optimizer=sgd(0.02, 0.9), steps=800, goal=0.9,
    ),
    "late_modular_deep": lambda: of(
        mlp((38, 96, 96, 19)), lambda: made.modular(19, 0.1), optimizer=adamw(5e-3, 1.0), steps=800, batch_size=128,
        goal=0.7,
    ),
    "late_lstm_memory": lambda: of(
        lambda: Recurrent(nn.LSTM, 4, 4), lambda: made.remembered(12), optimizer=adam(3e-3), batch_size=32, steps=500,
        goal=0.7,
    ),
    "late_copy": lambda: of(
        lambda: Transformer(6, 6, every=True), made.repeated, optimizer=adam(1e-3), batch_size=32, steps=200, goal=0.8,
    ),
    "late_sigmoid": lambda: digits(mlp((64, *[64] * 3, 10), nn.Sigmoid), optimizer=adam(2e-3), steps=600, goal=0.8),
    "late_regression_relu": lambda: real(
        mlp((8, 64, 64, 64, 1), nn.ReLU, made.normal(0.03)), made.plane, optimizer=sgd(0.05, 0.9), steps=700,
    ),
    "warmup_long": lambda: digits(
        mlp((64, 128, 128, 10)), optimizer=sgd(0.1, 0.9), schedule=made.warmup(300), schedule_interval="step",
        steps=500,
    ),
    "one_cycle_relu": lambda: of(
        mlp((20, 128, 128, 8)), made.clouds, optimizer=adam(0.003), schedule=made.one_cycle(0.08, 500),
        schedule_interval="step", steps=500, goal=0.75,
    ),
    "imbalanced_rare": lambda: of(
        mlp((20, 64, 8)), lambda: made.clouds(rare=0.05, noise=0.8), metric="balanced_accuracy", goal=0.6,
        optimizer=sgd(0.1, 0.9), steps=600,
    ),
    "healthy_regression_table": lambda: real(
        mlp((10, 32, 1)), lambda: made.table("diabetes"), goal=0.3, optimizer=adam(5e-3), steps=300,
    ),
    "healthy_regression_far": lambda: real(
        mlp((8, 64, 64, 1)), lambda: made.scaled_targets(made.plane(), 1.0, 5.0), optimizer=adam(5e-3), steps=500,
        goal=0.8,
    ),
}  # fmt: skip

# ---------------------------------------------------------------- searches: one random configuration a seed


def searched(seed: int, data: Callable[[], Any], features: int, classes: int, goal: float) -> remedy.Training:
    """Draw what a search over an MLP draws; about half of it is no good."""
    draw = random.Random(seed)
    depth, width = draw.choice((1, 2, 2, 3, 4, 6)), draw.choice((16, 32, 64, 128))
    activation = draw.choice((nn.ReLU, nn.ReLU, nn.Tanh, nn.Sigmoid, leaky))
    start = draw.choice((None, None, nn.init.xavier_normal_, made.normal(0.01), made.normal(1.0)))
    rate, batch = 10 ** draw.uniform(-4.5, 0.5), draw.choice((16, 32, 64, 128))
    make = draw.choice((adam(rate), adam(rate), sgd(rate), sgd(rate, 0.9)))
    last = draw.choice((None, None, None, softmax))
    loss = nn.CrossEntropyLoss() if last is None else draw.choice((nn.CrossEntropyLoss(), made.clipped_cross_entropy))
    model = mlp((features, *[width] * depth, classes), activation, start, last)
    return of(model, data, loss=loss, optimizer=make, batch_size=batch, steps=240, goal=goal)


SEARCHES = (
    Kind("search_digits", Role.CALIBRATE, lambda s: searched(s, made.digits, 64, 10, 0.87), 40, search=True),
    Kind("search_spirals", Role.CALIBRATE, lambda s: searched(s + 1000, made.spirals, 2, 3, 0.65), 40, search=True),
    Kind("search_clouds", Role.JUDGE, lambda s: searched(s + 2000, made.clouds, 20, 8, 0.8), 40, search=True),
    Kind("search_raw_digits", Role.JUDGE, lambda s: searched(
        s + 3000, lambda: made.digits(scale=1.0), 64, 10, 0.87), 40, search=True),
    Kind("search_cancer", Role.JUDGE, lambda s: searched(
        s + 4000, lambda: made.table("breast_cancer"), 30, 2, 0.93), 40, search=True),
    Kind("search_tones", Role.FINAL, lambda s: last.searched(s + 5000), 40, search=True),
)  # fmt: skip


def _fixed(make: Callable[[], remedy.Training]) -> Callable[[int], remedy.Training]:
    return lambda _seed: make()


KINDS: tuple[Kind, ...] = (
    *(Kind(name, Role.CALIBRATE, _fixed(make)) for name, make in CALIBRATING.items()),
    *(Kind(name, Role.JUDGE, _fixed(make)) for name, make in JUDGING.items()),
    *(Kind(name, Role.FINAL, _fixed(make), 6) for name, make in last.FINAL.items()),
    *SEARCHES,
)
