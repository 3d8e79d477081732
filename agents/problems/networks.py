"""Small networks for vision, language and tables, under the optimizers people use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import tensorflow as tf

from keras_greedylr_agents.problems import data as datasets
from keras_greedylr_agents.problems import optimizers
from keras_greedylr_agents.problems.base import Problem
from keras_greedylr_agents.problems.layers import (
    Dense,
    Layer,
    Params,
    apply_network,
    init_network,
)

VALIDATION = 256  # examples at most the validation loss is taken over


class NetworkState(NamedTuple):
    """P networks on their way; slots are the optimizer's moving averages."""

    params: list[Params]
    slots: list[list[Params]]  # none, one, or Adam's two
    updates: tf.Tensor  # [P] float32, optimizer steps done
    momentum: tf.Tensor  # [P] of the heavy ball
    order: tf.Tensor  # [P, N] int32, each run's own shuffle of the training data
    size: tf.Tensor  # [P] float32, how many of them it may use
    targets: tf.Tensor  # [P, N] int32 or [P, N, k] float32, with each run's label noise
    validation_targets: tf.Tensor  # [P, V] or [P, V, k], clean
    noise: tf.Tensor  # [P], standard deviation of the usual noise on an entry of the gradient
    seen_noise: tf.Tensor  # [P], of that on the logarithm of a loss that is shown


@dataclass(frozen=True, eq=False)
class Network(Problem):
    """A family of networks that share architecture, data and optimizer.

    Its runs differ in initial weights, shuffle, how much data they have, noise, momentum and,
    with a teacher, in what is to be learned.

    Args:
        name: Unique among the families.
        data: Name of the data set, see `data.LOADERS`.
        layers: The network, without its last dense layer.
        optimizer: What takes the steps.
        batch: Examples in a batch.
        steps: Training steps in an interval.
        validate_every: Intervals between two validation losses.
        least_data: The smallest fraction of the training data a run may have.
        most_noise: The largest fraction of labels drawn at random; for regression, the largest
            standard deviation added to targets of unit variance.
        most_gradient_noise: On the gradient, of its first root mean square; a step's own may be
            several times that. Half of the runs have none.
        most_loss_noise: On the logarithms of the training losses that are shown, in the same runs.
        teacher: Layers of a random network that makes the targets, each run its own.
        outputs: Classes, or values of a regression.
        momentum: Of the heavy ball; drawn from 0.5 to 0.95 for each run if `None`.
        regression: Mean squared error in place of cross-entropy.
    """

    name: str
    data: str
    layers: tuple[Layer, ...]
    optimizer: Literal["sgd", "momentum", "adam", "adamw", "rmsprop"]
    outputs: int
    momentum: float | None = None
    batch: int = 16
    steps: int = 10
    validate_every: int = 4
    least_data: float = 0.1
    most_noise: float = 0.3
    most_gradient_noise: float = 0.0
    most_loss_noise: float = 0.0
    teacher: tuple[Layer, ...] = ()
    regression: bool = False

    @property
    def kind(self) -> str:
        """Task, architecture and optimizer."""
        task = "regression" if self.regression else "classification"
        noisy = ", noisy" if self._is_noisy else ""
        return f"{task}, {' '.join(map(repr, self._network))}, {self.optimizer}{noisy}"

    @property
    def _is_noisy(self) -> bool:
        return self.most_gradient_noise > 0.0 or self.most_loss_noise > 0.0

    @property
    def _network(self) -> tuple[Layer, ...]:
        return (*self.layers, Dense(self.outputs))

    def _split(self) -> tuple:
        """Training inputs and targets, validation inputs and targets."""
        x, y = datasets.load(self.data)
        held = min(VALIDATION, len(x) // 3)
        return x[held:], y[held:], x[:held], y[:held]

    def sample(self, seed: tf.Tensor, runs: int) -> NetworkState:
        """Returns untrained networks."""
        x, y, x_validation, y_validation = self._split()
        seeds = tf.unstack(tf.random.experimental.stateless_split(seed, 9))
        uniform = tf.random.stateless_uniform
        if self.teacher:
            made = self._teach(seeds[0], runs, tf.concat([x, x_validation], axis=0))
            targets, clean = made[:, : len(x)], made[:, len(x) :]
        else:
            targets = tf.repeat(tf.constant(y)[None], runs, axis=0)
            clean = tf.repeat(tf.constant(y_validation)[None], runs, axis=0)
        noise = uniform((runs, 1), seeds[1]) * self.most_noise
        if self.regression:
            deviation = tf.random.stateless_normal(targets.shape, seeds[2])
            targets += noise[..., None] * deviation
        else:
            wrong = uniform(targets.shape, seeds[3], maxval=self.outputs, dtype=tf.int32)
            targets = tf.where(uniform(targets.shape, seeds[2]) < noise, wrong, targets)
        params = init_network(self._network, seeds[4], runs, x.shape[1:])
        fraction = self.least_data ** uniform((runs,), seeds[5])  # log-uniform
        level = tf.nn.relu(uniform((runs,), seeds[8], -1.0, 1.0))
        state = NetworkState(
            params=params,
            slots=optimizers.init_slots(self.optimizer, params),
            updates=tf.zeros(runs),
            momentum=(
                1.0 - 0.5 * 0.1 ** uniform((runs,), seeds[6])
                if self.momentum is None
                else tf.fill([runs], self.momentum)
            ),
            order=tf.argsort(uniform((runs, len(x)), seeds[7]), axis=1),
            size=tf.maximum(tf.round(fraction * len(x)), float(min(self.batch, len(x)))),
            targets=targets,
            validation_targets=clean,
            noise=level * self.most_gradient_noise,
            seen_noise=level * self.most_loss_noise,
        )
        if not self._is_noisy:
            return state
        with tf.GradientTape() as tape:
            tape.watch(state.params)
            total = tf.reduce_sum(self.training_loss(state))
        gradient = tf.concat(tf.nest.flatten(_flat(tape.gradient(total, state.params))), axis=1)
        return state._replace(noise=state.noise * tf.sqrt(tf.reduce_mean(gradient**2, axis=1)))

    def _teach(self, seed: tf.Tensor, runs: int, x: tf.Tensor) -> tf.Tensor:
        """Each run's own random network's answers, [P, N] classes or [P, N, k] values."""
        network = (*self.teacher, Dense(self.outputs))
        params = init_network(network, seed, runs, x.shape[1:])
        made = apply_network(network, params, x[None])
        made -= tf.reduce_mean(made, axis=1, keepdims=True)
        made /= tf.math.reduce_std(made, axis=1, keepdims=True) + 1e-6
        return made if self.regression else tf.argmax(made, axis=-1, output_type=tf.int32)

    def usual_rate(self, state: NetworkState) -> tf.Tensor:
        """The optimizer's, whatever the network."""
        return tf.fill(tf.shape(state.size), optimizers.USUAL_RATES[self.optimizer])

    def batches(self, state: NetworkState, seed: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """Draws examples with replacement: inputs [steps, P, B, ...] and targets.

        Then noise, if there is any: on gradients [steps, 1, n] and on shown losses [steps, 1].

        One draw for all runs: each has examples in an order of its own, so that only runs which
        are alike meet the same ones, and what tells those apart is their rates.
        """
        runs, count = state.order.shape
        drawn = tf.random.stateless_uniform((self.steps, 1, self.batch), seed)
        offset = tf.range(runs)[None, :, None] * count
        position = tf.cast(drawn * state.size[None, :, None], tf.int32)
        row = tf.gather(tf.reshape(state.order, [-1]), position + offset)
        targets = tf.reshape(state.targets, (runs * count, *state.targets.shape[2:]))
        examples = tf.gather(self._split()[0], row), tf.gather(targets, row + offset)
        if not self._is_noisy:
            return examples
        seeds = tf.unstack(tf.random.experimental.stateless_split(seed, 3))
        weights = sum(w.shape[1] for w in tf.nest.flatten(_flat(state.params)))
        size = tf.exp(tf.random.stateless_normal((self.steps, 1, 1), seeds[0]))
        gradient = size * tf.random.stateless_normal((self.steps, 1, weights), seeds[1])
        return (*examples, gradient, tf.random.stateless_normal((self.steps, 1), seeds[2]))

    def train(
        self, state: NetworkState, batches: tuple[tf.Tensor, ...], rates: tf.Tensor
    ) -> tuple[NetworkState, tf.Tensor]:
        """Takes `steps` optimizer steps."""
        x, y, *noise = batches
        losses = tf.TensorArray(tf.float32, self.steps, element_shape=rates.shape)
        # flat, since a loop over a matrix's last axis would be too short for vector instructions
        learned = (_flat(state.params), _flat(state.slots), state.updates)

        def step(i: tf.Tensor, learned: tuple, losses: tf.TensorArray) -> tuple:
            params, slots, updates = learned
            with tf.GradientTape() as tape:
                tape.watch(params)
                loss = self._loss(_shaped(params, state.params), x[i], y[i])
                total = tf.reduce_sum(loss)  # one run's weights touch its own loss only
            gradients = tape.gradient(total, params)
            if noise:
                gradients = _pushed(gradients, noise[0][i] * state.noise[:, None])
                loss *= tf.exp(noise[1][i] * state.seen_noise)
            params, slots = optimizers.update(
                self.optimizer, params, slots, updates + 1, gradients, rates, state.momentum
            )
            return i + 1, (params, slots, updates + 1), losses.write(i, loss)

        _, learned, losses = tf.while_loop(
            lambda i, *_: i < self.steps,
            step,
            (0, learned, losses),
            maximum_iterations=self.steps,
        )
        params, slots, updates = learned
        state = state._replace(
            params=_shaped(params, state.params),
            slots=_shaped(slots, state.slots),
            updates=updates,
        )
        return state, losses.stack()

    def weights(self, state: NetworkState) -> tf.Tensor:
        """All of them, side by side."""
        return tf.concat(tf.nest.flatten(_flat(state.params)), axis=1)

    def training_loss(self, state: NetworkState) -> tf.Tensor:
        """Over up to `VALIDATION` of each run's own examples."""
        x = self._split()[0]
        position = tf.range(VALIDATION, dtype=tf.float32)[None] / VALIDATION * state.size[:, None]
        row = tf.gather(state.order, tf.cast(position, tf.int32), batch_dims=1)
        return self._loss(
            state.params, tf.gather(x, row), tf.gather(state.targets, row, batch_dims=1)
        )

    def validation_loss(self, state: NetworkState) -> tf.Tensor:
        """Over held-out examples with clean labels."""
        x = tf.constant(self._split()[2])
        return self._loss(state.params, x[None], state.validation_targets)

    def _loss(self, params: list[Params], x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        out = apply_network(self._network, params, x)
        if self.regression:
            return tf.reduce_mean(tf.square(out - y), axis=(1, 2))
        return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(y, out), axis=1)


def _pushed(gradients: Params, noise: tf.Tensor) -> Params:
    """Flat gradients and noise [P, n] on all of them, side by side."""
    parts = tf.nest.flatten(gradients)
    added = tf.split(noise, [part.shape[1] for part in parts], axis=1)
    together = [part + push for part, push in zip(parts, added, strict=True)]
    return tf.nest.pack_sequence_as(gradients, together)


def _flat(weights: Params) -> Params:
    return tf.nest.map_structure(lambda w: tf.reshape(w, (w.shape[0], -1)), weights)


def _shaped(flat: Params, like: Params) -> Params:
    return tf.nest.map_structure(lambda w, shaped: tf.reshape(w, shaped.shape), flat, like)
