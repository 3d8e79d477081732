"""Small comparisons."""

import keras
import numpy as np

from keras_greedylr.compare import compare

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 3)).astype("float32")
Y = (X.sum(axis=1, keepdims=True) + 0.1 * RNG.normal(size=(60, 1))).astype("float32")
DATA = (X[:40], Y[:40], X[40:], Y[40:])


def small(rate=0.05, run_eagerly=True):
    """Order of batches, dropout and weights all show in its losses; eager, for nothing repeats."""
    layers = [keras.layers.Dense(4), keras.layers.BatchNormalization(), keras.layers.Dropout(0.3)]
    model = keras.Sequential([keras.Input((3,)), *layers, keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(rate), loss="mse", run_eagerly=run_eagerly)
    return model


def quick(schedules, model=small, data=DATA, **arguments):
    return compare(model, data, schedules, epochs=1, batch_size=10, verbose=0, **arguments)


def bare(schedules, model=small, data=DATA[:2], **arguments):
    """Without validation: on TensorFlow most of so short a fit is the making of datasets."""
    return quick(schedules, model, data, **arguments)
