"""Whether callbacks' memory grows with the length of training.

    python tests/benchmarks/memory.py [--updates 10000000] [--json PATH]

Calls the hooks of a `fit` of so many batches, in epochs of 10,000, on a compiled model that is not
trained: 10 million updates take minutes so. Each training is a table of what is held on its way:
the objects that the callbacks hold, and of the whole process Python's memory blocks and the
megabytes the system counts (its caches fill in the beginning). GreedyLR looks at every batch and
keeps its state on disk, LearnedLR decides after every 100 batches, ScheduleLogger writes every
100th batch and each change of the rate; its file grows, the process must not.
"""

import argparse
import gc
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np

from keras_greedylr import GreedyLR, LearnedLR, ScheduleLogger

JAX = keras.backend.backend() == "jax"
BATCH = 8
EPOCH = 10_000  # batches
LOOKS = (1 / 1_000, 1 / 100, 1 / 10, 1 / 4, 1 / 2, 3 / 4, 1)  # parts of the training


def trainings(folder):
    """The callbacks of each training; what they write is in `folder`."""

    def rule():
        return GreedyLR(update_every=1, patience=50, state_path=Path(folder, "greedy.json"))

    return {
        "GreedyLR": lambda: [rule()],
        "GreedyLR, ScheduleLogger": lambda: [rule(), ScheduleLogger(folder, update_every=100)],
        "LearnedLR": lambda: [LearnedLR(decide_every=100, state_path=Path(folder, "policy.json"))],
    }


def drive(callbacks, epochs, batches, after_epoch=lambda done: None):
    """Calls the callbacks as a `fit` would, with made-up losses.

    Args:
        callbacks: Of one training.
        epochs: How many.
        batches: In an epoch.
        after_epoch: Called with the number of epochs done.
    """
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.01), loss="mse")
    model.train_on_batch(np.ones((BATCH, 3)), np.ones((BATCH, 1)))  # makes the metric
    (tracker,) = (metric for metric in model.metrics if metric.name == "loss")
    tracker.count = samples = SimpleNamespace(value=1.0)  # to assign a variable takes much longer
    params = {"epochs": epochs, "steps": batches, "verbose": 0}
    for callback in callbacks:
        callback.set_params(params)
        callback.set_model(model)
    losses = np.random.default_rng(0).uniform(0.5, 1.5, batches)
    means = (np.cumsum(losses) / np.arange(1, batches + 1)).tolist()  # what Keras reports

    def call(hook, *arguments):
        for callback in callbacks:
            getattr(callback, hook)(*arguments)

    call("on_train_begin")
    for epoch in range(epochs):
        # Arrays: TensorFlow keeps a tensor for each Python number it was ever handed.
        model.optimizer.iterations.assign(np.asarray(epoch * batches))
        call("on_epoch_begin", epoch)
        for batch, mean in enumerate(means):
            call("on_train_batch_begin", batch)
            samples.value = (batch + 1.0) * BATCH
            call("on_train_batch_end", batch, {"loss": mean})
            for callback in callbacks:
                if JAX and isinstance(callback, GreedyLR):  # it has no hook there
                    callback._ends.hear(batch, {"loss": mean})
        call("on_epoch_end", epoch, {"loss": mean})
        after_epoch(epoch + 1)
    call("on_train_end")


def objects(thing, seen=None):
    """Counts the objects that callbacks hold: those inside containers and objects of our own."""
    seen = {} if seen is None else seen
    if id(thing) not in seen:
        seen[id(thing)] = thing
        ours = type(thing).__module__.startswith("keras_greedylr")
        if ours or isinstance(thing, dict | list | tuple | set):
            # Not all referents: Python 3.13 gives none of a dictionary that is an object's `vars`.
            named = isinstance(thing, dict)
            for inner in (*thing, *thing.values()) if named else gc.get_referents(thing):
                if not isinstance(inner, type):
                    objects(inner, seen)
    return len(seen)


def process():
    """Python's memory blocks, and the process's megabytes where the system tells them."""
    gc.collect()
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return sys.getallocatedblocks(), None
    return sys.getallocatedblocks(), pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def measure(callbacks, epochs):
    """Returns what was held at some points, beginning at a thousandth of the training."""
    at = {max(round(part * epochs), 1) for part in LOOKS}
    rows = []

    def look(done):
        if done in at:
            blocks, megabytes = process()
            held = sum(objects(vars(callback)) for callback in callbacks)
            row = {"updates": done * EPOCH, "objects": held, "blocks": blocks}
            rows.append({**row, "megabytes": megabytes})

    drive(callbacks, epochs, EPOCH, look)
    return rows


def main():
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--updates", type=int, default=10_000_000)
    parser.add_argument("--json", type=Path, help="where the figures are written, too")
    arguments = parser.parse_args()
    epochs = max(arguments.updates // EPOCH, 1)
    result = {"updates": epochs * EPOCH, "backend": keras.backend.backend(), "trainings": {}}
    with tempfile.TemporaryDirectory() as folder:
        for name, make in trainings(folder).items():
            begun = time.perf_counter()
            rows = result["trainings"][name] = measure(make(), epochs)
            print(f"{name}, {time.perf_counter() - begun:.0f} s")
            for row in rows:
                megabytes = "" if row["megabytes"] is None else f"{row['megabytes']:9,.1f} MB"
                held = f"{row['objects']:6,} objects held, {row['blocks']:10,} blocks"
                print(f"  {row['updates']:12,} updates: {held}{megabytes}")
        result["written_megabytes"] = sum(
            path.stat().st_size / 2**20 for path in Path(folder).rglob("*") if path.is_file()
        )
    print(f"written to disk: {result['written_megabytes']:,.0f} MB")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
