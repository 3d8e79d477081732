"""Layers of many networks at once: every weight leads with [P], every input is [P, B, ...].

A layer is frozen and holds no weights: `init` makes them, `apply` takes them. Inputs [1, B, ...]
are the same for all networks.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Protocol

import tensorflow as tf

Params = list[tf.Tensor]

ACTIVATIONS = {"linear": tf.identity, "relu": tf.nn.relu, "tanh": tf.tanh}


class Layer(Protocol):
    """What a network is made of."""

    def init(self, seed: tf.Tensor, runs: int, shape: tuple) -> tuple[Params, tuple]:
        """Returns weights for inputs of `shape` (without [P, B]), and the outputs' shape."""

    def apply(self, params: Params, x: tf.Tensor) -> tf.Tensor:
        """Returns the outputs [P, B, ...]."""


@dataclass(frozen=True)
class Dense:
    """A fully connected layer; flattens what comes in."""

    units: int
    activation: str = "linear"

    def init(self, seed: tf.Tensor, runs: int, shape: tuple) -> tuple[Params, tuple]:
        """Glorot's uniform kernel, as Keras has it, and a zero bias."""
        width = _size(shape)
        return [
            _glorot(seed, (runs, width, self.units)),
            tf.zeros((runs, self.units)),
        ], (self.units,)

    def apply(self, params: Params, x: tf.Tensor) -> tf.Tensor:
        """Returns [P, B, units]."""
        kernel, bias = params
        x = tf.reshape(x, (*x.shape[:2], _size(x.shape[2:])))
        return ACTIVATIONS[self.activation](_multiply(x, kernel) + bias[:, None])


@dataclass(frozen=True)
class Convolution:
    """A 3 x 3 convolution without padding, ReLU, and the mean over 2 x 2 neighbours."""

    filters: int

    def init(self, seed: tf.Tensor, runs: int, shape: tuple) -> tuple[Params, tuple]:
        """A kernel [P, 9 * channels, filters] and a zero bias."""
        height, width, channels = shape
        kernel = _glorot(seed, (runs, 9 * channels, self.filters))
        return [kernel, tf.zeros((runs, self.filters))], (
            (height - 2) // 2,
            (width - 2) // 2,
            self.filters,
        )

    def apply(self, params: Params, x: tf.Tensor) -> tf.Tensor:
        """As one matrix product: the nine shifts of the image are its rows.

        The many positions come last all the way, the four that are averaged side by side: loops
        over filters or neighbours are too short for vector instructions.
        """
        kernel, bias = params
        inputs, batch, height, width, channels = x.shape
        h, w = (height - 2) // 2, (width - 2) // 2
        x = tf.transpose(x, (0, 4, 1, 2, 3))

        def positions(i: int, j: int) -> tf.Tensor:
            every_other = x[..., i : i + 2 * h : 2, j : j + 2 * w : 2]
            return tf.reshape(every_other, (inputs, channels, batch * h * w))

        shifts = [
            positions(i + k, j + m)
            for i, j in itertools.product(range(3), repeat=2)
            for k, m in itertools.product(range(2), repeat=2)
        ]
        rows = tf.concat([tf.concat(shifts[i : i + 4], axis=2) for i in range(0, 36, 4)], axis=1)
        y = tf.matmul(tf.transpose(kernel, (0, 2, 1)), rows)
        y = tf.nn.relu(y + bias[:, :, None])
        y = tf.reduce_mean(tf.reshape(y, (*y.shape[:2], 4, -1)), axis=2)
        y = tf.reshape(y, (-1, self.filters, batch, h, w))
        return tf.transpose(y, (0, 2, 3, 4, 1))


@dataclass(frozen=True)
class Embedding:
    """Characters (numbers in float32) to vectors: [P, B, n] becomes [P, B, n, size]."""

    symbols: int
    size: int

    def init(self, seed: tf.Tensor, runs: int, shape: tuple) -> tuple[Params, tuple]:
        """A table [P, symbols, size]."""
        table = tf.random.stateless_normal((runs, self.symbols, self.size), seed) * 0.3
        return [table], (*shape, self.size)

    def apply(self, params: Params, x: tf.Tensor) -> tf.Tensor:
        """As a product with one-hot rows: a scatter-add would be slower for so few symbols."""
        (table,) = params
        return _each(tf.one_hot(tf.cast(x, tf.int32), self.symbols), table)


@dataclass(frozen=True)
class Recurrent:
    """A plain recurrent layer over [P, B, n, size]; returns its last state."""

    units: int

    def init(self, seed: tf.Tensor, runs: int, shape: tuple) -> tuple[Params, tuple]:
        """Kernels for the input and for the state, and a zero bias."""
        seeds = tf.random.experimental.stateless_split(seed, 2)
        return [
            _glorot(seeds[0], (runs, shape[-1], self.units)),
            _glorot(seeds[1], (runs, self.units, self.units)),
            tf.zeros((runs, self.units)),
        ], (self.units,)

    def apply(self, params: Params, x: tf.Tensor) -> tf.Tensor:
        """Unrolled: the sequences are a few characters long."""
        kernel, recurrent, bias = params
        state = tf.zeros((*x.shape[:2], self.units))
        for i in range(x.shape[2]):
            fed = tf.matmul(x[:, :, i], kernel) + tf.matmul(state, recurrent)
            state = tf.tanh(fed + bias[:, None])
        return state


@dataclass(frozen=True)
class Project:
    """One and the same linear layer for each of a sequence: [P, B, n, size] to [P, B, n, units]."""

    units: int

    def init(self, seed: tf.Tensor, runs: int, shape: tuple) -> tuple[Params, tuple]:
        """A kernel and a zero bias."""
        kernel = _glorot(seed, (runs, shape[-1], self.units))
        return [kernel, tf.zeros((runs, self.units))], (*shape[:-1], self.units)

    def apply(self, params: Params, x: tf.Tensor) -> tf.Tensor:
        """Returns [P, B, n, units]."""
        kernel, bias = params
        return _each(x, kernel) + bias[:, None, None]


@dataclass(frozen=True)
class Residual:
    """x + two dense layers of x, ReLU between them; for vectors or each of a sequence."""

    units: int

    def init(self, seed: tf.Tensor, runs: int, shape: tuple) -> tuple[Params, tuple]:
        """Kernels there and back, with zero biases."""
        seeds, width = tf.random.experimental.stateless_split(seed, 2), shape[-1]
        return [
            _glorot(seeds[0], (runs, width, self.units)),
            tf.zeros((runs, 1, self.units)),
            _glorot(seeds[1], (runs, self.units, width)),
            tf.zeros((runs, 1, width)),
        ], shape

    def apply(self, params: Params, x: tf.Tensor) -> tf.Tensor:
        """Returns the same shape."""
        there, bias, back, bias_back = params
        rows = tf.reshape(_normal(x), (x.shape[0], -1, x.shape[-1]))
        y = tf.matmul(tf.nn.relu(tf.matmul(rows, there) + bias), back) + bias_back
        return x + tf.reshape(y, x.shape)


@dataclass(frozen=True)
class Attention:
    """x + what each of a sequence gathers from all of it, [P, B, n, size]."""

    heads: int

    def init(self, seed: tf.Tensor, runs: int, shape: tuple) -> tuple[Params, tuple]:
        """Kernels for queries, keys, values and what comes out."""
        seeds, width = tf.random.experimental.stateless_split(seed, 4), shape[-1]
        return [_glorot(part, (runs, width, width)) for part in tf.unstack(seeds)], shape

    def apply(self, params: Params, x: tf.Tensor) -> tf.Tensor:
        """Scaled dot products, softmax; no mask."""
        runs, batch, length, width = x.shape
        size = width // self.heads

        def parts(kernel: tf.Tensor) -> tf.Tensor:
            return tf.reshape(_each(_normal(x), kernel), (runs, batch, length, self.heads, size))

        queries, keys, values = (parts(kernel) for kernel in params[:3])
        # sums of products: a matrix product for each of so many small matrices would be slower
        scores = tf.reduce_sum(queries[:, :, :, None] * keys[:, :, None], axis=-1) * size**-0.5
        weights = tf.nn.softmax(scores, axis=3)[..., None]  # [P, B, n, n, heads, 1]
        y = tf.reduce_sum(weights * values[:, :, None], axis=3)
        return x + _each(tf.reshape(y, x.shape), params[3])


def init_network(
    layers: tuple[Layer, ...], seed: tf.Tensor, runs: int, shape: tuple
) -> list[Params]:
    """Returns the weights of each layer."""
    params = []
    for layer, part in zip(
        layers, tf.unstack(tf.random.experimental.stateless_split(seed, len(layers))), strict=True
    ):
        weights, shape = layer.init(part, runs, shape)
        params.append(weights)
    return params


def apply_network(layers: tuple[Layer, ...], params: list[Params], x: tf.Tensor) -> tf.Tensor:
    """Returns the last layer's outputs [P, B, ...]."""
    for layer, weights in zip(layers, params, strict=True):
        x = layer.apply(weights, x)
    return x


def _each(x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """The product of each of [P, B, n, size] and a kernel [P, size, units]."""
    inputs, batch, length, size = x.shape
    y = _multiply(tf.reshape(x, (inputs, batch * length, size)), kernel)
    return tf.reshape(y, (kernel.shape[0], batch, length, kernel.shape[2]))


def _multiply(x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """The products of [P, B, n] and [P, n, units]; of shared inputs, all as a single one."""
    return tf.einsum("bn,pnu->pbu", x[0], kernel) if x.shape[0] == 1 else tf.matmul(x, kernel)


def _normal(x: tf.Tensor) -> tf.Tensor:
    return x * tf.math.rsqrt(tf.reduce_mean(x * x, axis=-1, keepdims=True) + 1e-6)


def _glorot(seed: tf.Tensor, shape: tuple[int, int, int]) -> tf.Tensor:
    limit = (6.0 / (shape[1] + shape[2])) ** 0.5
    return tf.random.stateless_uniform(shape, seed, -limit, limit)


def _size(shape: tuple) -> int:
    size = 1
    for length in shape:
        size *= int(length)
    return size
