"""Small trainings that are broken in one way each, and the remedies of the loop that repair them.

A row says: with this remedy the training converges on at least 4 of 5 seeds; without, on at most 1 of 5. A run takes
some tenths of a second.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset, TensorDataset

from remedy.spaces.objective import Loss
from remedy.spaces.training import Training

SAMPLES, FEATURES, CLASSES, STEPS = 600, 10, 4, 120


def clouds(shares: tuple[float, ...] = (1.0,) * CLASSES, noise: float = 0.7) -> tuple[Any, Any]:
    """Draw one cloud for each class; validation has the same shares."""
    counts = torch.tensor(shares) / sum(shares) * SAMPLES
    labels = torch.arange(len(shares)).repeat_interleave(counts.round().int())
    labels = labels[torch.randperm(len(labels))]
    centres = 1.5 * torch.randn(len(shares), FEATURES)
    inputs = centres[labels] + noise * torch.randn(len(labels), FEATURES)
    held = len(labels) // 4
    return TensorDataset(inputs[held:], labels[held:]), TensorDataset(inputs[:held], labels[:held])


def stack(depth: int = 2, width: int = 32, *last: nn.Module, activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    """Build a plain net."""
    layers: list[nn.Module] = []
    for place in range(depth):
        layers += [nn.Linear(width if place else FEATURES, width), activation()]
    return nn.Sequential(*layers, nn.Linear(width, CLASSES), *last)


def training(**own: Any) -> Training:
    """Build a sound training, or a broken one by other parts."""
    usual = {
        "model": stack, "data": clouds, "loss": nn.CrossEntropyLoss(), "batch_size": 32, "steps": STEPS, "goal": 0.9,
        "optimizer": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9), "device": "cpu",
    }  # fmt: skip
    return Training(**{**usual, **own})


def sgd(lr: float, momentum: float = 0.0, **more: Any) -> Callable[[Any], torch.optim.Optimizer]:
    """Build SGD."""
    return lambda parameters: torch.optim.SGD(parameters, lr=lr, momentum=momentum, **more)


def adam(lr: float, **more: Any) -> Callable[[Any], torch.optim.Optimizer]:
    """Build Adam."""
    return lambda parameters: torch.optim.Adam(parameters, lr=lr, **more)


def too_fast() -> Training:
    """Build one whose first steps throw all units of a layer into their flat half."""
    return training(model=lambda: stack(5), optimizer=sgd(0.3, 0.9))


def adam_too_fast() -> Training:
    """Build one whose steps are far too long for Adam."""
    return training(model=lambda: stack(5), optimizer=adam(0.3))


def too_slow() -> Training:
    """Build one that moves in the right direction, a hundred times too slowly."""
    return training(optimizer=sgd(1e-3))


def sleepy() -> Training:
    """Build one that is ten times too slow."""
    return training(optimizer=sgd(8e-3))


def decayed() -> Training:
    """Build one whose weight decay is stronger than what there is to learn."""
    return training(optimizer=sgd(0.1, weight_decay=0.5))


def bias_decayed() -> Training:
    """Build one whose decay keeps the bias from where the targets are."""

    def data() -> tuple[Any, Any]:
        inputs = torch.randn(800, 1)
        return TensorDataset(inputs[:600], 5 + inputs[:600]), TensorDataset(inputs[600:], 5 + inputs[600:])

    return _regression(sgd(0.1, weight_decay=0.5), model=lambda: nn.Linear(1, 1), data=data, metric="loss", goal=0.7)


def interpolating() -> Training:
    """Build one that learns the noise of its few samples by heart."""
    return training(
        model=lambda: nn.Linear(60, 1), data=lambda: _few(0.4), loss=nn.MSELoss(), metric="r2", goal=0.3, steps=400,
        optimizer=sgd(0.1, 0.9), batch_size=60,
    )  # fmt: skip


def _noisy_line() -> tuple[Any, Any]:
    inputs, weights = torch.randn(1200, 20), torch.randn(20, 1)
    targets = inputs @ weights
    noisy = targets[:800] + 3.0 * torch.randn(800, 1)
    return TensorDataset(inputs[:800], noisy), TensorDataset(inputs[800:], targets[800:])


def restless(optimizer: Callable[[Any], torch.optim.Optimizer] | None = None) -> Training:
    """Build one that is soon near its goal, and never rests there: its steps follow the noise of every batch."""
    return training(
        model=lambda: nn.Linear(20, 1), data=_noisy_line, loss=nn.MSELoss(), metric="loss", goal=0.5, batch_size=8,
        optimizer=optimizer or sgd(0.05), steps=300,
    )  # fmt: skip


def restless_epochs() -> Training:
    """Build one like it with larger batches, so that there are epochs enough to wait for."""
    return replace(restless(sgd(0.09)), batch_size=40, steps=400)


def restless_adam() -> Training:
    """Build the same with Adam, whose memory of the gradients' size is short."""
    return restless(adam(0.1, betas=(0.9, 0.5)))


def fading() -> Training:
    """Build one whose learning rate is gone before anything is learnt."""
    return training(
        schedule=lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.7), schedule_interval="step",
        optimizer=sgd(0.05),
    )  # fmt: skip


def overclipped() -> Training:
    """Build one whose own clipping leaves hardly anything of the gradient."""
    return training(clip=lambda parameters: nn.utils.clip_grad_norm_(parameters, 1e-3))


def rare() -> Training:
    """Build one in which one class of four has most samples, and the mean over classes is what counts."""
    shares = (60.0, 2.0, 2.0, 2.0)
    return training(
        data=lambda: clouds(shares, noise=1.8),
        metric="balanced_accuracy",
        goal=0.75,
        optimizer=sgd(0.02, 0.9),
        steps=150,
    )


def clipped(probabilities: Tensor, targets: Tensor) -> Tensor:
    """Return Keras' cross-entropy of probabilities."""
    return F.nll_loss(probabilities.clamp(1e-7, 1 - 1e-7).log(), targets)


def sure_and_wrong() -> Training:
    """Build one that becomes sure of wrong classes, where its loss has no slope."""
    return training(model=lambda: stack(2, 64, nn.Softmax(1)), loss=clipped, optimizer=sgd(0.3, 0.9))


def loud() -> Training:
    """Build one whose logits are far too large from the start."""

    class Loud(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = stack()

        def forward(self, inputs: Tensor) -> Tensor:
            return 100 * self.net(inputs)

    return training(model=Loud, optimizer=sgd(0.1, 0.9))


def _scaled(factor: float) -> tuple[Any, Any]:
    return tuple(TensorDataset(factor * part.tensors[0], part.tensors[1]) for part in clouds())


def shifted() -> Training:
    """Build one whose inputs share a large mean, and with it every gradient its direction."""
    return training(
        data=lambda: tuple(TensorDataset(20 + part.tensors[0], part.tensors[1]) for part in clouds()),
        model=lambda: stack(activation=nn.LeakyReLU),
        optimizer=sgd(0.005, 0.9),
    )


def stalled_adam() -> Training:
    """Build one whose epsilon is larger than every gradient."""
    return training(optimizer=adam(1e-3, eps=1.0))


def untrained() -> Training:
    """Build one whose optimizer was given the last bias only."""
    return training(optimizer=lambda parameters: torch.optim.SGD(list(parameters)[-1:], lr=0.1, momentum=0.9))


class Faulty(Dataset[Any]):
    """Samples of which some are destroyed: those at the given places among all draws."""

    def __init__(self, data: TensorDataset, value: float, places: Callable[[int], bool]) -> None:
        self._data, self._value, self._places, self._draws = data, value, places, 0

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, place: int) -> Any:
        self._draws += 1
        inputs, target = self._data[place]
        return (self._value * inputs if self._places(self._draws) else inputs), target


def holes() -> Training:
    """Build one in which one of 300 samples is not a number."""

    def data() -> tuple[Any, Any]:
        train, validation = clouds()
        return Faulty(train, float("nan"), lambda draw: draw % 300 == 200), validation

    return training(data=data)


def born_dead() -> Training:
    """Build one whose hidden units are zero for every input from the start."""

    def model() -> nn.Module:
        net = stack()
        nn.init.constant_(net[0].bias, -30.0)
        return net

    return training(model=model)


def symmetric() -> Training:
    """Build one whose weights are all zero: all gradients but the last bias' are, too."""

    def model() -> nn.Module:
        net = stack()
        for parameter in net.parameters():
            nn.init.zeros_(parameter)
        return net

    return training(model=model)


def wide() -> Training:
    """Build one whose learning rate suits a narrow net."""
    return training(model=lambda: stack(3, 256), optimizer=sgd(0.2, 0.9), steps=80)


def hurried() -> Training:
    """Build one a little slower than the next."""
    return training(model=lambda: stack(3, 128), optimizer=sgd(0.2, 0.9), steps=100)


def hasty() -> Training:
    """Build one whose logits run away within some dozen steps."""
    return training(model=lambda: stack(3, 128), optimizer=sgd(0.3, 0.9), steps=100)


def cold_start() -> Training:
    """Build one whose first gradients are far larger than all later ones, and kill its units."""
    return training(
        model=lambda: stack(4), optimizer=sgd(0.1), loss=Glitch(lambda batch: batch < 6, 100.0, F.cross_entropy)
    )


class Glitch:
    """A loss that is enormous in some of the batches that are trained on."""

    def __init__(self, batches: Callable[[int], bool], size: float = 1e4, loss: Loss = F.mse_loss) -> None:
        self._batches, self._size, self._loss, self._count = batches, size, loss, 0

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        loss = self._loss(outputs, targets)
        self._count += outputs.requires_grad
        return self._size * loss if outputs.requires_grad and self._batches(self._count) else loss


def _line() -> tuple[Any, Any]:
    inputs, weights = torch.randn(1000, 10), torch.randn(10, 1)
    targets = inputs @ weights + 0.1 * torch.randn(1000, 1)
    return TensorDataset(inputs[:800], targets[:800]), TensorDataset(inputs[800:], targets[800:])


def _regression(optimizer: Callable[[Any], torch.optim.Optimizer], **more: Any) -> Training:
    usual = {
        "model": lambda: nn.Linear(10, 1), "data": _line, "loss": nn.MSELoss(), "metric": "r2",
    }  # fmt: skip
    return training(**{**usual, "optimizer": optimizer, "batch_size": 16, "steps": 200, **more})


def outliers() -> Training:
    """Build one in which, after a while, every fortieth batch is enormous."""
    return _regression(sgd(0.02), loss=Glitch(lambda batch: batch % 40 == 39 and batch > 50))


def shocked() -> Training:
    """Build one whose Adam remembers an enormous gradient for as long as it trains."""
    return _regression(adam(0.02, betas=(0.9, 0.9999)), loss=Glitch(lambda batch: batch == 3))


def calming() -> Training:
    """Build one whose first gradients are a hundred times larger than all later ones, and whose Adam forgets slowly."""

    return _regression(adam(0.02, betas=(0.9, 0.9999)), loss=Glitch(lambda batch: batch < 5, 100.0), steps=300)


def whispering() -> Training:
    """Build one whose gradients are small throughout, so that Adam's steps are all noise."""
    quiet = lambda outputs, targets: 1e-3 * F.mse_loss(outputs, targets)  # noqa: E731
    return replace(restless_adam(), loss=quiet, goal=5e-4)


def hot_head() -> Training:
    """Build one whose last layer gets features larger than the learning rate allows."""

    class Scale(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            return 10 * inputs

    return _regression(
        sgd(0.02), model=lambda: nn.Sequential(nn.Linear(10, 32), nn.Tanh(), Scale(), nn.Linear(32, 1))
    )  # fmt: skip


def restive() -> Training:
    """Build one whose steps are a little too long for its wide layers."""
    return training(model=lambda: stack(3, 256), optimizer=sgd(0.14, 0.9), steps=80)


def by_heart() -> Training:
    """Build one that learns sums modulo 23 by heart, and goes on by making its logits larger: it never sees the rule.

    The naive minimisation of the loss that Prieto et al. 2025 describe: no weight decay, all samples in each batch.
    """
    size = 23

    def data() -> tuple[Any, Any]:
        first, second = torch.cartesian_prod(torch.arange(size), torch.arange(size))[torch.randperm(size**2)].T
        inputs = torch.cat([F.one_hot(first, size), F.one_hot(second, size)], 1).float()
        targets, held = (first + second) % size, size**2 // 4
        return TensorDataset(inputs[held:], targets[held:]), TensorDataset(inputs[:held], targets[:held])

    return training(
        model=lambda: nn.Sequential(nn.Linear(2 * size, 200), nn.ReLU(), nn.Linear(200, size)), data=data,
        optimizer=adam(0.03), batch_size=size**2, steps=300, goal=0.8,
    )  # fmt: skip


def rarer() -> Training:
    """Build one that sees one sample of a class for twenty of the other, and soon stops; both count alike."""

    def data() -> tuple[Any, Any]:
        labels = (torch.rand(900) < torch.where(torch.arange(900) < 600, 0.05, 0.5)).long()
        inputs = 0.5 * torch.randn(900, FEATURES)
        inputs[:, 0] += 2 * labels
        return TensorDataset(inputs[:600], labels[:600]), TensorDataset(inputs[600:], labels[600:])

    return training(
        model=lambda: nn.Sequential(nn.Linear(FEATURES, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 2)),
        data=data, metric="balanced_accuracy", goal=0.8, steps=70, optimizer=adam(0.003),
    )  # fmt: skip


def _few(noise: float) -> tuple[Any, Any]:
    inputs, weights = torch.randn(560, 60), torch.randn(60, 1) / 60**0.5
    targets = inputs @ weights + noise * torch.randn(560, 1)
    return TensorDataset(inputs[:60], targets[:60]), TensorDataset(inputs[60:], targets[60:])


ROWS: list[tuple[str, dict[str, Any], Callable[[], Training]]] = [
    ("scale_down", {}, too_fast),
    ("clip_norm", {}, too_fast),
    ("clip_value", {}, too_fast),
    ("less_momentum", {}, wide),
    ("adaptive_clip", {}, too_fast),
    ("auto_clip", {}, too_fast),
    ("adam", {}, too_slow),
    ("adamw", {}, too_slow),
    ("rmsprop", {}, too_slow),
    ("nadam", {}, too_slow),
    ("adafactor", {}, too_slow),
    ("lion", {}, too_slow),
    ("muon", {}, too_slow),
    ("stable_adamw", {}, adam_too_fast),
    ("range_test", {}, too_slow),
    ("scale_up", {}, sleepy),
    ("more_momentum", {}, sleepy),
    ("sgd_momentum", {}, sleepy),
    ("sgd", {"lr": 0.005}, restless_adam),
    ("amsgrad", {}, restless_adam),
    ("smaller_eps", {}, stalled_adam),
    ("every_parameter", {}, untrained),
    ("rate_by_width", {}, wide),
    ("step_decay", {}, restless),
    ("cosine", {}, restless),
    ("exponential", {}, restless),
    ("polynomial", {}, restless),
    ("one_cycle", {}, restless),
    ("warmup", {"share": 0.3}, cold_start),
    ("constant", {}, fading),
    ("ema_weights", {"share": 0.15}, restless),
    ("swa_weights", {}, restless),
    ("clip_off", {}, overclipped),
    ("gradient_noise", {}, symmetric),
    ("weight_decay_off", {}, decayed),
    ("weight_decay_on", {"value": 0.1}, interpolating),
    ("redraw_dormant", {}, born_dead),
    ("class_weights", {}, rare),
    ("effective_number_weights", {}, rare),
    ("logit_adjustment", {}, rare),
    ("logit_norm", {}, loud),
    ("skip_non_finite", {}, holes),
    ("skip_spike", {}, outliers),
    ("back_off", {}, outliers),
    ("roll_back", {}, outliers),
    ("z_clip", {}, outliers),
    ("reset_optimizer", {}, shocked),
    ("last_layer_rate", {}, hot_head),
    ("label_smoothing", {}, hasty),
    ("max_norm", {"limit": 1.0}, wide),
    ("clamp_weights", {"limit": 0.5}, wide),
    ("logit_soft_cap", {}, wide),
    ("radam", {"lr": 0.01}, too_slow),
    ("plateau", {}, restless_epochs),
    ("centred_gradient", {}, shifted),
    ("decay_matrices_only", {}, bias_decayed),
    ("z_loss", {"weight": 0.01}, hasty),
    ("lower_beta2", {}, calming),
    ("adam_eps", {}, whispering),
    ("confidence_penalty", {"beta": 1.0}, hurried),
    ("focal_loss", {"gamma": 5.0}, rarer),
    ("orthogonal_gradient", {}, by_heart),
    ("weight_norm", {}, restive),
]
