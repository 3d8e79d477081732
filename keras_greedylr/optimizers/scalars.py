"""Scalars of an optimizer's state, and arithmetic that works alike on every backend.

`keras.ops` rounds double precision to single in places: `maximum` and `minimum`
on PyTorch, `cast` of a Python number on TensorFlow. Under `floatx` float64 an
optimizer should be exact, so the functions here stand in for those. On PyTorch
those also make a tensor of a number: a copy from the host to the device.
"""

from __future__ import annotations

import itertools
import numbers
from typing import Any

import keras
from keras import ops

from keras_greedylr.validation import check_float


def add_scalar(optimizer: keras.optimizers.Optimizer, name: str, value: float = 0.0) -> Any:
    """Adds a scalar variable to the state of `optimizer`, which starts at `value`."""
    # Half precision could not even count the steps.
    dtype = "float64" if keras.config.floatx() == "float64" else "float32"
    return optimizer.add_variable(
        (),
        lambda shape, dtype: ops.full(shape, constant(value, dtype), dtype),
        dtype=dtype,
        aggregation="only_first_replica",  # each device computes the same
        name=name,
    )


def set_weights(optimizer: Any, weights: list[Any]) -> None:
    """Sets the variables of an optimizer around another one: Keras sets its own and no more.

    Raises:
        ValueError: if there are more or fewer weights than variables; nothing is set then.
    """
    if len(weights) != len(optimizer.variables):
        raise ValueError(
            f"`weights` must be an array for each of the {len(optimizer.variables)} variables of "
            f"{type(optimizer).__name__}. Received: {len(weights)} arrays"
        )
    own = len(optimizer._variables)
    keras.optimizers.Optimizer.set_weights(optimizer, weights[:own])
    for variable, weight in zip(optimizer.variables[own:], weights[own:], strict=True):
        variable.assign(weight)


def refuse_half_precision(optimizer: Any, variables: list[keras.Variable]) -> None:
    """Raises for variables in which small numbers, or those near one, would be rounded away."""
    half = [f"{v.path} ({v.dtype})" for v in variables if v.dtype in ("float16", "bfloat16")]
    if half:
        raise ValueError(
            f"{type(optimizer).__name__} cannot keep its averages in half precision. Keep the "
            "variables in float32, for example by the dtype policy 'mixed_bfloat16'. Received: "
            + ", ".join(half)
        )


def to_rate(value: Any) -> float:
    """A learning rate, also one in a tensor, as a Python number.

    Raises:
        ValueError: if it is no finite number > 0: a schedule, for example.
    """
    if isinstance(value, keras.Variable) or ops.is_tensor(value):
        value = float(ops.convert_to_numpy(value))
    check_float("learning_rate", value, above=0.0)
    return float(value)


def check_rate(value: Any) -> None:
    """Raises ValueError for a number that is no learning rate; schedules and callables may pass."""
    if isinstance(value, numbers.Real):
        check_float("learning_rate", value, least=0.0)


def constant(value: float, dtype: Any) -> Any:
    """A Python number as a tensor."""
    return ops.convert_to_tensor(value, dtype)


def select(condition: Any, a: Any, b: Any) -> Any:
    """`a` where the condition holds, else `b`; one of them may be a Python number.

    The condition is a scalar or of their shape.
    """
    if keras.backend.backend() == "torch":
        import torch

        return torch.where(condition, a, b)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        # `tf.where` spends four microseconds on finding out that there is nothing to broadcast.
        a, b = (
            tf.constant(x, y.dtype, y.shape) if isinstance(x, float) else x
            for x, y in ((a, b), (b, a))
        )
        return tf.raw_ops.Select(condition=condition, x=a, y=b)
    return ops.where(condition, a, b)


def maximum(a: Any, b: Any) -> Any:
    """The larger of a tensor and a number, or of two tensors of one dtype."""
    return a.clamp(min=b) if keras.backend.backend() == "torch" else ops.maximum(a, b)


def minimum(a: Any, b: Any) -> Any:
    """The smaller of a tensor and a number, or of two tensors of one dtype."""
    return a.clamp(max=b) if keras.backend.backend() == "torch" else ops.minimum(a, b)


def split(vector: Any, sizes: list[int]) -> Any:
    """A vector cut into parts of these sizes; `keras.ops` reads them off the device on PyTorch."""
    if keras.backend.backend() == "torch":
        import torch

        return torch.split(vector, sizes)
    return ops.split(vector, list(itertools.accumulate(sizes[:-1])))


def dense(gradient: Any, dtype: Any) -> Any:
    """A gradient as a tensor of `dtype`; those of embeddings come sparse on TensorFlow."""
    if hasattr(gradient, "dense_shape"):
        import tensorflow as tf

        gradient = tf.convert_to_tensor(gradient)
    return ops.cast(gradient, dtype)
