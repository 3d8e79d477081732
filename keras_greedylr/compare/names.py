"""Names that Keras counts, as they are in a process whose first model this is.

A metric, a loss or a layer that is given no name is named after its class, and the second one in a
process gets a number: `auc`, `auc_1`. In a comparison each run has a model of its own, and the
curves of all of them must go by one name. One that was given, and looks like that, is taken for it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import keras

from keras_greedylr.callbacks.metric_direction import flat_metrics


def uncounted(thing: Any) -> str:
    """A thing's name, without the number Keras gave it."""
    counted = _counted(thing)
    return counted[0] if counted else str(thing.name)


def rename(history: dict[str, Any], model: keras.Model) -> dict[str, Any]:
    """The history of a model's `fit` by names that do not depend on models before it."""
    metrics = _renamed(flat_metrics(model.metrics))
    layers = _renamed(model._flatten_layers(include_self=False))
    outputs = {n: layers[n] for n in getattr(model, "output_names", None) or () if n in layers}
    return {_renamed_key(key, outputs, metrics): values for key, values in history.items()}


def _renamed_key(key: str, outputs: dict[str, str], metrics: dict[str, str]) -> str:
    """A key is `val_`, the name of an output where there are several, and that of a metric."""
    prefix = "val_" if key.startswith("val_") else ""
    name = key.removeprefix(prefix)
    for old, new in sorted(outputs.items(), key=lambda pair: -len(pair[0])):  # `a` begins `a_1`
        if name.startswith(f"{old}_"):
            prefix, name = f"{prefix}{new}_", name.removeprefix(f"{old}_")
            break
    return prefix + metrics.get(name, name)


def _renamed(things: Iterable[Any]) -> dict[str, str]:
    """What the counted ones among the names become."""
    by_kind: dict[str, dict[int, str]] = {}
    for thing in things:
        if counted := _counted(thing):
            kind, number = counted
            by_kind.setdefault(kind, {})[number] = thing.name
    return {
        name: kind + (f"_{i}" if i else "")
        for kind, names in by_kind.items()
        for i, (_, name) in enumerate(sorted(names.items()))
    }


def _counted(thing: Any) -> tuple[str, int] | None:
    """The class's name as Keras writes it and the number after it, or None for a given name."""
    kind = re.sub(r"\W+", "", type(thing).__name__)
    kind = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", kind)
    kind = re.sub("([a-z])([A-Z])", r"\1_\2", kind).lower()
    found = re.fullmatch(rf"{kind}(?:_(\d+))?", str(thing.name))
    return (kind, int(found[1] or 0)) if found else None
