"""What GreedyOptimizer costs a step, against the optimizer it has inside, alone.

    python tests/benchmarks/optimizer_cost.py [--sets 4] [--seconds 4] [--xla] [--json PATH]

The contestants train in turns of some steps, as `turns.py` says. The networks: one dense layer,
where a step costs next to nothing, and those whose step takes at least as long as `STEPS` says,
found by doubling their width. The backend is that of `KERAS_BACKEND`, the device the one it takes.
On TensorFlow Keras compiles the step by XLA only where there is a GPU; `--xla` has it do so
everywhere.
"""

import argparse
import functools
import json
from pathlib import Path

import keras
from callback_cost import data_for, one_layer
from machine import gpu, machine
from turns import compare, show, step_time

from keras_greedylr import GreedyRule
from keras_greedylr.optimizers import GreedyOptimizer

STEPS, GPU_STEPS = (1.5, 10.0), (0.1, 1.0, 10.0)  # milliseconds

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
    """What `turns.compare` is to be given for a contestant."""
    keras.utils.set_random_seed(0)
    model, loss, batch_size, shape, classes = make_model()
    optimizer = wrap(keras.optimizers.SGD(1e-4))
    model.compile(optimizer=optimizer, loss=loss, jit_compile=jit_compile)
    return model, [], batch_size, lambda n: data_for(n, batch_size, shape, classes)


def sized(steps, jit_compile):
    """The networks, by doubling the width, whose step takes at least so many milliseconds each.

    On a GPU that much longer than a narrow one's, for which only the host has work.
    """

    def milliseconds_of(width):
        plain = functools.partial(compiled, network(width), CONTESTANTS[BASE], jit_compile)
        return 1e3 * step_time(plain)

    host = milliseconds_of(16) if gpu() else 0.0
    width, taken, widths = 16, 0.0, []
    for milliseconds in steps:
        while taken < host + milliseconds and width < 2**14:
            width *= 2
            taken = milliseconds_of(width)
        widths.append(width)
    return [(f"two layers of {width}", network(width)) for width in dict.fromkeys(widths)]


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
    networks = [("one layer", one_layer), *sized(GPU_STEPS if gpu() else STEPS, jit_compile)]
    for name, make_model in networks:
        contestants = {
            contestant: functools.partial(compiled, make_model, wrap, jit_compile)
            for contestant, wrap in CONTESTANTS.items()
        }
        result["models"][name], _ = compare(contestants, arguments.sets, arguments.seconds)
        show(name, result["models"][name])
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
