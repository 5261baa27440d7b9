"""A made-up study of a wide net that collapses: plausible curves, the real agenda, results saved as ever."""

import json
import math
import random

from remedy.search.agenda import Agenda, Reason
from remedy.search.home import StudyFolder
from remedy.search.report import report
from remedy.search.spec import Spec
from remedy.spaces.catalogue import REMEDIES
from remedy.spaces.outcome import Outcome
from remedy.spaces.remedy import Receipt
from remedy.spaces.slot import Slot
from remedy.spaces.space import Space
from remedy.spaces.symptom import Symptom
from remedy.spaces.target import Source
from remedy.spaces.verdict import Verdict
from remedy.workers.result import RunResult

STEPS, GOAL = 400, 0.9
HEALERS = {"scale_down": 0, "fused_cross_entropy": 0, "sgd": 0.12}
TRIED = (
    *HEALERS,
    "scale_up",
    "clip_norm",
    "warmup",
    "batch_norm_on",
    "leaky_relu",
    "label_smoothing",
    "weight_decay_off",
)
MLFLOW = {"tracking_uri": "postgresql://ann:hunter2@db/mlflow", "experiment": "digits", "parent_run_id": "abc123"}


def train(number, names, seed, search):
    """Return what a run of a wide net with a softmax layer looks like: it rises, and falls unless it is healed."""
    luck = random.Random(f"{sorted(names)} {seed}")
    if "weight_decay_off" in names:
        return RunResult(number, Outcome.INAPPLICABLE, "the optimizer does not decay the weights")
    heals = [risk for name, risk in HEALERS.items() if name in names]
    healed = bool(heals) and luck.random() >= heals[0]
    falls = luck.uniform(110, 220)
    if "scale_up" in names:
        losses = [(step, 2.3 * 1.5**step if step < 40 else math.nan) for step in range(1, 45, 4)]
        verdict = Verdict(Symptom.NON_FINITE, 41, 41, "the loss is nan at step 41, after 7.5e+06 at step 37")
        return RunResult(
            number, Outcome.COLLAPSED, verdict.evidence, steps=41, steps_full=STEPS, verdict=verdict,
            saved_by="collapse", setting={"chance": 0.1},
            curves={"loss": tuple(losses), "metric": ((20, 0.11), (40, math.nan))},
        )  # fmt: skip
    end = STEPS if healed else round(falls / 4) * 4 + 60
    end = 260 if healed and search else end
    rise = luck.uniform(18, 40)

    def metric(step):
        well = 0.96 - 0.85 * math.exp(-step / rise)
        fallen = 1 / (1 + math.exp((step - falls) / 12))
        return well + luck.gauss(0, 0.008) if healed else 0.1 + (well - 0.1) * fallen + luck.gauss(0, 0.01)

    def loss(step):
        well = 0.04 + 3 * math.exp(-step / rise) + 0.3 * math.exp(-step / 120)
        return well * luck.lognormvariate(0, 0.25) + (
            0 if healed or step < falls else 13 * (1 - math.exp((falls - step) / 20))
        )

    lines = {
        "metric": tuple((step, metric(step)) for step in range(20, end + 1, 20)),
        "loss": tuple((step, loss(step)) for step in range(4, end + 1, 4)),
    }
    last = [value for _, value in lines["metric"][-3:]]
    verdict = Verdict(
        Symptom.CLASS_TAKEOVER,
        end,
        round(falls),
        f"class {luck.randrange(10)} gets 97 % of the predictions since step {falls:.0f}",
    )
    return RunResult(
        number=number,
        outcome=Outcome.CONVERGED if healed else Outcome.COLLAPSED,
        reason="" if healed else verdict.evidence,
        metric=sum(last) / len(last),
        steps=end,
        steps_full=STEPS,
        seconds=1.5,
        verdict=None if healed else verdict,
        receipts=tuple(Receipt(name, Slot.LEARNING_RATE, f"{name}: 0.03 -> 0.003") for name in sorted(names)),
        curves=lines,
        goal_step=80 if healed else None,
        saved_by="" if end == STEPS else "success" if healed else "collapse",
        setting={"chance": 0.1},
    )


def conducted(path, make=train, *, study="wide", runs=45, only=TRIED, seed=0, ask=lambda: None, **asked):
    """Conduct a study by its real agenda, save its runs, and return its report and folder; `ask` is the sampler."""
    told = {
        "preflight": (
            {"check": "c", "level": "warning", "message": "probabilities", "suggests": ["fused_cross_entropy"]},
        )
    }
    spec = Spec(study, Source("train.py", "training", "0" * 64), seed, steps=STEPS, goal=GOAL, **{**told, **asked})
    agenda, folder = Agenda(spec, Space.of(REMEDIES, only)), StudyFolder.at(path / study)
    for number in range(runs):
        item = agenda.next([], ask)
        if item is None or agenda.ended:
            break
        result = make(number, item.combination.names, item.seed, item.phase == "search")
        what = {"phase": item.phase, "seed": item.seed, "fix": item.fix, "params": item.combination.params}
        folder.note_item(number, what)
        folder.save_run(result)
        agenda.tell(item, result)
    found = report(agenda, agenda.ended or Reason.EXHAUSTED, 95.0, folder, MLFLOW)
    return json.loads(json.dumps(found, allow_nan=False)), folder
