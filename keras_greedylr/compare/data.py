"""What a comparison is on: the user's data as arguments of `fit`, and what identifies a problem."""

from __future__ import annotations

import contextlib
import inspect
import json
import math
import zlib
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_greedylr.callbacks.schedule import single_optimizers
from keras_greedylr.compare.contestants import check_model

OURS = {"epochs", "callbacks", "verbose", "validation_freq"}  # arguments that `compare` gives


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
        arguments = {"x": data[0][0], "y": data[0][1], "validation_data": tuple(data[1])}
    elif isinstance(data, tuple) and len(data) == 2:
        arguments = {"x": data[0], "y": data[1]}
    else:
        raise ValueError(
            "`data` must be (x, y), (x, y, x_val, y_val), ((x, y), (x_val, y_val)), a dict of "
            f"arguments of `fit`, or a function that returns one of these. Received: {type(data)}"
        )
    if wrong := OURS & set(arguments) or {"x"} - set(arguments):
        raise ValueError(
            f"`data` as a dict must have `x` and leave {sorted(OURS)} to "
            f"the comparison. Received: keys {sorted(arguments)}, of which wrong or missing are "
            f"{sorted(wrong)}"
        )
    if inspect.isgenerator(arguments["x"]):
        raise ValueError(
            "`data` must hold what can be gone through anew in each run: arrays, a dataset, a "
            "PyDataset. Received: a generator"
        )
    if hasattr(_first(arguments["x"]), "shape"):
        arguments.setdefault("batch_size", batch_size)
    return arguments


def is_validated(arguments: dict[str, Any]) -> bool:
    """Returns whether arguments of `fit` hold validation data."""
    return bool({"validation_data", "validation_split"} & set(arguments))


def steps_per_epoch(arguments: dict[str, Any]) -> int:
    """Returns how many batches an epoch has."""
    if arguments.get("steps_per_epoch"):
        return int(arguments["steps_per_epoch"])
    x = arguments["x"]
    if hasattr(_first(x), "shape"):
        kept = len(_first(x)) * (1.0 - arguments.get("validation_split", 0.0))
        return math.ceil(math.floor(kept) / arguments["batch_size"])
    size = getattr(x, "num_batches", None)
    with contextlib.suppress(TypeError):  # a tf.data.Dataset may be of unknown length
        size = len(x) if size is None else size
    if not size:
        raise ValueError(
            "The number of batches in an epoch must be known. Pass `data` as a dict with "
            "`steps_per_epoch`."
        )
    return int(size)


def _first(x: Any) -> Any:
    """The first array of what may be several inputs."""
    return next(iter(keras.tree.flatten(x)), None)


def describe_problem(
    build_model: Callable[[], keras.Model], data: Any, epochs: int, batch_size: int
) -> dict[str, Any]:
    """Returns what tells one problem from another: its configuration, a checksum of the data.

    What a dataset holds, and what a function in the model does, nobody can tell.
    """
    keras.utils.set_random_seed(0)
    model = build_model()
    rate = check_model(model)
    arguments = fit_arguments(data, batch_size)
    digest = 0
    for leaf in keras.tree.flatten([arguments[name] for name in sorted(arguments)]):
        if keras.ops.is_tensor(leaf):
            leaf = keras.ops.convert_to_numpy(leaf)
        if isinstance(leaf, np.ndarray):
            digest = zlib.crc32(np.ascontiguousarray(leaf).tobytes(), digest)
    loss = model.loss
    return {
        "rate": rate,
        "optimizer": type(single_optimizers(model)[0]).__name__,
        "optimizer_config": _anonymous(keras.saving.serialize_keras_object(model.optimizer)),
        "model": _checksum(model),
        "loss": str(getattr(loss, "name", getattr(loss, "__name__", loss))),
        "weights": [list(weight.shape) for weight in model.weights],
        "data": digest,
        "fit": {n: v for n, v in sorted(arguments.items()) if isinstance(v, int | float | str)},
        "validated": is_validated(arguments),
        "steps": steps_per_epoch(arguments),
        "epochs": epochs,
        "batch_size": batch_size,
        "backend": keras.config.backend(),
    }


def _checksum(model: keras.Model) -> int | None:
    """Of the layers and how they are set, or `None` where a model of the user's does not tell."""
    try:
        config = _anonymous(keras.saving.serialize_keras_object(model))
        return zlib.crc32(json.dumps(config, sort_keys=True, default=str).encode())
    except (NotImplementedError, TypeError, ValueError):
        return None


def _anonymous(config: Any) -> Any:
    """A configuration without names: they count the objects of a process."""
    if isinstance(config, dict):
        return {k: _anonymous(v) for k, v in config.items() if k not in LEFT_OUT}
    return [_anonymous(item) for item in config] if isinstance(config, list | tuple) else config


# Entries of a configuration that hold names, also those of the layers that feed a layer; and what
# stands in the settings by itself.
LEFT_OUT = {"name", "inbound_nodes", "input_layers", "output_layers", "shared_object_id"} | {
    "compile_config",
    "learning_rate",
}
