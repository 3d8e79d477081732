"""Schedules under noise that reaches the gradient and the loss they see, batched.

GreedyLR's authors published 8,100 runs (12 models, 9 noises, 3 strengths, 5 schedules, 5 variants
of each model; Adam at 0.01, 200 steps), in whose code the noise reached neither. Here it reaches
both: see `noises`. An epoch has five steps. GreedyLR as shipped, ReduceLROnPlateau and a policy
decide after each; fixed schedules move at every step, and so do the published forms of GreedyLR.
All conditions, contestants, rates and seeds of a model are one batched computation.
`tests/benchmarks/robustness.py` is the command.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_greedylr.callbacks.greedy_lr import MAX_LR_RATIO
from keras_greedylr.observation import Interval
from keras_greedylr.policy import load_policy
from keras_greedylr_agents.evaluate import bounded
from keras_greedylr_agents.greedy import GreedyParameters
from keras_greedylr_agents.noises import CONDITIONS, EPOCH, STEPS, Noise, draw
from keras_greedylr_agents.noisy_training import recoveries, train
from keras_greedylr_agents.problems.landscapes import LANDSCAPES, Landscape
from keras_greedylr_agents.rivals import (
    SHAPES,
    AsShipped,
    Controller,
    Fixed,
    Greedy,
    Learned,
    Plateau,
    SideBySide,
    restarts,
)
from keras_greedylr_agents.small_models import GRID, RATES

RATE = 0.01  # of Adam, what all rates are multiples of


# The contestants.


class EveryEpoch:
    """Lets a controller decide after each epoch, by the mean loss of its steps."""

    def __init__(self, controller: Controller) -> None:
        self.controller = controller
        self.losses: list[np.ndarray] = []

    def first(self, rates: np.ndarray, bound: np.ndarray | None) -> np.ndarray:
        """Returns the first epoch's rates."""
        self.rates = self.controller.first(rates, bound)
        return self.rates

    def next(self, seen: Interval, bound: np.ndarray | None) -> np.ndarray:
        """Returns the rates in force after one more step."""
        self.losses.append(seen.loss)
        if len(self.losses) == EPOCH:
            losses, self.losses = np.stack(self.losses), []
            epoch = seen._replace(loss=losses.mean(axis=0), loss_std=losses.std(axis=0))
            self.rates = self.controller.next(epoch, bound)
        return self.rates


# What the paper recommends, and what its robustness study ran (without the extras of its code).
PAPER = GreedyParameters(patience=10, window=50)
STUDY = GreedyParameters(patience=10, window=10, cooldown=3, warmup=3, carry_on=False)

OURS: dict[str, Callable[[], Controller]] = {
    "GreedyLR": lambda: EveryEpoch(AsShipped()),
    "GreedyLR, horizon": lambda: EveryEpoch(AsShipped(STEPS // EPOCH)),
    "GreedyLR, paper": lambda: Greedy(PAPER, 0.1, MAX_LR_RATIO),
    "GreedyLR, study": lambda: Greedy(STUDY, 1e-3, MAX_LR_RATIO),
    "LearnedLR": lambda: EveryEpoch(Learned(load_policy("default", "numpy").act)),
}
FIXED = {
    **{name: SHAPES[name] for name in ("constant", "step", "exponential", "linear", "cosine")},
    "restarts": restarts,
}
RIVALS: dict[str, Callable[[], Controller]] = {
    **{name: lambda shape=shape: Fixed(shape) for name, shape in FIXED.items()},
    "plateau": lambda: EveryEpoch(Plateau()),
}
CONTESTANTS = {**OURS, **RIVALS}


# The runs.


def compare(
    landscape: Landscape,
    conditions: Sequence[tuple[str, float]],
    multiples: np.ndarray,
    seeds: int,
    seed: int,
) -> tuple[np.ndarray, Noise, np.ndarray]:
    """Trains all contestants from the same weights, with the same noise.

    Args:
        landscape: What on.
        conditions: Noises and their strengths.
        multiples: [conditions, contestants, rates], of `RATE`.
        seeds: How many.
        seed: Of everything random.

    Returns:
        The clean losses [STEPS + 1, conditions, seeds, contestants, rates], the noise
        [STEPS, conditions * seeds] and the losses [seeds] before the first step.
    """
    begin = landscape.sample(tf.constant([seed, 0]), seeds)
    usual = np.full(seeds, RATE, np.float32)
    quiet, constant = draw(CONDITIONS[:1], seeds, seed), Fixed(SHAPES["constant"])
    reference = train(landscape, begin, quiet, usual, constant, usual, seed)
    units = np.median(reference.sizes, axis=0)  # of a training that goes as it should
    noise = draw(conditions, seeds, seed)
    each = np.repeat(multiples[:, None], seeds, axis=1)  # [conditions, seeds, contestants, rates]
    owner = np.broadcast_to(np.arange(each.shape[2])[:, None], each.shape).ravel()
    controller = SideBySide([make() for make in CONTESTANTS.values()], owner)
    rates = np.float32(RATE * each.ravel())
    curves = train(landscape, begin, noise, units, controller, rates, seed)
    return curves.clean.reshape(STEPS + 1, *each.shape), noise, reference.clean[0]


def study(
    models: Sequence[str],
    conditions: Sequence[tuple[str, float]],
    seeds: int,
    report: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Runs everything.

    Returns:
        By model, `log_losses` [conditions, contestants, rates, seeds] at the end, the last rate
        being the tuned one; `log_excess`, of the losses above the model's floor; `tuned` rates
        [conditions, contestants]; `recoveries` [spikes, contestants, rates]. Beside them `runs`
        and `seconds`.
    """
    begin, names = time.perf_counter(), list(CONTESTANTS)
    shape = (len(conditions), len(names))
    parts = ("log_losses", "log_excess", "tuned", "recoveries")
    done: dict[str, Any] = {**{part: {} for part in parts}, "runs": 0}
    for count, model in enumerate(models, start=1):
        landscape = LANDSCAPES[model]
        grid = np.broadcast_to(GRID, (*shape, len(GRID)))
        tuning_seeds = max(2 * seeds // 5, 1)  # with five: as many runs as are measured below
        clean, _, first = compare(landscape, conditions, grid, tuning_seeds, seed=1)
        best = np.array(GRID)[_log(clean[-1], first).mean(axis=1).argmin(axis=-1)]
        given = np.broadcast_to(RATES, (*shape, len(RATES)))
        multiples = np.concatenate([given, best[..., None]], axis=-1)
        done["runs"] += clean[0].size
        clean, noise, first = compare(landscape, conditions, multiples, seeds, seed=0)
        done["runs"] += clean[0].size
        for part, floor in (("log_losses", 0.0), ("log_excess", landscape.floor)):
            done[part][model] = np.moveaxis(_log(clean[-1] - floor, first - floor), 1, -1)
        done["tuned"][model] = best
        done["recoveries"][model] = np.concatenate(
            [
                recoveries(clean[:, i, j], noise.spike[:, i * seeds + j], first[j])
                for i in range(shape[0])
                for j in range(seeds)
            ]
        )
        spent = time.perf_counter() - begin
        left = spent / count * (len(models) - count)
        report(f"{model}: {spent:.0f} s spent, about {left:.0f} s left")
    return {**done, "seconds": time.perf_counter() - begin}


def _log(losses: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Logarithms of losses [conditions, seeds, ...], a diverged one as e times the first."""
    return np.log(bounded(losses.astype(np.float64), first[:, None, None]))
