"""The rule: golden traces, tables worked out by hand, properties, and its errors."""

import json
import math
import sys
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from keras_greedylr import GreedyRule, GreedyState
from keras_greedylr.rule import ANNEAL

GOLDEN = json.loads((Path(__file__).parent / "golden" / "greedy_traces.json").read_text())


def run(rule, learning_rate, metrics):
    """The states after each value."""
    states = [rule.init(learning_rate)]
    for metric in metrics:
        states.append(rule.update(states[-1], metric))
    return states[1:]


def follow(table, learning_rate=1.0, **config):
    """Holds a table of (value, rate after it, event) against the rule."""
    config = {
        "factor": 0.5,
        "min_delta": 0.0,
        "window": 1,
        "min_lr": 2**-20,
        "max_lr": 2.0**20,
        **config,
    }
    states = run(GreedyRule(**config), learning_rate, [row[0] for row in table])
    assert [(s.learning_rate, s.event) for s in states] == [row[1:] for row in table]
    return states


# Golden traces.


def test_there_are_120_golden_cases():
    assert len(GOLDEN) == 120
    assert {case["config"]["mode"] for case in GOLDEN} == {"min", "max"}


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: f"seed{case['seed']}")
def test_golden_trace(case):
    config = case["config"]
    rule = GreedyRule(
        factor=config["factor"],
        patience=config["patience"],
        min_delta=config["threshold"],
        min_delta_mode=config["threshold_mode"],
        window=config["window_size"] if config["smooth"] else 1,
        cooldown=config["cooldown"],
        warmup=config["warmup"],
        phases="hold",
        min_lr=config["min_lr"],
        max_lr=config["max_lr"],
        reset_after=config["reset_start"] or None,
        mode=config["mode"],
    )
    rates = [s.learning_rate for s in run(rule, case["initial_lr"], case["metrics"])]
    np.testing.assert_allclose(rates, case["lrs"], rtol=1e-9, atol=0)


# By hand. `carry_on` unless said otherwise; the factor is a half.


def test_carry_on_cuts_through_cooldown_whatever_comes():
    follow(
        [
            (5, 1, "none"),  # the first value is an improvement
            (6, 1, "none"),
            (6, 1 / 2, "cut"),  # two failures: more than the patience
            (1, 1 / 4, "cut"),  # two more cuts, though the metric turned better
            (0.5, 1 / 8, "cut"),
            (0.4, 1 / 8, "none"),  # one improvement
            (0.3, 1 / 4, "raised"),  # two
        ],
        patience=1,
        cooldown=2,
    )


def test_carry_on_raises_through_warmup_whatever_comes():
    follow(
        [
            (5, 1, "none"),
            (4, 2, "raised"),
            (9, 4, "raised"),
            (9, 8, "raised"),
            (9, 8, "none"),  # the two failures inside the stage count for nothing
            (9, 4, "cut"),
        ],
        patience=1,
        warmup=2,
    )


def test_carry_on_tracks_the_best_value_during_a_stage():
    follow(
        [
            (5, 1, "none"),
            (6, 1, "none"),
            (6, 1 / 2, "cut"),
            (1, 1 / 4, "cut"),  # in the stage: 1 becomes the best value
            (3, 1 / 4, "none"),  # so that 3 and 2 are failures
            (2, 1 / 8, "cut"),
        ],
        patience=1,
        cooldown=1,
    )


def test_hold_waits_and_does_not_track_the_best_value():
    follow(
        [
            (5, 1, "none"),
            (6, 1, "none"),
            (6, 1 / 2, "cut"),
            (1, 1 / 2, "none"),  # in the stage: 5 stays the best value
            (3, 1 / 2, "none"),  # so that 3 and 2 are improvements
            (2, 1, "raised"),
        ],
        patience=1,
        cooldown=1,
        phases="hold",
    )


def test_runs_start_from_zero_after_a_stage():
    states = follow(
        [
            (5, 1, "none"),
            (4, 2, "raised"),
            (3, 4, "raised"),  # carried on: this improvement is not counted
            (2, 4, "none"),
            (1, 8, "raised"),
        ],
        patience=1,
        warmup=1,
    )
    assert [s.good for s in states] == [1, 0, 0, 1, 0]


def test_carry_on_stops_at_the_upper_bound_inside_a_stage():
    states = follow(
        [
            (5, 2, "raised"),
            (4, 3, "raised"),  # 4 would be above
            (3, 3, "none"),
            (2, 3, "none"),
            (9, 1.5, "cut"),
        ],
        patience=0,
        warmup=3,
        max_lr=3.0,
    )
    assert [s.warmup_left for s in states] == [3, 2, 1, 0, 0]


def test_carry_on_stops_at_the_lower_bound_inside_a_stage():
    states = follow(
        [
            (5, 1, "none"),
            (5, 1, "none"),
            (5, 1 / 2, "cut"),
            (4, 0.3, "cut"),
            (3, 0.3, "none"),
            (2, 0.3, "none"),
            (1, 0.6, "raised"),
        ],
        patience=1,
        cooldown=2,
        min_lr=0.3,
    )
    assert [s.cooldown_left for s in states] == [0, 0, 2, 1, 0, 0, 0]
    assert [s.floor_cuts for s in states] == [0, 0, 0, 1, 2, 2, 0]


def test_a_cut_in_a_carry_on_stage_can_reset():
    states = follow(
        [
            (5, 2, "raised"),
            (6, 1, "cut"),
            (4, 1 / 2, "cut"),  # carried on; reaches the bound: first
            (3, 1, "reset"),  # attempted at the bound: second. The stage ends here
            (9, 2, "raised"),  # a first value again: whatever it is, it is the best
        ],
        patience=0,
        cooldown=5,
        min_lr=0.5,
        reset_after=2,
    )
    reset = states[3]
    assert reset == GreedyRule().init(1.0)._replace(event="reset")


def test_a_reset_in_hold_keeps_the_cooldown_of_its_cut():
    states = follow(
        [
            (5, 1, "none"),
            (6, 1, "none"),
            (6, 1, "reset"),
            (4, 1, "none"),  # held
            (3, 1, "none"),  # held
            (9, 1, "none"),
            (8, 2, "raised"),
        ],
        patience=1,
        cooldown=2,
        min_lr=1.0,
        reset_after=1,
        phases="hold",
    )
    assert [s.cooldown_left for s in states] == [0, 0, 2, 1, 0, 0, 0]


def test_reset_after_counts_reaching_the_bound_and_a_rise_starts_it_anew():
    states = follow(
        [
            (5, 2, "raised"),
            (6, 1, "cut"),  # reaches min_lr: 1
            (6, 1, "none"),  # attempted at it: 2
            (4, 2, "raised"),  # 0 again
            (6, 1, "cut"),
            (6, 1, "none"),
            (6, 1, "reset"),  # 3
        ],
        patience=0,
        min_lr=1.0,
        reset_after=3,
    )
    assert [s.floor_cuts for s in states] == [0, 1, 2, 0, 1, 2, 0]


def test_a_rise_attempted_at_the_upper_bound_starts_the_count_of_cuts_anew():
    states = follow(
        [(5, 1, "none"), (6, 1, "none"), (4, 1, "none")],
        patience=0,
        min_lr=1.0,
        max_lr=1.0,
    )
    assert [s.floor_cuts for s in states] == [0, 1, 0]


def test_without_reset_after_the_rate_stays_at_the_bound():
    follow([(5, 2, "raised")] + [(6, 1, "cut")] + [(6, 1, "none")] * 50, patience=0, min_lr=1.0)


@pytest.mark.parametrize("phases", ["carry_on", "hold"])
def test_a_rate_outside_the_bounds_is_never_moved_the_wrong_way(phases):
    above = [(5, 8, "none"), (6, 4, "cut"), (4, 4, "none"), (6, 2, "cut"), (3, 4, "raised")]
    follow(above, learning_rate=8.0, patience=0, max_lr=4.0, phases=phases)
    below = [(5, 2, "raised"), (6, 2, "none"), (4, 4, "raised"), (3, 8, "raised"), (6, 4, "cut")]
    follow(below, learning_rate=1.0, patience=0, min_lr=4.0, max_lr=16.0, phases=phases)


def test_mode_max():
    follow(
        [
            (0.1, 1, "none"),
            (0.2, 2, "raised"),
            (0.2, 2, "none"),  # not larger
            (0.1, 1, "cut"),
        ],
        patience=1,
        mode="max",
    )


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
    after = run(rule, 0.01, [best, value])[-1]
    assert (after.good, after.bad) == ((2, 0) if improved else (0, 1))
    assert after.best == (value if improved else best)


@pytest.mark.parametrize("value, improved", [(-100.04, False), (-100.06, True)])
def test_absolute_thresholds(value, improved):
    rule = GreedyRule(patience=3, min_delta=0.05, min_delta_mode="abs")
    assert run(rule, 0.01, [-100.0, value])[-1].good == (2 if improved else 0)


def test_window_compares_means_of_what_there_is():
    states = run(GreedyRule(window=3, patience=9), 0.01, [3.0, 6.0, math.nan, 3.0, 0.0])
    assert [s.metric for s in states] == [3.0, 4.5, 4.5, 4.0, 3.0]
    assert [s.best for s in states] == [3.0, 3.0, 3.0, 3.0, 3.0]
    assert states[-1].window == (6.0, 3.0, 0.0)


def test_a_mean_of_the_largest_floats_is_finite():
    top = sys.float_info.max
    for values in ([top] * 7, [-top] * 7, [top, top, -top, top, 1.0]):
        state = run(GreedyRule(window=7), 0.01, values)[-1]
        exact = sum(int(value) for value in values) / len(values) if 1.0 in values else values[0]
        assert state.metric == pytest.approx(exact, rel=1e-15)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, np.float32("nan")])
def test_a_value_that_is_not_finite_changes_only_the_event(value):
    rule = GreedyRule(factor=0.5, patience=0, cooldown=3, window=2)
    for before in run(rule, 0.01, [3.0, 4.0, 5.0, 1.0]):
        assert rule.update(before, value) == before._replace(event="skipped")


def test_a_cut_does_not_reach_zero_when_min_lr_is_zero():
    rule = GreedyRule(factor=0.5, patience=0, min_lr=0.0)
    states = run(rule, 1e-3, [1.0] * 2000)
    assert states[-1].learning_rate == sys.float_info.min
    assert rule.update(states[-1], 0.5).event == "raised"


# Properties.

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


@hypothesis.settings(max_examples=200, deadline=None, derandomize=True)
@hypothesis.given(
    rules_and_rates(), st.integers(1, 5), st.lists(VALUES.filter(math.isfinite), min_size=1)
)
def test_a_prefix_of_nans_changes_nothing_that_follows(rule_and_rate, nans, values):
    rule, initial = rule_and_rate
    assert run(rule, initial, [math.nan] * nans + values)[nans:] == run(rule, initial, values)


def _no_constant(name):
    raise AssertionError(f"not strict JSON: {name}")


@hypothesis.settings(max_examples=200, deadline=None, derandomize=True)
@hypothesis.given(rules_and_rates(), st.lists(VALUES, max_size=20))
def test_every_state_survives_strict_json(rule_and_rate, values):
    rule, initial = rule_and_rate
    for state in [rule.init(initial), *run(rule, initial, values)]:
        json.loads(state.to_json(), parse_constant=_no_constant)
        back = GreedyState.from_json(state.to_json())
        assert back == state
        assert repr(back) == repr(state)  # types and the sign of zero too


# Errors.


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"factor": 0.0}, "`factor` must be a finite number > 0 and < 1. Received: factor=0.0"),
        ({"factor": 1.0}, "`factor` must be a finite number > 0 and < 1. Received: factor=1.0"),
        ({"factor": "0.5"}, "`factor` must be a finite number > 0 and < 1. Received: factor='0.5'"),
        ({"patience": -1}, "`patience` must be an integer >= 0. Received: patience=-1"),
        ({"patience": 1.5}, "`patience` must be an integer >= 0. Received: patience=1.5"),
        ({"patience": True}, "`patience` must be an integer >= 0. Received: patience=True"),
        ({"min_delta": -1e-9}, "`min_delta` must be a finite number >= 0. Received: min_delta="),
        ({"min_delta": math.nan}, "`min_delta` must be a finite number >= 0. Received: min_delta="),
        ({"min_delta": 10**400}, "`min_delta` must be a finite number >= 0. Received: min_delta="),
        (
            {"min_delta_mode": "relative"},
            "`min_delta_mode` must be one of ('rel', 'abs'). Received: min_delta_mode='relative'",
        ),
        ({"window": 0}, "`window` must be an integer >= 1. Received: window=0"),
        ({"cooldown": -1}, "`cooldown` must be an integer >= 0. Received: cooldown=-1"),
        ({"warmup": None}, "`warmup` must be an integer >= 0. Received: warmup=None"),
        (
            {"phases": "wait"},
            "`phases` must be one of ('carry_on', 'hold'). Received: phases='wait'",
        ),
        ({"min_lr": -0.1}, "`min_lr` must be a finite number >= 0. Received: min_lr=-0.1"),
        ({"max_lr": 0.0}, "`max_lr` must be a finite number > 0. Received: max_lr=0.0"),
        ({"max_lr": math.inf}, "`max_lr` must be a finite number > 0. Received: max_lr=inf"),
        (
            {"min_lr": 0.1, "max_lr": 0.01},
            "`max_lr` must not be below `min_lr`. Received: min_lr=0.1, max_lr=0.01",
        ),
        ({"reset_after": 0}, "`reset_after` must be an integer >= 1. Received: reset_after=0"),
        ({"mode": "auto"}, "`mode` must be one of ('min', 'max'). Received: mode='auto'"),
    ],
)
def test_arguments_out_of_range(arguments, message):
    with pytest.raises(ValueError) as error:
        GreedyRule(**arguments)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize("rate", [0.0, -1.0, math.inf, math.nan, None, "0.1", True])
def test_initial_rates_out_of_range(rate):
    with pytest.raises(ValueError) as error:
        GreedyRule().init(rate)
    expected = "`learning_rate` must be a finite number > 0. Received: learning_rate="
    assert str(error.value) == f"{expected}{rate!r}"


def _state_json(**changes):
    return json.dumps({**GreedyRule().init(0.01)._asdict(), **changes})


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "Expecting value"),
        (_state_json()[:-1], "Expecting ',' delimiter"),
        ("[]", "A GreedyState has exactly the fields"),
        ("{}", "A GreedyState has exactly the fields"),
        (_state_json(extra=1), "A GreedyState has exactly the fields"),
        (_state_json(learning_rate=0), "`learning_rate` must be a finite number > 0"),
        (_state_json(learning_rate=math.inf), "`learning_rate` must be a finite number > 0"),
        (_state_json(initial_learning_rate=None), "`initial_learning_rate` must be a finite"),
        (_state_json(best=math.nan), "`best` must be a finite number"),
        (_state_json(metric="1"), "`metric` must be a finite number"),
        (_state_json(window=3), "`window` must be a list"),
        (_state_json(window=[None]), "`window` must be a finite number"),
        (_state_json(good=-1), "`good` must be an integer >= 0"),
        (_state_json(bad=0.5), "`bad` must be an integer >= 0"),
        (_state_json(event="raise"), "`event` must be one of"),
    ],
)
def test_broken_states_are_refused(text, message):
    with pytest.raises(ValueError) as error:
        GreedyState.from_json(text)
    assert message in str(error.value)


@pytest.mark.parametrize("horizon", [1, 7, 20, 100])
def test_the_horizon_brings_the_rate_down_over_its_last_part(horizon):
    rule = GreedyRule(factor=0.5, patience=0, min_lr=1e-3, max_lr=1.0, horizon=horizon)
    plain = GreedyRule(factor=0.5, patience=0, min_lr=1e-3, max_lr=1.0)
    state, without, rates = rule.init(0.01), plain.init(0.01), []
    for value in range(horizon):
        state, without = rule.update(state, -value), plain.update(without, -value)
        if value + 1 <= (1 - ANNEAL) * horizon:  # as if there were none
            assert state.learning_rate == without.learning_rate
            continue
        left = (horizon - value - 1) / (ANNEAL * horizon)
        bound = state.ceiling * 0.5 * (1 - math.cos(math.pi * left))
        assert state.learning_rate <= max(bound, rule.min_lr) * (1 + 1e-12)
        rates.append(state.learning_rate)
        assert GreedyState.from_json(state.to_json()) == state
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == rule.min_lr
    assert rule.update(state, -horizon).learning_rate == rule.min_lr  # beyond it as well


def test_the_horizon_leaves_room_below_its_bound():
    rule = GreedyRule(factor=0.1, patience=0, min_lr=1e-6, max_lr=1.0, horizon=100)
    state = rule.init(1.0)
    for value in range(72):
        state = rule.update(state, -value)
    for value in range(3):  # what gets worse is cut further than the bound falls
        state = rule.update(state, value)
    assert state.learning_rate < 0.01 * state.ceiling
