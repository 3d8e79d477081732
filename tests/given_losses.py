"""Trainings whose batch losses are given, to hold paths of rates against the rule's own."""

import functools

import keras
import numpy as np
import pytest
from keras import ops

from keras_greedylr import GreedyRule
from keras_greedylr.optimizers import GreedyOptimizer

BATCH = 2
START = 0.01
TOLERANCE = 1e-5  # relative, of rates in single precision

# Every part of the rule at work: both stages, a window, resets and the end of a horizon.
RULE = GreedyRule(
    factor=0.8,
    patience=1,
    min_delta=1e-3,
    window=3,
    cooldown=2,
    warmup=1,
    min_lr=2e-3,
    max_lr=5e-2,
    reset_after=2,
    horizon=60,
)


def wander(count, seed=0):
    """Losses that fall and rise for a while each; few bits, so that their means are exact."""
    rng = np.random.default_rng(seed)
    drift = np.repeat(rng.choice([-0.1, 0.1], count), 6)[:count]
    losses = 8.0 + np.cumsum(drift + 0.05 * rng.normal(size=count))
    return np.round(losses * 1024).astype("float32") / 1024


LOSSES = wander(66)


@keras.saving.register_keras_serializable(package="tests")
def given(y_true, y_pred):
    """The target, whatever the prediction; its derivative by the prediction is one."""
    y_pred = ops.cast(y_pred, y_true.dtype)
    return ops.squeeze(y_true + (y_pred - ops.stop_gradient(y_pred)), axis=-1)


def greedy(rule=RULE, inner=keras.optimizers.SGD, **arguments):
    """The rule on the device, around an optimizer with these arguments."""
    return GreedyOptimizer(inner(START, **arguments), rule)


def make_model(optimizer, make=keras.Model, **compiled):
    """One weight, which each step of plain SGD lowers by the rate."""
    inputs = keras.Input((1,))
    layer = keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")
    model = make(inputs, layer(inputs))
    model.compile(optimizer, loss=given, **compiled)
    return model


def fit(model, losses, callbacks=(), **arguments):
    """Trains a batch for each loss."""
    # Samples of a batch differ, so that one replica's part alone is not the batch's loss.
    y = (np.asarray(losses, "float32")[:, None] * np.array([0.5, 1.5], "float32")).reshape(-1, 1)
    model.fit(
        np.ones_like(y),
        y,
        batch_size=BATCH,
        shuffle=False,
        verbose=0,
        callbacks=list(callbacks),
        **arguments,
    )


def record_compiled(monkeypatch):
    """Has PyTorch record what it is to compile, no more: its compiler takes half a minute."""
    import torch

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))


def follow(rule, losses, rate=START):
    """The rule's states, before the first loss and after each."""
    states = [rule.init(rate)]
    for loss in losses:
        states.append(rule.update(states[-1], loss))
    return states


def rates(states):
    """Their rates, as an array."""
    return np.array([state.learning_rate for state in states])


def assert_same_state(ours, theirs):
    """Equal counters; values to single precision."""
    ours, theirs = ours._replace(event="none")._asdict(), theirs._replace(event="none")._asdict()
    for name, mine in ours.items():
        exact = mine is None or isinstance(mine, int | str)
        assert mine == (theirs[name] if exact else pytest.approx(theirs[name], rel=TOLERANCE)), name
