"""Inner training steps a second in the agent's environment, against Keras and the machine's peak.

    python tests/benchmarks/environment_speed.py [--rounds 5] [--json PATH]

All training families with as many runs as `train-agent` gives them; and one of them, a dense
layer of 32 on images of digits, against the same network under `fit` and `train_on_batch`, and
its matrix products against the largest rate this machine multiplies large matrices at.
Needs TF-Agents, so Python 3.11.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import keras_greedylr_agents  # noqa: F401  before TensorFlow

# isort: split
import keras
import numpy as np
import tensorflow as tf
from callback_cost import machine, quartiles

from keras_greedylr.observation import DECISIONS
from keras_greedylr_agents.problems import data
from keras_greedylr_agents.problems.base import advance, start
from keras_greedylr_agents.problems.families import select

RUNS = 256
COMPARED = "digits-sgd"
HIDDEN, CLASSES = 32, 10


def interval(problem, runs):
    """Returns a function that trains an interval of so many runs and tells its seconds."""
    now = start(problem, tf.constant([0, 0]), runs)
    rates = problem.usual_rate(now.state)

    def timed():
        begun = time.perf_counter()
        _, report = advance(problem, now, rates, DECISIONS)
        report.losses.numpy()
        return time.perf_counter() - begun

    timed()  # traces and compiles
    return timed


def median_seconds(timed, rounds):
    """Its quartiles over the rounds."""
    return quartiles([timed() for _ in range(rounds)])


def keras_steps(problem, rounds, steps=400):
    """Steps a second of the compared network under `fit` and under `train_on_batch`."""
    x, y = data.load(problem.data)
    x, y = np.resize(x, (steps * problem.batch, *x.shape[1:])), np.resize(y, steps * problem.batch)
    layers = [keras.layers.Flatten(), keras.layers.Dense(HIDDEN, "relu")]
    model = keras.Sequential([keras.Input(x.shape[1:]), *layers, keras.layers.Dense(CLASSES)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.SGD(0.1), loss=loss)

    def fit():
        model.fit(x, y, batch_size=problem.batch, verbose=0)

    def on_batches():
        for step in range(steps):
            part = slice(step * problem.batch, (step + 1) * problem.batch)
            model.train_on_batch(x[part], y[part])

    rates = {}
    for name, train in (("fit", fit), ("train_on_batch", on_batches)):
        train()
        taken = []
        for _ in range(rounds):
            begun = time.perf_counter()
            train()
            taken.append(steps / (time.perf_counter() - begun))
        rates[name] = quartiles(taken)
    return rates


def peak(rounds, size=2_048):
    """Floating-point operations a second in a large float32 matrix product."""
    a = tf.random.stateless_uniform((size, size), [0, 0])
    multiply = tf.function(lambda: tf.reduce_sum(tf.matmul(a, a)))
    multiply().numpy()
    taken = []
    for _ in range(rounds):
        begun = time.perf_counter()
        multiply().numpy()
        taken.append(2 * size**3 / (time.perf_counter() - begun))
    return max(taken)


def operations(problem, inputs):
    """Floating-point operations of the matrix products in one step of the compared network."""
    first, second = inputs * HIDDEN, HIDDEN * CLASSES
    # Forward, the weights' gradients, and the gradient of what the second layer is given.
    return 2 * problem.batch * (2 * first + 3 * second)


def measure(rounds):
    """Returns all figures, steps a second."""
    families = select("nmf,networks")
    each = max(RUNS // len(families), 1)
    steps, seconds, by_family = 0, 0.0, {}
    for problem in families:
        taken = median_seconds(interval(problem, each), rounds)
        by_family[problem.name] = problem.steps * each / taken[1]
        steps, seconds = steps + problem.steps * each, seconds + taken[1]
    (problem,) = select(COMPARED)
    taken = median_seconds(interval(problem, RUNS), rounds)
    compared = problem.steps * RUNS / taken[1]
    inputs = int(np.prod(data.load(problem.data)[0].shape[1:]))
    peak_rate = peak(rounds)
    return {
        "runs": RUNS,
        "all families": {"steps_a_second": steps / seconds, "by_family": by_family},
        COMPARED: {
            "steps_a_second": [problem.steps * RUNS / s for s in reversed(taken)],
            **keras_steps(problem, rounds),
            "operations_a_step": operations(problem, inputs),
            "peak_operations_a_second": peak_rate,
            "share_of_peak": compared * operations(problem, inputs) / peak_rate,
        },
    }


def main():
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="where the figures are written, too")
    arguments = parser.parse_args()
    result = {"machine": machine(), **measure(arguments.rounds)}
    ours, compared = result["all families"], result[COMPARED]
    print(f"all families, {RUNS} runs in all: {ours['steps_a_second']:,.0f} inner steps a second")
    for name, rate in ours["by_family"].items():
        print(f"  {name:18} {rate:12,.0f}")
    rate = compared["steps_a_second"][1]
    print(f"{COMPARED}, {RUNS} runs: {rate:,.0f}, {compared['share_of_peak']:.1%} of the peak")
    for name in ("fit", "train_on_batch"):
        keras_rate = statistics.median(compared[name])
        print(f"  {name:18} {keras_rate:12,.0f}   the environment makes {rate / keras_rate:,.0f} x")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
