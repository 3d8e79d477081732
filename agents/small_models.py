"""Small models with real data: GreedyLR and LearnedLR against other schedules, batched.

Each problem is trained under several optimizers. A training has 400 steps in 40 intervals, the
"epochs" after which GreedyLR, ReduceLROnPlateau and a policy decide; validation losses come every
fourth. Fixed schedules are held for an interval. All contestants, rates and seeds of a problem
are one batched computation. `tests/benchmarks/small_models.py` is the command.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from keras_greedylr import observation
from keras_greedylr.policy import load_policy
from keras_greedylr_agents.evaluate import bounded, rollout
from keras_greedylr_agents.problems import data as datasets
from keras_greedylr_agents.problems.base import Problem, start
from keras_greedylr_agents.problems.layers import Convolution, Dense, Embedding, Recurrent
from keras_greedylr_agents.problems.networks import Network
from keras_greedylr_agents.rivals import (
    SHAPES,
    AsShipped,
    Fixed,
    Learned,
    Plateau,
    SideBySide,
    cosine,
    restarts,
)

OPTIMIZERS = ("sgd", "momentum", "adam", "adamw", "rmsprop")
RATES = (0.1, 1.0, 10.0)  # multiples of the usual rate, the same for all
GRID = tuple(10.0 ** (k / 2) for k in range(-5, 5))  # to tune on
MOMENTS = (10, 50, 100)  # per cent of the steps
LOSSES = ("validation", "training")
SYMBOLS = len(datasets.ALPHABET) + 1


# The problems.


@dataclass(frozen=True)
class Product:
    """An entry of W H, both factors non-negative: from its row and column to [P, B, 1]."""

    rows: int
    columns: int
    rank: int = 8

    def init(self, seed: tf.Tensor, runs: int, shape: tuple) -> tuple[list[tf.Tensor], tuple]:
        """Entries whose products have mean about one."""
        seeds = tf.random.experimental.stateless_split(seed, 2)
        sizes = (self.rows, self.columns)
        return [
            tf.abs(tf.random.stateless_normal((runs, size, self.rank), part)) * self.rank**-0.5
            for size, part in zip(sizes, tf.unstack(seeds), strict=True)
        ], (1,)

    def apply(self, params: list[tf.Tensor], x: tf.Tensor) -> tf.Tensor:
        """Weights of any sign stand for their absolute values."""
        chosen = [
            tf.matmul(tf.one_hot(tf.cast(x[..., i], tf.int32), size), tf.abs(params[i]))
            for i, size in enumerate((self.rows, self.columns))
        ]
        return tf.reduce_sum(chosen[0] * chosen[1], axis=-1, keepdims=True)


class Factorisation(Network):
    """NMF of a matrix whose entries come in batches; entries left out are to be told."""

    @property
    def _network(self) -> tuple:
        return self.layers


def _entries(matrix: np.ndarray) -> datasets.Data:
    rows, columns = np.indices(matrix.shape)
    x = np.stack([rows.ravel(), columns.ravel()], axis=-1).astype(np.float32)
    return x, (matrix / matrix.mean()).reshape(-1, 1).astype(np.float32)


def _digit_pixels() -> np.ndarray:
    return datasets.datasets.load_digits().data[:96].astype(np.float32)


datasets.LOADERS["digit pixels"] = lambda: _entries(_digit_pixels())
datasets.LOADERS["counts"] = lambda: _entries(datasets.word_counts("word counts")[:128])

TEXT = (Embedding(SYMBOLS, 8), Dense(48, "relu"))
PROBLEMS: dict[str, dict[str, Any]] = {
    "digits-mlp": {"data": "digits", "layers": (Dense(32, "relu"),), "outputs": 10},
    "digits-cnn": {"data": "digits", "layers": (Convolution(8), Dense(16, "relu")), "outputs": 10},
    "china-cnn": {"data": "china", "layers": (Convolution(8), Dense(16, "relu")), "outputs": 4},
    "flower-mlp": {"data": "flower", "layers": (Dense(32, "relu"),), "outputs": 4},
    "wine": {"data": "wine", "layers": (Dense(16, "relu"),), "outputs": 3},
    "breast-cancer": {"data": "breast cancer", "layers": (Dense(32, "relu"),), "outputs": 2},
    "iris": {"data": "iris", "layers": (), "outputs": 3},
    "diabetes": {"data": "diabetes", "layers": (Dense(32, "tanh"),), "outputs": 1,
                 "regression": True},
    "topics": {"data": "topics", "layers": TEXT, "outputs": SYMBOLS},
    "docstrings": {"data": "docstrings", "layers": TEXT, "outputs": SYMBOLS},
    "names-rnn": {"data": "unicode names", "layers": (Embedding(SYMBOLS, 8), Recurrent(24)),
                  "outputs": SYMBOLS},
    "nmf-digits": {"data": "digit pixels", "layers": (Product(96, 64),), "outputs": 1,
                   "regression": True},
    "nmf-words": {"data": "counts", "layers": (Product(128, 96),), "outputs": 1,
                  "regression": True},
}  # fmt: skip
TRAINED_ON = (
    "digits-mlp",
    "digits-cnn",
    "topics",
    "nmf-digits",
)  # the shipped policy saw these data


def make_problem(name: str, optimizer: str) -> Network:
    """A problem of the table, every seed on all of its data with clean labels."""
    kind = Factorisation if name.startswith("nmf") else Network
    given = PROBLEMS[name]
    return kind(f"{name}, {optimizer}", optimizer=optimizer, momentum=0.9, least_data=1.0,
                most_noise=0.0, **given)  # fmt: skip


# The contestants.


def warmup(progress: float) -> float:
    """From a tenth to one over the first 5 %: an interval of rate zero would be one lost."""
    return min(0.1 + 0.9 * progress / 0.05, 1.0)


FIXED = {
    **SHAPES,
    "polynomial": lambda progress: (1.0 - progress) ** 2,
    "restarts": restarts,
    "wsd": lambda progress: warmup(progress) * min((1.0 - progress) / 0.2, 1.0),
    "inverse-sqrt": lambda progress: (1.0 + 20.0 * progress) ** -0.5,
    "constant, warmup": warmup,
    "cosine, warmup": lambda progress: warmup(progress) * cosine(max(progress - 0.05, 0.0) / 0.95),
}
RIVALS: dict[str, Any] = {
    **{name: lambda shape=shape: Fixed(shape) for name, shape in FIXED.items()},
    "plateau": Plateau,
}
OURS: dict[str, Any] = {
    "GreedyLR": AsShipped,
    "GreedyLR, horizon": lambda: AsShipped(observation.DECISIONS),
    "LearnedLR": lambda: Learned(load_policy("default", "numpy").act),
}
CONTESTANTS = {**OURS, **RIVALS}


# The runs.


def train(problem: Problem, multiples: np.ndarray, seeds: int, seed: int) -> np.ndarray:
    """Trains all contestants from the same weights, seed by seed, with the same batches.

    Args:
        problem: What on.
        multiples: [contestants, rates], of the usual rate.
        seeds: How many.
        seed: Of the first.

    Returns:
        Log losses [losses, moments, contestants, rates, seeds] float64.
    """
    cells = multiples.size
    runs = start(problem, tf.constant([seed, 0]), seeds)
    runs = runs._replace(
        state=tf.nest.map_structure(lambda x: tf.repeat(x, cells, axis=0), runs.state),
        movement=tf.repeat(runs.movement, cells, axis=0),
    )
    first = [problem.validation_loss(runs.state).numpy(), problem.training_loss(runs.state).numpy()]
    owner = np.tile(np.repeat(np.arange(len(multiples)), multiples.shape[1]), seeds)
    controller = SideBySide([make() for make in CONTESTANTS.values()], owner)
    found: list[np.ndarray] = []

    def watch(intervals: int, runs: Any) -> None:
        if intervals * 100 // observation.DECISIONS in MOMENTS:
            losses = [problem.validation_loss(runs.state), problem.training_loss(runs.state)]
            found.append([bounded(a.numpy(), b) for a, b in zip(losses, first, strict=True)])

    rates = problem.usual_rate(runs.state).numpy() * np.tile(multiples.ravel(), seeds)
    rollout(problem, runs, rates.astype(np.float32), controller, watch=watch)
    logs = np.log(np.maximum(np.array(found, np.float64), 1e-12))  # [moments, losses, P]
    return np.moveaxis(logs.reshape(len(MOMENTS), 2, seeds, *multiples.shape), (1, 2), (0, -1))


def study(
    problems: Sequence[str],
    optimizers: Sequence[str],
    seeds: int,
    report: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Runs everything; returns the tuned rates and the log losses of each problem."""
    names = list(CONTESTANTS)
    logs, tuned, begin = {}, {}, time.perf_counter()
    pairs = [(p, o) for p in problems for o in optimizers]
    tuning_seeds = max(2 * seeds // 5, 1)  # with five: as many runs as are measured below
    for count, (name, optimizer) in enumerate(pairs, start=1):
        problem = make_problem(name, optimizer)
        grid = np.tile(np.array(GRID), (len(names), 1))
        final = train(problem, grid, tuning_seeds, seed=1)[0, -1].mean(axis=-1)
        best = np.array(GRID)[final.argmin(axis=1)]
        given = np.tile(np.array(RATES), (len(names), 1))
        logs[problem.name] = train(problem, np.column_stack([given, best]), seeds, seed=0)
        tuned[problem.name] = dict(zip(names, best.tolist(), strict=True))
        spent = time.perf_counter() - begin
        left = spent / count * (len(pairs) - count)
        report(f"{problem.name}: {spent:.0f} s spent, about {left:.0f} s left")
    return {"logs": logs, "tuned_rates": tuned, "seconds": time.perf_counter() - begin}
