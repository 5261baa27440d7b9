"""What is seen of a run at one step: plain numbers, never tensors."""

from __future__ import annotations

import math
from dataclasses import dataclass

from remedy.spaces.objective import TargetKind


@dataclass(frozen=True)
class Setting:
    """What a detector may know of the run before it begins.

    Attributes:
        kind: what the targets are.
        classes: number of exclusive classes (2 for one 0/1 column, 0 where there are none).
        prior: share of the largest class in the train set (0 where there are no classes).
        entropy: of the labels, in nats: the loss of guessing by frequency (for real numbers: NaN).
        steps: full budget in optimizer steps.
        interval: least steps between two sampled observations; there are more while nothing looks wrong.
        warmup: steps of the learning rate's warm-up that could be seen beforehand; 0 without.
        chance: the validation metric of the trivial predictor (majority class, mean).
        goal: the validation metric that counts as converged.
        mode: "max" or "min".
        cross_entropy: whether the loss is a cross-entropy in nats, so that `entropy` is the loss of guessing.
    """

    kind: TargetKind
    classes: int
    prior: float
    entropy: float
    steps: int
    interval: int
    warmup: int
    chance: float
    goal: float
    mode: str
    cross_entropy: bool


@dataclass(frozen=True)
class Outputs:
    """Statistics of a set of predictions, over `count` samples, computed in float32.

    For exclusive classes (also one 0/1 column, taken as two classes) unless said otherwise.

    Attributes:
        count: samples.
        accuracy: share right (NaN without classes).
        top_share: largest share of predictions that one class gets (NaN without classes).
        top_class: that class (-1 without classes).
        prediction_entropy: entropy of the predicted classes' shares, in nats (NaN without classes).
        top_probability: mean of the largest probability (NaN without classes).
        saturated_wrong: share of samples with probability 1 (within 1e-6) for a wrong class (NaN without classes).
        class_spread: mean over samples of the standard deviation of the scores over classes.
        input_spread: rms over samples of the scores minus their mean, over the rms of the scores; 0 when the output
            does not depend on the input.
        finite: whether all outputs are finite.
    """

    count: int
    accuracy: float
    top_share: float
    top_class: int
    prediction_entropy: float
    top_probability: float
    saturated_wrong: float
    class_spread: float
    input_spread: float
    finite: bool


@dataclass(frozen=True)
class Layer:
    """One weight tensor at a sampled step, in the order of the forward pass.

    Attributes:
        name: as in `named_parameters`.
        gradient_norm: 2-norm of its gradient, before clipping.
        zero_share: share of its gradient's entries that are exactly 0.
        update_ratio: norm of the last update over the norm of the weight (NaN where it was not measured).
    """

    name: str
    gradient_norm: float
    zero_share: float
    update_ratio: float


@dataclass(frozen=True)
class Activation:
    """One ReLU-like activation module, over all samples of the last evaluation.

    Attributes:
        name: the module's path.
        dead_share: share of its units that were zero for every sample (for saturating ones: nowhere in the range
            where they learn).
    """

    name: str
    dead_share: float


@dataclass(frozen=True)
class Strain:
    """What wears on a run before it shows in its loss; NaN where there is no such thing, or it was not measured.

    Attributes:
        offset: of this batch's scores, the part that all classes have in common: mean over samples of the size of the
            mean over classes. A softmax is blind to it. Only for several exclusive classes.
        offset_ratio: that over the scores' standard deviation over classes.
        staleness: Adam's gradients over what their second moments foretell, rms over a weight; of the largest weight.
        attention: the largest size of a query times a key, as the softmax reads it, in the first batch of a validation.
        loss_scale: of a GradScaler, after the step.
    """

    offset: float = math.nan
    offset_ratio: float = math.nan
    staleness: float = math.nan
    attention: float = math.nan
    loss_scale: float = math.nan


@dataclass(frozen=True)
class Observation:
    """What was seen at one step. Sampled as the pace says (see pace.py); validation only where it was run.

    Attributes:
        step: optimizer steps done, from 1.
        loss: of this step's batch; NaN or infinite where it was.
        mean_loss: mean of the finite batch losses since the last observation (NaN where none was).
        batch: statistics of this batch's outputs (None for an observation made only because the loss is not finite).
        gradient_norm: global 2-norm before clipping.
        layers: per weight tensor (matrices and larger; not biases, not norm scales).
        finite_parameters: whether all parameters are finite after the step.
        learning_rate: of the first group.
        metric: validation metric, None where validation was not run at this step.
        validation: statistics of the validation outputs, None likewise.
        activations: of the same validation pass.
        strain: what wears on the run.
    """

    step: int
    loss: float
    mean_loss: float
    batch: Outputs | None
    gradient_norm: float
    layers: tuple[Layer, ...]
    finite_parameters: bool
    learning_rate: float
    metric: float | None = None
    validation: Outputs | None = None
    activations: tuple[Activation, ...] = ()
    strain: Strain = Strain()
