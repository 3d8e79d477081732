"""The data of the inner problems: all of it comes with Python, scikit-learn or a seed.

Every loader returns `(x [N, ...] float32, y)`, shuffled once with a fixed seed, with y [N] int32
classes or [N, k] float32 targets; inputs are standardised. Text becomes windows of characters.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import unicodedata
import warnings
from collections.abc import Callable

import numpy as np
from sklearn import datasets

Data = tuple[np.ndarray, np.ndarray]

ALPHABET = "\n abcdefghijklmnopqrstuvwxyz.,-()"  # 33; everything else is one more character
CONTEXT = 6  # characters a language model sees
EXAMPLES = 6000  # at most, of texts and images


def load(name: str) -> Data:
    """Returns a data set by its name."""
    return _load(name)


@functools.cache
def _load(name: str) -> Data:
    x, y = LOADERS[name]()
    order = np.random.default_rng(0).permutation(len(x))
    return x[order], y[order]


def word_counts(name: str) -> np.ndarray:
    """Returns counts [256 documents, 96 words] of a text's common words in its longest parts."""
    from sklearn.feature_extraction.text import CountVectorizer

    documents = sorted(COUNTED[name](), key=len)[-256:]
    counts = CountVectorizer(max_features=96, stop_words="english").fit_transform(documents)
    return counts.toarray().astype(np.float32)


def image_patches(name: str, size: int = 8) -> np.ndarray:
    """Returns grey patches [N, size, size] in [0, 1] of one of scikit-learn's photographs."""
    grey = datasets.load_sample_image(name).mean(axis=-1, dtype=np.float32) / 255
    grey = grey[: grey.shape[0] // 2 * 2, : grey.shape[1] // 2 * 2]
    grey = (grey[::2, ::2] + grey[1::2, ::2] + grey[::2, 1::2] + grey[1::2, 1::2]) / 4
    windows = np.lib.stride_tricks.sliding_window_view(grey, (size, size))[::4, ::4]
    patches = windows.reshape(-1, size, size)
    lively = patches[patches.std(axis=(1, 2)) > 0.05]  # sky and blur teach nothing
    return np.random.default_rng(0).permutation(lively)[:EXAMPLES]


def _digits() -> Data:
    x, y = datasets.load_digits(return_X_y=True)
    return _standard(x).reshape(-1, 8, 8, 1), y.astype(np.int32)


def _patches(name: str) -> Data:
    """Which way is up: patches turned by a multiple of 90 degrees."""
    patches = image_patches(name)
    turns = np.random.default_rng(1).integers(0, 4, len(patches))
    turned = np.stack([np.rot90(p, k) for p, k in zip(patches, turns, strict=True)])
    return _standard(turned)[..., None], turns.astype(np.int32)


def _autoencoded(name: str) -> Data:
    patches = image_patches(name).reshape(-1, 64)
    patches = _standard(patches)
    return patches, patches


def _text(pieces: list[str]) -> Data:
    index = {letter: i for i, letter in enumerate(ALPHABET)}
    codes = np.array([index.get(c, len(ALPHABET)) for c in "\n".join(pieces).lower()], np.int32)
    starts = np.random.default_rng(0).permutation(len(codes) - CONTEXT)[:EXAMPLES]
    x = np.stack([codes[starts + i] for i in range(CONTEXT)], axis=-1)
    return x.astype(np.float32), codes[starts + CONTEXT]


def _topics() -> list[str]:
    from pydoc_data import topics

    return [str(text) for text in topics.topics.values()]


DOC_MODULES = ("argparse", "asyncio", "collections", "decimal", "difflib", "email", "json")
COUNTED_MODULES = (
    *("logging", "os", "random", "re", "shutil", "socket", "statistics", "subprocess", "tarfile"),
    *("threading", "typing", "unittest", "urllib.request", "zipfile"),
)


def _docstrings(modules: tuple[str, ...]) -> list[str]:
    found: list[str] = []
    for module in modules:
        with warnings.catch_warnings(action="ignore"):  # some members are deprecated
            members = [m for _, m in inspect.getmembers(importlib.import_module(module))]
            members += [f for m in members if inspect.isclass(m) for _, f in inspect.getmembers(m)]
            texts = {m.__doc__ for m in members if isinstance(getattr(m, "__doc__", None), str)}
        found += sorted(text for text in texts if len(text) > 100)
    return found


def _own_docstrings() -> list[str]:
    """Those of `DOC_MODULES` that are not counted for the test: many are inherited by both."""
    elsewhere = set(_docstrings(COUNTED_MODULES))
    return [text for text in dict.fromkeys(_docstrings(DOC_MODULES)) if text not in elsewhere]


def _unicode_names() -> Data:
    return _text([unicodedata.name(chr(code), "") for code in range(0x20, 0x3000)])


def _table(loader: Callable, regression: bool = False) -> Data:
    x, y = loader(return_X_y=True)
    return _standard(x), _standard(y)[:, None] if regression else y.astype(np.int32)


def _friedman() -> Data:
    x, y = datasets.make_friedman1(1200, n_features=10, noise=1.0, random_state=0)
    return _standard(x), _standard(y)[:, None]


def _hastie() -> Data:
    x, y = datasets.make_hastie_10_2(1500, random_state=0)
    return _standard(x), (y > 0).astype(np.int32)


def _moons() -> Data:
    x, y = datasets.make_moons(1500, noise=0.15, random_state=0)
    return _standard(x), y.astype(np.int32)


def _swiss_roll() -> Data:
    x, y = datasets.make_swiss_roll(1500, noise=0.3, random_state=0)
    return _standard(x), _standard(y[:, None])


def _inputs(features: int, decay: float) -> Data:
    """Gaussian inputs whose scales fall off; the targets are each run's own teacher's."""
    scale = np.arange(1, features + 1) ** -decay
    x = np.random.default_rng(2).normal(size=(1500, features)) * scale / np.sqrt(np.mean(scale**2))
    return x.astype(np.float32), np.zeros(len(x), np.int32)


def _mixture() -> Data:
    x, y = datasets.make_classification(
        1500, 32, n_informative=12, n_redundant=8, n_classes=6, class_sep=1.5, random_state=0
    )
    return _standard(x), y.astype(np.int32)


def _standard(x: np.ndarray) -> np.ndarray:
    """Each column with zero mean and unit variance (constant ones zero), outliers cut at 5."""
    x = np.asarray(x, np.float64)
    deviation = x.std(axis=0)
    x = (x - x.mean(axis=0)) / np.where(deviation > 0, deviation, 1)
    return np.clip(x, -5, 5).astype(np.float32)


LOADERS: dict[str, Callable[[], Data]] = {
    # training
    "digits": _digits,
    "topics": lambda: _text(_topics()),
    "mixture": _mixture,
    "round inputs": lambda: _inputs(24, 0.0),
    "long inputs": lambda: _inputs(32, 1.0),
    # development
    "china": lambda: _patches("china.jpg"),
    "docstrings": lambda: _text(_own_docstrings()),
    "breast cancer": lambda: _table(datasets.load_breast_cancer),
    "diabetes": lambda: _table(datasets.load_diabetes, regression=True),
    "moons": _moons,
    "swiss roll": _swiss_roll,
    # test
    "flower": lambda: _patches("flower.jpg"),
    "flower itself": lambda: _autoencoded("flower.jpg"),
    "unicode names": _unicode_names,
    "wine": lambda: _table(datasets.load_wine),
    "iris": lambda: _table(datasets.load_iris),
    "friedman": _friedman,
    "hastie": _hastie,
}

COUNTED: dict[str, Callable[[], list[str]]] = {
    "topics' words": lambda: [part for text in _topics() for part in text.split("\n\n")],
    "docstrings' words": _own_docstrings,
    "word counts": lambda: _docstrings(COUNTED_MODULES),
}
