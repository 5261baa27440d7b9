"""The slots of a training: the parts that can be exchanged, in the order in which remedies are applied."""

from __future__ import annotations

from enum import StrEnum


class Slot(StrEnum):
    """One part of a training. The order of the members is the order of application.

    What a remedy of the slot receives as its value, and returns:

    - `inputs`: `nn.Module | None`, a transform of the input batch, made part of the model
    - `targets`: `Aim`, what the loss makes of the targets, and the scale of the outputs that goes with it
    - `sampling`: `torch.utils.data.Sampler | None` over the train set; None means shuffled
    - `batch_size`: `int`; None where batches come ready from a batch sampler
    - `width`, `depth`, `residual`, `activation`, `normalisation`, `dropout`, `initialisation`: the `nn.Module`
    - `objective`: `Objective`, the model *and* the criterion, since one act may concern both
    - `class_weight`, `label_smoothing`, `logits`: `Criterion`
    - `optimizer`, `learning_rate`, `weight_decay`: the `torch.optim.Optimizer`, before its first step
    - `budget`: `int`, optimizer steps; before `schedule`, whose horizon it is
    - `schedule`: `Schedule`
    - `weight_constraint`, `gradient`: `Callable[[list[Parameter]], None] | None`, run after / before each step
    - `averaging`: `Averaging | None`, averages of the weights, used wherever the model is judged
    - `precision`: `Precision`
    - `guard`: `Guard | None`, looks at each step before it is made and may leave it out
    """

    INPUTS = "inputs"
    TARGETS = "targets"
    SAMPLING = "sampling"
    BATCH_SIZE = "batch_size"
    WIDTH = "width"
    DEPTH = "depth"
    RESIDUAL = "residual"
    ACTIVATION = "activation"
    NORMALISATION = "normalisation"
    DROPOUT = "dropout"
    INITIALISATION = "initialisation"
    OBJECTIVE = "objective"
    CLASS_WEIGHT = "class_weight"
    LABEL_SMOOTHING = "label_smoothing"
    LOGITS = "logits"
    OPTIMIZER = "optimizer"
    LEARNING_RATE = "learning_rate"
    BUDGET = "budget"
    SCHEDULE = "schedule"
    WEIGHT_DECAY = "weight_decay"
    WEIGHT_CONSTRAINT = "weight_constraint"
    GRADIENT = "gradient"
    AVERAGING = "averaging"
    PRECISION = "precision"
    GUARD = "guard"
