"""What the attempts to learn by heart decide: a bug in the code, a bad recipe, or the data."""

from __future__ import annotations

from collections.abc import Iterable

from remedy.workers.attempt import Attempt
from remedy.workers.finding import Finding
from remedy.workers.probation import Probation

_OF_DATA = frozenset({"non_finite_inputs", "non_finite_targets", "same_inputs", "alignment", "renamed_classes"})
_OF_DESIGN = frozenset({"vanishing_gradient", "even_signal", "large_signal", "dead_units", "weight_scale", "outputs"})


def decision(shown: Probation, findings: Iterable[Finding], *, converged: bool, script: bool = False) -> str:
    """Say in one sentence whether the code, the recipe or the data is to blame; empty where nothing is known.

    The rule: neither its own samples nor easy data learnt by heart means a bug in the code; easy data only, the data;
    its own samples with Adam only, the optimizer's settings; its own samples with its own optimizer, the recipe
    beyond: learning rate over the whole training, regularisation, size, budget. The loop of a `script` is not tried:
    it is never acquitted.
    """
    own, easy, findings = _learnt(shown.own), _learnt(shown.easy), tuple(findings)
    faults = {finding.check for finding in findings if finding.level == "error" and finding.check not in _OF_DATA}
    error = f"error{'s' * (len(faults) > 1)} above"
    beside = "" if not faults else f"the {error}, or "
    code = "model, loss or optimizer (the loop itself was not tried)" if script else "the code"
    innocent = "" if faults else f" rather than a bug in {code}"
    heart = f"{shown.samples} of its samples by heart"
    simple = f"{shown.classes} easy inputs"
    if own is not None:
        learns = f"it learns {heart} in {_steps(own)}{_alone(shown, own)}"
        learns += f", and {simple} in {_steps(easy)}" if easy is not None else ""
        recipe = "a bad recipe" + (" or misleading data" if own is shown.own[0] else "")
        return f"{'the code can learn' if converged else f'{beside}{recipe}{innocent}'}: {learns}"
    if converged or not shown.own or not shown.easy:
        return ""
    if easy is not None:
        learns = f"it learns {simple} in {_steps(easy)}, but not {heart}{_tried(shown)}"
        return f"{beside}the data or too small a model{innocent}: {learns}"
    design = not faults and any(finding.check in _OF_DESIGN for finding in findings)
    blamed = "a net that cannot learn as it is built (see above), or a bug in the code" if design else (
        f"a bug in the code{f', the {error}' * bool(faults)}"
    )  # fmt: skip
    return f"{blamed}: it learns neither {heart} nor {simple}{_tried(shown)}"


def _learnt(made: tuple[Attempt, ...]) -> Attempt | None:
    return next((attempt for attempt in made if attempt.learnt is not None), None)


def _steps(made: Attempt) -> str:
    return f"{made.learnt} step{'' if made.learnt == 1 else 's'}"


def _alone(shown: Probation, own: Attempt) -> str:
    """Say with which optimizer, and that its own did not."""
    first = shown.own[0]
    return "" if own is first else f" of {own.optimizer}, but not in {first.steps} of its own {first.optimizer}"


def _tried(shown: Probation) -> str:
    """Say with which optimizers it was tried, its own first."""
    return f", neither with its own {shown.own[0].optimizer} nor with Adam" if len(shown.own) > 1 else ""
