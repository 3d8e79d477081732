"""The GreedyLR rule for many runs at once, each with parameters of its own.

A transcription of `keras_greedylr.rule.GreedyRule` to arrays, for evaluation and tuning; a test
drives both with the same values. Resets are left out.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from keras_greedylr.rule import ANNEAL


class GreedyParameters(NamedTuple):
    """The rule's parameters, arrays [P] (or numbers, for all runs); the rule says what they do."""

    factor: np.ndarray | float = 0.9
    patience: np.ndarray | int = 3
    min_delta: np.ndarray | float = 1e-4  # relative
    window: np.ndarray | int = 1
    cooldown: np.ndarray | int = 0
    warmup: np.ndarray | int = 0
    carry_on: np.ndarray | bool = True  # phases="carry_on", not "hold"
    min_lr: np.ndarray | float = 1e-5
    max_lr: np.ndarray | float = 1.0
    horizon: np.ndarray | int = 0  # 0 for none


class BatchedGreedyRule:
    """`GreedyRule.update` for P runs.

    Args:
        parameters: See `GreedyParameters`.
        learning_rate: [P], the initial rates.
    """

    def __init__(self, parameters: GreedyParameters, learning_rate: np.ndarray) -> None:
        self.rate = np.array(learning_rate, np.float64)
        runs = self.rate.shape
        self.parameters = GreedyParameters(*(np.broadcast_to(p, runs) for p in parameters))
        self._values = np.full((int(self.parameters.window.max()), *runs), np.nan)  # newest first
        self._best = np.full(runs, np.inf)
        self._good, self._bad, self._cooling, self._warming = np.zeros((4, *runs), int)
        self._seen, self._ceiling = np.zeros(runs, int), np.full(runs, np.nan)

    def update(self, metric: np.ndarray) -> np.ndarray:
        """Returns the rates [P] after one more value per run; values not finite are skipped."""
        p, metric = self.parameters, np.asarray(metric, np.float64)
        valid = np.isfinite(metric)
        shifted = np.concatenate([metric[None], self._values[:-1]])
        self._values = np.where(valid, shifted, self._values)
        age = np.arange(len(self._values))[:, None]
        used = (age < p.window) & np.isfinite(self._values)
        total = np.where(used, self._values, 0.0).sum(axis=0)
        smooth = total / np.maximum(used.sum(axis=0), 1)

        first = np.isinf(self._best)
        known = np.where(first, 0.0, self._best)
        improved = first | (smooth < known - p.min_delta * np.abs(known))
        staged = (self._cooling > 0) | (self._warming > 0)
        improved &= valid & (~staged | p.carry_on)
        move = np.where(staged & p.carry_on, np.where(self._cooling > 0, -1, 1), 0)
        cooling = np.where(staged, np.maximum(self._cooling - 1, 0), self._cooling)
        warming = np.where(staged, np.maximum(self._warming - 1, 0), self._warming)
        good = np.where(staged, self._good, np.where(improved, self._good + 1, 0))
        bad = np.where(staged, self._bad, np.where(improved, 0, self._bad + 1))
        best = np.where(improved, smooth, self._best)

        rising = good > p.patience
        falling = ~rising & (bad > p.patience)
        move = np.where(rising, 1, np.where(falling, -1, move))
        good, warming = np.where(rising, 0, good), np.where(rising, p.warmup, warming)
        bad, cooling = np.where(falling, 0, bad), np.where(falling, p.cooldown, cooling)

        raised = np.maximum(self.rate, np.minimum(self.rate / p.factor, p.max_lr))
        cut = np.minimum(self.rate, np.maximum(self.rate * p.factor, p.min_lr))
        rate = np.where(move > 0, raised, np.where(move < 0, cut, self.rate))

        self._seen = self._seen + valid
        left = np.maximum(1.0 - self._seen / np.maximum(p.horizon, 1), 0.0) / ANNEAL
        ending = valid & (p.horizon > 0) & (left < 1.0)
        self._ceiling = np.where(ending & np.isnan(self._ceiling), rate, self._ceiling)
        bound = self._ceiling * 0.5 * (1.0 - np.cos(np.pi * left))
        rate = np.where(ending, np.minimum(rate, np.maximum(bound, p.min_lr)), rate)

        def keep(old: np.ndarray, new: np.ndarray) -> np.ndarray:
            return np.where(valid, new, old)

        self.rate, self._best = keep(self.rate, rate), keep(self._best, best)
        self._good, self._bad = keep(self._good, good), keep(self._bad, bad)
        self._cooling, self._warming = keep(self._cooling, cooling), keep(self._warming, warming)
        return self.rate
