"""What holds of any rule under any values."""

import dataclasses
import json
import math
import sys

import hypothesis
from helpers import states_of
from hypothesis import strategies as st

from keras_greedylr import GreedyRule, GreedyState

# Any float, those at the edges more often than chance has them.
VALUES = st.floats() | st.sampled_from(
    [math.nan, math.inf, -math.inf, 1e308, -1e308, sys.float_info.max, 5e-324, -5e-324, 0.0, -0.0]
)
POSITIVE = st.floats(min_value=0.0, exclude_min=True, allow_infinity=False)


@st.composite
def rules_and_rates(draw):
    """Any valid rule, with an initial rate within its bounds."""
    low, rate, high = sorted(draw(st.tuples(POSITIVE, POSITIVE, POSITIVE)))
    rule = GreedyRule(
        factor=draw(st.floats(0.0, 1.0, exclude_min=True, exclude_max=True)),
        patience=draw(st.integers(0, 3)),
        min_delta=draw(st.floats(0.0, allow_infinity=False) | st.sampled_from([0.0, 1e-4])),
        min_delta_mode=draw(st.sampled_from(["rel", "abs"])),
        window=draw(st.integers(1, 4)),
        cooldown=draw(st.integers(0, 3)),
        warmup=draw(st.integers(0, 3)),
        phases=draw(st.sampled_from(["carry_on", "hold"])),
        min_lr=draw(st.sampled_from([0.0, low])),
        max_lr=high,
        reset_after=draw(st.none() | st.integers(1, 3)),
        mode=draw(st.sampled_from(["min", "max"])),
    )
    return rule, rate


@hypothesis.settings(max_examples=300, deadline=None, derandomize=True)
@hypothesis.given(rules_and_rates(), st.lists(VALUES, max_size=40))
def test_properties_of_any_run(rule_and_rate, values):
    rule, initial = rule_and_rate
    old = rule.init(initial)
    for value in values:
        new = rule.update(old, value)
        assert math.isfinite(new.learning_rate)
        assert rule.min_lr <= new.learning_rate <= rule.max_lr
        assert new.learning_rate > 0.0
        assert rule.update(old, value) == new  # the same, again
        moved = (new.learning_rate > old.learning_rate) - (new.learning_rate < old.learning_rate)
        if new.event == "reset":
            assert new.learning_rate == initial
        else:
            assert moved == {"raised": 1, "cut": -1}.get(new.event, 0)
            assert new.learning_rate >= math.nextafter(old.learning_rate * rule.factor, 0.0)
            assert new.learning_rate <= math.nextafter(old.learning_rate / rule.factor, math.inf)
        if new.event == "skipped":
            assert not math.isfinite(value)
        else:
            assert math.isfinite(value)
            assert math.isfinite(new.learning_rate)
            assert new.event == "reset" or math.isfinite(new.metric)
        old = new
    if values:
        assert rule.update(rule.init(initial), *values) == old  # all at once


@hypothesis.settings(max_examples=200, deadline=None, derandomize=True)
@hypothesis.given(
    rules_and_rates(), st.integers(1, 5), st.lists(VALUES.filter(math.isfinite), min_size=1)
)
def test_a_prefix_of_nans_changes_nothing_that_follows(rule_and_rate, nans, values):
    rule, initial = rule_and_rate
    after = states_of(rule, initial, [math.nan] * nans + values)
    assert after[nans:] == states_of(rule, initial, values)


@hypothesis.settings(max_examples=300, deadline=None, derandomize=True)
@hypothesis.given(rules_and_rates(), st.none() | st.integers(1, 12), st.lists(VALUES, max_size=20))
def test_values_said_to_be_idle_do_not_move_the_rate(rule_and_rate, horizon, values):
    rule, initial = rule_and_rate
    rule = dataclasses.replace(rule, horizon=horizon)
    quiet, state = 0, rule.init(initial)
    for value in values:
        quiet = max(quiet - 1, rule.idle(state))  # what was said holds whatever comes
        after = rule.update(state, value)
        assert quiet == 0 or after.learning_rate == state.learning_rate
        state = after


def _no_constant(name):
    raise AssertionError(f"not strict JSON: {name}")


@hypothesis.settings(max_examples=200, deadline=None, derandomize=True)
@hypothesis.given(rules_and_rates(), st.lists(VALUES, max_size=20))
def test_every_state_survives_strict_json(rule_and_rate, values):
    rule, initial = rule_and_rate
    for state in [rule.init(initial), *states_of(rule, initial, values)]:
        json.loads(state.to_json(), parse_constant=_no_constant)
        back = GreedyState.from_json(state.to_json())
        assert back == state
        assert repr(back) == repr(state)  # types and the sign of zero too
