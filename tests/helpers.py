"""Tiny models and data, the same on every backend."""

from __future__ import annotations

import keras
import numpy as np

from keras_greedylr import GreedyLR

NEVER = 10**6  # a patience nothing outlasts: the rate stays as it is
EAGER = {"factor": 0.5, "patience": 0, "window": 1}  # moves at every value


class Spy(GreedyLR):
    """Keeps the values that the rule was given."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.looked = []

    def _look(self, *values):
        self.looked.extend(float(value) for value in values)
        super()._look(*values)


class Probe(keras.callbacks.Callback):
    """Keeps the model's rate at the beginning of each batch and epoch."""

    def on_train_begin(self, logs=None):
        self.batches, self.epochs = [], []

    def on_train_batch_begin(self, batch, logs=None):
        self.batches.append(rate_of(self.model))

    def on_epoch_begin(self, epoch, logs=None):
        self.epochs.append(rate_of(self.model))


def rate_of(model):
    """The rate that the model's optimizer holds."""
    optimizer = model.optimizer
    return rate_in(getattr(optimizer, "inner_optimizer", optimizer))


def rate_in(optimizer):
    """The rate that an optimizer holds."""
    return float(keras.ops.convert_to_numpy(optimizer.learning_rate))


def states_of(rule, learning_rate, values):
    """The states of a rule after each value."""
    states = [rule.init(learning_rate)]
    for value in values:
        states.append(rule.update(states[-1], value))
    return states[1:]


def rates_of_rule(rule, learning_rate, values):
    """The rates of a rule before each value."""
    states = [rule.init(learning_rate), *states_of(rule, learning_rate, values)]
    return [state.learning_rate for state in states[:-1]]


def linear(rate=0.01, loss="mse", optimizer=None, **compiled):
    """One dense unit on three features, always from the same weights."""
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.set_weights([np.array([[0.3], [-0.2], [0.1]], "float32"), np.zeros(1, "float32")])
    model.compile(optimizer=optimizer or keras.optimizers.SGD(rate), loss=loss, **compiled)
    return model


def data(samples=40, seed=0):
    """Features and a noisy linear target."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(samples, 3)).astype("float32")
    y = x @ np.array([[1.0], [-2.0], [0.5]]) + 0.3 * rng.normal(size=(samples, 1))
    return x, y.astype("float32")


def fit(model, callbacks, samples=40, batch_size=8, epochs=1, **arguments):
    """Fits in the order of the data; returns what `history` holds."""
    x, y = data(samples)
    history = model.fit(
        x,
        y,
        batch_size=batch_size,
        epochs=epochs,
        shuffle=False,
        verbose=0,
        callbacks=callbacks,
        **arguments,
    )
    return history.history


def descend(optimizer, gradient, start, steps, after_step=lambda variables: None):
    """Returns what the weights, given as a list of arrays, are after each step."""
    variables = [keras.Variable(values, dtype="float64") for values in start]

    def read():
        return np.concatenate([keras.ops.convert_to_numpy(v.value).ravel() for v in variables])

    path = []
    for _ in range(steps):
        gradients = np.split(gradient(read()), np.cumsum([len(values) for values in start])[:-1])
        optimizer.apply([keras.ops.convert_to_tensor(g) for g in gradients], variables)
        path.append(read().copy())
        after_step(variables)
    return np.array(path)
