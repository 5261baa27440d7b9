"""Thirty layers learn for a while, then one class takes over every prediction.

The post: a deep classifier of leaky ReLUs, orthogonally initialised, its imbalanced classes oversampled, its
probabilities clipped away from 0 and 1. Training goes well, then every image gets probability 1 for the same class,
and all gradients are zero.

What happens: validation accuracy rises to 0.8, and falls around step 130 (90 to 190) to 0.1. The loss settles at
14, ten times what it was, and from about step 250 the gradient is exactly zero in every layer.

What restores it, each alone: a tenth of the learning rate, or a tenth of the depth. Batch norm helps, and ends just
around the goal. Cross-entropy from logits alone does not (its loss explodes instead), nor do clipping the gradient,
warm-up, ReLU, layer norm or less width.
"""

from itertools import pairwise

import torch
from digits import CLASSES, IMBALANCED, PIXELS, digits
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import TensorDataset, WeightedRandomSampler

import remedy

LEAK = 1 / 3
GAIN = nn.init.calculate_gain("leaky_relu", LEAK)  # with less, 30 layers pass nothing on


def model(width: float = 1.0, depth: float = 1.0) -> nn.Module:
    sizes = [PIXELS, *[round(64 * width)] * round(30 * depth)]
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(sizes):
        layers += [orthogonal(nn.Linear(fan_in, fan_out), gain=GAIN), nn.LeakyReLU(LEAK)]
    return nn.Sequential(*layers, orthogonal(nn.Linear(sizes[-1], CLASSES)), nn.Softmax(dim=1))


def orthogonal(layer: nn.Linear, gain: float = 1.0) -> nn.Linear:
    nn.init.orthogonal_(layer.weight, gain)
    nn.init.zeros_(layer.bias)
    return layer


def clipped_cross_entropy(probabilities: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy from probabilities kept away from 0 and 1: beyond the bounds its gradient is zero."""
    clipped = probabilities.clamp(1e-7, 1 - 1e-7)
    return nn.functional.nll_loss(clipped.log(), targets)


def oversampled(train: TensorDataset) -> WeightedRandomSampler:
    """Draw every class equally often, however few images it has."""
    labels = train.tensors[1]
    weights = 1 / labels.bincount()[labels]
    return WeightedRandomSampler(weights.tolist(), num_samples=len(labels))


def training() -> remedy.Training:
    return remedy.Training(
        model=model,
        data=lambda: digits(per_class=IMBALANCED),
        loss=clipped_cross_entropy,
        optimizer=lambda params: torch.optim.Adam(params, lr=0.01),
        schedule=lambda optimizer: LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 200)),
        schedule_interval="step",
        batch_size=32,
        steps=400,
        sampler=oversampled,
        metric="accuracy",
        goal=0.81,
    )
