"""Reading one variable in the middle of an epoch without paying for all of them."""

from __future__ import annotations

import keras


def peek(model: keras.Model, variable: keras.Variable) -> float:
    """Returns the value of a scalar metric or optimizer variable.

    On JAX the variables of a model hold nothing while an epoch runs: the values
    travel with the training loop, and the public way to them copies every one.
    This reads the one asked for where the loop keeps it.
    """
    if keras.backend.backend() == "jax":
        running = getattr(model, "_jax_state", None)
        if running and not model._jax_state_synced:
            for owned, values in (
                (model.metrics_variables, running.get("metrics_variables", ())),
                (model.optimizer.variables, running.get("optimizer_variables", ())),
            ):
                for own, value in zip(owned, values, strict=False):  # none while it validates
                    if own is variable:
                        return float(value)
    if hasattr(type(variable.value), "__float__"):
        return float(variable.value)
    # By way of a tensor: a variable spread over replicas is no number.
    return float(keras.ops.convert_to_numpy(keras.ops.convert_to_tensor(variable)))
