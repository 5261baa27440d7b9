"""The catalogue of detectors: a tuple of classes; their order is their priority at the same observation."""

from __future__ import annotations

from remedy.workers.detectors.accuracy_collapse import AccuracyCollapse
from remedy.workers.detectors.base import Detector
from remedy.workers.detectors.chance_plateau import ChancePlateau
from remedy.workers.detectors.class_takeover import ClassTakeover
from remedy.workers.detectors.dead_units import DeadUnits
from remedy.workers.detectors.exploding_gradient import ExplodingGradient
from remedy.workers.detectors.non_finite import NonFinite
from remedy.workers.detectors.saturated_softmax import SaturatedSoftmax
from remedy.workers.detectors.vanishing_gradient import VanishingGradient
from remedy.workers.detectors.zero_gradient import ZeroGradient
from remedy.workers.observation import Setting

# The cause before the symptom: what explains a freeze stands before the freeze, that before the fall it shows as.
DETECTORS: tuple[type[Detector], ...] = (
    NonFinite,
    SaturatedSoftmax,
    DeadUnits,
    ZeroGradient,
    ClassTakeover,
    AccuracyCollapse,
    ExplodingGradient,
    VanishingGradient,
    ChancePlateau,
)


def detectors(setting: Setting) -> list[Detector]:
    """Return one detector of each kind, made anew for a run."""
    return [make(setting) for make in DETECTORS]
