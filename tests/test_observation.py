"""What a policy sees: one definition, the same in every namespace, finite and free of scale."""

import numpy as np
import pytest

from keras_greedylr import observation
from keras_greedylr.observation import NAMES, Interval

f32 = np.float32


def run_of(seed, runs, intervals=12, broken=False):
    """The measurements of made-up runs: losses that fall, rise and (if broken) vanish."""
    rng = np.random.default_rng(seed)
    shape = (intervals, runs)
    loss = np.exp(np.cumsum(rng.normal(-0.1, 0.3, shape), axis=0))
    validation = np.where(rng.random(shape) < 0.4, loss * rng.uniform(0.8, 1.5, shape), np.nan)
    if broken:
        loss[3], loss[5], validation[4] = np.nan, np.inf, np.inf
    return [
        Interval(
            loss=loss[t].astype(f32),
            loss_std=(0.1 * loss[t]).astype(f32),
            validation_loss=validation[t].astype(f32),
            progress=np.full(runs, (t + 1) / (intervals + 1), f32),
            movement=np.exp(rng.normal(-4, 2, runs)).astype(f32),
            alignment=rng.uniform(-1, 1, runs).astype(f32),
            norm=rng.uniform(1, 3, runs).astype(f32),
        )
        for t in range(intervals)
    ]


def drive(xp, rates, intervals, actions, step=None, scale=1.0):
    """Observations and rates of a whole run, under fixed actions."""

    def decide(history, interval, action):
        history, seen = observation.observe(xp, history, interval)
        history, rate = observation.apply_action(xp, history, action)
        return history, seen, rate

    step = step(decide) if step else decide
    history = observation.init(xp, rates)
    seen, used = [], [np.asarray(observation.rate(xp, history))]
    for interval, action in zip(intervals, actions, strict=True):
        interval = interval._replace(
            loss=interval.loss * f32(scale),
            loss_std=interval.loss_std * f32(scale),
            validation_loss=interval.validation_loss * f32(scale),
        )
        history, observed, rate = step(history, interval, action)
        seen.append(np.asarray(observed))
        used.append(np.asarray(rate))
    return np.stack(seen), np.stack(used)


@pytest.mark.parametrize("broken", [False, True])
def test_tensorflow_with_many_runs_equals_numpy_with_one(broken):
    tf = pytest.importorskip("tensorflow")
    tnp = pytest.importorskip("tensorflow.experimental.numpy")
    runs = 7
    intervals = run_of(0, runs, broken=broken)
    rates = np.geomspace(1e-4, 10, runs).astype(f32)
    actions = np.random.default_rng(1).uniform(-1.5, 1.5, (len(intervals), runs)).astype(f32)
    seen, used = drive(tnp, tf.constant(rates), intervals, actions, step=tf.function)
    for p in range(runs):
        one = [Interval(*(field[p : p + 1] for field in interval)) for interval in intervals]
        seen_one, used_one = drive(np, rates[p : p + 1], one, actions[:, p : p + 1])
        # float32 logarithms and exponentials differ in their last bits between libraries
        np.testing.assert_allclose(seen[:, p : p + 1], seen_one, atol=4e-6, rtol=1e-6)
        np.testing.assert_allclose(used[:, p : p + 1], used_one, rtol=4e-6)
        assert seen_one.dtype == used_one.dtype == np.float32


def test_observations_are_finite_and_broken_losses_show():
    intervals = run_of(0, 3, broken=True)
    seen, used = drive(np, np.ones(3, f32), intervals, np.zeros((len(intervals), 3), f32))
    assert seen.shape == (len(intervals), 3, len(NAMES))
    assert np.isfinite(seen).all() and np.isfinite(used).all()
    broken = seen[:, 0, NAMES.index("loss_broken")]
    assert list(np.flatnonzero(broken)) == [3, 5]


def test_a_broken_interval_is_forgotten():
    good, nan = run_of(0, 3), np.full(3, np.nan, f32)
    broken = Interval(nan, nan, nan, good[3].progress, nan, nan, nan)
    zeros = np.zeros((13, 3), f32)
    with_it, _ = drive(np, np.ones(3, f32), [*good[:3], broken, *good[3:]], zeros)
    without, _ = drive(np, np.ones(3, f32), good, zeros[:12])
    lasting = [i for i, name in enumerate(NAMES) if name != "movement_change"]
    np.testing.assert_array_equal(with_it[4:, :, lasting], without[3:, :, lasting])


def test_first_loss_not_finite_does_not_stay():
    nan, one = np.array([np.nan], f32), np.ones(1, f32)
    bad = Interval(nan, nan, nan, one * f32(0.1), nan, nan, nan)
    good = Interval(one * 3, one, one * 3, one * f32(0.2), one, one, one)
    history, seen = observation.observe(np, observation.init(np, one), bad)
    assert np.isfinite(seen).all()
    history, _ = observation.observe(np, history, good)
    assert history.first_loss == history.best_loss == history.first_validation == 3.0


def test_how_long_ago_the_lowest_losses_were():
    losses, validations = f32([3, 2, 4, 5, 1]), f32([np.nan, 3, 2, np.nan, 2])
    history, stale = observation.init(np, np.ones(1, f32)), []
    for t in range(5):
        loss, validation, one = losses[t : t + 1], validations[t : t + 1], np.ones(1, f32)
        now = Interval(loss, one, validation, one * f32(0.1 * (t + 1)), one, one, one)
        history, seen = observation.observe(np, history, now)
        stale.append([seen[0, NAMES.index(f"{name}_stale")] for name in ("loss", "validation")])
    expected = np.array([[0, 0, 1, 2, 0], [0, 0, 0, 1, 2]]).T * 0.4
    np.testing.assert_allclose(stale, expected, atol=1e-6)


@pytest.mark.parametrize(("scale", "rate"), [(1e-6, 1e-5), (1e6, 1.0), (1.0, 100.0)])
def test_scale_of_loss_and_rate_does_not_matter(scale, rate):
    intervals = run_of(2, 4)
    actions = np.random.default_rng(3).uniform(-1, 1, (len(intervals), 4)).astype(f32)
    seen, used = drive(np, np.ones(4, f32), intervals, actions)
    seen_scaled, used_scaled = drive(np, np.full(4, rate, f32), intervals, actions, scale=scale)
    np.testing.assert_allclose(seen, seen_scaled, atol=1e-4)
    np.testing.assert_allclose(used, used_scaled / f32(rate), rtol=1e-5)


def test_no_action_is_a_cosine():
    progress = np.linspace(0, 1, 11, dtype=f32)
    history = observation.init(np, np.ones(11, f32) * 128)._replace(progress=progress)
    _, rate = observation.apply_action(np, history, np.zeros(11, f32))
    expected = np.maximum((1 + np.cos(np.pi * progress)) / 2, 128 * observation.MIN_FALL)
    np.testing.assert_allclose(rate, expected, rtol=1e-5, atol=1e-7)


def test_action_moves_the_multiplier_within_stride_and_bounds():
    history = observation.init(np, np.ones(1, f32), min_rate=f32([0.001]), max_rate=f32([0.5]))
    table = ((0, -7), (1, -4), (-0.5, -4.75), (9, -1.75), (-9, -4.75), (1, -1.75), (1, -1))
    for action, expected in table:
        history, rate = observation.apply_action(np, history, np.array([action], f32))
        assert history.multiplier[0] == pytest.approx(expected, abs=1e-5)
        assert 0.001 <= rate[0] <= 0.5
    bounded = history._replace(bound=f32([0.125]))
    _, rate = observation.apply_action(np, bounded, f32([1.0]))
    assert rate[0] == f32(0.125)
    for _ in range(5):
        history, rate = observation.apply_action(np, history, f32([-1.0]))
    assert rate[0] == pytest.approx(0.001)


def test_bounds_that_are_not_given():
    one = np.ones(1, f32)
    highest, lowest, given = 2.0**14, 2.0**-20, f32([3.0])
    for action, bounds, expected in (
        (one, {}, highest),
        (-one, {}, lowest),
        (one, {"max_rate": given}, 3.0),
        (-one, {"min_rate": given}, 3.0),
        (one, {"min_rate": given}, highest),
        (-one, {"max_rate": given}, lowest),
        (one, {"min_rate": f32([2.0**15])}, 2.0**15),  # beyond the other one's default
        (-one, {"max_rate": f32([2.0**-21])}, 2.0**-21),
    ):
        history = observation.init(np, one, **bounds)
        for _ in range(9):
            history, rate = observation.apply_action(np, history, action)
        assert rate[0] == pytest.approx(expected, rel=1e-5)


def test_a_rate_taken_back_and_a_longer_training():
    history = observation.init(np, f32([1.0]))._replace(progress=f32([0.5]))
    history, rate = observation.apply_action(np, history, f32([1.0]))
    lowered = observation.lower(np, history, 2.0)
    assert observation.rate(np, lowered)[0] == pytest.approx(rate[0] / 4, rel=1e-5)
    longer = observation.prolong(np, history, f32([0.2]))
    assert longer.progress[0] == f32(0.2)
    assert observation.rate(np, longer)[0] == pytest.approx(rate[0], rel=1e-5)


def test_weight_signals():
    then, now = f32([[3.0, 4.0]]), f32([[3.0, 4.5]])
    movement, alignment, norm, step = observation.weight_signals(np, now, then, f32([[0, -2]]))
    assert (movement[0], alignment[0]) == (pytest.approx(0.1), pytest.approx(-1.0))
    assert norm[0] == pytest.approx(np.hypot(3, 4.5))
    np.testing.assert_allclose(step, [[0, 0.5]])
    assert observation.weight_signals(np, now, then, f32([[0, 0]]))[1][0] == 0.0


def test_a_run_under_a_bound_begins_at_a_part_of_it():
    rates, bound = f32([1e-3, 1e3, 0.1]), f32([2.0, 2.0, np.inf])
    history = observation.init(np, rates, bound=bound)
    begun = observation.rate(np, history)
    part = observation.UNDER_BOUND * 2.0
    np.testing.assert_allclose(begun, [part, part, 0.1 * 2.0**observation.START], rtol=1e-6)
    np.testing.assert_array_equal(begun[2:], observation.rate(np, observation.init(np, rates[2:])))
    one = np.ones(3, f32)
    interval = Interval(one, one, one, one * f32(0.1), one, one, one)
    for limit in (None, bound / 4):  # the limit itself may move
        moved, _ = observation.observe(np, history, interval, limit)
        for _ in range(2):
            moved, rate = observation.apply_action(np, moved, one)
        np.testing.assert_allclose(rate[:2], bound[:2] if limit is None else limit[:2], rtol=1e-6)


def test_above_a_bound_the_rate_winds_up_by_what_one_cut_undoes():
    history = observation.init(np, f32([0.1]), bound=f32([2.0]))
    steps = ((1, 1.0), *[(1, 2.0)] * 3, (-1, 2.0), (-1, 2.0 / 2**3), (1, 2.0))
    for action, expected in steps:
        history, rate = observation.apply_action(np, history, f32([action]))
        assert rate[0] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("bound, actions, expected", [(np.inf, 1, 0), (2.0, 0, 4), (2.0, 9, -3)])
def test_the_room_under_the_bound_is_seen(bound, actions, expected):
    history = observation.init(np, f32([0.1]), bound=f32([bound]))
    for _ in range(actions):
        history, _ = observation.apply_action(np, history, f32([1]))
    one = f32([1])
    _, seen = observation.observe(np, history, Interval(one, one, one, 0 * one, one, one, one))
    assert seen[0, observation.NAMES.index("room")] == pytest.approx(expected / 4, abs=1e-5)


def test_an_alignment_that_is_not_known_is_none():
    history, one = observation.init(np, f32([0.1])), f32([1])
    interval = Interval(one, one, one, one * f32(0.1), one, f32([np.nan]), one)
    _, seen = observation.observe(np, history, interval)
    assert seen[0, observation.NAMES.index("alignment")] == 0.0
