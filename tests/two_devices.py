"""Trainings spread over two devices, for test_greedy_optimizer.py: prints what they did as JSON."""

import json
import os

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
os.environ["JAX_PLATFORMS"] = "cpu"  # where there is a GPU, too

import contextlib

import helpers
import keras
import numpy as np
from given_losses import LOSSES, fit, greedy, make_model

from keras_greedylr import GreedyRule


def spread():
    """The scope that trains on two devices, and how many there are."""
    if keras.backend.backend() == "jax":
        devices = keras.distribution.list_devices()
        keras.distribution.set_distribution(keras.distribution.DataParallel(devices=devices))
        return contextlib.nullcontext(), len(devices)
    import tensorflow as tf

    device = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(device, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    return strategy.scope(), strategy.num_replicas_in_sync


def main():
    """Trains and prints."""
    scope, devices = spread()
    with scope:
        model, plain = make_model(greedy()), helpers.linear()
        short = make_model(greedy(GreedyRule(patience=9)))
    probe, spy = helpers.Probe(), helpers.Spy(update_every=1, **helpers.EAGER)
    fit(model, LOSSES, [probe])
    weight = float(model.get_weights()[0][0, 0])
    helpers.fit(plain, [spy], samples=38, epochs=2)
    if keras.backend.backend() == "tensorflow":
        short.fit(np.ones((5, 1)), np.full((5, 1), 2.0), batch_size=2, verbose=0)
    state = short.optimizer.state
    shown = {"devices": devices, "rates": probe.batches, "weight": weight, "losses": spy.looked}
    shown["short"] = [state.metric, state.best, state.good, state.bad]
    print(json.dumps(shown))


if __name__ == "__main__":
    main()
