"""The problems of `greedy_defaults.py`: made by formulas, none part of a reported benchmark."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from sklearn import datasets


@dataclass(frozen=True)
class Problem:
    """Data, a network and an optimizer."""

    name: str
    half: str  # "select" or "confirm"
    data: Callable[[int], tuple[np.ndarray, np.ndarray]]  # seed -> inputs, targets
    hidden: tuple[int, ...]
    optimizer: str  # "sgd", "momentum" or "adam"
    epochs: int
    train: int = 512  # training examples; 512 more validate
    classes: int = 0  # 0: regression with the mean squared error
    activation: str = "relu"


def _teacher(seed: int, classes: int, noise: float) -> tuple[np.ndarray, np.ndarray]:
    """Targets of a random network that does not depend on the seed."""
    net, rng = np.random.default_rng(7), np.random.default_rng(seed)
    x = rng.normal(size=(1024, 10))
    out = np.maximum(x @ net.normal(size=(10, 8)), 0) @ net.normal(size=(8, max(classes, 1)))
    out = (out - out.mean(0)) / out.std()
    out += noise * rng.normal(size=out.shape)
    return x, out.argmax(1) if classes else out[:, 0]


def _swiss_roll(seed: int) -> tuple[np.ndarray, np.ndarray]:
    return datasets.make_swiss_roll(1024, noise=0.5, random_state=seed)


def _waves(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, size=(1024, 2))
    return x, np.sin(4 * x[:, 0]) * np.cos(3 * x[:, 1]) + 0.1 * rng.normal(size=1024)


def _classification(classes: int, flip: float, features: int = 20) -> Callable:
    return lambda seed: datasets.make_classification(
        1024, features, n_informative=8, n_classes=classes, flip_y=flip, random_state=seed
    )


def _hastie(seed: int) -> tuple[np.ndarray, np.ndarray]:
    x, y = datasets.make_hastie_10_2(1024, random_state=seed)
    return x, (y > 0).astype(int)


PROBLEMS = (
    Problem("classification", "select", _classification(3, 0.01), (32,), "sgd", 30, classes=3),
    Problem(
        "moons",
        "select",
        lambda seed: datasets.make_moons(1024, noise=0.3, random_state=seed),
        (16, 16),
        "momentum",
        60,
        classes=2,
        activation="tanh",
    ),
    Problem(
        "friedman1",
        "select",
        lambda seed: datasets.make_friedman1(1024, noise=1.0, random_state=seed),
        (32,),
        "adam",
        40,
    ),
    Problem(
        "regression",
        "select",
        lambda seed: datasets.make_regression(1024, 20, noise=50.0, random_state=seed),
        (32,),
        "momentum",
        20,
    ),
    Problem("swiss roll", "select", _swiss_roll, (32,), "adam", 60),
    Problem("teacher", "select", lambda seed: _teacher(seed, 0, 0.1), (32,), "sgd", 100),
    Problem(
        "noisy labels", "select", _classification(2, 0.4), (64,), "adam", 60, train=256, classes=2
    ),
    Problem("little data", "select", _classification(4, 0.1), (32,), "sgd", 80, 128, classes=4),
    Problem(
        "friedman2",
        "confirm",
        lambda seed: datasets.make_friedman2(1024, noise=100.0, random_state=seed),
        (32,),
        "momentum",
        30,
    ),
    Problem(
        "friedman3",
        "confirm",
        lambda seed: datasets.make_friedman3(1024, noise=0.1, random_state=seed),
        (16, 16),
        "sgd",
        60,
    ),
    Problem(
        "circles",
        "confirm",
        lambda seed: datasets.make_circles(1024, noise=0.2, factor=0.5, random_state=seed),
        (16, 16),
        "sgd",
        100,
        classes=2,
        activation="tanh",
    ),
    Problem("hastie", "confirm", _hastie, (32,), "adam", 30, classes=2),
    Problem("waves", "confirm", _waves, (16, 16), "adam", 80, activation="tanh"),
    Problem(
        "teacher labels",
        "confirm",
        lambda seed: _teacher(seed, 4, 0.3),
        (32,),
        "momentum",
        40,
        classes=4,
    ),
    Problem(
        "noisy labels 2",
        "confirm",
        _classification(4, 0.3, 16),
        (64,),
        "momentum",
        60,
        train=256,
        classes=4,
    ),
    Problem(
        "little data 2",
        "confirm",
        lambda seed: datasets.make_friedman1(1024, noise=1.0, random_state=seed),
        (32,),
        "adam",
        100,
        train=128,
    ),
)
