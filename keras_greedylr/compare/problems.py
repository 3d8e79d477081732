"""Problems that come with the package: small models on data that is bundled with scikit-learn
or Python, so that nothing is downloaded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np

VALIDATION = 0.25  # part of the data
CHARACTERS = "\n abcdefghijklmnopqrstuvwxyz.,-()"  # everything else is one more
CONTEXT = 8  # characters that the next is told from


class Problem(NamedTuple):
    """What `compare` needs to know."""

    build_model: Callable[[], keras.Model]
    load_data: Callable[[], dict[str, Any]]
    epochs: int
    batch_size: int


def get_problem(name: str) -> Problem:
    """Returns a problem by its name.

    Raises:
        ValueError: if there is none of that name.
    """
    if name not in PROBLEMS:
        raise ValueError(f"Problems are {list(PROBLEMS)}. Received: {name!r}")
    return PROBLEMS[name]


# Models.


def _compiled(layers: list[Any], optimizer: Any, loss: Any, **metrics: Any) -> keras.Model:
    model = keras.Sequential(layers)
    # Compiling takes XLA longer than training on a CPU; on JAX there is no other way.
    jit = keras.config.backend() == "jax"
    model.compile(optimizer, loss=loss, jit_compile=jit, **metrics)
    return model


def _classifier(layers: list[Any], optimizer: Any, classes: int) -> keras.Model:
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return _compiled([*layers, keras.layers.Dense(classes)], optimizer, loss, metrics=["accuracy"])


def digits_cnn() -> keras.Model:
    """A small CNN under Adam."""
    layers = [
        keras.Input((8, 8, 1)),
        keras.layers.Conv2D(16, 3, activation="relu"),
        keras.layers.BatchNormalization(),
        keras.layers.Conv2D(32, 3, activation="relu"),
        keras.layers.MaxPooling2D(),
        keras.layers.Flatten(),
    ]
    return _classifier(layers, keras.optimizers.Adam(1e-3), 10)


def digits_mlp() -> keras.Model:
    """Two layers under SGD with momentum."""
    layers = [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(64, "relu")]
    return _classifier(layers, keras.optimizers.SGD(0.01, momentum=0.9), 10)


def wine() -> keras.Model:
    """A small network under SGD."""
    layers = [keras.Input((13,)), keras.layers.Dense(16, "relu")]
    return _classifier(layers, keras.optimizers.SGD(0.01), 3)


def breast_cancer() -> keras.Model:
    """A small network under RMSprop."""
    layers = [keras.Input((30,)), keras.layers.Dense(32, "relu")]
    return _classifier(layers, keras.optimizers.RMSprop(1e-3), 2)


def diabetes() -> keras.Model:
    """A regression under AdamW."""
    layers = [keras.Input((10,)), keras.layers.Dense(32, "relu"), keras.layers.Dense(1)]
    return _compiled(layers, keras.optimizers.AdamW(1e-3), "mse")


def topics() -> keras.Model:
    """Tells the next character of Python's documentation, under Adam."""
    layers = [
        keras.Input((CONTEXT,), dtype="int32"),
        keras.layers.Embedding(len(CHARACTERS) + 1, 12),
        keras.layers.Flatten(),
        keras.layers.Dense(96, "relu"),
    ]
    return _classifier(layers, keras.optimizers.Adam(1e-3), len(CHARACTERS) + 1)


def digits_nmf() -> keras.Model:
    """A factorisation of the digits into ten parts: an image is a row of one factor."""
    layers = [
        keras.Input((), dtype="int32"),
        keras.layers.Embedding(1797, 10, "uniform", embeddings_constraint="non_neg"),
        keras.layers.Dense(64, use_bias=False, kernel_constraint="non_neg"),
    ]
    return _compiled(layers, keras.optimizers.Adam(1e-2), "mse")


# Data.


def _split(x: np.ndarray, y: np.ndarray) -> dict[str, Any]:
    """Arguments of `fit`; the validation data goes through in one batch."""
    order = np.random.default_rng(0).permutation(len(x))
    held, kept = np.split(order, [int(VALIDATION * len(x))])
    validation = (x[held], y[held])
    return {
        "x": x[kept],
        "y": y[kept],
        "validation_data": validation,
        "validation_batch_size": len(held),
    }


def _digits() -> dict[str, Any]:
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return _split(images.reshape(-1, 8, 8, 1).astype("float32") / 16, labels.astype("int32"))


def _table(name: str) -> dict[str, Any]:
    from sklearn import datasets

    x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    x = ((x - x.mean(axis=0)) / x.std(axis=0)).astype("float32")
    if y.dtype.kind == "f":
        return _split(x, ((y - y.mean()) / y.std()).astype("float32")[:, None])
    return _split(x, y.astype("int32"))


def _wine() -> dict[str, Any]:
    return _table("wine")


def _breast_cancer() -> dict[str, Any]:
    return _table("breast_cancer")


def _diabetes() -> dict[str, Any]:
    return _table("diabetes")


def _topics() -> dict[str, Any]:
    from pydoc_data.topics import topics as texts

    index = {letter: i for i, letter in enumerate(CHARACTERS)}
    text = "\n".join(str(texts[name]) for name in sorted(texts)).lower()[:40_000]
    codes = np.array([index.get(letter, len(CHARACTERS)) for letter in text], "int32")
    windows = np.lib.stride_tricks.sliding_window_view(codes, CONTEXT + 1)[::5]
    return _split(windows[:, :-1], windows[:, -1])


def _digits_nmf() -> dict[str, Any]:
    from sklearn.datasets import load_digits

    images = load_digits().data.astype("float32") / 16
    return {"x": np.arange(len(images), dtype="int32"), "y": images}


PROBLEMS = {
    "digits-cnn": Problem(digits_cnn, _digits, 15, 64),
    "digits-mlp": Problem(digits_mlp, _digits, 15, 32),
    "wine": Problem(wine, _wine, 30, 8),
    "breast-cancer": Problem(breast_cancer, _breast_cancer, 20, 32),
    "diabetes": Problem(diabetes, _diabetes, 30, 32),
    "topics": Problem(topics, _topics, 10, 64),
    "digits-nmf": Problem(digits_nmf, _digits_nmf, 20, 64),
}
