"""What one decision costs: the shipped policy through its SavedModel, through its weights, and
the rule; and, where transformers is installed, a step of its GreedyLR.

    python tests/benchmarks/policy_call.py [--rounds 30] [--json PATH]

`LearnedLR` decides 40 times in a training, the rule once a value. What is not installed is left
out and said so.
"""

import argparse
import importlib.util
import json
import time
from pathlib import Path

import numpy as np
from machine import machine
from turns import quartiles

from keras_greedylr import GreedyRule, observation
from keras_greedylr.policy import load_policy

CALLS = 200
PARAMETERS = {"factor": 0.9, "patience": 10, "min_lr": 1e-6, "max_lr": 1.0}


def policy(runtime):
    """Returns a function that calls the policy once, and the seconds it took to load."""
    begun = time.perf_counter()
    loaded = load_policy("default", runtime=runtime)
    seen = np.zeros((1, len(observation.NAMES)), np.float32)
    loaded(seen)
    return (lambda: loaded(seen)), time.perf_counter() - begun


def rule():
    """Returns a function that gives the rule one value."""
    made = GreedyRule(**PARAMETERS, window=10)
    losses = iter(np.random.default_rng(0).uniform(1.0, 2.0, 10**6).tolist())
    state = made.init(0.01)

    def step():
        nonlocal state
        state = made.update(state, next(losses))

    return step


def hugging_face():
    """The same for the scheduler of transformers."""
    import torch
    from transformers.optimization import GreedyLR

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.01)
    scheduler = GreedyLR(optimizer, **PARAMETERS, smooth=True, window_size=10)
    losses = iter(np.random.default_rng(0).uniform(1.0, 2.0, 10**6).tolist())
    return lambda: scheduler.step(next(losses))


def has(*modules):
    """Whether the modules are installed."""
    return all(importlib.util.find_spec(module) for module in modules)


def measure(rounds):
    """Times each, in turn; returns microseconds a call and what was left out."""
    calls, loading, left_out = {"GreedyRule.update": rule()}, {}, []
    for name, runtime, needs in (
        ("policy, SavedModel", "tensorflow", ("tensorflow",)),
        ("policy, weights", "numpy", ()),
    ):
        if has(*needs):
            calls[name], loading[name] = policy(runtime)
        else:
            left_out.append(f"{name}: no TensorFlow here")
    if not has("torch", "transformers"):
        left_out.append("Hugging Face GreedyLR: transformers is not installed here")
    else:
        try:
            calls["Hugging Face GreedyLR.step"] = hugging_face()
        except ImportError as error:
            left_out.append(f"Hugging Face GreedyLR: {error}")
    times = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            begun = time.perf_counter()
            for _ in range(CALLS):
                call()
            times[name].append(1e6 * (time.perf_counter() - begun) / CALLS)
    figures = {name: quartiles(values) for name, values in times.items()}
    return {"microseconds_a_call": figures, "seconds_to_load": loading, "left_out": left_out}


def main():
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--json", type=Path, help="where the figures are written, too")
    arguments = parser.parse_args()
    result = {"machine": machine(), **measure(arguments.rounds)}
    for name, (low, middle, high) in result["microseconds_a_call"].items():
        loaded = result["seconds_to_load"].get(name)
        loading = "" if loaded is None else f", loaded in {loaded:.2f} s"
        print(f"{name:28} {middle:8.1f} us ({low:.1f} to {high:.1f}){loading}")
    print(*result["left_out"], sep="\n")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
