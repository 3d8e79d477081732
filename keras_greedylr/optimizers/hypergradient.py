"""Hypergradient descent: the rate follows its own gradient.

A step moves the weights by `lr u_t`, where `u_t` is the inner optimizer's step
at rate 1. Then the derivative of the next loss by the rate is `<g_{t+1}, u_t>`,
and a gradient step on the rate is

    additive:        lr_{t+1} = lr_t - h <g_{t+1}, u_t>
    multiplicative:  lr_{t+1} = lr_t (1 - h <g_{t+1}, u_t> / (|g_{t+1}| |u_t|))

with `h` the hyper learning rate (Baydin et al., 2018). For SGD `u_t = -g_t`: the
rate rises while successive gradients point the same way.
"""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from keras_greedylr.optimizers.scalars import add_scalar, constant, set_weights, to_rate
from keras_greedylr.optimizers.two_pass import TwoPassOptimizer
from keras_greedylr.validation import check_bool, check_choice, check_float

# Their step is the rate times something that does not depend on the weights.
INNER_OPTIMIZERS = (
    keras.optimizers.SGD,
    keras.optimizers.Adam,
    keras.optimizers.Adamax,
    keras.optimizers.Adagrad,
    keras.optimizers.RMSprop,
    keras.optimizers.Lion,
)


@keras.saving.register_keras_serializable(package="keras_greedylr")
class HypergradientDescent(TwoPassOptimizer):
    """Learns the learning rate of another optimizer by gradient descent.

    With `u_t` the inner optimizer's step at rate 1 and `g_t` the gradient, step
    `t` first moves the rate and then the weights:

        additive:        lr_t = lr_{t-1} - h <g_t, u_{t-1}>
        multiplicative:  lr_t = lr_{t-1} (1 - h <g_t, u_{t-1}> / (|g_t| |u_{t-1}|))
        weights:         w_{t+1} = w_t + lr_t u_t

    With `per_parameter=True` each entry of the weights has a rate of its own
    and the products are taken entry by entry; `learning_rate` is their mean.
    Momentum is taken of gradients, not of steps already scaled by the rate.
    The rate is not kept from turning negative: neither does the paper.

    Example:

    >>> import keras
    >>> import numpy as np
    >>> from keras_greedylr.optimizers import HypergradientDescent
    >>> optimizer = HypergradientDescent(keras.optimizers.SGD(0.01), hyper_learning_rate=1e-3)
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    >>> model.compile(optimizer=optimizer, loss="mse")
    >>> history = model.fit(np.ones((32, 4)), np.ones((32, 1)), verbose=0)

    Args:
        inner_optimizer: An SGD (with or without momentum), Adam, AdamW, Adamax,
            Adagrad, RMSprop or Lion with a float for its rate, which is where
            the rate begins. Its other arguments (clipping, weight decay, ...)
            hold as without the wrapper.
        hyper_learning_rate: Float >= 0, `h` above.
        mode: `"additive"` or `"multiplicative"`.
        per_parameter: Boolean. One rate for each entry of the weights.
        name: String. A name for the optimizer.

    Raises:
        ValueError: if an argument is of a wrong kind or out of its range.

    Reference:
        [Baydin et al., 2018](https://arxiv.org/abs/1703.04782).
    """

    sets_learning_rate = True  # for the callbacks, which cannot do it beside

    def __init__(
        self,
        inner_optimizer: keras.optimizers.Optimizer,
        hyper_learning_rate: float = 1e-4,
        mode: str = "additive",
        per_parameter: bool = False,
        name: str = "hypergradient_descent",
    ):
        if not isinstance(inner_optimizer, INNER_OPTIMIZERS) or not isinstance(
            inner_optimizer._learning_rate, keras.Variable
        ):
            names = ", ".join(optimizer.__name__ for optimizer in INNER_OPTIMIZERS)
            raise ValueError(
                f"`inner_optimizer` must be one of {names}, with a float for its learning rate. "
                f"Received: inner_optimizer={inner_optimizer!r} with "
                f"learning_rate={getattr(inner_optimizer, '_learning_rate', None)!r}"
            )
        check_float("hyper_learning_rate", hyper_learning_rate, least=0.0)
        check_choice("mode", mode, ("additive", "multiplicative"))
        check_bool("per_parameter", per_parameter)
        # The rate lives in the inner optimizer, where those who log rates look;
        # what wraps an update (clipping, decay, averages) is done here.
        super().__init__(
            learning_rate=lambda: inner_optimizer.learning_rate,
            weight_decay=inner_optimizer.weight_decay,
            clipnorm=inner_optimizer.clipnorm,
            clipvalue=inner_optimizer.clipvalue,
            global_clipnorm=inner_optimizer.global_clipnorm,
            use_ema=inner_optimizer.use_ema,
            ema_momentum=inner_optimizer.ema_momentum,
            ema_overwrite_frequency=inner_optimizer.ema_overwrite_frequency,
            loss_scale_factor=inner_optimizer.loss_scale_factor,
            gradient_accumulation_steps=inner_optimizer.gradient_accumulation_steps,
            name=name,
        )
        self.inner_optimizer = inner_optimizer
        self.hyper_learning_rate = hyper_learning_rate
        self.mode = mode
        self.per_parameter = per_parameter
        # Read here: `build` may run where TensorFlow cannot read.
        self._start = float(ops.convert_to_numpy(inner_optimizer.learning_rate))

    @property
    def learning_rate(self) -> Any:
        """The rate of the last step, with `per_parameter` the mean of the rates."""
        return self.inner_optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, learning_rate: Any) -> None:
        self._start = to_rate(learning_rate)
        self.inner_optimizer.learning_rate = self._start
        if self.per_parameter and self.built:
            for rate in self._rates:
                rate.assign(ops.full(rate.shape, self._start, rate.dtype))

    @property
    def variables(self) -> list[keras.Variable]:
        """The optimizer's variables and the inner optimizer's."""
        return self._variables + self.inner_optimizer.variables

    def set_weights(self, weights: list[Any]) -> None:
        """Sets the variables, in the order of `variables`."""
        set_weights(self, weights)

    def build(self, variables: list[keras.Variable]) -> None:
        """Creates the optimizer's variables and the inner optimizer's."""
        if self.built:
            return
        self.inner_optimizer.build(variables)
        super().build(variables)
        if self.use_ema:  # `SwapEMAWeights` looks for the averages inside
            self.inner_optimizer._model_variables_moving_average = (
                self._model_variables_moving_average
            )
        self._units = self.add_optimizer_variables(variables, "unit")  # u_{t-1}
        if self.per_parameter:
            self._rates = self.add_optimizer_variables(
                variables,
                "rate",
                initializer=lambda shape, dtype: ops.full(
                    shape, constant(self._start, dtype), dtype
                ),
            )
            self._rate_sum = add_scalar(self, "rate_sum")
            self._rate_count = add_scalar(self, "rate_count")
            self._scalars = [self._rate_sum, self._rate_count]
        else:
            self._inner_product = add_scalar(self, "inner_product")  # <g_t, u_{t-1}>
            self._gradient_norm = add_scalar(self, "gradient_norm")  # |g_t|^2
            self._unit_norm = add_scalar(self, "unit_norm")  # |u_{t-1}|^2
            self._scalars = [self._inner_product, self._gradient_norm, self._unit_norm]

    def exclude_from_weight_decay(
        self, var_list: list[keras.Variable] | None = None, var_names: list[str] | None = None
    ) -> None:
        """Leaves weights out of the inner optimizer's weight decay."""
        self.inner_optimizer.exclude_from_weight_decay(var_list, var_names)

    def _use_weight_decay(self, variable: Any) -> bool:
        return self.inner_optimizer._use_weight_decay(variable)

    def _backend_update_step(self, grads: Any, trainable_variables: Any, learning_rate: Any) -> Any:
        for scalar in self._scalars:
            scalar.assign(0.0)
        super()._backend_update_step(grads, trainable_variables, learning_rate)
        # It counts batches, as this one does.
        self.inner_optimizer._iterations.assign_add(self.gradient_accumulation_steps or 1)

    def observe_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Adds a gradient to the products; moves the rates that are the variable's own."""
        index = self._get_variable_index(variable)
        unit = ops.convert_to_tensor(self._units[index])
        if not self.per_parameter:
            for scalar, product in (
                (self._inner_product, gradient * unit),
                (self._gradient_norm, ops.square(gradient)),
                (self._unit_norm, ops.square(unit)),
            ):
                self.assign_add(scalar, ops.cast(ops.sum(product), scalar.dtype))
            return
        rate = ops.convert_to_tensor(self._rates[index])
        if self.mode == "additive":
            rate = rate - self.hyper_learning_rate * gradient * unit
        else:  # a product of two numbers over that of their sizes is its sign
            sign = ops.sign(gradient) * ops.sign(unit)
            rate = rate * (1.0 - self.hyper_learning_rate * sign)
        self.assign(self._rates[index], rate)
        self.assign_add(self._rate_sum, ops.cast(ops.sum(rate), self._rate_sum.dtype))
        self.assign_add(self._rate_count, math.prod(rate.shape))

    def decide(self, learning_rate: Any) -> None:
        """Moves the rate."""
        rate = ops.convert_to_tensor(self.inner_optimizer._learning_rate)
        if self.per_parameter:
            rate = self._rate_sum / self._rate_count
        elif self.mode == "additive":
            rate = rate - self.hyper_learning_rate * ops.cast(self._inner_product, rate.dtype)
        else:
            # Of each by itself: the product of small ones would be zero.
            norm = ops.sqrt(self._gradient_norm) * ops.sqrt(self._unit_norm)
            known = norm > 0  # not so in the first step, and where a gradient is zero
            cosine = self._inner_product / ops.where(known, norm, ops.ones_like(norm))
            rate = rate * (1.0 - self.hyper_learning_rate * ops.cast(cosine, rate.dtype))
        self.inner_optimizer._learning_rate.assign(rate)

    def move_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Has the inner optimizer make its step at rate 1 and takes it at the learned rate."""
        index = self._get_variable_index(variable)
        # Where the weights are zero the step is exactly what they become.
        weights = ops.copy(variable)
        self.assign(variable, ops.zeros_like(weights))
        self.inner_optimizer.update_step(gradient, variable, constant(1.0, variable.dtype))
        unit = ops.copy(variable)
        rate = self._rates[index] if self.per_parameter else self.inner_optimizer._learning_rate
        self.assign(variable, weights + ops.cast(rate, variable.dtype) * unit)
        self.assign(self._units[index], unit)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            "inner_optimizer": keras.saving.serialize_keras_object(self.inner_optimizer),
            "hyper_learning_rate": self.hyper_learning_rate,
            "mode": self.mode,
            "per_parameter": self.per_parameter,
            "name": self.name,
        }

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None
    ) -> HypergradientDescent:
        """Makes an optimizer from `get_config`."""
        return cls(**keras.saving.deserialize_keras_object(config, custom_objects=custom_objects))
