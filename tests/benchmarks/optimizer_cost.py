"""What GreedyOptimizer costs a step, against the optimizer it has inside, alone.

    python tests/benchmarks/optimizer_cost.py [--pairs 4] [--rounds 25] [--seconds S] [--xla]
        [--json PATH]

Each optimizer needs a model compiled for it, and two models compiled alike differ by some per
cent. So several sets of models are compiled, each set in another order, and each set has a
second plain model in it: its ratio says what the figures can tell. A round trains one epoch of
each in turn; ratios are taken within a round. The models: one dense layer, where a step costs
next to nothing, and networks whose step takes about as long as `STEPS` says, found by doubling
their width. The backend is that of `KERAS_BACKEND`, the device the one it takes. On TensorFlow
Keras compiles the step by XLA only where there is a GPU; `--xla` has it do so everywhere.
"""

import argparse
import json
import math
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
    rounds_until,
)

from keras_greedylr import GreedyRule
from keras_greedylr.optimizers import GreedyOptimizer

STEPS, GPU_STEPS = (1.5, 10.0), (0.1, 1.0, 10.0)  # milliseconds
EPOCH = 0.2  # seconds an epoch lasts, about

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


def trained(make_model, wrap, steps, jit_compile="auto"):
    """A model compiled, warmed up, and ready to train epochs of so many steps."""
    keras.utils.set_random_seed(0)
    model, loss, batch_size, shape, classes = make_model()
    optimizer = wrap(keras.optimizers.SGD(1e-4))
    model.compile(optimizer=optimizer, loss=loss, jit_compile=jit_compile)
    return contestant(model, data_for(steps, batch_size, shape, classes), batch_size, list)


def sized(steps, jit_compile):
    """The networks, by doubling the width, whose step takes at least so many milliseconds each.

    On a GPU that much longer than the smallest model's, for which only the host has work.
    """
    networks, width, taken = [], 16, 0.0
    if gpu():
        host = trained(one_layer, CONTESTANTS[BASE], 100, jit_compile)() / 1e3
        steps = [host + milliseconds for milliseconds in steps]
    for milliseconds in steps:
        while taken < milliseconds and width < 2**14:
            width *= 2
            taken = trained(network(width), CONTESTANTS[BASE], 100, jit_compile)() / 1e3
        networks.append((f"two layers of {width}", network(width)))
    return networks


def measure(make_model, pairs, rounds, seconds, jit_compile):
    """Trains the rounds of each set of models; returns what a step of each took."""
    begun = time.monotonic()
    microseconds = trained(make_model, CONTESTANTS[BASE], 50, jit_compile)()
    steps = int(np.clip(EPOCH * 1e6 / microseconds, 8, 401))
    names = list(CONTESTANTS)
    sets = []  # for each, what the contestants took
    for number in range(pairs):
        order = names[number % len(names) :] + names[: number % len(names)]
        epochs = {
            name: trained(make_model, CONTESTANTS[name], steps, jit_compile) for name in order
        }
        times = {name: [] for name in names}
        for turn in rounds_until(begun + seconds * (number + 1) / pairs, rounds, least=2):
            for name in order[turn % len(order) :] + order[: turn % len(order)]:
                times[name].append(epochs[name]())
        sets.append({name: np.array(taken) for name, taken in times.items()})
    return {
        "steps": steps,
        "rounds": [len(times[BASE]) for times in sets],
        "contestants": {
            name: {
                "microseconds_a_step": quartiles(np.concatenate([times[name] for times in sets])),
                "ratio": median_interval(np.concatenate(ratios)),
                "ratio_of_each_set": [float(np.median(ratio)) for ratio in ratios],
            }
            for name in names
            for ratios in [[times[name] / times[BASE] for times in sets]]
        },
    }


def main():
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=4, help="sets of models that are compiled")
    parser.add_argument("--rounds", type=int, default=25, help="epochs of each model")
    parser.add_argument(
        "--seconds", type=float, default=math.inf, help="begin no round after that, for each model"
    )
    parser.add_argument("--xla", action="store_true", help="compile the step by XLA")
    parser.add_argument("--json", type=Path, help="where the figures are written, too")
    arguments = parser.parse_args()

    result = {"machine": machine(), "models": {}}
    print(", ".join(f"{key} {value}" for key, value in result["machine"].items()))
    jit_compile = True if arguments.xla else "auto"
    models = [("one layer", one_layer), *sized(GPU_STEPS if gpu() else STEPS, jit_compile)]
    for name, make_model in models:
        measured = measure(
            make_model, arguments.pairs, arguments.rounds, arguments.seconds, jit_compile
        )
        result["models"][name] = measured
        epochs = ", ".join(map(str, measured["rounds"]))
        print(f"\n{name}, {arguments.pairs} sets of models, {epochs} epochs of", end=" ")
        print(f"{measured['steps']} steps. Median (quartiles); ratio within a round, median")
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
