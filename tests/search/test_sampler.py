"""A proposal late in a study costs no more than one in its midst, and follows from the trials alone."""

from remedy.search.ledger import Item
from remedy.search.sampler import _BEST, _SHOWN
from remedy.search.study import Trials
from remedy.workers.order import Phase
from tests.search.scripted import SPACE, chance_of

MADE = _SHOWN + 60


def filled(path):
    trials = Trials(path, "study", SPACE, 3)
    values = {}
    for seed in range(MADE):
        number, combination = trials.propose() if seed < 5 else (None, SPACE.baseline())
        item = Item(Phase.SEARCH, combination, seed)
        if number is None:
            number = trials.open(item)
        else:
            trials.assign(number, item)
        values[number] = chance_of("value", seed)
        trials.tell(number, values[number], "missed")
    return trials, values


def test_the_sampler_is_shown_the_best_and_the_latest_and_a_resumed_study_the_same(tmp_path):
    trials, values = filled(tmp_path / "journal")
    with trials._memory.narrowed(trials._study_id):
        shown = [trial.number for trial in trials._memory.get_all_trials(trials._study_id, deepcopy=False)]
    best = sorted(values, key=lambda number: -values[number])[:_BEST]
    latest = [number for number in values if number not in best][_BEST - _SHOWN :]
    assert shown == sorted([*best, *latest])
    assert len(shown) == _SHOWN
    assert len(trials._memory.get_all_trials(trials._study_id, deepcopy=False)) == MADE
    again = Trials(tmp_path / "journal", "study", SPACE, 3)
    again.restore(values.__contains__)
    assert again.asked == trials.asked == 5
    proposed = [mine.propose() for mine in (trials, again)]
    assert proposed[0] == proposed[1]
    assert proposed[0][0] == MADE
