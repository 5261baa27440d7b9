"""Every ReLU of a layer dies, the loss stops at 2.30, and only the last bias still moves.

The post: the parameters of the stuck network are almost all negative, the outputs of its hidden layers all zero,
and so are their gradients; only the last bias gets one, hence the small ups and downs of the loss.

What happens: with momentum, a learning rate of 0.3 is too large for five layers. Accuracy touches 0.2 to 0.4, and
somewhere between steps 30 and 300 one step too far leaves a hidden layer at zero for every image. About one run in
ten never gets so far: it overflows to NaN.

What restores it, each alone: Adam (0.001), clipping the gradient's norm to 1, batch norm, residual connections,
fewer layers, and mostly a learning rate three or ten times smaller. LeakyReLU, warm-up and another initialisation
do not.
"""

from itertools import pairwise

import torch
from digits import CLASSES, PIXELS, digits
from torch import nn

import remedy


def model(width: float = 1.0, depth: float = 1.0) -> nn.Module:
    sizes = [PIXELS, *[round(64 * width)] * round(5 * depth)]
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(sizes):
        layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], CLASSES))


def training() -> remedy.Training:
    return remedy.Training(
        model=model,
        data=digits,
        loss=nn.CrossEntropyLoss(),
        optimizer=lambda params: torch.optim.SGD(params, lr=0.3, momentum=0.9),
        batch_size=64,
        steps=400,
        metric="accuracy",
        goal=0.87,
    )
