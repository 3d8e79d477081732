"""What GreedyLR costs a batch, against `fit` with no callback and with Keras' own.

    python tests/benchmarks/callback_cost.py [--sets 8] [--seconds 6] [--verbose 0] [--json PATH]

The contestants train in turns of some steps, as `turns.py` says. Two networks: one dense layer,
where a batch costs next to nothing and a callback shows most, and a small convolutional network on
images of the size of digits. The backend is that of `KERAS_BACKEND`. With `--verbose 1` all have
Keras' progress bar.
"""

import argparse
import functools
import json
import math
from pathlib import Path

import keras
import numpy as np
from machine import machine
from turns import compare, show

from keras_greedylr import GreedyLR
from keras_greedylr.callbacks.batch_hooks import leave_out_calls, list_of

RATE = 1e-3
FACTOR = 0.999
EVERY = 100  # batches between two changes of the rate: 1 %

CONTESTANTS = {
    "no callback": list,
    "no callback, compiled anew": list,
    "empty batch hook": lambda: [EmptyHook()],  # what Keras itself takes for one
    "ReduceLROnPlateau": lambda: [keras.callbacks.ReduceLROnPlateau(monitor="loss")],
    "losses read, nothing done": lambda: [ReadLosses()],  # the least a look can take
    "unheard calls left out": lambda: [LeaveOut()],  # what GreedyLR does beside looking
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


class ReadLosses(keras.callbacks.Callback):
    """Keeps what batches report and reads it when GreedyLR does, without Keras' hooks."""

    def on_train_batch_begin(self, batch, logs=None):
        """Wraps the train function."""
        function = self._model.train_function
        if getattr(function, "reads", False):
            return
        kept = []

        def reading(*args):
            result = function(*args)
            kept.append(result[0] if keras.backend.backend() == "jax" else result)
            if len(kept) == EVERY:
                for report in kept:
                    float(keras.ops.convert_to_numpy(report["loss"]))
                kept.clear()
            return result

        reading.reads = True
        self._model.train_function = reading


class LeaveOut(keras.callbacks.Callback):
    """Has Keras make no calls at batches' ends that nobody hears."""

    def on_train_batch_begin(self, batch, logs=None):
        """At an epoch's first batch, as GreedyLR does."""
        if batch == 0:
            leave_out_calls(list_of(self))


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


def compiled(make_model, callbacks):
    """What `turns.compare` is to be given for a contestant."""
    keras.utils.set_random_seed(0)
    model, loss, batch_size, shape, classes = make_model()
    model.compile(optimizer=keras.optimizers.SGD(RATE), loss=loss)
    return model, callbacks(), batch_size, lambda n: data_for(n, batch_size, shape, classes)


def changes(optimizer):
    """In what share of the batches GreedyLR has changed the rate."""
    rate, steps = (
        float(keras.ops.convert_to_numpy(variable.value))
        for variable in (optimizer.learning_rate, optimizer.iterations)
    )
    return math.log(rate / RATE) / math.log(FACTOR) / steps


def main():
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", type=int, default=8, help="of models, for each network")
    parser.add_argument("--seconds", type=float, default=6.0, help="that each set is trained")
    parser.add_argument("--verbose", type=int, choices=(0, 1, 2), default=0, help="as in fit")
    parser.add_argument("--json", type=Path, help="where the figures are written, too")
    arguments = parser.parse_args()

    result = {"machine": machine(), "verbose": arguments.verbose, "models": {}}
    print(", ".join(f"{key} {value}" for key, value in result["machine"].items()))
    for make_model in (one_layer, small_cnn):
        name = make_model.__name__.replace("_", " ")
        contestants = {
            contestant: functools.partial(compiled, make_model, callbacks)
            for contestant, callbacks in CONTESTANTS.items()
        }
        measured, models = compare(
            contestants, arguments.sets, arguments.seconds, arguments.verbose
        )
        share = changes(models["GreedyLR every batch"].optimizer)
        result["models"][name] = {"share_of_batches_with_a_change": share, **measured}
        show(name, measured)
        print(f"  With GreedyLR on every batch the rate changed in {share:.1%} of them.")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
