"""The training of wide_softmax.py, as a script with a loop of its own: accuracy climbs to 0.9, then drops for good.

What is ours are two calls: `remedy.prepare` takes the parts and gives them back, `remedy.report` says how good the
model is. Run by hand (`python own_loop.py --lr 0.03`) they do nothing; `remedy submit own_loop.py --goal
'accuracy>=0.87' -- --lr 0.03` runs the script many times, each in a process of its own, and finds out what restores it.
"""

import argparse

import torch
from digits import CLASSES, PIXELS, digits
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader

import remedy

STEPS = 400
EVERY = 20

asked = argparse.ArgumentParser()
asked.add_argument("--lr", type=float, default=0.03)
lr = asked.parse_args().lr


def categorical_crossentropy(probabilities: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy from probabilities, clipped as Keras clips them: beyond the bounds its gradient is zero."""
    clipped = probabilities.clamp(1e-7, 1 - 1e-7)
    return nn.functional.nll_loss(clipped.log(), targets)


train, held = digits(scale=1)
loader, validation = DataLoader(train, 16, shuffle=True), DataLoader(held, 512)
model = nn.Sequential(nn.Linear(PIXELS, 1024), nn.ReLU(), nn.Linear(1024, CLASSES), nn.Softmax(dim=1))
optimizer = torch.optim.Adam(model.parameters(), lr=lr)
scheduler = LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 200))

model, loss_fn, optimizer, scheduler, loader, validation = remedy.prepare(
    model, categorical_crossentropy, optimizer, scheduler, loader, validation
)


def accuracy() -> float:
    model.eval()
    with torch.no_grad():
        right = sum(int((model(images).argmax(1) == labels).sum()) for images, labels in validation)
    model.train()
    return right / len(held)


step = 0
while step < STEPS:
    for images, labels in loader:
        optimizer.zero_grad()
        loss = loss_fn(model(images), labels)
        loss.backward()
        optimizer.step()
        scheduler.step()
        step += 1
        if step % EVERY == 0:
            remedy.report(accuracy=accuracy())
        if step == STEPS:
            break
print(f"accuracy {accuracy():.3f} after {step} steps")
