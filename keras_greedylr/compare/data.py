"""The user's data as arguments of `fit`."""

from __future__ import annotations

import contextlib
import inspect
import math
from collections.abc import Iterator
from typing import Any

import keras

from keras_greedylr.validation import check_int

# Arguments that `compare` gives, or counts on.
OURS = {"epochs", "initial_epoch", "callbacks", "verbose", "validation_freq"}


def fit_arguments(data: Any, batch_size: int) -> dict[str, Any]:
    """Returns `data`, in any of the forms `compare` takes, as arguments of `fit`."""
    if callable(data):
        keras.utils.set_random_seed(0)  # each process asks anew and has to get the same split
        data = data()
    if isinstance(data, dict):
        arguments = dict(data)
    elif isinstance(data, tuple) and len(data) == 4:
        arguments = {"x": data[0], "y": data[1], "validation_data": tuple(data[2:])}
    elif isinstance(data, tuple) and len(data) == 2 and isinstance(data[0], tuple):
        if not isinstance(data[1], tuple) or not {len(part) for part in data} <= {2, 3}:
            raise ValueError(
                "`data` as a pair of tuples must be ((x, y), (x_val, y_val)), each with its sample "
                "weights behind if there are any; several inputs go in a list. Received: parts of "
                f"{[len(part) if isinstance(part, tuple) else type(part) for part in data]}"
            )
        arguments = dict(zip(("x", "y", "sample_weight"), data[0], strict=False))
        arguments["validation_data"] = data[1]
    elif isinstance(data, tuple) and len(data) == 2:
        arguments = {"x": data[0], "y": data[1]}
    else:
        raise ValueError(
            "`data` must be (x, y), (x, y, x_val, y_val), ((x, y), (x_val, y_val)), a dict of "
            f"arguments of `fit`, or a function that returns one of these. Received: {type(data)}"
        )
    known = set(inspect.signature(keras.Model.fit).parameters) - {"self"} - OURS
    if wrong := (set(arguments) - known) | ({"x"} - set(arguments)):
        raise ValueError(
            f"`data` as a dict must hold arguments of `fit`, `x` among them, and leave "
            f"{sorted(OURS)} to the comparison. Received: keys {sorted(arguments)}, of which "
            f"wrong or missing are {sorted(wrong)}"
        )
    for name in ("x", "y", "validation_data"):
        value = _first(arguments.get(name))
        if isinstance(value, int | float | str):
            raise ValueError(
                "`data` must hold NumPy arrays or tensors: `np.asarray` makes an array of a list. "
                f"Received: {name} holds {type(value).__name__}s"
            )
    for name in ("x", "validation_data"):
        if is_gone_through_once(arguments.get(name)):
            raise ValueError(
                "`data` must hold what can be gone through anew in each run: arrays, a dataset, a "
                f"PyDataset. Received: {name} is a {type(arguments[name]).__name__}"
            )
    if is_in_arrays(arguments):
        shape = tuple(_first(arguments["x"]).shape)
        if 0 in shape[:1]:
            raise ValueError(f"`data` must hold samples. Received: x of shape {shape}")
        if arguments.get("batch_size") is None:
            arguments["batch_size"] = batch_size
        check_int("batch_size", arguments["batch_size"], least=1)
    elif arguments.get("y") is not None:
        raise ValueError(
            "`data` must hold a dataset as a dict, for it has its own targets: {'x': dataset, "
            "'validation_data': another}. "
            f"Received: x is a {type(arguments['x']).__name__}, y a {type(arguments['y']).__name__}"
        )
    return arguments


def without_validation(arguments: dict[str, Any]) -> dict[str, Any]:
    """Returns arguments of `fit` that train on the same samples and validate on none."""
    kept = {name: value for name, value in arguments.items() if not name.startswith("validation")}
    if split := arguments.get("validation_split"):  # `fit` takes the validation from the end
        count = math.floor(_first(arguments["x"]).shape[0] * (1.0 - split))
        for name in {"x", "y", "sample_weight"} & set(kept):
            kept[name] = keras.tree.map_structure(
                lambda part: None if part is None else part[:count], kept[name]
            )
    return kept


def is_validated(arguments: dict[str, Any]) -> bool:
    """Returns whether arguments of `fit` hold validation data."""
    return arguments.get("validation_data") is not None or bool(arguments.get("validation_split"))


def is_in_arrays(arguments: dict[str, Any]) -> bool:
    """Returns whether the inputs are arrays, of which nothing changes from run to run."""
    return hasattr(_first(arguments["x"]), "shape")


def steps_per_epoch(arguments: dict[str, Any]) -> int:
    """Returns how many batches an epoch has."""
    if arguments.get("steps_per_epoch"):
        return int(arguments["steps_per_epoch"])
    x = arguments["x"]
    if is_in_arrays(arguments):
        kept = _first(x).shape[0] * (1.0 - (arguments.get("validation_split") or 0.0))
        return math.ceil(math.floor(kept) / arguments["batch_size"])
    size = getattr(x, "num_batches", None)
    with contextlib.suppress(TypeError):  # a tf.data.Dataset may be of unknown length
        size = len(x) if size is None else size
    if not size:
        raise ValueError(
            "The number of batches in an epoch must be known. Pass `data` as a dict with "
            "`steps_per_epoch`, and a dataset that does not end before all epochs are done: "
            "`dataset.repeat()`."
        )
    return int(size)


def is_gone_through_once(x: Any) -> bool:
    """Returns whether `x` is a generator or another iterator."""
    return isinstance(x, Iterator) and not isinstance(x, keras.utils.PyDataset)


def _first(x: Any) -> Any:
    """The first array of what may be several inputs."""
    return next(iter(keras.tree.flatten(x)), None)
