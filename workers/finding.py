"""What a pre-flight check finds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

_WEIGHTS = frozenset({"equal_weights", "weight_scale", "frozen"})
_DATA = frozenset({"same_inputs"})
_EXPLAINED_BY = {
    "non_finite_loss": frozenset({"non_finite_inputs", "non_finite_targets"}),
    "first_loss": _WEIGHTS | {"input_scale", "objective", "softmax_before_loss", "mixed_samples", "loss_sign"},
    "input_scale": _DATA,
    "no_gradient": frozenset({"targets_with_gradient"}),
    "zero_gradient": _WEIGHTS | _DATA | {"half_precision", "half_weights", "objective"},
    "vanishing_gradient": _WEIGHTS,
    "even_signal": _WEIGHTS | _DATA | {"vanishing_gradient"},
    "large_signal": _WEIGHTS | {"input_scale"},
    "dead_units": _WEIGHTS | _DATA | {"input_scale"},
    "scaled_twice": frozenset({"input_scale"}),
    "outputs": _WEIGHTS | {"first_loss", "input_scale", "objective"},
    "mixed_samples": frozenset({"objective"}),
    "loss_sign": frozenset({"objective"}),
    "broadcast": frozenset({"objective"}),
    "first_update": _WEIGHTS
    | _DATA
    | {"no_gradient", "zero_gradient", "half_weights", "half_precision", "objective", "learning_rate", "input_scale"}
    | {"reduction"},
    "modes": frozenset({"mode"}),
    "signal": _DATA | {"alignment", "renamed_classes"},
}


@dataclass(frozen=True)
class Finding:
    """One sentence a colleague would say, and the remedies it suggests."""

    check: str
    level: str
    message: str
    suggests: tuple[str, ...] = ()


def unexplained(found: Iterable[Finding], more: Iterable[Finding]) -> list[Finding]:
    """Leave out what is a consequence of something found: one cause, one sentence."""
    said = {finding.check for finding in found}
    return [finding for finding in more if not said & _EXPLAINED_BY.get(finding.check, frozenset())]


def errors_first(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return them in the order in which they are said."""
    return tuple(sorted(findings, key=lambda finding: finding.level != "error"))
