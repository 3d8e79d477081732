"""Layers of many networks at once: every weight leads with [P], every input is [P, B, ...].

A layer is frozen and holds no weights: `init` makes them, `apply` takes them. Inputs [1, B, ...],
where a layer takes them, are the same for all networks.
"""

from __future__ import annotations

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
        return ACTIVATIONS[self.activation](tf.matmul(x, kernel) + bias[:, None])


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
        """As one matrix product: the nine shifts of the image are its columns."""
        kernel, bias = params
        inputs, batch, height, width, _ = x.shape
        h, w = height - 2, width - 2
        shifts = [x[:, :, i : i + h, j : j + w] for i in range(3) for j in range(3)]
        columns = tf.reshape(tf.concat(shifts, axis=-1), (inputs, batch * h * w, kernel.shape[1]))
        y = tf.nn.relu(tf.matmul(columns, kernel) + bias[:, None])
        y = tf.reshape(y, (kernel.shape[0], batch, h // 2, 2, w // 2, 2, self.filters))
        return tf.reduce_mean(y, axis=(3, 5))


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
        runs, batch, count = x.shape
        one_hot = tf.one_hot(tf.cast(x, tf.int32), self.symbols)
        rows = tf.reshape(one_hot, (runs, batch * count, self.symbols))
        return tf.reshape(tf.matmul(rows, table), (runs, batch, count, self.size))


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
    y = tf.matmul(tf.reshape(x, (inputs, batch * length, size)), kernel)
    return tf.reshape(y, (kernel.shape[0], batch, length, kernel.shape[2]))


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
