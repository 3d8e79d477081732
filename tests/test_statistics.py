"""The figures of a comparison, against hand-computed values and SciPy."""

import numpy as np
import pytest

pytest.importorskip("scipy")
from scipy import stats

from keras_greedylr.compare import statistics as ours

INF = np.inf
FIVE = np.array([1.0, 2.0, 3.0, 4.0, 10.0])


@pytest.mark.parametrize(
    ("function", "arguments", "expected"),
    [
        (ours.interquartile_mean, (FIVE,), 3.0),  # of 2, 3, 4
        (ours.interquartile_mean, (FIVE[:3],), 2.0),  # too few to cut any
        (ours.interquartile_mean, (np.array([1.0, 2.0, 4.0, INF]),), 3.0),
        (ours.median, (np.array([1.0, INF, 2.0]),), 2.0),
        (ours.win_rate, (np.array([1, 2, 3, INF, 0]), np.array([2, 2, 1, INF, 1])), 0.6),
        (ours.sign_test, (np.zeros(5), np.ones(5)), 2 * 0.5**5),
        (ours.sign_test, (np.array([0, 1, 1, 7]), np.array([1, 0, 2, 7])), 1.0),
        (ours.sign_test, (FIVE, FIVE), 1.0),
        (ours.first_reached, (np.array([5.0, 2.0, 3.0]), 2.0), 2.0),
        (ours.first_reached, (np.array([5.0, np.inf]), 2.0), INF),
    ],
)
def test_by_hand(function, arguments, expected):
    assert function(*arguments) == pytest.approx(expected)


def test_as_losses_and_share_within():
    assert ours.as_losses(np.array([0.5, np.nan]), "max").tolist() == [-0.5, INF]
    assert ours.as_losses(np.array([0.5, INF]), "min").tolist() == [0.5, INF]
    shares = ours.share_within(np.array([3.0, 1.0, INF, 2.0]), np.array([0.0, 1.0, 2.5, 9.0]))
    assert shares.tolist() == [0.0, 0.25, 0.5, 0.75]


def test_intervals_are_scipys_and_bear_divergence():
    values = np.random.default_rng(1).normal(size=40)
    mine = ours.estimate(values, ours.median)
    theirs = stats.bootstrap(
        (values,), np.median, method="percentile", n_resamples=9999, rng=np.random.default_rng(2)
    ).confidence_interval
    assert mine.value == np.median(values)
    assert mine[1:] == pytest.approx((theirs.low, theirs.high), abs=0.05)
    assert ours.estimate(values, ours.median) == mine  # the same each time
    assert ours.estimate(np.array([1.0, 2.0, 3.0, INF]), ours.median)[1:] == (1.0, INF)
    assert ours.estimate(np.array([4.0]), ours.median) == (4.0, 4.0, 4.0)


def test_intervals_hold_95_per_cent():
    """Of a mean of many they are those of the normal distribution."""
    values = np.random.default_rng(3).normal(size=400)
    _, low, high = ours.estimate(values, lambda drawn: np.mean(drawn, axis=-1))
    error = np.std(values) / 20
    assert (values.mean() - low) / error == pytest.approx(1.96, abs=0.1)
    assert (high - values.mean()) / error == pytest.approx(1.96, abs=0.1)
