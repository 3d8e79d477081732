"""What GreedyOptimizer costs a step, against the optimizer it has inside, alone.

    python tests/benchmarks/optimizer_cost.py [--sets 4] [--seconds 4] [--xla] [--json PATH]

Each optimizer needs a model compiled for it, and two models compiled alike differ by some per
cent. So several sets of models are compiled, and each set has a second plain model in it: its
ratio says what the figures can tell. Each model of a set is in a `fit` of its own, all at once,
but they train in turns of a few steps, so that what else the machine does falls on all of them. A
round is one turn of each; ratios are taken within a round. The networks: one dense layer, where a
step costs next to nothing, and those whose step takes at least as long as `STEPS` says, found by
doubling their width. The backend is that of `KERAS_BACKEND`, the device the one it takes. On
TensorFlow Keras compiles the step by XLA only where there is a GPU; `--xla` has it do so
everywhere.
"""

import argparse
import functools
import json
import random
import threading
import time
from pathlib import Path

import keras
import numpy as np
from callback_cost import (
    contestant,
    data_for,
    gpu,
    machine,
    median_interval,
    one_layer,
    quartiles,
)

from keras_greedylr import GreedyRule
from keras_greedylr.optimizers import GreedyOptimizer

STEPS, GPU_STEPS = (1.5, 10.0), (0.1, 1.0, 10.0)  # milliseconds
TURN, EPOCH = 0.01, 2.0  # seconds they last, about
LEAST = 3  # rounds

BASE = "plain"
CONTESTANTS = {
    BASE: lambda inner: inner,
    "plain, compiled anew": lambda inner: inner,
    "GreedyOptimizer": lambda inner: GreedyOptimizer(inner, GreedyRule(patience=10, window=10)),
    "every part of the rule": lambda inner: GreedyOptimizer(
        inner,
        GreedyRule(patience=5, window=50, cooldown=5, warmup=5, reset_after=3, horizon=10**6),
    ),
}


def network(width):
    """Returns what makes two dense layers of a width, on batches that keep a GPU busy."""
    batch_size = max(256, width // 4)

    def make():
        layers = [keras.layers.Dense(width, "relu"), keras.layers.Dense(width, "relu")]
        model = keras.Sequential([keras.Input((64,)), *layers, keras.layers.Dense(1)])
        return model, "mse", batch_size, (64,), None

    return make


def compiled(make_model, wrap, jit_compile):
    """A model, with what `fit` is to be given but data, and what makes data for so many steps."""
    keras.utils.set_random_seed(0)
    model, loss, batch_size, shape, classes = make_model()
    optimizer = wrap(keras.optimizers.SGD(1e-4))
    model.compile(optimizer=optimizer, loss=loss, jit_compile=jit_compile)
    return model, batch_size, lambda steps: data_for(steps, batch_size, shape, classes)


def step_time(make_model, jit_compile):
    """Seconds that a step of the plain model takes in `fit`."""
    model, batch_size, data = compiled(make_model, CONTESTANTS[BASE], jit_compile)
    return contestant(model, data(100), batch_size, list)() / 1e6


def sized(steps, jit_compile):
    """The networks, by doubling the width, whose step takes at least so many milliseconds each.

    On a GPU that much longer than a narrow one's, for which only the host has work.
    """
    host = 1e3 * step_time(network(16), jit_compile) if gpu() else 0.0
    width, taken, widths = 16, 0.0, []
    for milliseconds in steps:
        while taken < host + milliseconds and width < 2**14:
            width *= 2
            taken = 1e3 * step_time(network(width), jit_compile)
        widths.append(width)
    return [(f"two layers of {width}", network(width)) for width in dict.fromkeys(widths)]


class Relay:
    """Who of several trains: one at a time, each its turn of so many steps, for some seconds."""

    def __init__(self, names, steps, seconds):
        self.names = names
        self.steps = steps
        self.turns = {name: [] for name in names}  # the seconds that a step took in each
        self.over = False
        self._seconds = seconds
        self._ready = {name: threading.Semaphore(0) for name in names}
        self._failed = None

    def run(self, fits):
        """Runs the functions, which call `fit` with a `Turn`, each in a thread."""
        threads = [threading.Thread(target=self._guard, args=(fits[name],)) for name in self.names]
        for thread in threads:
            thread.start()
        self._end = time.monotonic() + self._seconds
        self._ready[self.names[0]].release()
        for thread in threads:
            thread.join()
        if self._failed:
            raise self._failed

    def _guard(self, fit):
        try:
            fit()
        except Exception as error:
            self._failed = self._failed or error
            self.over = True
            for ready in self._ready.values():
                ready.release()

    def wait(self, name):
        """Waits for a turn. It is over for all in the same round, after some."""
        self._ready[name].acquire()
        some = len(self.turns[name]) > LEAST
        if name == self.names[0] and some and time.monotonic() > self._end:
            self.over = True

    def hand_over(self, name):
        """Ends a turn."""
        self._ready[self.names[(self.names.index(name) + 1) % len(self.names)]].release()


class Turn(keras.callbacks.Callback):
    """Trains in the turns of a relay. An epoch's end falls into a turn and is not counted."""

    def __init__(self, relay, name):
        super().__init__()
        self.relay = relay
        self.name = name

    def on_train_begin(self, logs=None):
        """Waits for the first turn."""
        self.relay.wait(self.name)
        self._model.stop_training = self.relay.over  # another has failed

    def on_train_batch_begin(self, batch, logs=None):
        """Hands over after the steps of a turn."""
        if batch % self.relay.steps:
            return
        if batch > 0:
            wait_for_device(self._model)
            taken = time.perf_counter() - self.begun
            self.relay.turns[self.name].append(taken / self.relay.steps)
            self.relay.hand_over(self.name)
            self.relay.wait(self.name)
            self._model.stop_training = self.relay.over
        self.begun = time.perf_counter()

    def on_train_end(self, logs=None):
        """Lets the next one see that it is over."""
        self.relay.hand_over(self.name)


def wait_for_device(model):
    """Until the steps that were begun are done."""
    if keras.backend.backend() == "jax":
        import jax

        jax.block_until_ready(model._jax_state)
    elif keras.backend.backend() == "torch":
        import torch

        if torch.cuda.is_available():
            torch.cuda.synchronize()
    elif gpu():
        import tensorflow as tf

        tf.test.experimental.sync_devices()


def measure(make_model, sets, seconds, jit_compile):
    """Trains sets of models for so long each; returns what a step of each took."""
    step = step_time(make_model, jit_compile)
    turn, epoch = int(np.clip(TURN / step, 2, 40)), int(np.clip(EPOCH / step, 20, 401))
    rounds = []  # for each set, what the contestants took
    for number in range(sets):
        names = list(CONTESTANTS)
        random.Random(number).shuffle(names)
        relay, fits = Relay(names, turn, seconds), {}
        for name in names:
            model, batch_size, data = compiled(make_model, CONTESTANTS[name], jit_compile)
            model.fit(*data(2), batch_size=batch_size, verbose=0)  # traces and compiles
            fits[name] = functools.partial(
                model.fit,
                *data(epoch),
                batch_size=batch_size,
                epochs=10**6,
                verbose=0,
                callbacks=[Turn(relay, name)],
            )
        relay.run(fits)
        # The first turn has begun what an epoch begins with.
        rounds.append({name: np.array(turns[1:]) for name, turns in relay.turns.items()})
    return {
        "steps_in_a_turn": turn,
        "rounds": [len(times[BASE]) for times in rounds],
        "contestants": {
            name: {
                "microseconds_a_step": quartiles(
                    1e6 * np.concatenate([times[name] for times in rounds])
                ),
                "ratio": median_interval(np.concatenate(ratios)),
                "ratio_of_each_set": [float(np.median(ratio)) for ratio in ratios],
            }
            for name in CONTESTANTS
            for ratios in [[times[name] / times[BASE] for times in rounds]]
        },
    }


def main():
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", type=int, default=4, help="of models, for each network")
    parser.add_argument("--seconds", type=float, default=4.0, help="that each set is trained")
    parser.add_argument("--xla", action="store_true", help="compile the step by XLA")
    parser.add_argument("--json", type=Path, help="where the figures are written, too")
    arguments = parser.parse_args()

    result = {"machine": machine(), "models": {}}
    print(", ".join(f"{key} {value}" for key, value in result["machine"].items()))
    jit_compile = True if arguments.xla else "auto"
    models = [("one layer", one_layer), *sized(GPU_STEPS if gpu() else STEPS, jit_compile)]
    for name, make_model in models:
        measured = measure(make_model, arguments.sets, arguments.seconds, jit_compile)
        result["models"][name] = measured
        rounds = ", ".join(map(str, measured["rounds"]))
        print(f"\n{name}, {arguments.sets} sets of models, {rounds} rounds, turns of", end=" ")
        print(f"{measured['steps_in_a_turn']} steps. Median (quartiles); ratio in a round, median")
        print("[95 % interval], and of each set.")
        for contestant_name, figures in measured["contestants"].items():
            low, middle, high = figures["microseconds_a_step"]
            ratio_low, ratio, ratio_high = figures["ratio"]
            sets = " ".join(f"{ratio:.3f}" for ratio in figures["ratio_of_each_set"])
            print(
                f"  {contestant_name:22} {middle:8.1f} us ({low:.1f} to {high:.1f})"
                f"   x {ratio:.3f} [{ratio_low:.3f}, {ratio_high:.3f}]   {sets}"
            )
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
