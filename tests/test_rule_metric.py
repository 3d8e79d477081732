"""What the rule takes for an improvement: thresholds, means, and values that are no numbers."""

import math
import sys

import numpy as np
import pytest
from helpers import states_of

from keras_greedylr import GreedyRule


# Better by 5 % means the same on both sides of zero and in both modes.
@pytest.mark.parametrize(
    "mode, best, value, improved",
    [
        ("min", 100.0, 94.9, True),
        ("min", 100.0, 95.1, False),
        ("min", -100.0, -105.1, True),
        ("min", -100.0, -104.9, False),
        ("min", -100.0, -95.0, False),
        ("max", 100.0, 105.1, True),
        ("max", 100.0, 104.9, False),
        ("max", -100.0, -94.9, True),
        ("max", -100.0, -95.1, False),
        ("max", -100.0, -105.0, False),
        ("min", 0.0, -1e-9, True),  # of nothing, 5 % is nothing
        ("max", 0.0, 1e-9, True),
        ("min", 0.0, 0.0, False),
    ],
)
def test_relative_thresholds(mode, best, value, improved):
    rule = GreedyRule(patience=3, min_delta=0.05, mode=mode)
    after = states_of(rule, 0.01, [best, value])[-1]
    assert (after.good, after.bad) == ((2, 0) if improved else (0, 1))
    assert after.best == (value if improved else best)


@pytest.mark.parametrize("value, improved", [(-100.04, False), (-100.06, True)])
def test_absolute_thresholds(value, improved):
    rule = GreedyRule(patience=3, min_delta=0.05, min_delta_mode="abs")
    assert states_of(rule, 0.01, [-100.0, value])[-1].good == (2 if improved else 0)


def test_window_compares_means_of_what_there_is():
    states = states_of(GreedyRule(window=3, patience=9), 0.01, [3.0, 6.0, math.nan, 3.0, 0.0])
    assert [s.metric for s in states] == [3.0, 4.5, 4.5, 4.0, 3.0]
    assert [s.best for s in states] == [3.0, 3.0, 3.0, 3.0, 3.0]
    assert states[-1].window == (6.0, 3.0, 0.0)


def test_a_mean_of_the_largest_floats_is_finite():
    top = sys.float_info.max
    for values in ([top] * 7, [-top] * 7, [top, top, -top, top, 1.0], [top / 2, top, top, 1.0]):
        state = states_of(GreedyRule(window=7), 0.01, values)[-1]
        exact = sum(int(value) for value in values) / len(values) if 1.0 in values else values[0]
        assert state.metric == pytest.approx(exact, rel=1e-15)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, np.float32("nan"), 10**400])
def test_a_value_that_is_not_finite_changes_only_the_event(value):
    rule = GreedyRule(factor=0.5, patience=0, cooldown=3, window=2)
    for before in states_of(rule, 0.01, [3.0, 4.0, 5.0, 1.0]):
        assert rule.update(before, value) == before._replace(event="skipped")


def test_a_cut_does_not_reach_zero_when_min_lr_is_zero():
    rule = GreedyRule(factor=0.5, patience=0, min_lr=0.0)
    states = states_of(rule, 1e-3, [1.0] * 2000)
    assert states[-1].learning_rate == sys.float_info.min
    assert rule.update(states[-1], 0.5).event == "raised"
