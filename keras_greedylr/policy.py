"""Loading, checking and calling an exported policy.

A policy is a folder: a TensorFlow SavedModel whose signature `act` maps `observation` float32
[B, n] to `action` float32 [B] in [-1, 1]; the same weights as `weights.npz` for machines without
TensorFlow; and its card, `policy.json`. The network is `tanh` layers from end to end:

    h_0 = observation,  h_{i+1} = tanh(h_i @ kernel_i + bias_i),  action = h_last[:, 0]

A SavedModel is a program that runs when it is called: load policies only from where you would
install a package from. The hashes in the card find damage, not malice.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from keras_greedylr import observation
from keras_greedylr.validation import check_choice

FORMAT_VERSION = 1
CARD = "policy.json"
WEIGHTS = "weights.npz"
SAVED_MODEL = "saved_model.pb"
SHIPPED = Path(__file__).parent / "policies"
RUNTIMES = ("auto", "tensorflow", "numpy")

Act = Callable[[np.ndarray], np.ndarray]
Layers = list[tuple[np.ndarray, np.ndarray]]  # (kernel [in, out], bias [out]), first layer first


class Policy(NamedTuple):
    """A loaded policy; call it with observations to get actions."""

    folder: Path
    card: dict[str, Any]  # what policy.json says
    runtime: str  # "tensorflow" or "numpy"
    act: Act

    @property
    def decisions(self) -> int:
        """Number of intervals a training run is cut into."""
        return self.card["observation"]["decisions"]

    def __call__(self, observations: np.ndarray) -> np.ndarray:
        """Returns the actions [B] float32 in [-1, 1] for observations [B, n] float32."""
        expected = len(observation.NAMES)
        observations = np.asarray(observations, np.float32)
        if observations.ndim != 2 or observations.shape[1] != expected:
            raise ValueError(
                f"A policy takes observations of shape [B, {expected}]. "
                f"Received: shape {list(observations.shape)}"
            )
        return self.act(observations)

    def __reduce__(self) -> tuple[Callable[..., Policy], tuple[str | Path, str]]:
        """A program cannot be pickled: its copy is loaded from where it lies."""
        name = self.folder.name if self.folder.parent == SHIPPED else self.folder
        return load_policy, (name, self.runtime)


def load_policy(name: str | Path = "default", runtime: str = "auto") -> Policy:
    """Loads a policy, after checking that it is whole and speaks this version's language.

    Example:

    >>> import numpy as np
    >>> from keras_greedylr import observation
    >>> from keras_greedylr.policy import load_policy
    >>> policy = load_policy("default", runtime="numpy")
    >>> policy(np.zeros((3, len(observation.NAMES)), np.float32)).shape
    (3,)

    Args:
        name: A policy's folder, or the name of a shipped one (`"default"`).
        runtime: `"tensorflow"` runs the SavedModel, `"numpy"` the weights; `"auto"` takes the
            SavedModel if Keras runs on TensorFlow and the path has none of `*?[`, which
            TensorFlow takes for a pattern. They agree to 1e-6.

    Raises:
        ValueError: if the folder is no policy, is damaged, or is of an unknown version; the
            message names the file and the reason.
    """
    check_choice("runtime", runtime, RUNTIMES)
    if not isinstance(name, str | os.PathLike):
        raise ValueError(f"A policy is a folder or the name of a shipped one. Received: {name!r}")
    # Only a bare name: a path may lead to a folder of the user's that is called the same.
    shipped = isinstance(name, str) and name in {path.name for path in SHIPPED.iterdir()}
    folder = SHIPPED / name if shipped else Path(name)
    card = _check_card(folder)
    _check_files(folder, card)
    layers = read_weights(folder / WEIGHTS)
    folder = folder.absolute()  # a copy may be made from somewhere else
    if runtime == "auto":
        import keras

        loadable = keras.config.backend() == "tensorflow" and not is_pattern(folder)
        runtime = "tensorflow" if loadable else "numpy"
    if runtime == "tensorflow":
        if is_pattern(folder):
            raise ValueError(
                "TensorFlow takes a path with any of *?[ for a pattern, and would not find the "
                f"weights. Rename it, or pass runtime='numpy'. Received: {folder}"
            )
        return Policy(folder, card, runtime, _from_saved_model(folder))
    return Policy(folder, card, runtime, act_with(layers))


def is_pattern(path: Path) -> bool:
    """Whether TensorFlow, looking for checkpoints there, would look elsewhere."""
    return any(character in "*?[" for character in str(path))


def file_hashes(folder: Path) -> dict[str, str]:
    """Returns the SHA-256 of each file of a policy except its card, by relative path."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / CARD)
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def _check_card(folder: Path) -> dict[str, Any]:
    path = folder / CARD
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        shipped = sorted(p.name for p in SHIPPED.glob("*") if p.is_dir())
        raise ValueError(
            f"Not a policy: there is no {path}. Expected a folder written by `train-agent`, or "
            f"one of the shipped policies {shipped}."
        ) from None
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(card, dict):
        raise ValueError(f"{path} must hold an object. Received: {type(card).__name__}")
    _expect(path, "format_version", card.get("format_version"), FORMAT_VERSION)
    seen = card.get("observation")
    if not isinstance(seen, dict):
        raise ValueError(f"{path}: `observation` must be an object. Received: {seen!r}")
    _expect(path, "observation version", seen.get("version"), observation.VERSION)
    _expect(path, "observation names", seen.get("names"), list(observation.NAMES))
    _expect(path, "decisions", seen.get("decisions"), observation.DECISIONS)
    return card


def _expect(path: Path, what: str, received: Any, expected: Any) -> None:
    if received != expected:
        raise ValueError(
            f"{path}: this version of keras-greedylr knows {what} {expected!r} only. "
            f"Received: {received!r}"
        )


def _check_files(folder: Path, card: dict[str, Any]) -> None:
    expected = card.get("files")
    if not isinstance(expected, dict) or not {WEIGHTS, SAVED_MODEL} <= set(expected):
        raise ValueError(
            f"{folder / CARD}: `files` must list the SHA-256 of {WEIGHTS} and {SAVED_MODEL} at "
            f"least. Received: {expected!r}"
        )
    found = file_hashes(folder)
    if missing := sorted(set(expected) - set(found)):
        raise ValueError(f"{folder / missing[0]} is missing; {CARD} lists it.")
    if unknown := sorted(set(found) - set(expected)):
        raise ValueError(f"{folder / unknown[0]} is not part of this policy; {CARD} has no hash.")
    for name, digest in expected.items():
        if found[name] != digest:
            raise ValueError(
                f"{folder / name} was changed: its SHA-256 is {found[name]}, and {CARD} says "
                f"{digest}."
            )


def _from_saved_model(folder: Path) -> Act:
    import tensorflow as tf

    loaded = tf.saved_model.load(str(folder))

    def act(observations: np.ndarray) -> np.ndarray:
        # through `loaded`, which owns the variables: a signature alone would not keep them
        return loaded.signatures["act"](observation=tf.constant(observations))["action"].numpy()

    return act


def act_with(layers: Layers) -> Act:
    """Returns the function observation [B, n] -> action [B] of the layers."""

    def act(observations: np.ndarray) -> np.ndarray:
        hidden = observations
        for kernel, bias in layers:
            hidden = np.tanh(hidden @ kernel + bias)
        return hidden[:, 0]

    return act


def read_weights(path: Path) -> Layers:
    """Returns the layers, float32.

    Raises:
        ValueError: if the arrays are not those of a chain of layers from observation to action,
            or hold what is not finite.
    """
    with np.load(path, allow_pickle=False) as arrays:
        weights = dict(arrays)
    count = len(weights) // 2
    names = {f"{part}_{i}" for i in range(count) for part in ("kernel", "bias")}
    if set(weights) != names or not count:
        raise ValueError(
            f"{path} must hold kernel_0, bias_0, kernel_1, ... Received: {sorted(weights)}"
        )
    layers = [(weights[f"kernel_{i}"], weights[f"bias_{i}"]) for i in range(count)]
    width = len(observation.NAMES)
    for i, (kernel, bias) in enumerate(layers):
        if kernel.ndim != 2 or kernel.shape[0] != width or bias.shape != kernel.shape[1:]:
            raise ValueError(
                f"{path}: layer {i} must take {width} inputs. "
                f"Received: kernel {kernel.shape}, bias {bias.shape}"
            )
        if not (np.isfinite(kernel).all() and np.isfinite(bias).all()):
            raise ValueError(f"{path}: layer {i} holds weights that are not finite.")
        width = kernel.shape[1]
    if width != 1:
        raise ValueError(f"{path}: the last layer must have one output. Received: {width}")
    return layers
