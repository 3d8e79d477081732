"""The families, by what they are for: training, development or test.

No data set and no kind stands in two splits; a test holds it. Choices are made by the development
families alone, and the test families are for the end. The momentum of both is fixed: a rival's
rate is tuned for a problem, not for a mixture of optimizers.
"""

from __future__ import annotations

from typing import Literal

from keras_greedylr_agents.problems.base import Problem
from keras_greedylr_agents.problems.data import ALPHABET
from keras_greedylr_agents.problems.layers import Convolution, Dense, Embedding, Recurrent
from keras_greedylr_agents.problems.networks import Network
from keras_greedylr_agents.problems.nmf import NMF

SYMBOLS = len(ALPHABET) + 1

Split = Literal["training", "development", "test"]

FAMILIES: dict[Split, tuple[Problem, ...]] = {
    "training": (
        NMF("nmf-gamma", "gamma"),
        NMF("nmf-noisy", "half normal", rank=4, most_background=2.0, most_gradient_noise=1.0,
            validate_every=2),
        NMF("nmf-wide", "gamma", rank=8, rows=24, columns=96, blocks=6, most_noise=0.2,
            validate_every=4),
        NMF("nmf-digits", "digits", update="simultaneous", rank=8, blocks=2, most_background=2.0),
        NMF("nmf-parts", "digits", rank=10, blocks=2, most_noise=0.2),
        NMF("nmf-noisier", "gamma", rank=6, rows=40, blocks=2, most_gradient_noise=0.5),
        NMF("nmf-parts-noisy", "digits", rank=8, columns=80, blocks=4, most_noise=0.2,
            most_background=4.0, most_gradient_noise=1.0, validate_every=5),
        NMF("nmf-both-noisy", "half normal", update="simultaneous", rank=5, blocks=4,
            most_background=2.0, most_gradient_noise=0.7, validate_every=2),
        NMF("nmf-topics", "topics' words", rank=12, blocks=8, columns=96, validate_every=2),
        NMF("nmf-topics-few", "topics' words", rank=6, blocks=8, columns=96, most_noise=0.2,
            validate_every=4),
        Network("digits-sgd", "digits", (Dense(32, "relu"),), "sgd", 10),
        Network("digits-wide", "digits", (Dense(64, "relu"),), "adam", 10, batch=8,
                least_data=0.03, most_noise=0.5),
        Network("digits-cnn", "digits", (Convolution(6), Dense(16, "relu")), "adam", 10, batch=8,
                validate_every=8),
        Network("topics", "topics", (Embedding(SYMBOLS, 6), Dense(32, "tanh")), "adam", SYMBOLS,
                least_data=0.2, most_noise=0.1, validate_every=5),
        Network("mixture", "mixture", (Dense(32, "tanh"), Dense(16, "tanh")), "momentum", 6,
                validate_every=5, least_data=0.05, most_noise=0.4),
        Network("teacher", "round inputs", (Dense(48, "relu"),), "adam", 2, steps=15,
                teacher=(Dense(12, "tanh"),), regression=True, least_data=0.03, most_noise=1.0),
        Network("teacher-long", "long inputs", (Dense(24, "tanh"), Dense(24, "tanh")), "sgd", 1,
                steps=20, teacher=(Dense(8, "tanh"),), regression=True, most_noise=0.5,
                validate_every=8),
        Network("teacher-classes", "round inputs", (Dense(48, "relu"), Dense(24, "relu")),
                "momentum", 4, teacher=(Dense(8, "tanh"),), least_data=0.05, validate_every=2),
        # where there is nothing to overfit, fitting on is what pays
        Network("digits-clean", "digits", (Dense(48, "relu"),), "momentum", 10, least_data=0.6,
                most_noise=0.0),
        Network("mixture-clean", "mixture", (Dense(40, "relu"), Dense(40, "relu")), "adam", 6,
                least_data=0.6, most_noise=0.0),
        Network("teacher-clean", "round inputs", (Dense(40, "tanh"),), "momentum", 1,
                teacher=(Dense(10, "tanh"),), regression=True, least_data=0.5, most_noise=0.2,
                validate_every=2),
        Network("teacher-smooth", "long inputs", (Dense(32, "tanh"), Dense(16, "tanh")),
                "momentum", 2, teacher=(Dense(12, "tanh"),), regression=True, least_data=0.6,
                most_noise=0.0, validate_every=2),
        Network("teacher-exact", "long inputs", (Dense(32, "relu"), Dense(16, "relu")), "adam", 2,
                teacher=(Dense(6, "relu"),), regression=True, least_data=0.6, most_noise=0.0),
    ),
    "development": (
        NMF("nmf-china", "china.jpg", rank=7, blocks=8, validate_every=5),
        NMF("nmf-china-both", "china.jpg", update="simultaneous", rank=5, blocks=4),
        NMF("nmf-china-noisy", "china.jpg", rank=7, blocks=5, columns=80, most_gradient_noise=1.0),
        NMF("nmf-uniform", "uniform", rank=7, rows=40, blocks=8, most_gradient_noise=0.5,
            validate_every=2),
        NMF("nmf-docstrings", "docstrings' words", rank=12, blocks=6, columns=96, most_noise=0.2),
        Network("china-mlp", "china", (Dense(48, "relu"),), "momentum", 4, 0.9, batch=24,
                least_data=0.3),
        Network("china-cnn", "china", (Convolution(12), Dense(16, "relu")), "adam", 4,
                least_data=0.5),
        Network("docstrings", "docstrings", (Embedding(SYMBOLS, 8), Dense(64, "relu")), "momentum",
                SYMBOLS, 0.9, most_noise=0.1),
        Network("cancer", "breast cancer", (Dense(32, "relu"),), "sgd", 2, least_data=0.05,
                most_noise=0.6),
        Network("diabetes", "diabetes", (Dense(64, "relu"), Dense(16, "relu")), "adam", 1,
                least_data=0.2, most_noise=0.5, regression=True, validate_every=2),
        Network("moons", "moons", (Dense(24, "relu"), Dense(24, "relu")), "sgd", 2,
                most_noise=0.1),
        Network("swiss-roll", "swiss roll", (Dense(48, "tanh"), Dense(24, "tanh")), "momentum", 1,
                0.9, least_data=0.4, regression=True, most_noise=0.1, validate_every=2),
        Network("diabetes-momentum", "diabetes", (Dense(32, "tanh"),), "momentum", 1, 0.9,
                least_data=0.3, regression=True, validate_every=8),
        Network("china-noisy", "china", (Dense(32, "tanh"),), "momentum", 4, 0.9, steps=5,
                least_data=0.5, most_gradient_noise=1.0, most_loss_noise=0.5),
        Network("swiss-roll-noisy", "swiss roll", (Dense(32, "relu"), Dense(32, "relu")), "adam",
                1, steps=5, regression=True, most_noise=0.0, most_gradient_noise=0.5,
                most_loss_noise=1.0, validate_every=5),
    ),
    "test": (
        NMF("nmf-words", "word counts", rank=10, blocks=4, columns=96, most_noise=0.2),
        NMF("nmf-log-normal", "log normal", rank=6, rows=48, columns=60, blocks=3,
            most_gradient_noise=1.0),
        NMF("nmf-flower-noisy", "flower.jpg", rank=9, columns=80, blocks=5, validate_every=2,
            most_gradient_noise=0.5),
        NMF("nmf-flower", "flower.jpg", update="simultaneous", rank=6, blocks=4),
        Network("flower-autoencoder", "flower itself", (Dense(16, "relu"),), "momentum", 64, 0.9,
                regression=True, least_data=0.5),
        Network("flower-cnn", "flower", (Convolution(16), Dense(24, "tanh")), "adam", 4, batch=24,
                least_data=0.5),
        Network("names-rnn", "unicode names", (Embedding(SYMBOLS, 8), Recurrent(24)), "adam",
                SYMBOLS, least_data=0.5, most_noise=0.05),
        Network("names-mlp", "unicode names", (Embedding(SYMBOLS, 4), Dense(32, "tanh")), "sgd",
                SYMBOLS, validate_every=5, most_noise=0.1),
        Network("wine", "wine", (Dense(16, "relu"),), "sgd", 3, batch=8, least_data=0.3),
        Network("iris", "iris", (), "adam", 3, batch=8, least_data=0.5),
        Network("friedman", "friedman", (Dense(32, "relu"), Dense(32, "relu")), "momentum", 1, 0.9,
                regression=True, validate_every=2),
        Network("hastie", "hastie", (Dense(64, "relu"),), "adam", 2, most_noise=0.2),
    ),
}  # fmt: skip


def select(names: str, split: Split = "training") -> tuple[Problem, ...]:
    """Returns the families that `names` asks for.

    Args:
        names: Comma-separated: `"nmf"` or `"networks"` for all of a sort, or families' own names.
        split: Where to look.

    Raises:
        ValueError: if a name is unknown.
    """
    sorts = {"nmf": NMF, "networks": Network}
    chosen = []
    for name in filter(None, map(str.strip, names.split(","))):
        found = [
            family
            for family in FAMILIES[split]
            if family.name == name or isinstance(family, sorts.get(name, ()))
        ]
        if not found:
            known = [*sorts, *(family.name for family in FAMILIES[split])]
            raise ValueError(f"Problems must be among {known}. Received: {name!r}")
        chosen += found
    if not chosen:
        raise ValueError(f"At least one problem is needed. Received: {names!r}")
    return tuple(dict.fromkeys(chosen))
