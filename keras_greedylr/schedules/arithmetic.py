"""What the schedules compute with."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops


def as_float(value: Any) -> Any:
    """A step or a rate as a tensor of Keras' default float type."""
    return ops.cast(value, keras.config.floatx())


def half_cosine(x: Any) -> Any:
    """From 0 to 1 as `x` does, along half a wave."""
    return 0.5 * (1.0 - ops.cos(math.pi * x))
