"""The catalogue of detectors: a tuple of classes; their order is their priority at the same observation."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from remedy.workers.detectors.accuracy_collapse import AccuracyCollapse
from remedy.workers.detectors.base import Detector
from remedy.workers.detectors.chance_plateau import ChancePlateau
from remedy.workers.detectors.class_takeover import ClassTakeover
from remedy.workers.detectors.constant_output import ConstantOutput
from remedy.workers.detectors.dead_units import DeadUnits
from remedy.workers.detectors.drifting_logits import DriftingLogits
from remedy.workers.detectors.exploding_gradient import ExplodingGradient
from remedy.workers.detectors.generalisation_gap import GeneralisationGap
from remedy.workers.detectors.large_attention import LargeAttention
from remedy.workers.detectors.loss_scale_collapse import LossScaleCollapse
from remedy.workers.detectors.non_finite import NonFinite
from remedy.workers.detectors.saturated_softmax import SaturatedSoftmax
from remedy.workers.detectors.stale_moments import StaleMoments
from remedy.workers.detectors.still_weights import StillWeights
from remedy.workers.detectors.threshold import Threshold, thresholds, with_values
from remedy.workers.detectors.vanishing_gradient import VanishingGradient
from remedy.workers.detectors.worse_than_guessing import WorseThanGuessing
from remedy.workers.detectors.zero_gradient import ZeroGradient
from remedy.workers.observation import Setting

_AS_THEY_ARE: Mapping[str, bool | float] = MappingProxyType({})
# The cause before the symptom: what explains a freeze stands before the freeze, that before the fall it shows as.
DETECTORS: tuple[type[Detector], ...] = (
    NonFinite,
    LossScaleCollapse,
    LargeAttention,
    StaleMoments,
    DriftingLogits,
    SaturatedSoftmax,
    DeadUnits,
    ZeroGradient,
    ClassTakeover,
    AccuracyCollapse,
    ExplodingGradient,
    WorseThanGuessing,
    VanishingGradient,
    ConstantOutput,
    StillWeights,
    GeneralisationGap,
    ChancePlateau,
)


def name_of(detector: type) -> str:
    """Return what a kind of detector is called, which is its symptom's name."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", detector.__name__).lower()


def of_symptom(symptom: str) -> dict[str, Threshold[Any]]:
    """Return the thresholds of the detector of a symptom, by name."""
    return next((thresholds(make) for make in DETECTORS if name_of(make) == symptom), {})


def detectors(setting: Setting, choice: Mapping[str, bool | float] = _AS_THEY_ARE) -> list[Detector]:
    """Return one detector of each kind, made anew for a run, as a choice has them (see choice.py)."""
    made: list[Detector] = []
    for make in DETECTORS:
        name = name_of(make)
        if choice.get(name) is False:
            continue
        values = {key.removeprefix(f"{name}."): v for key, v in choice.items() if key.startswith(f"{name}.")}
        made.append(with_values(make, values)(setting))
    return made
