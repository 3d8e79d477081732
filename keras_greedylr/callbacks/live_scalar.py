"""Reading or setting one variable in the middle of an epoch without paying for all of them.

On JAX the variables of a model hold nothing while an epoch runs: their values travel with the
training loop, and the public way to them, `Callback.model`, copies every one there and back.
Here the one that is asked for is found where the loop keeps it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

JAX = keras.backend.backend() == "jax"


class LiveScalar:
    """A scalar metric or optimizer variable of a model.

    Args:
        model: The model.
        variable: One of its metrics' or optimizer's variables.
    """

    def __init__(self, model: keras.Model, variable: keras.Variable):
        self._model = model
        self._variable = variable
        self._place = ("", 0, 0)  # which of the loop's lists, how long it is, where in it

    def read(self) -> float:
        """Returns its value."""
        running = self._running()
        if running is not None:
            values, index = running
            return float(np.asarray(values[index]))  # `float` takes ten times as long
        value = self._variable.value
        if hasattr(type(value), "__float__"):
            return float(value)
        # By way of a tensor: a variable spread over replicas is no number.
        return float(keras.ops.convert_to_numpy(keras.ops.convert_to_tensor(self._variable)))

    def write(self, number: float) -> bool:
        """Sets it where the training loop keeps it; returns False where it keeps none."""
        running = self._running()
        if running is None:
            return False
        values, index = running
        values[index] = to_device(np.asarray(number, values[index].dtype))
        return True

    def _running(self) -> tuple[Any, int] | None:
        """The training loop's list of values and the place in it; None where it keeps none."""
        state = getattr(self._model, "_jax_state", None)
        if not JAX or not state or self._model._jax_state_synced:
            return None
        name, length, index = self._place
        if name and len(state.get(name) or ()) == length:
            return state[name], index  # a model takes long to tell what its variables are
        for name, owned in (
            ("metrics_variables", self._model.metrics_variables),
            ("optimizer_variables", self._model.optimizer.variables),
        ):
            values = state.get(name) or ()  # the optimizer's are not there while it validates
            for index, (own, _) in enumerate(zip(owned, values, strict=False)):
                if own is self._variable:
                    self._place = (name, len(values), index)
                    return values, index
        return None


def to_device(array: np.ndarray) -> Any:
    """An array as JAX has them, in a tenth of what `jax.numpy.asarray` takes in a `fit`."""
    return _compiled_identity()(array)


@functools.cache
def _compiled_identity() -> Callable[[Any], Any]:
    import jax

    return jax.jit(lambda x: x)
