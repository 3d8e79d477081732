"""The two callbacks side by side on the same network, from rates over four decades.

    python examples/learned_digits.py

trains a small network on scikit-learn's digits under GreedyLR, LearnedLR and, to compare, a
constant rate and Keras' CosineDecay, prints the validation losses, and saves a picture of how each
moved the rate. One minute on two cores; `--help` lists what can be changed.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import keras
import matplotlib
import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from keras_greedylr import GreedyLR, LearnedLR

matplotlib.use("Agg")
from matplotlib import pyplot as plt

USUAL_RATE = 0.05  # for SGD with momentum on this network
SCHEDULES = ("constant", "CosineDecay", "GreedyLR", "LearnedLR")


class RecordRate(keras.callbacks.Callback):
    """Keeps the rate of each epoch, whoever sets it."""

    def __init__(self) -> None:
        super().__init__()
        self.rates: list[float] = []

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Reads the rate."""
        rate = keras.ops.convert_to_tensor(self.model.optimizer.learning_rate)
        self.rates.append(float(keras.ops.convert_to_numpy(rate)))


def train(schedule: str, rate: float, data: tuple, epochs: int) -> tuple[float, list[float]]:
    """Returns the last validation loss and the rate at each epoch's start."""
    x, x_val, y, y_val = data
    steps = epochs * math.ceil(len(x) / 32)
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((64,)), keras.layers.Dense(48, "relu"), keras.layers.Dense(10)]
    )
    decay = keras.optimizers.schedules.CosineDecay(rate, steps)
    model.compile(
        keras.optimizers.SGD(decay if schedule == "CosineDecay" else rate, momentum=0.9),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    drive = {"GreedyLR": [GreedyLR(monitor="val_loss")], "LearnedLR": [LearnedLR()]}
    record = RecordRate()
    history = model.fit(
        x, y, batch_size=32, epochs=epochs, validation_data=(x_val, y_val), verbose=0,
        callbacks=[*drive.get(schedule, []), record],
    )  # fmt: skip
    return history.history["val_loss"][-1], record.rates


def positive(text: str) -> int:
    """Returns an option's integer, of at least 1."""
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"must be an integer >= 1, got {text}")
    return number


def main() -> None:
    """Trains under each schedule from each rate; prints a table, saves a picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=positive, default=20, help="of each training")
    parser.add_argument(
        "--rates", type=float, nargs="+", default=[0.01, 0.1, 1.0, 10.0, 100.0],
        help=f"initial rates, as multiples of the usual one, {USUAL_RATE:g}",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, default=Path("out/learned_digits.png"), help="picture")
    options = parser.parse_args()

    images, labels = load_digits(return_X_y=True)
    data = train_test_split(
        (images / 16.0).astype(np.float32), labels, test_size=0.25, random_state=0
    )
    rates = [USUAL_RATE * factor for factor in options.rates]
    table = Table("schedule", *(f"from {rate:g}" for rate in rates), title="last validation loss")
    figure, axes = plt.subplots(1, len(SCHEDULES), figsize=(14, 3.6), sharey=True)
    with Progress() as progress:
        task = progress.add_task("training", total=len(SCHEDULES) * len(rates))
        for axis, schedule in zip(axes, SCHEDULES, strict=True):
            losses = []
            for rate in rates:
                loss, path = train(schedule, rate, data, options.epochs)
                losses.append(f"{loss:.3f}")
                axis.plot(np.arange(len(path)), path, label=f"from {rate:g}")
                progress.advance(task)
            table.add_row(schedule, *losses)
            axis.set(title=schedule, xlabel="epoch", yscale="log")
            axis.grid(alpha=0.3)
    axes[0].set_ylabel("learning rate")
    axes[-1].legend(fontsize="small")
    figure.tight_layout()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.out, dpi=150)
    Console().print(table)
    print(f"Picture: {options.out}")


if __name__ == "__main__":
    main()
