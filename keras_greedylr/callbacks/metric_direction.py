"""Which way a metric gets better, by its name or by what Keras knows of it."""

from __future__ import annotations

from typing import Any, Literal

import keras


def metric_direction(
    monitor: str, model: keras.Model, asker: str = "GreedyLR"
) -> Literal["min", "max"]:
    """Returns the mode of a metric of `model`.

    Args:
        monitor: The metric's name, with `val_` or without.
        model: Compiled with it, or not.
        asker: In whose name an error is raised.

    Raises:
        ValueError: if neither its name nor Keras tells.
    """
    direction = known_direction(monitor, model)
    if direction is None:
        raise ValueError(
            f"{asker} cannot tell whether `{monitor}` gets better by growing or by shrinking. Pass "
            "mode='max' or mode='min' (received: mode='auto')."
        )
    return direction


def known_direction(monitor: str, model: keras.Model) -> Literal["min", "max"] | None:
    """Returns the mode of a metric of `model`, or None if nothing tells."""
    name = monitor.removeprefix("val_")
    if name == "loss" or name.endswith("_loss"):
        return "min"
    for metric in flat_metrics(model.metrics):
        if metric.name == name or name.endswith(f"_{metric.name}"):
            direction = getattr(metric, "_direction", None)
            if direction in ("up", "down"):
                return "max" if direction == "up" else "min"
    words = name.split("_")  # whole ones: an inaccuracy is no accuracy
    if {"error", "mse", "mae", "mape", "msle"} & set(words):
        return "min"
    if {"accuracy", "acc", "auc", "precision", "recall", "f1"} & set(words):
        return "max"
    if name.startswith(("auc", "precision", "recall", "f1")):
        return "max"
    return None


def flat_metrics(metrics: list[Any]) -> list[Any]:
    """Metrics without the containers `compile` puts them in."""
    flat: list[Any] = []
    for metric in metrics:
        flat += flat_metrics(metric.metrics) if getattr(metric, "metrics", None) else [metric]
    return flat
