"""Accuracy climbs to 0.9, then drops to 1/N and stays there.

The post: a simple, wide network with a softmax layer and Keras's categorical_crossentropy learns for a while,
becomes no better than a guess, and the signals before its softmax are found to be huge and alike.

What happens: while the learning rate warms up to 0.03, validation accuracy reaches 0.90. Around step 150 (130 to
300) it drops for good, to between 0.09 and 0.24, with the loss at 13 instead of 0.3. Every probability is then so
close to 0 or 1 that it is clipped, the gradient is exactly zero, and no later step can mend it.

What restores it, each alone: cross-entropy from logits in place of softmax layer and clipped loss, a learning rate
three or ten times smaller, SGD (0.01) in place of Adam, batch or layer norm, and mostly an eighth of the width.
Clipping the gradient, another initialisation, a longer warm-up or LeakyReLU do not.
"""

import torch
from digits import CLASSES, PIXELS, digits
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

import remedy


def model(width: float = 1.0) -> nn.Module:
    hidden = round(1024 * width)
    return nn.Sequential(nn.Linear(PIXELS, hidden), nn.ReLU(), nn.Linear(hidden, CLASSES), nn.Softmax(dim=1))


def categorical_crossentropy(probabilities: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy from probabilities, clipped as Keras clips them: beyond the bounds its gradient is zero."""
    clipped = probabilities.clamp(1e-7, 1 - 1e-7)
    return nn.functional.nll_loss(clipped.log(), targets)


def training() -> remedy.Training:
    return remedy.Training(
        model=model,
        data=lambda: digits(scale=1),
        loss=categorical_crossentropy,
        optimizer=lambda params: torch.optim.Adam(params, lr=0.03),
        schedule=lambda optimizer: LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 200)),
        schedule_interval="step",
        batch_size=16,
        steps=400,
        metric="accuracy",
        goal=0.87,
    )
