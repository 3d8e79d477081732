"""Schedule-Free AdamW."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_greedylr.optimizers.scalars import constant, dense, refuse_half_precision
from keras_greedylr.optimizers.schedule_free.base import ScheduleFree
from keras_greedylr.validation import check_float


@keras.saving.register_keras_serializable(package="keras_greedylr")
class ScheduleFreeAdamW(ScheduleFree):
    """AdamW that needs no schedule: it trains at `y` and is evaluated at an average `x`.

        y_k     = (1 - beta_1) z_k + beta_1 x_k
        v_{k+1} = beta_2 v_k + (1 - beta_2) g(y_k)^2
        u_k     = g(y_k) / (sqrt(v_{k+1} / (1 - beta_2^(k+1))) + epsilon)
        z_{k+1} = z_k - lr_k (u_k + weight_decay y_k)
        x_{k+1} = (1 - c_{k+1}) x_k + c_{k+1} z_{k+1}

    with `c_{k+1}` as in `ScheduleFreeSGD`. When `fit` ends the model holds `x`; for
    validation at `x` add the callback `SwapScheduleFreeWeights`.

    Example:

    >>> import keras
    >>> import numpy as np
    >>> from keras_greedylr.optimizers import ScheduleFreeAdamW, SwapScheduleFreeWeights
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    >>> model.compile(optimizer=ScheduleFreeAdamW(0.01, warmup_steps=10), loss="mse")
    >>> x, y = np.ones((32, 4)), np.ones((32, 1))
    >>> history = model.fit(
    ...     x, y, validation_data=(x, y), verbose=0, callbacks=[SwapScheduleFreeWeights()]
    ... )

    Args:
        learning_rate: A float, a `LearningRateSchedule` or a callable.
        beta_1: Float in (0, 1). How far `y` lies from `z` towards `x`.
        beta_2: Float in [0, 1). Decay of the average of squared gradients.
        epsilon: Float > 0. Keeps the division finite.
        weight_decay: Float >= 0 or `None`. Decoupled decay, taken at `y`.
        warmup_steps, r, weight_lr_power: As in `ScheduleFreeSGD`.
        name: String. A name for the optimizer.
        **kwargs: Those of every Keras optimizer, but `use_ema`.

    Raises:
        ValueError: if an argument is out of its range, or a weight is kept in half precision.

    Reference:
        [Defazio et al., 2024](https://arxiv.org/abs/2405.15682).
    """

    def __init__(
        self,
        learning_rate: Any = 0.0025,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        weight_decay: float | None = None,
        warmup_steps: int = 0,
        r: float = 0.0,
        weight_lr_power: float = 2.0,
        name: str = "schedule_free_adamw",
        **kwargs: Any,
    ):
        check_float("beta_1", beta_1, above=0.0, below=1.0)
        check_float("beta_2", beta_2, least=0.0, below=1.0)
        check_float("epsilon", epsilon, above=0.0)
        super().__init__(
            learning_rate, weight_decay, warmup_steps, r, weight_lr_power, name, **kwargs
        )
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon

    @property
    def _beta(self) -> float:
        return self.beta_1

    def build(self, variables: list[keras.Variable]) -> None:
        """Creates the optimizer's variables: two for each weight, and four scalars."""
        if self.built:
            return
        refuse_half_precision(self, variables)
        super().build(variables)
        self._velocities = self.add_optimizer_variables(variables, "velocity")

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Updates `variable`, which holds y."""
        dtype = variable.dtype
        g = dense(gradient, dtype)
        velocity = self._velocities[self._get_variable_index(variable)]
        v = self.beta_2 * velocity + (1 - self.beta_2) * ops.square(g)
        self.assign(velocity, v)
        step = ops.cast(self.iterations, dtype) + 1.0
        correction = 1.0 - ops.power(constant(self.beta_2, dtype), step)
        direction = g / (ops.sqrt(v / correction) + self.epsilon)
        self._step(variable, direction, ops.cast(learning_rate, dtype))

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "beta_1": self.beta_1,
            "beta_2": self.beta_2,
            "epsilon": self.epsilon,
        }
