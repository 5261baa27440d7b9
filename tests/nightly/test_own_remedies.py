"""A night whose explorers search remedies of the team's own, from a file that the sweep names."""

import textwrap

import pytest

from remedy.commands.nightly.send import _relative, _root
from remedy.search.nightly.sweep import read_sweep
from tests.nightly.conftest import BROKEN, Nights, row

pytestmark = pytest.mark.timeout(900)
OWN = '''
    import remedy


    @remedy.remedy("learning_rate", treats=["chance_plateau"], invasiveness=1, source="our team")
    def thirty_times(optimizer) -> remedy.Change:
        """Learns faster."""
        for group in optimizer.param_groups:
            group["lr"] *= 30
        return remedy.Change(optimizer, "thirty times as fast")
'''


def test_explorers_find_a_fix_of_ones_own_and_the_next_night_proves_it(nights: Nights):
    nights.write("broken", BROKEN)
    own = nights.place / "team" / "own.py"
    own.parent.mkdir()
    own.write_text(textwrap.dedent(OWN))
    entry = {"target": "broken.py", "remedies": ["team/own.py"], "only": ["thirty_times"]}
    nights.sweep(entry)
    nights.run("2026-03-01")
    found = row(nights.report("2026-03-01", 0), "broken")
    assert found["best_fix"]["remedies"] == {"learning_rate": "thirty_times"}

    nights.run("2026-03-02")
    proved = row(nights.report("2026-03-02", 0), "broken")["best_fix"]
    assert proved["remedies"] == {"learning_rate": "thirty_times"}

    # With another file of remedies explorers begin anew; one with a mistake is a training that did not run.
    own.write_text(own.read_text().replace("thirty times as", "thirty times so"))
    nights.run("2026-03-03")
    changed = row(nights.report("2026-03-03", 0), "broken")
    assert changed["facts"]["code"]["team/own.py"] != found["facts"]["code"]["team/own.py"]
    assert (found["study"], changed["study"]) == ("team-broken-1", "team-broken-2")
    own.write_text(own.read_text().replace('"learning_rate"', '"learning_speed"'))
    nights.run("2026-03-04")
    found = row(nights.report("2026-03-04", 1), "broken")
    assert found["status"] == "not run"
    assert "'thirty_times'" in found["said"]
    assert "learning_speed" in found["said"]


def test_a_sweep_that_is_sent_names_them_where_they_lie_then(nights: Nights, tmp_path, monkeypatch):
    monkeypatch.chdir(nights.place)
    nights.write("deep/broken", BROKEN)
    (nights.place / "own.py").write_text(textwrap.dedent(OWN))
    path = nights.sweep({"target": "deep/broken.py", "remedies": [str(nights.place / "own.py"), "a.module"]})
    sweep = read_sweep(path)
    root = _root(sweep)
    assert root == nights.place
    sent = tmp_path / "sent"
    sent.mkdir()
    for name in ("sweep.yaml", "own.py"):
        (sent / name).write_text((nights.place / name).read_text())
    _relative(sweep, root, sent)
    assert read_sweep(sent / "sweep.yaml").trainings[0].remedies == (str(sent / "own.py"), "a.module")
