"""Twelve small losses without data of their own: four functions and eight networks.

Of the kinds that GreedyLR's robustness study trained: a quadratic, Rosenbrock's, Rastrigin's and
Ackley's function, and networks from a perceptron to a transformer that fit 32 examples at once.
Every loss is a function of flat weights [P, n], is never negative, and is exact: whatever noise
there is comes from outside.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import tensorflow as tf

from keras_greedylr_agents.problems.layers import (
    Attention,
    Convolution,
    Dense,
    Layer,
    Project,
    Recurrent,
    Residual,
    apply_network,
    init_network,
)

EXAMPLES = 32
UNFIT = 0.01  # part of the targets' variance that is noise, which no network can fit


class Landscape(Protocol):
    """A loss, of which each run has an instance."""

    sort: str  # "function" or "network"
    floor: float  # what the loss cannot fall below
    compiled: bool  # by XLA: where that pays, or TensorFlow's threads would decide rounding

    def sample(self, seed: tf.Tensor, runs: int) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns weights [P, n] to start at, and instances [P, ...]."""

    def loss(self, weights: tf.Tensor, instances: tf.Tensor) -> tf.Tensor:
        """Returns the losses [P]."""


@dataclass(frozen=True, eq=False)
class Function:
    """A formula that is lowest, and zero, at the origin; an instance is where that lies.

    Start and lowest point are drawn from the standard normal distribution.
    """

    formula: Callable[[tf.Tensor], tf.Tensor]  # [P, n] to [P]
    size: int
    sort: str = "function"
    floor: float = 0.0
    compiled: bool = False

    def sample(self, seed: tf.Tensor, runs: int) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns two random points for each run."""
        points = tf.random.stateless_normal((2, runs, self.size), seed)
        return points[0], points[1]

    def loss(self, weights: tf.Tensor, instances: tf.Tensor) -> tf.Tensor:
        """Returns the formula's values."""
        return self.formula(weights - instances)


@dataclass(frozen=True, eq=False)
class Regression:
    """Mean squared error of a network; an instance is its targets, smooth but for their noise.

    Each example stands for many of the same inputs whose targets have noise of their own: their
    mean squared error is the one for the smooth targets plus the noise's variance. Without it the
    networks, larger than the data, would be compared by how near to nothing their losses are.
    """

    layers: tuple[Layer, ...]
    shape: tuple[int, ...] = (16,)
    sort: str = "network"
    floor: float = UNFIT
    compiled: bool = False

    def sample(self, seed: tf.Tensor, runs: int) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns untrained networks and targets of unit variance."""
        seeds = tf.unstack(tf.random.experimental.stateless_split(seed, 3))
        params = init_network(self._network, seeds[0], runs, self.shape)
        x = tf.reshape(self._inputs, (EXAMPLES, -1))
        inner = tf.random.stateless_normal((runs, x.shape[1], 6), seeds[1]) * 2 * x.shape[1] ** -0.5
        outer = tf.random.stateless_normal((runs, 1, 6), seeds[2])
        y = tf.reduce_sum(tf.tanh(tf.matmul(x[None], inner)) * outer, axis=-1)
        y -= tf.reduce_mean(y, axis=1, keepdims=True)
        y /= tf.math.reduce_std(y, axis=1, keepdims=True)
        weights = [tf.reshape(w, (runs, -1)) for w in tf.nest.flatten(params)]
        return tf.concat(weights, axis=1), y

    def loss(self, weights: tf.Tensor, instances: tf.Tensor) -> tf.Tensor:
        """Returns the errors on all examples."""
        shapes = tf.nest.flatten(self._shapes)
        parts = tf.split(weights, [math.prod(shape) for shape in shapes], axis=1)
        flat = [tf.reshape(p, (-1, *s)) for p, s in zip(parts, shapes, strict=True)]
        params = tf.nest.pack_sequence_as(self._shapes, flat)
        out = apply_network(self._network, params, tf.constant(self._inputs)[None])
        return tf.reduce_mean(tf.square(out[..., 0] - instances), axis=1) + self.floor

    @property
    def _network(self) -> tuple[Layer, ...]:
        return (*self.layers, Dense(1))

    @functools.cached_property
    def _inputs(self) -> np.ndarray:
        x = np.random.default_rng(0).normal(size=(EXAMPLES, *self.shape))
        return x.astype(np.float32)

    @functools.cached_property
    def _shapes(self) -> list[list[tf.TensorShape]]:
        with tf.init_scope():
            params = init_network(self._network, tf.constant([0, 0]), 1, self.shape)
        return tf.nest.map_structure(lambda w: w.shape[1:], params)


def _quadratic(x: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(x * x * np.geomspace(1, 100, x.shape[1], dtype=np.float32), axis=1)


def _rosenbrock(x: tf.Tensor) -> tf.Tensor:
    x += 1.0
    left, right = x[:, :-1], x[:, 1:]
    return tf.reduce_sum(100.0 * (right - left**2) ** 2 + (1.0 - left) ** 2, axis=1)


def _rastrigin(x: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(x * x + 10.0 * (1.0 - tf.cos(2.0 * np.pi * x)), axis=1)


def _ackley(x: tf.Tensor) -> tf.Tensor:
    distance = tf.sqrt(tf.reduce_mean(x * x, axis=1) + 1e-12)
    waves = tf.exp(tf.reduce_mean(tf.cos(2.0 * np.pi * x), axis=1))
    return 20.0 * (1.0 - tf.exp(-0.2 * distance)) + np.e - waves


LANDSCAPES: dict[str, Landscape] = {
    "quadratic": Function(_quadratic, 15),
    "rosenbrock": Function(_rosenbrock, 5),
    "rastrigin": Function(_rastrigin, 10),
    "ackley": Function(_ackley, 8),
    "perceptron": Regression((Dense(16, "relu"), Dense(8, "relu"))),
    "deep": Regression((Dense(8, "tanh"),) * 4),
    "wide": Regression((Dense(32, "relu"),)),
    "residual": Regression((Dense(8), Residual(8), Residual(8)), compiled=True),
    "convolution": Regression((Convolution(6), Dense(8, "relu")), (6, 6, 1)),
    "recurrent": Regression((Recurrent(10),), (4, 4)),
    "attention": Regression((Project(6), Attention(1)), (4, 4), compiled=True),
    "transformer": Regression((Project(6), Attention(2), Residual(8)), (4, 4), compiled=True),
}
