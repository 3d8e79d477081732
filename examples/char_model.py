"""A small character model of English, its rate set by each schedule from one that is off.

    python examples/char_model.py

trains the same network on the help texts that come with Python (`pydoc_data`), from a rate ten
times too low, under a constant rate, Keras' CosineDecay, GreedyLR and LearnedLR; prints a table of
validation losses in nats per character and a few words the best one writes. Three minutes on two
cores; `--help` lists what can be changed.
"""

from __future__ import annotations

import argparse
import math
import time
from pydoc_data.topics import topics

import keras
import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from keras_greedylr import GreedyLR, LearnedLR

CONTEXT = 24  # characters the model sees
LEAST = 20 * CONTEXT  # characters of which the last tenth, which validates, holds some contexts


def load_text(characters: int) -> tuple[np.ndarray, list[str]]:
    """Returns the first characters of Python's help texts as indices, and the alphabet."""
    text = "\n".join(topics[name] for name in sorted(topics))[:characters]
    alphabet = sorted(set(text))
    return np.array([alphabet.index(character) for character in text], np.int32), alphabet


def windows(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns every third context [n, CONTEXT] and the character that follows it [n]."""
    starts = np.arange(0, len(codes) - CONTEXT, 3)
    return codes[starts[:, None] + np.arange(CONTEXT)], codes[starts + CONTEXT]


def build_model(size: int, learning_rate: float | keras.optimizers.schedules.LearningRateSchedule):
    """A network over the last `CONTEXT` characters; the same initial weights each time."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((CONTEXT,), dtype="int32"),
            keras.layers.Embedding(size, 16),
            keras.layers.Conv1D(64, 5, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(128, activation="relu"),
            keras.layers.Dense(size),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(learning_rate), loss=loss)
    return model


def write(model: keras.Model, codes: np.ndarray, alphabet: list[str], length: int = 120) -> str:
    """Returns what the model writes after `codes`, drawn with a fixed seed."""
    rng = np.random.default_rng(0)
    written = list(codes[-CONTEXT:])
    for _ in range(length):
        logits = model.predict_on_batch(np.array([written[-CONTEXT:]], np.int32))[0]
        odds = np.exp((logits - logits.max()) / 0.7)
        written.append(int(rng.choice(len(alphabet), p=odds / odds.sum())))
    return "".join(alphabet[code] for code in written[CONTEXT:])


def positive(text: str) -> int:
    """Returns an option's integer, of at least 1."""
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"must be an integer >= 1, got {text}")
    return number


def main() -> None:
    """Trains under each schedule and tells how they did."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--learning-rate", type=float, default=1e-4, help="where all start")
    parser.add_argument("--epochs", type=positive, default=10, help="passes over the text")
    parser.add_argument("--characters", type=int, default=150_000, help="length of the text")
    options = parser.parse_args()
    if options.characters < LEAST:
        parser.error(f"--characters must be at least {LEAST}, got {options.characters}")

    codes, alphabet = load_text(options.characters)
    cut = int(0.9 * len(codes))
    (x, y), validation = windows(codes[:cut]), windows(codes[cut:])
    batch_size = 64
    steps = options.epochs * math.ceil(len(x) / batch_size)
    rate = options.learning_rate
    contestants = {
        "constant": (rate, []),
        "CosineDecay": (keras.optimizers.schedules.CosineDecay(rate, steps), []),
        "GreedyLR": (rate, [GreedyLR(monitor="val_loss")]),
        "LearnedLR": (rate, [LearnedLR()]),
    }
    console = Console()
    table = Table(
        "schedule", "first", "best", "last", "seconds", title="validation loss, nats/char"
    )
    best = (math.inf, "", "")
    for name, (learning_rate, callbacks) in track(contestants.items(), "training", console=console):
        model = build_model(len(alphabet), learning_rate)
        began = time.perf_counter()
        history = model.fit(
            x, y, batch_size=batch_size, epochs=options.epochs, validation_data=validation,
            callbacks=callbacks, verbose=0,
        )  # fmt: skip
        losses = history.history["val_loss"]
        seconds = time.perf_counter() - began
        table.add_row(
            name, f"{losses[0]:.3f}", f"{min(losses):.3f}", f"{losses[-1]:.3f}", f"{seconds:.0f}"
        )
        if losses[-1] < best[0]:
            best = (losses[-1], name, write(model, codes[:cut], alphabet))
    console.print(table)
    console.print(f"What the network trained under {best[1]} writes:", highlight=False)
    console.print(best[2], markup=False, highlight=False)


if __name__ == "__main__":
    main()
