"""The ways a training goes wrong, as the user sees them."""

from __future__ import annotations

from enum import StrEnum
from typing import Self


class Symptom(StrEnum):
    """A way a run goes wrong. `about` says what is seen, `means` what it usually comes from, `source` who says so."""

    about: str
    means: str
    source: str

    def __new__(cls, value: str, about: str, means: str, source: str) -> Self:
        """Carry the texts with the member, so that the catalogue of symptoms is this one list."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.about = about
        member.means = means
        member.source = source
        return member

    NON_FINITE = (
        "non_finite",
        "the loss or a parameter became NaN or infinite",
        "a logarithm of 0, a division by 0, or a step so large that the numbers overflow",
        "posts 000, 001, 002; catalogue P05",
    )
    SATURATED_SOFTMAX = (
        "saturated_softmax",
        "the softmax gives probability 1 to wrong classes and no gradient flows back",
        "a loss computed from (clipped) probabilities in place of logits, after a step that was too large",
        "post 002; catalogue P04, P06",
    )
    DEAD_UNITS = (
        "dead_units",
        "a hidden layer is zero for every input, so only the biases behind it still learn",
        "a step too large threw all units of a ReLU layer into its flat half",
        "post 003; catalogue P07",
    )
    ZERO_GRADIENT = (
        "zero_gradient",
        "every weight gradient is exactly 0 although the loss is not",
        "the loss or an activation is flat where the network stands; nothing can recover",
        "post 002; catalogue D06",
    )
    CLASS_TAKEOVER = (
        "class_takeover",
        "one class takes over: almost every input is assigned to it",
        "an update pushed the last layer so far that its output no longer depends on the input",
        "post 002; catalogue P03",
    )
    ACCURACY_COLLAPSE = (
        "accuracy_collapse",
        "the metric rose well above chance and fell back to it",
        "a learning rate too large for the loss as it is computed, often with probabilities in place of logits",
        "posts 000, 001; catalogue P01",
    )
    EXPLODING_GRADIENT = (
        "exploding_gradient",
        "gradients grow by orders of magnitude and the loss stays far above that of guessing",
        "a learning rate too large, unscaled inputs, or an initialisation that amplifies",
        "posts 000, 001; catalogue P10, P19",
    )
    VANISHING_GRADIENT = (
        "vanishing_gradient",
        "the gradient of the first layers is orders of magnitude smaller than that of the last",
        "many saturating layers without normalisation or residual paths",
        "post 002; catalogue P11",
    )
    CHANCE_PLATEAU = (
        "chance_plateau",
        "the loss stays at the entropy of the labels (ln N for N balanced classes), the metric at guessing",
        "a learning rate far off, a softmax fed into a loss that expects logits, no signal; healthy runs pass it too",
        "post 003; catalogue P02",
    )
    WORSE_THAN_GUESSING = (
        "worse_than_guessing",
        "the loss stays above that of guessing, and does not come down",
        "steps so large that they throw the weights about, or an initial scale far off",
        "catalogue P10, P17, P19",
    )
    CONSTANT_OUTPUT = (
        "constant_output",
        "the output is the same for every input, up to rounding",
        "a weight decay that leaves nothing, weights too small for the depth, or saturated layers",
        "cases.md; catalogue D14, P25, P29, P31",
    )
    STILL_WEIGHTS = (
        "still_weights",
        "the updates do not move the weights, or leave some out",
        "a learning rate far too small, parameters the optimizer does not hold, or a gradient cut off on its way",
        "catalogue D19, P28",
    )
    GENERALISATION_GAP = (
        "generalisation_gap",
        "the batches are learnt, the validation data are not",
        "overfitting, labels that tell nothing, or a model that behaves differently when it is evaluated",
        "catalogue P24, P32",
    )
    DRIFTING_LOGITS = (
        "drifting_logits",
        "the scores of all classes grow together, far beyond their differences, to which the softmax is blind",
        "Adam's steps, or a learning rate too large for the last layer, and nothing that pulls the scores back to 0",
        "posts 000, 001; PaLM; Wortsman et al. 2023; catalogue D12, P08",
    )
    STALE_MOMENTS = (
        "stale_moments",
        "gradients are far larger than Adam's second moments foretell, and the loss rises meanwhile",
        "a long memory of gradients (beta2) that were small, so that large ones make steps that are far too large",
        "Wortsman et al. 2023; Molybog et al. 2023; catalogue D26, P16, P27",
    )
    LARGE_ATTENTION = (
        "large_attention",
        "the products of queries and keys grow until attention takes one position for certain",
        "a learning rate too large for a transformer without normalised queries and keys",
        "Dehghani et al. 2023; Wortsman et al. 2023; catalogue D28, P17",
    )
    LOSS_SCALE_COLLAPSE = (
        "loss_scale_collapse",
        "the scale of a float16 loss falls below 1 or halves again and again, and steps are left out",
        "numbers beyond the range of float16 in the forward or backward pass, or a loss that is not finite",
        "Micikevicius et al. 2018; Hugging Face debug_utils; catalogue D29, P26",
    )
