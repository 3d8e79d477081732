"""Four schedules from three initial rates: what each does to the rate, and what it brings.

    python examples/digits.py

A small CNN learns scikit-learn's bundled digits, from a rate that is too low, one that is right
and one that is too high. Every training begins with the same weights and sees the same batches in
the same order; every schedule has its defaults.

The rates were chosen by constant rates alone, a decade apart (`--sweep --seeds 2` repeats that):
right is the one with the lowest final validation loss, too low and too high are the nearest on
either side that end with more than ten times that loss.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from dataclasses import dataclass, field, fields
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow's greetings

import keras
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from keras_greedylr import GreedyLR, ScheduleLogger

BATCH_SIZE = 64
RATES = {"too low": 1e-4, "right": 0.01, "too high": 0.1}
LINES = {  # color (of Okabe and Ito, told apart by everyone) and width, the lowest line first
    "constant": ("#bbbbbb", 9),
    "ReduceLROnPlateau": ("#e69f00", 4.5),
    "CosineDecay": ("#0072b2", 2.5),
    "GreedyLR": ("#009e73", 3),
}
SCHEDULES = ("constant", "CosineDecay", "ReduceLROnPlateau", "GreedyLR")


@dataclass
class Config:
    """What can be chosen; `help` is what `--help` shows."""

    epochs: int = field(default=20, metadata={"help": "epochs of each training"})
    seeds: int = field(
        default=1,
        metadata={"help": "trainings of each kind: the table shows means, the picture the first"},
    )
    out: Path = field(
        default=Path("out/digits"), metadata={"help": "folder of the picture and the logs"}
    )
    sweep: bool = field(
        default=False,
        metadata={"help": "only constant rates, to see how the three were chosen"},
    )


@dataclass
class Run:
    """What one training left behind."""

    rates: list[float]  # [steps] the rate of each batch
    loss: list[float]  # [epochs] mean training loss
    val_loss: list[float]  # [epochs]
    val_accuracy: list[float]  # [epochs]
    steps_per_epoch: int
    seconds: float


# Data and network.


def load_data() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """1,347 digits to train on and 450 to validate with."""
    images, labels = load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8, 1).astype("float32") / 16
    x, x_val, y, y_val = train_test_split(
        images, labels, test_size=0.25, random_state=0, stratify=labels
    )
    return x, y, x_val, y_val


def build_model() -> keras.Model:
    """A small CNN."""
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(16, 3, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Conv2D(32, 3, activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Flatten(),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )


# One training.


class Trace(keras.callbacks.Callback):
    """Keeps the rate of each batch, and says how far training is."""

    def __init__(self, on_epoch) -> None:
        super().__init__()
        self.on_epoch = on_epoch
        self.rates: list[float] = []

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        """Reads the rate that the batch is trained with."""
        self.rates.append(float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)))

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Reports."""
        self.on_epoch(logs or {})


def train(data, schedule: str, rate: float, config: Config, seed: int, log_dir, on_epoch) -> Run:
    """Trains once, from the weights and with the batches that the seed stands for."""
    x, y, x_val, y_val = data
    steps = math.ceil(len(x) / BATCH_SIZE)
    keras.utils.set_random_seed(seed)
    model = build_model()
    learning_rate, callbacks = rate, []
    if schedule == "CosineDecay":
        learning_rate = keras.optimizers.schedules.CosineDecay(rate, config.epochs * steps)
    elif schedule == "ReduceLROnPlateau":
        callbacks = [keras.callbacks.ReduceLROnPlateau()]
    elif schedule == "GreedyLR":
        callbacks = [GreedyLR()]
    trace = Trace(on_epoch)
    callbacks += [trace]
    if log_dir is not None:
        callbacks += [ScheduleLogger(log_dir)]
    model.compile(
        optimizer=keras.optimizers.Adam(learning_rate),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
        # Compiling takes XLA longer than training on a CPU; on JAX there is no other way.
        jit_compile=keras.config.backend() == "jax",
    )
    began = time.perf_counter()
    history = model.fit(
        x,
        y,
        batch_size=BATCH_SIZE,
        epochs=config.epochs,
        validation_data=(x_val, y_val),
        validation_batch_size=len(x_val),
        callbacks=callbacks,
        verbose=0,
    ).history
    return Run(
        rates=trace.rates,
        loss=history["loss"],
        val_loss=history["val_loss"],
        val_accuracy=history["val_accuracy"],
        steps_per_epoch=steps,
        seconds=time.perf_counter() - began,
    )


def train_all(jobs: list, config: Config, console: Console) -> dict:
    """Trains for every (name of the rate, rate, schedule), and shows how far it is."""
    data = load_data()
    runs: dict = {}
    progress = Progress(
        TextColumn("[bold]{task.description:42}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("epochs"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[loss]}"),
        console=console,
    )
    with progress:
        total = len(jobs) * config.seeds * config.epochs
        bar = progress.add_task("", total=total, loss="")

        def on_epoch(logs: dict) -> None:
            progress.update(bar, advance=1, loss=f"val_loss {logs['val_loss']:.4f}")

        for name, rate, schedule in jobs:
            for seed in range(config.seeds):
                progress.update(bar, description=f"{name} ({rate:g}), {schedule}")
                log_dir = None
                if not config.sweep:
                    folder = schedule if config.seeds == 1 else f"{schedule}-seed-{seed}"
                    log_dir = config.out / "logs" / name.replace(" ", "_") / folder
                run = train(data, schedule, rate, config, seed, log_dir, on_epoch)
                runs.setdefault((name, schedule), []).append(run)
                if not console.is_terminal:  # a log shows no moving bar
                    progress.console.print(
                        f"{name} ({rate:g}), {schedule}: val_loss {run.val_loss[-1]:.4f}, "
                        f"{run.seconds:.1f} s"
                    )
    return runs


# What it shows.


def table_of(runs: dict, rates: dict[str, float]) -> Table:
    """The last epoch of each training; the lowest loss from each initial rate in bold."""
    table = Table(title="Digits, after the last epoch")
    table.add_column("initial rate", no_wrap=True)
    table.add_column("schedule", no_wrap=True)
    # With these nothing is cut in a window of 80 columns.
    widths = {"val. loss": 6, "val. accuracy": 8, "final rate": 7, "seconds": 7}
    for head, width in widths.items():
        table.add_column(head, justify="right", width=width)
    for name, rate in rates.items():
        rows = [(schedule, of) for (start, schedule), of in runs.items() if start == name]
        losses = [float(np.mean([run.val_loss[-1] for run in of])) for _, of in rows]
        for index, (schedule, of) in enumerate(rows):
            table.add_row(
                f"{name}, {rate:g}" if index == 0 else "",
                schedule,
                f"{losses[index]:.4f}",
                f"{np.mean([run.val_accuracy[-1] for run in of]):.3f}",
                f"{np.mean([run.rates[-1] for run in of]):.2g}",
                f"{np.mean([run.seconds for run in of]):.1f}",
                style="bold" if losses[index] == np.nanmin([*losses, np.inf]) else None,
                end_section=index == len(rows) - 1,
            )
    return table


def draw(runs: dict, path: Path) -> None:
    """Validation loss above, rate below; a column for each initial rate."""
    plt.rcParams.update({"font.size": 14, "axes.spines.top": False, "axes.spines.right": False})
    figure, axes = plt.subplots(
        2,
        len(RATES),
        figsize=(16, 9),
        sharex=True,
        sharey="row",
        squeeze=False,
        layout="constrained",
    )
    for column, (name, rate) in enumerate(RATES.items()):
        above, below = axes[:, column]
        above.set_title(f"{name.capitalize()}: initial rate {rate:g}", fontsize=18, pad=12)
        for schedule, (color, width) in LINES.items():
            run = runs[name, schedule][0]
            line = {"color": color, "linewidth": width, "label": schedule, "solid_capstyle": "butt"}
            steps = np.arange(1, len(run.val_loss) + 1) * run.steps_per_epoch
            above.plot(steps, run.val_loss, **line)
            below.plot(np.arange(len(run.rates)), run.rates, **line)
        for axis in (above, below):
            axis.set_yscale("log")
            axis.grid(color="0.9")
        below.set_xlabel("step")
    axes[0, 0].set_ylabel("validation loss")
    axes[1, 0].set_ylabel("learning rate")
    # Cosine ends at zero, which a log axis would follow for ever.
    used = [rate for (_, kind), of in runs.items() if kind != "CosineDecay" for rate in of[0].rates]
    axes[1, 0].set_ylim(min(used) / 10, max(used) * 3)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside upper center", ncols=len(labels), frameon=False, fontsize=17
    )
    figure.savefig(path, dpi=120)
    plt.close(figure)


def positive(text: str) -> int:
    """Returns an option's integer, of at least 1."""
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"must be an integer >= 1, got {text}")
    return number


def parse_arguments() -> Config:
    """The options, from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for option in fields(Config):
        kind = type(option.default) if option.name != "out" else Path
        how = {bool: {"action": "store_true"}, int: {"type": positive}}.get(kind, {"type": kind})
        parser.add_argument(
            f"--{option.name}", default=option.default, help=option.metadata["help"], **how
        )
    return Config(**vars(parser.parse_args()))


def main(config: Config) -> None:
    """Trains, prints the table, saves the picture."""
    console = Console()
    console.print(f"Keras {keras.__version__} on {keras.config.backend()}")
    if config.sweep:
        rates = {f"1e{k}": 10.0**k for k in range(-5, 1)}
        runs = train_all([(n, r, "constant") for n, r in rates.items()], config, console)
        console.print(table_of(runs, rates))
        return
    config.out.mkdir(parents=True, exist_ok=True)
    jobs = [(name, rate, schedule) for name, rate in RATES.items() for schedule in SCHEDULES]
    runs = train_all(jobs, config, console)
    console.print(table_of(runs, RATES))
    picture = config.out / "schedules.png"
    draw(runs, picture)
    console.print(f"The picture: {picture}")
    console.print(f"The logs:    tensorboard --logdir {config.out / 'logs'}")


if __name__ == "__main__":
    main(parse_arguments())
