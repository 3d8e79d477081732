"""What tells one problem, or one contestant, from another: whether runs may stand in one table.

What a function of the user's does beyond what is looked at here, nobody can tell.
"""

from __future__ import annotations

import inspect
import json
import warnings
import zlib
from collections.abc import Callable, Collection
from typing import Any

import keras
import numpy as np

from keras_greedylr.callbacks import LearnedLR
from keras_greedylr.callbacks.schedule import single_optimizers
from keras_greedylr.compare.contestants import Contestant, Part, ask, check_model
from keras_greedylr.compare.data import (
    fit_arguments,
    is_gone_through_once,
    is_validated,
    steps_per_epoch,
)
from keras_greedylr.compare.names import uncounted


def describe_problem(
    build_model: Callable[[], keras.Model], data: Any, epochs: int, batch_size: int
) -> dict[str, Any]:
    """Returns a problem's configuration, with a checksum of its data."""
    keras.utils.set_random_seed(0)
    model = build_model()
    rate = check_model(model)
    arguments = fit_arguments(data, batch_size)
    return {
        "rate": rate,
        "optimizer": type(single_optimizers(model)[0]).__name__,
        "optimizer_config": _anonymous(keras.saving.serialize_keras_object(model.optimizer)),
        "model": describe_model(model),
        "loss": [_name(loss) for loss in keras.tree.flatten(model.loss)],
        "loss_config": _describe_loss(model),
        "weights": [list(weight.shape) for weight in model.weights],
        "data": _describe_data(arguments),
        "fit": {n: v for n, v in sorted(arguments.items()) if isinstance(v, int | float | str)},
        "validated": is_validated(arguments),
        "steps": steps_per_epoch(arguments),
        "epochs": epochs,
        "batch_size": batch_size,
        "backend": keras.config.backend(),
    }


def describe_contestants(
    build_model: Callable[[], keras.Model],
    contestants: dict[str, Contestant],
    problem: dict[str, Any],
) -> dict[str, int]:
    """Returns a checksum of each contestant: of what it makes at the model's rate, and its code.

    Args:
        build_model: As `compare` takes it.
        contestants: By their names.
        problem: What `describe_problem` returned.
    """
    model, told = build_model(), {}
    budget = {
        "steps": problem["steps"] * problem["epochs"],
        "epochs": problem["epochs"],
        "validated": problem["validated"],
    }
    for name, contestant in contestants.items():
        keras.utils.set_random_seed(0)  # should it draw something
        parts = ask(contestant, model, 1.0, **budget)
        sources = map(_source, (contestant, *map(type, parts)))
        told[name] = _checksum([*map(_describe_part, parts), _captured(contestant), *sources])
    return told


def _describe_part(part: Part) -> list[Any]:
    try:
        told = part.get_config() if hasattr(part, "get_config") else None
    except NotImplementedError:  # what Keras' base classes raise for a part that does not tell
        told = None
    # Keras' callbacks do not: what they keep tells.
    config = _kept(part) if told is None else _anonymous(told, but=("name",))
    # Another policy may have been written to the same folder.
    card = part._policy.card if isinstance(part, LearnedLR) else None
    return [type(part).__name__, config, card]


def _kept(part: Any) -> dict[str, Any]:
    return {name: _plain(value) for name, value in getattr(part, "__dict__", {}).items()}


def _captured(function: Any) -> list[Any]:
    """What a function holds beside its code."""
    cells = getattr(function, "__closure__", None) or ()
    return [_plain(cell.cell_contents) for cell in cells] + [
        _plain(value) for value in getattr(function, "__defaults__", None) or ()
    ]


def _plain(value: Any) -> Any:
    """Numbers, text, arrays, and containers of these; of anything else the kind.

    Of an object of the user's own class also what it keeps of those.
    """
    if isinstance(value, dict):
        return sorted((str(key), str(_plain(inner))) for key, inner in value.items())
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, np.ndarray | np.generic):  # of a large one its numbers would take minutes
        return zlib.crc32(_array_content(value))
    if isinstance(value, str | float | int | None):
        return value
    kept = vars(value) if _is_users(type(value)) and hasattr(value, "__dict__") else {}
    simple = (str, float, int, np.ndarray, np.generic)
    return [type(value).__name__, {k: _plain(v) for k, v in kept.items() if isinstance(v, simple)}]


def _source(thing: Any) -> str | None:
    try:
        return inspect.getsource(thing)
    except (OSError, TypeError):  # typed at a prompt, or not a plain function
        return None


def describe_model(model: keras.Model) -> int:
    """Returns a checksum of the layers, how they are set, and the user's own code in them."""
    kinds = [kind for layer in model._flatten_layers() for kind in type(layer).__mro__]
    # What cannot be serialized trains all the same, and is told apart by its code.
    config = None
    try:
        config = _anonymous(keras.saving.serialize_keras_object(model))
    except NotImplementedError:  # a part that does not tell how it is set, which is its right
        pass
    except (TypeError, ValueError) as fault:
        warnings.warn(
            f"The model cannot be serialized: {type(fault).__name__}: {fault}. It is known by its "
            "code alone: another with the same code and shapes would count as the same.",
            stacklevel=2,
        )
    return _checksum([config, *(_source(kind) for kind in kinds if _is_users(kind))])


def has_code_that_may_remember(model: keras.Model) -> bool:
    """Returns whether a model has parts of the user's own classes.

    What those keep besides variables is not known. Functions are taken to keep nothing.
    """
    compiled = getattr(model._compile_config, "config", {})
    metrics = [compiled.get("metrics"), compiled.get("weighted_metrics")]
    parts = [*model._flatten_layers(), model.optimizer, *single_optimizers(model)]
    parts += keras.tree.flatten([model.loss, metrics])
    return any(_is_users(kind) for part in parts for kind in type(part).__mro__)


def _describe_loss(model: keras.Model) -> int:
    """Of the losses, how they are set and weighted, and the user's own code in them."""
    told = [getattr(model._compile_config, "config", {}).get("loss_weights")]
    for loss in keras.tree.flatten(model.loss):
        function = getattr(loss, "fn", loss)  # what Keras wraps a function in has the name only
        sources = [_source(part) for part in (function, type(loss)) if _is_users(part)]
        # What it keeps, for some of Keras' own leave settings out of their configuration.
        told += [_name(loss), {**_kept(loss), "name": None}, *sources]
    return _checksum([_structure(model.loss), *told])


def _structure(nested: Any) -> Any:
    """Which output each of nested values is for."""
    return list(nested) if isinstance(nested, dict) else len(keras.tree.flatten(nested))


def _name(loss: Any) -> str:
    if isinstance(loss, str):
        return loss
    if getattr(loss, "name", None):
        return uncounted(loss)
    return str(getattr(loss, "__name__", type(loss).__name__))


def _is_users(part: Any) -> bool:
    module = getattr(part, "__module__", None) or "builtins"
    return module.split(".")[0] not in ("builtins", "keras", "tensorflow", "torch", "jax")


# Entries of a configuration that hold names, which count the objects of a process, also those of
# the layers that feed a layer; and what stands in the settings by itself.
LEFT_OUT = {"name", "inbound_nodes", "input_layers", "output_layers", "shared_object_id"} | {
    "compile_config",
    "learning_rate",
}


def _anonymous(config: Any, but: Collection[str] = LEFT_OUT) -> Any:
    """A configuration without some of its entries."""
    if isinstance(config, dict):
        return {k: _anonymous(v, but) for k, v in config.items() if k not in but}
    return [_anonymous(v, but) for v in config] if isinstance(config, list | tuple) else config


def _checksum(config: Any) -> int:
    def told(value: Any) -> Any:  # no `repr`: it may hold an address
        return value.tolist() if hasattr(value, "tolist") else type(value).__name__

    return zlib.crc32(json.dumps(config, sort_keys=True, default=told).encode())


# Data.


def _describe_data(arguments: dict[str, Any]) -> int:
    """A checksum of arrays, and of the first batch of each dataset."""
    digest = 0
    for _, value in sorted(arguments.items()):
        if not isinstance(value, int | float | str):  # those stand in the settings by themselves
            for leaf in keras.tree.flatten(value):
                digest = zlib.crc32(_content(leaf), digest)
    return digest


def _content(leaf: Any) -> bytes:
    if hasattr(leaf, "shape"):
        return _array_content(leaf)
    if leaf is None or isinstance(leaf, str | float | int):
        return repr(leaf).encode()
    try:
        first, again = _first_batch(leaf), _first_batch(leaf)
    except (TypeError, StopIteration, IndexError):
        return type(leaf).__name__.encode()
    # A dataset that shuffles or augments is another each time: then only its form counts.
    same = list(map(_array_content, first)) == list(map(_array_content, again))
    told = map(_array_content if same else _form, first)
    return b"".join(told)


def _first_batch(dataset: Any) -> list[Any]:
    """The arrays of a dataset's first batch."""
    if is_gone_through_once(dataset):
        raise TypeError("what is taken from an iterator is lost")
    indexed = isinstance(dataset, keras.utils.PyDataset)
    return keras.tree.flatten(dataset[0] if indexed else next(iter(dataset)))


def _array_content(array: Any) -> bytes:
    values = _values(array)
    content = repr(values.tolist()).encode() if values.dtype == object else values.tobytes()
    return _form(array) + content


def _form(array: Any) -> bytes:
    values = _values(array)
    # But not the size of the batch, by which that of a shuffled dataset may vary.
    return repr((values.dtype.str, values.shape[1:])).encode()


def _values(array: Any) -> np.ndarray:
    if keras.ops.is_tensor(array):
        array = keras.ops.convert_to_numpy(array)
    return np.ascontiguousarray(array)
