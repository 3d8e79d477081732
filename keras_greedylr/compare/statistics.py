"""The figures of a comparison, from the results of single runs.

A run that diverged counts as infinitely bad, so nothing here subtracts two values.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import stats

DRAWS = 2000  # of a bootstrap
LEVEL = 0.95


class Estimate(NamedTuple):
    """A statistic with its bootstrap interval."""

    value: float
    low: float
    high: float


def median(values: np.ndarray) -> np.ndarray:
    """Returns the median over the last axis."""
    return np.median(values, axis=-1)


def interquartile_mean(values: np.ndarray) -> np.ndarray:
    """Returns the mean of the middle half over the last axis: a quarter is cut off either side.

    Of fewer than four values none is cut.
    """
    return stats.trim_mean(values, 0.25, axis=-1)


def estimate(
    values: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray], seed: int = 0
) -> Estimate:
    """Returns a statistic of `values` [n] with its 95 % percentile bootstrap interval."""
    values = np.asarray(values, np.float64)
    drawn = np.random.default_rng(seed).integers(len(values), size=(DRAWS, len(values)))
    # SciPy's bootstrap interpolates, which makes NaN of infinite values.
    spread = np.quantile(
        statistic(values[drawn]), ((1 - LEVEL) / 2, (1 + LEVEL) / 2), method="inverted_cdf"
    )
    return Estimate(float(statistic(values)), *map(float, spread))


def as_losses(values: np.ndarray, mode: str) -> np.ndarray:
    """Returns values of which the smaller are better; what is not finite becomes infinite."""
    values = np.asarray(values, np.float64)
    return np.where(np.isfinite(values), values if mode == "min" else -values, np.inf)


def win_rate(mine: np.ndarray, theirs: np.ndarray) -> float:
    """Returns the part of the pairs in which `mine` [n] is smaller; a tie is half a win."""
    return float(np.mean((mine < theirs) + 0.5 * (mine == theirs)))


def sign_test(mine: np.ndarray, theirs: np.ndarray) -> float:
    """Returns the two-sided p-value of as uneven a count of wins; ties are left out."""
    wins, losses = int(np.sum(mine < theirs)), int(np.sum(mine > theirs))
    return float(stats.binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0


def first_reached(curve: np.ndarray, target: float) -> float:
    """Returns the number of the first epoch, from 1, whose loss is at most `target`, or inf."""
    reached = np.flatnonzero(curve <= target)
    return float(reached[0] + 1) if len(reached) else np.inf


def share_within(values: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Returns the part of `values` [n] that are at most each of `levels` [m]: a profile."""
    return np.searchsorted(np.sort(values), levels, side="right") / len(values)
