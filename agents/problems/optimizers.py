"""The optimizers of the inner problems, as Keras defines them, for many runs at once.

Keras' heavy ball has the rate inside of its velocity, unlike PyTorch's: after a change of the rate
the run goes on for some steps at the old one, and that is what a policy has to learn.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

USUAL_RATES = {"sgd": 0.1, "momentum": 0.02, "adam": 0.003, "adamw": 0.003, "rmsprop": 0.001}
SLOTS = {"sgd": 0, "momentum": 1, "adam": 2, "adamw": 2, "rmsprop": 1}  # moving averages
WEIGHT_DECAY = 0.004  # of AdamW, as in Keras

Params = Any  # a nest of tensors [P, ...]


def init_slots(optimizer: str, params: Params) -> list[Params]:
    """Returns the optimizer's moving averages before the first step."""
    return [tf.nest.map_structure(tf.zeros_like, params) for _ in range(SLOTS[optimizer])]


def update(
    optimizer: str,
    params: Params,
    slots: list[Params],
    updates: tf.Tensor,
    gradients: Params,
    rates: tf.Tensor,
    momentum: tf.Tensor | None = None,
) -> tuple[Params, list[Params]]:
    """Returns parameters and slots after one step.

    Args:
        optimizer: A name in `SLOTS`.
        params, gradients: Nests of one structure.
        slots: What `init_slots` or the last step returned.
        updates: [P] or [] float32, how many steps there will have been after this one.
        rates: [P].
        momentum: [P], of the heavy ball.
    """
    each = tf.nest.map_structure
    if optimizer == "sgd":
        change = gradients
    elif optimizer == "momentum":
        velocity = each(
            lambda v, g: _wide(momentum, g) * v + _wide(rates, g) * g, slots[0], gradients
        )
        return each(lambda w, v: w - v, params, velocity), [velocity]
    elif optimizer == "rmsprop":
        second = each(lambda v, g: 0.9 * v + 0.1 * g * g, slots[0], gradients)
        slots, change = [second], each(lambda g, v: g / tf.sqrt(v + 1e-7), gradients, second)
    else:
        if optimizer == "adamw":
            params = each(lambda w: w - _wide(rates, w) * WEIGHT_DECAY * w, params)
        first = each(lambda m, g: 0.9 * m + 0.1 * g, slots[0], gradients)
        second = each(lambda v, g: 0.999 * v + 0.001 * g * g, slots[1], gradients)
        slots = [first, second]
        scale = tf.sqrt(1.0 - 0.999**updates) / (1.0 - 0.9**updates)
        rates = rates * scale
        change = each(lambda m, v: m / (tf.sqrt(v) + 1e-7), first, second)
    return each(lambda w, c: w - _wide(rates, w) * c, params, change), slots


def _wide(per_run: tf.Tensor, like: tf.Tensor) -> tf.Tensor:
    return tf.reshape(per_run, (-1, *([1] * (len(like.shape) - 1))))
