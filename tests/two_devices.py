"""A training spread over two devices, for test_greedy_optimizer.py: prints its rates as JSON."""

import json
import os

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"

import contextlib

import keras
from given_losses import LOSSES, fit, greedy, make_model
from helpers import Probe


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
        model = make_model(greedy())
    probe = Probe()
    fit(model, LOSSES, [probe])
    weight = float(model.get_weights()[0][0, 0])
    print(json.dumps({"devices": devices, "rates": probe.batches, "weight": weight}))


if __name__ == "__main__":
    main()
