"""Inner training steps a second in the agent's environment, against Keras and the machine's peak.

    python tests/benchmarks/environment_speed.py [--rounds 5] [--json PATH]

All training families side by side, as `train-agent` runs them; each family alone; and one of them,
a dense layer of 32 on images of digits, against the same network under `fit` and `train_on_batch`.
The share of the peak is that of a family's matrix products, at the largest rate all cores of this
machine multiply large matrices at; a family alone is on one core, and only the families side by
side keep all of them busy. The share is small: a product here is of 16 x 64 by 64 x 32 or less,
one for each of 96 runs, some microseconds' work. Compiled by XLA such products alone run at a tenth
to four fifths of a core's peak; they are about half of a step, and the rest are short elementwise
loops over weights and activations. More runs at once are quicker: what an interval begins with is
shared by them.
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
from machine import machine
from turns import quartiles

from keras_greedylr.observation import DECISIONS
from keras_greedylr_agents.environment import ScheduleEnvironment
from keras_greedylr_agents.problems import data
from keras_greedylr_agents.problems.base import advance, start
from keras_greedylr_agents.problems.families import select
from keras_greedylr_agents.problems.networks import Network
from keras_greedylr_agents.train import Config, use_threads

RUNS = Config().runs
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


def operations(problem, runs):
    """Floating-point operations of the matrix products in one step of so many runs."""
    state = problem.sample(tf.constant([0, 0]), runs)
    x, y = problem.batches(state, tf.constant([0, 0]))

    def gradients(params, x, y):
        with tf.GradientTape() as tape:
            tape.watch(params)
            loss = tf.reduce_sum(problem._loss(params, x, y))
        return tape.gradient(loss, params)

    graph = tf.function(gradients).get_concrete_function(state.params, x[0], y[0]).graph
    products = [op for op in graph.get_operations() if op.type.startswith("BatchMatMul")]
    lengths = [op.inputs[0].shape[-2 if op.get_attr("adj_x") else -1] for op in products]
    sizes = [op.outputs[0].shape.num_elements() for op in products]
    return 2 * sum(size * length for size, length in zip(sizes, lengths, strict=True))


def side_by_side(rounds):
    """Quartiles of the environment's steps a second: episodes of all families without a policy."""
    environment = ScheduleEnvironment(select(Config().problems), RUNS, seed=0)
    begun, _ = environment.begin(tf.constant([0, 0]))
    nothing = tf.zeros([environment.batch_size])

    @tf.function(autograph=False)
    def play(episode):
        """An episode is one graph, as in training, where each interval awaits its action."""
        return tf.while_loop(
            lambda i, _: i < DECISIONS - 1,
            lambda i, now: (i + 1, environment.play(now, nothing)[0]),
            (0, episode),
            parallel_iterations=1,
        )[1].score

    def episode():
        began = time.perf_counter()
        play(begun).numpy()
        return time.perf_counter() - began

    episode()  # traces
    steps = sum(problem.steps for problem in environment.problems) * environment.each
    return quartiles([steps * (DECISIONS - 1) / episode() for _ in range(rounds)])


def measure(rounds):
    """Returns all figures, steps a second."""
    families = select(Config().problems)
    each = RUNS // len(families)
    peak_rate = peak(rounds)
    by_family, multiplied, busy = {}, 0.0, 0.0
    for problem in families:
        seconds = median_seconds(interval(problem, each), rounds)[1]
        by_family[problem.name] = {"steps_a_second": problem.steps * each / seconds}
        if isinstance(problem, Network):
            done = problem.steps * operations(problem, each)
            by_family[problem.name]["share_of_peak"] = done / seconds / peak_rate
            multiplied, busy = multiplied + done, busy + seconds
    (problem,) = select(COMPARED)
    taken = median_seconds(interval(problem, RUNS), rounds)
    at_once = operations(problem, RUNS)
    return {
        "runs": RUNS,
        "peak_operations_a_second": peak_rate,
        "all families": {
            "steps_a_second": side_by_side(rounds),
            "share_of_peak": multiplied / busy / peak_rate,  # of the networks
            "by_family": by_family,
        },
        COMPARED: {
            "steps_a_second": [problem.steps * RUNS / s for s in reversed(taken)],
            **keras_steps(problem, rounds),
            "share_of_peak": problem.steps * at_once / taken[1] / peak_rate,
        },
    }


def main():
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="where the figures are written, too")
    arguments = parser.parse_args()
    use_threads()
    result = {"machine": machine(), **measure(arguments.rounds)}
    ours, compared = result["all families"], result[COMPARED]
    low, rate, high = ours["steps_a_second"]
    print(
        f"all families, {RUNS} runs in all: {rate:,.0f} ({low:,.0f} to {high:,.0f}) inner steps a"
    )
    print(f"second; each alone, the networks at {ours['share_of_peak']:.1%} of the peak:")
    for name, found in ours["by_family"].items():
        share = f"{found['share_of_peak']:8.1%}" if "share_of_peak" in found else ""
        print(f"  {name:18} {found['steps_a_second']:12,.0f}{share}")
    rate = compared["steps_a_second"][1]
    print(f"{COMPARED}, {RUNS} runs: {rate:,.0f}, {compared['share_of_peak']:.1%} of the peak")
    for name in ("fit", "train_on_batch"):
        keras_rate = statistics.median(compared[name])
        print(f"  {name:18} {keras_rate:12,.0f}   the environment makes {rate / keras_rate:,.0f} x")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
