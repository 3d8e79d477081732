"""The rule by tables worked out by hand: stages, bounds, resets, and the horizon."""

import math

import pytest
from helpers import states_of

from keras_greedylr import GreedyRule, GreedyState

ANNEAL = 0.3  # of the horizon, as the docstring says


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
    states = states_of(GreedyRule(**config), learning_rate, [row[0] for row in table])
    assert [(s.learning_rate, s.event) for s in states] == [row[1:] for row in table]
    return states


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


# The horizon.


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


def test_the_bound_is_told_once_it_falls():
    rule = GreedyRule(horizon=10, patience=50, min_lr=0.01, max_lr=1.0)
    bounds = [rule.bound(state) for state in states_of(rule, 0.5, [1.0] * 11)]
    assert bounds[:7] == [None] * 7
    assert bounds[7:] == pytest.approx([0.375, 0.125, 0.01, 0.01])


@pytest.mark.parametrize(
    ("config", "values", "idle"),
    [
        ({"patience": 3}, [], 3),
        ({"patience": 3}, [3, 2], 1),
        ({"patience": 3}, [3, 4, 4], 1),
        ({"patience": 0, "cooldown": 2}, [3, 4], 0),  # the stage cuts at each value
        ({"patience": 50, "horizon": 10}, [], 7),  # then the bound may be below the rate
        ({"patience": 50, "horizon": 10}, [1] * 8, 0),
    ],
)
def test_how_long_the_rate_cannot_move(config, values, idle):
    rule = GreedyRule(**config)
    state = rule.init(0.1)
    for value in values:
        state = rule.update(state, value)
    assert rule.idle(state) == idle


def test_defaults():
    """What users get who set nothing: a change of these changes their trainings."""
    rule = GreedyRule()
    assert (rule.factor, rule.patience, rule.window) == (0.9, 3, 1)
    assert (rule.min_delta, rule.min_delta_mode) == (1e-4, "rel")
    assert (rule.cooldown, rule.warmup, rule.phases) == (0, 0, "carry_on")
    assert (rule.min_lr, rule.max_lr, rule.mode) == (1e-5, 1.0, "min")
    assert rule.reset_after is rule.horizon is None
