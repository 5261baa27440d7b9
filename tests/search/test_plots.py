"""What the figures draw: scales, means, and bars without room for names."""

import math
import re

import pytest

from remedy.search.plots.curves import Goal, Group, Line, curves
from remedy.search.plots.scale import Scale
from remedy.search.plots.timeline import Bar, timeline


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-1e300, 1e300), (0.5, 0.5000001), (1, 100_000), (-3, 7)])
def test_a_scale_has_round_ticks_inside_its_bounds(low, high):
    ticks = Scale(low, high, 0, 100).ticks()
    assert 2 <= len(ticks) <= 8
    assert all(low - 1e-9 * abs(low) <= tick <= high + 1e-9 * abs(high) for tick in ticks)
    assert Scale(low, high, 0, 100).at(high) == 100
    assert Scale(low, high, 0, 100).at(math.inf) == 100


def test_a_loss_axis_is_logarithmic_only_where_the_span_is_large():
    def ticks(*values):
        group = Group("g", "base", (Line(0, 0, tuple(enumerate(values, 1))),))
        return curves("loss", "t", "a", [group], log=True)

    assert ">0.001<" in ticks(1.0, 0.001)
    assert ">0.8<" in ticks(1.0, 0.5)
    assert ">-1000<" in ticks(1.0, -1000.0)
    assert curves("loss", "t", "a", [Group("g", "base", (Line(0, 0, ((1, math.nan),)),))], log=True) == ""


def test_the_mean_is_taken_only_where_every_run_has_a_finite_value():
    lines = (Line(0, 0, ((1, 1.0), (2, 2.0), (3, math.nan))), Line(1, 1, ((1, 3.0), (2, 4.0), (3, 5.0), (4, 6.0))))
    assert Group("g", "fix", lines).mean() == [(1, 2.0, 1.0, 3.0), (2, 3.0, 2.0, 4.0)]
    assert Group("g", "fix", lines[:1]).mean() == []


def test_a_metric_far_from_its_goal_is_drawn_at_the_edge():
    lines = (Line(0, 0, ((1, -1e10), (2, -1e12))), Line(1, 1, ((1, 0.5), (2, 0.9))))
    drawn = curves("metric", "t", "a", [Group("g", "base", lines)], Goal(0.8, "goal", far=0.8), log=False)
    assert ">-3<" in drawn
    assert "e+" not in drawn


def test_a_goal_to_be_undercut_permits_a_logarithmic_axis():
    group = Group("g", "fix", (Line(0, 0, ((1, 50.0), (2, 0.05))),))
    assert ">0.1<" in curves("metric", "t", "a", [group], Goal(0.1, "goal", far=2.0, below=True), log=True)


def test_a_verdict_is_crossed_and_the_first_strange_value_marked():
    line = Line(3, 7, ((1, 1.0), (2, 0.5), (3, math.nan), (4, 0.4)), crossed=4, verdict="dead_units")
    drawn = curves("loss", "t", "a", [Group("g", "base", (line,))], log=True)
    assert drawn.count('class="base cross"') == 1
    assert "run 3, seed 7: dead_units" in drawn
    assert drawn.count("run 3, seed 7: not finite") == 1
    (thin,) = re.findall(r'class="base thin" d="([^"]*)"', drawn)
    assert thin.count("M") == 2, "the line has a gap where the value is not finite"


def test_bars_have_no_names_where_there_are_hundreds():
    bars = [Bar(f"bar {place}", place, 300, "missed", "missed", f"told {place}") for place in range(300)]
    many, few = timeline("t", "a", bars), timeline("t", "a", bars[:5])
    assert ">bar 4<" in few
    assert ">bar 4<" not in many
    assert "<title>told 299</title>" in many
    assert many.count('class="o-missed"') == many.count('class="ghost"') == 300
