"""What GreedyLR costs a batch, against `fit` with no callback and with Keras' own.

    python tests/benchmarks/callback_cost.py [--steps 401] [--rounds 100] [--seconds S]
        [--json PATH]

All contestants train one model from the same weights, compiled and warmed up before:
two compiled alike differ by some per cent. A round runs one epoch with each in turn, beginning with
another one each time, so that what else the machine does falls on all of them;
ratios are taken within a round. Two
models: one dense layer, where a batch costs next to nothing and a callback shows
most, and a small convolutional network on images of the size of digits. The
backend is that of `KERAS_BACKEND`; there is no progress bar.
"""

import argparse
import json
import math
import os
import platform
import statistics
import time
from pathlib import Path

import keras
import numpy as np
from scipy import stats

from keras_greedylr import GreedyLR

RATE = 1e-3
FACTOR = 0.999
EVERY = 100  # batches between two changes of the rate: 1 %

BASE = "no callback"
CONTESTANTS = {
    BASE: list,
    "empty batch hook": lambda: [EmptyHook()],  # what Keras itself takes for one
    "ReduceLROnPlateau": lambda: [keras.callbacks.ReduceLROnPlateau(monitor="loss")],
    "GreedyLR every epoch": lambda: [GreedyLR(patience=0)],
    "GreedyLR every batch": lambda: [every_batch()],
}


def every_batch():
    """Nothing is ever an improvement: the rate is cut after every 100 batches."""
    return GreedyLR(
        update_every=1,
        factor=FACTOR,
        patience=EVERY - 1,
        min_delta=1e30,
        min_delta_mode="abs",
        min_lr=0.0,
    )


class EmptyHook(keras.callbacks.Callback):
    """Looks at each batch and does nothing."""

    def on_train_batch_end(self, batch, logs=None):
        """Nothing."""


class Clock(keras.callbacks.Callback):
    """Times an epoch from its first batch on; one stands first and one last."""

    def __init__(self, first=None):
        super().__init__()
        self.first = first
        self.begun = self.seconds = 0.0
        if first is None:
            self.on_train_batch_begin = self._start

    def _start(self, batch, logs=None):
        if batch == 0:
            self.begun = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        """Notes how long it took."""
        if self.first is not None:
            self.seconds = time.perf_counter() - self.first.begun


def one_layer():
    """A dense layer on ten features, batches of 32."""
    model = keras.Sequential([keras.Input((10,)), keras.layers.Dense(1)])
    return model, "mse", 32, (10,), None


def small_cnn():
    """Two convolutions on 8 x 8 images, batches of 64."""
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(16, 3, activation="relu"),
            keras.layers.Conv2D(32, 3, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(10),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return model, loss, 64, (8, 8, 1), 10


def data_for(steps, batch_size, shape, classes):
    """Random inputs, and targets or classes, for so many batches."""
    rng = np.random.default_rng(0)
    x = rng.random((steps * batch_size, *shape), dtype="float32")
    return x, rng.integers(0, classes, len(x)) if classes else x.sum(axis=1, keepdims=True)


def contestant(model, data, batch_size, make_callbacks):
    """Returns a function that trains one epoch and tells its microseconds a batch."""
    steps = len(data[0]) // batch_size
    first = Clock()
    last = Clock(first)
    callbacks = [first, *make_callbacks(), last]
    weights = model.get_weights()

    def epoch():
        model.set_weights(weights)
        model.optimizer.learning_rate = RATE
        model.fit(*data, batch_size=batch_size, verbose=0, callbacks=callbacks)
        rate = float(keras.ops.convert_to_numpy(model.optimizer.learning_rate.value))
        epoch.changes = round(math.log(rate / RATE) / math.log(FACTOR))
        return 1e6 * last.seconds / steps

    epoch()  # traces and compiles
    return epoch


def quartiles(values):
    """Lower quartile, median, upper quartile."""
    return statistics.quantiles(values, n=4, method="inclusive")


def median_interval(values):
    """Median and its 95 % bootstrap interval: what tells 2 % from the machine's noise."""
    interval = stats.bootstrap((values,), np.median, method="percentile", rng=0)
    low, high = interval.confidence_interval
    return float(low), float(np.median(values)), float(high)


def lowest_tenth(values):
    """What one round in ten stays below: where the machine did little else."""
    return statistics.quantiles(values, n=10, method="inclusive")[0]


def rounds_until(end, rounds, least=3):
    """Counts rounds; after `least` of them none begins later than `end` on the monotonic clock."""
    for number in range(rounds):
        if number >= least and time.monotonic() > end:
            return
        yield number


def measure(make_model, steps, rounds, seconds):
    """Runs the rounds; returns what each contestant took."""
    end = time.monotonic() + seconds
    keras.utils.set_random_seed(0)
    model, loss, batch_size, shape, classes = make_model()
    model.compile(optimizer=keras.optimizers.SGD(RATE), loss=loss)
    data = data_for(steps, batch_size, shape, classes)
    epochs = {name: contestant(model, data, batch_size, make) for name, make in CONTESTANTS.items()}
    names = list(epochs)
    times = {name: [] for name in names}
    for number in rounds_until(end, rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            times[name].append(epochs[name]())
    changes = epochs["GreedyLR every batch"].changes
    return {
        "rounds": len(times[BASE]),
        "share_of_batches_with_a_change": changes / steps,
        "contestants": {
            name: {
                "microseconds_a_batch": quartiles(times[name]),
                "ratio": median_interval(
                    [mine / base for mine, base in zip(times[name], times[BASE], strict=True)]
                ),
                "ratio_of_lowest_tenths": lowest_tenth(times[name]) / lowest_tenth(times[BASE]),
                "rounds": times[name],
            }
            for name in names
        },
    }


def processor():
    """The processor's name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":")[1].strip() for line in lines if "model name" in line), "unknown")


def gpu():
    """The name of the GPU that Keras trains on, or None."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.devices()[0].device_kind if jax.default_backend() == "gpu" else None
    if keras.backend.backend() == "torch":
        import torch

        return torch.cuda.get_device_name() if torch.cuda.is_available() else None
    import tensorflow as tf

    found = tf.config.list_physical_devices("GPU")
    return tf.config.experimental.get_device_details(found[0])["device_name"] if found else None


def machine():
    """Where this was measured and with what."""
    backend = keras.backend.backend()
    engine = __import__(backend)
    return {
        **({"gpu": name} if (name := gpu()) else {}),
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0,
        "load_before": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        "keras": keras.__version__,
        "backend": backend,
        backend: engine.__version__,
    }


def main():
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=401, help="batches an epoch")
    parser.add_argument("--rounds", type=int, default=100, help="epochs of each contestant")
    parser.add_argument(
        "--seconds", type=float, default=math.inf, help="begin no round after that, for each model"
    )
    parser.add_argument("--json", type=Path, help="where the figures are written, too")
    arguments = parser.parse_args()

    result = {"machine": machine(), "steps": arguments.steps, "models": {}}
    print(", ".join(f"{key} {value}" for key, value in result["machine"].items()))
    for make_model in (one_layer, small_cnn):
        name = make_model.__name__.replace("_", " ")
        measured = measure(make_model, arguments.steps, arguments.rounds, arguments.seconds)
        result["models"][name] = measured
        share = measured["share_of_batches_with_a_change"]
        print(f"\n{name}, {measured['rounds']} rounds of {arguments.steps} batches; every batch:")
        print(f"the rate changes in {share:.1%} of them. Median (quartiles); ratios in a round,")
        print("median [95 % interval]; and, where the machine is not idle, of the lowest tenths.")
        for contestant_name, figures in measured["contestants"].items():
            low, middle, high = figures["microseconds_a_batch"]
            ratio_low, ratio, ratio_high = figures["ratio"]
            print(
                f"  {contestant_name:22} {middle:8.1f} us ({low:.1f} to {high:.1f})"
                f"   x {ratio:.3f} [{ratio_low:.3f}, {ratio_high:.3f}]"
                f"   x {figures['ratio_of_lowest_tenths']:.3f}"
            )
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
