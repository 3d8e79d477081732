"""The train step that a line search needs.

An optimizer sees gradients only; `ArmijoLineSearch` needs losses as well. The
step is written once for all backends: losses are taken at trial weights in a
`StatelessScope`, in which no variable changes, so that every trial meets the
same dropout masks and leaves no trace.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_greedylr.optimizers.line_search import ArmijoLineSearch
from keras_greedylr.optimizers.scalars import dense


@keras.saving.register_keras_serializable(package="keras_greedylr")
class LineSearchModel(keras.Model):
    """A model with the train step that `ArmijoLineSearch` needs.

    It computes what the model in it does and shares its weights, so that one
    trains through the wrapper and uses either. Each step costs one evaluation
    of the gradient and one of the loss for every rate that is tried. It trains
    on one device.

    Example: see `ArmijoLineSearch`.

    Args:
        model: The `keras.Model` to train. Its own `train_step` and `compute_loss` are not used.
        **kwargs: Those of `keras.Model`.

    Raises:
        ValueError: if `model` is not a model.
    """

    def __init__(self, model: keras.Model, **kwargs: Any):
        if not isinstance(model, keras.Model):
            raise ValueError(f"`model` must be a keras.Model. Received: model={model!r}")
        super().__init__(**kwargs)
        self.model = model
        if hasattr(model, "output_names"):  # by which losses and targets may be told apart
            self.output_names = model.output_names
        self.built = model.built  # so that it can be saved and restored before it is called

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Calls the model; `training` reaches it by the call's context."""
        return self.model(inputs)

    def fit(self, *args: Any, **kwargs: Any) -> Any:
        """Trains as `keras.Model.fit` does."""
        arguments = inspect.signature(keras.Model.fit).bind(self, *args, **kwargs).arguments
        callbacks = arguments.get("callbacks") or []
        if not isinstance(callbacks, list | tuple):
            callbacks = [callbacks]
        arguments["callbacks"] = [_BeginFit(), *callbacks]
        del arguments["self"]
        return super().fit(**arguments)

    def export(self, *args: Any, **kwargs: Any) -> Any:
        """Exports the model that it trains."""
        return self.model.export(*args, **kwargs)

    def train_step(self, *args: Any) -> Any:
        """Takes one step: `train_step(data)`, on JAX `train_step(state, data)`."""
        if keras.backend.backend() != "jax":
            return self._train_step(*args)
        state, data = args
        groups = (
            self.trainable_variables,
            self.non_trainable_variables,
            self.optimizer.variables,
            self.metrics_variables,
        )
        mapping = [
            pair
            for group, values in zip(groups, state, strict=True)
            for pair in zip(group, values, strict=True)
        ]
        with keras.StatelessScope(mapping) as scope:
            logs = self._train_step(data)
        return logs, tuple([scope.get_current_value(v) for v in group] for group in groups)

    def _train_step(self, data: Any) -> dict[str, Any]:
        optimizer = self.optimizer
        if not isinstance(optimizer, ArmijoLineSearch):
            raise ValueError(
                "LineSearchModel trains with ArmijoLineSearch, without loss scaling (use "
                "`mixed_bfloat16`, or compile with `auto_scale_loss=False`). "
                f"Received: optimizer={optimizer!r}"
            )
        strategy = getattr(self, "distribute_strategy", None)
        replicas = getattr(strategy, "num_replicas_in_sync", 1)
        if replicas > 1:
            raise RuntimeError(
                "LineSearchModel trains on one device: each would search for itself. Received: a "
                f"model on {replicas} replicas"
            )
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        if not optimizer.built:
            optimizer.build(self.trainable_variables)
        trainable = self.trainable_variables
        # Statistics of batches, states of random generators, metrics of single outputs.
        others = self.non_trainable_variables + self.metrics_variables
        before = [ops.copy(variable) for variable in others]

        def evaluate(weights: list[Any]) -> tuple[Any, tuple[Any, list[Any]]]:
            mapping = [*zip(trainable, weights, strict=True), *zip(others, before, strict=True)]
            with keras.StatelessScope(mapping, collect_losses=True) as scope:
                y_pred = self(x, training=True)
                loss = self.compute_loss(x, y, y_pred, sample_weight)
            return loss, (y_pred, [scope.get_current_value(variable) for variable in others])

        weights = [ops.copy(variable) for variable in trainable]
        loss, (y_pred, after), gradients = _value_and_gradients(evaluate, weights)
        with _no_gradients():
            weights = optimizer.search(lambda trial: evaluate(trial)[0], loss, weights, gradients)
            for variable, value in zip(trainable + others, weights + after, strict=True):
                variable.assign(value)
        first = next(leaf for leaf in keras.tree.flatten(x) if leaf is not None)
        self._loss_tracker.update_state(loss, sample_weight=ops.shape(first)[0])
        return self.compute_metrics(x, y, y_pred, sample_weight)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            "name": self.name,
            "trainable": self.trainable,
            "dtype": keras.dtype_policies.serialize(self.dtype_policy),
            "model": keras.saving.serialize_keras_object(self.model),
        }

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None
    ) -> LineSearchModel:
        """Makes a model from `get_config`."""
        return cls(**keras.saving.deserialize_keras_object(config, custom_objects=custom_objects))


class _BeginFit(keras.callbacks.Callback):
    """Tells the optimizer how many steps an epoch has."""

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        optimizer = self.model.optimizer
        if isinstance(optimizer, ArmijoLineSearch):
            optimizer.begin_fit(self.params.get("steps"))


def _value_and_gradients(
    function: Callable[[list[Any]], tuple[Any, Any]], weights: list[Any]
) -> tuple[Any, Any, list[Any]]:
    """Returns both results of `function` and the gradients of the first."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        (loss, extra), gradients = jax.value_and_grad(function, has_aux=True)(weights)
        return loss, extra, gradients
    if backend == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(weights)
            loss, extra = function(weights)
        gradients = tape.gradient(loss, weights, unconnected_gradients="zero")
        return loss, extra, [dense(g, g.dtype) for g in gradients]
    if backend == "torch":
        import torch

        with torch.enable_grad():
            leaves = [w.detach().requires_grad_() for w in weights]
            loss, extra = function(leaves)
            gradients = torch.autograd.grad(loss, leaves, allow_unused=True) if leaves else ()
        gradients = [
            torch.zeros_like(w) if g is None else g for w, g in zip(leaves, gradients, strict=True)
        ]
        return loss.detach(), keras.tree.map_structure(_detached, extra), gradients
    raise RuntimeError(
        "LineSearchModel takes gradients on TensorFlow, JAX and PyTorch. Received: Keras on the "
        f"backend '{backend}'"
    )


def _detached(value: Any) -> Any:
    """A tensor of PyTorch without its graph, but with the mask Keras keeps on it."""
    import torch

    if not isinstance(value, torch.Tensor):
        return value
    detached = value.detach()
    if (mask := getattr(value, "_keras_mask", None)) is not None:
        detached._keras_mask = mask
    return detached


def _no_gradients() -> Any:
    if keras.backend.backend() == "torch":
        import torch

        return torch.no_grad()
    return contextlib.nullcontext()
