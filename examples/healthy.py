"""Nothing is wrong here: a training to leave alone.

Two hidden layers, ReLU, Adam at 0.001: after 400 steps validation accuracy is 0.96, whatever the seed. There is
nothing to repair.
"""

import torch
from digits import CLASSES, PIXELS, digits
from torch import nn

import remedy


def model(width: float = 1.0) -> nn.Module:
    hidden = round(64 * width)
    return nn.Sequential(
        nn.Linear(PIXELS, hidden),
        nn.ReLU(),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        nn.Linear(hidden, CLASSES),
    )


def training() -> remedy.Training:
    return remedy.Training(
        model=model,
        data=digits,
        loss=nn.CrossEntropyLoss(),
        optimizer=lambda params: torch.optim.Adam(params, lr=0.001),
        batch_size=64,
        steps=400,
        metric="accuracy",
        goal=0.87,
    )
