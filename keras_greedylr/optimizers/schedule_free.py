"""Schedule-Free SGD and AdamW: averaging in place of a schedule.

    y_k     = (1 - beta) z_k + beta x_k               where the gradient is taken
    z_{k+1} = z_k - lr_k g(y_k)                       the plain optimizer's steps
    x_{k+1} = (1 - c_{k+1}) x_k + c_{k+1} z_{k+1}     their average, to be evaluated

with the warmed-up rate `lr_k = lr min(1, (k+1) / warmup_steps)` and the weights
`c_{k+1} = w_k / (w_0 + ... + w_k)`, `w_k = (k+1)^r max(lr_0, ..., lr_k)^p`,
`p = weight_lr_power` (Defazio et al., 2024, https://arxiv.org/abs/2405.15682).

A model has room for one of the three points. It trains at `y`; `fit` moves it
to `x` when it ends, and `SwapScheduleFreeWeights` does so for each validation.
Kept beside it is only `d = z - y`, from which the others follow:

    x = y - (1 - beta) / beta d
    y_{k+1} = y_k + c d_k - lr_k (1 - beta (1 - c)) g
    d_{k+1} = (1 - c) (d_k - lr_k beta g)

A difference starts at zero, whatever the weights, so weights may be loaded or
set at any time, and it loses no digits where `z` and `y` are close.
"""

from __future__ import annotations

import abc
from typing import Any

import keras
from keras import ops

from keras_greedylr.optimizers.scalars import add_scalar, constant, dense, maximum, minimum
from keras_greedylr.validation import check_float, check_int


class _ScheduleFree(keras.optimizers.Optimizer, abc.ABC):
    """What the variants share: the averaging weights and the two points."""

    def __init__(
        self,
        learning_rate: Any,
        weight_decay: float | None,
        warmup_steps: int,
        r: float,
        weight_lr_power: float,
        name: str,
        **kwargs: Any,
    ):
        if weight_decay is not None:
            check_float("weight_decay", weight_decay, least=0.0)
        check_int("warmup_steps", warmup_steps, least=0)
        check_float("r", r)
        check_float("weight_lr_power", weight_lr_power)
        if kwargs.get("use_ema"):
            raise ValueError(
                f"{type(self).__name__} keeps an average of its own: `use_ema` must be False. "
                "Received: use_ema=True"
            )
        super().__init__(
            learning_rate=learning_rate, weight_decay=weight_decay, name=name, **kwargs
        )
        self.warmup_steps = warmup_steps
        self.r = r
        self.weight_lr_power = weight_lr_power

    @property
    @abc.abstractmethod
    def _beta(self) -> float:
        """How far `y` lies from `z` towards `x`."""

    def build(self, variables: list[keras.Variable]) -> None:
        """Creates the optimizer's variables: one for each weight, and four scalars."""
        if self.built:
            return
        super().build(variables)
        self._differences = self.add_optimizer_variables(variables, "difference")  # d = z - y
        self._largest_rate = add_scalar(self, "largest_rate")
        self._weight_sum = add_scalar(self, "weight_sum")
        self._weight = add_scalar(self, "weight")  # c_{k+1}
        self._at_average = add_scalar(self, "at_average")  # 1 if the model holds x, 0 if it holds y

    def _backend_update_step(self, grads: Any, trainable_variables: Any, learning_rate: Any) -> Any:
        # Once a step, before the weights move.
        dtype = self._weight_sum.dtype
        zero, one = constant(0.0, dtype), constant(1.0, dtype)
        step = ops.cast(self.iterations, dtype) + one
        learning_rate = ops.cast(learning_rate, dtype)
        if self.warmup_steps:
            learning_rate = learning_rate * minimum(step / self.warmup_steps, one)
        largest = maximum(learning_rate, ops.convert_to_tensor(self._largest_rate))
        weight = ops.power(step, constant(self.r, dtype)) * ops.power(
            largest, constant(self.weight_lr_power, dtype)
        )
        total = self._weight_sum + weight
        self._largest_rate.assign(largest)
        self._weight_sum.assign(total)
        # A rate that has only been zero so far weighs nothing.
        self._weight.assign(ops.where(total > 0, weight / ops.where(total > 0, total, one), zero))
        super()._backend_update_step(grads, trainable_variables, learning_rate)
        self._at_average.assign(0.0)

    def _apply_weight_decay(self, variables: Any) -> None:
        """Does nothing: the decay is part of the step, see `_step`."""

    def _step(self, variable: Any, direction: Any, learning_rate: Any) -> None:
        """Takes `direction`, the plain optimizer's, at a variable that holds y."""
        # Notation to match theory
        g, lr, beta, y = direction, learning_rate, self._beta, variable
        if self.weight_decay and self._use_weight_decay(variable):
            g = g + self.weight_decay * y
        difference = self._differences[self._get_variable_index(variable)]
        d = ops.convert_to_tensor(difference)
        c = ops.cast(self._weight, variable.dtype)
        # A model that was left at x, with no callback to bring it back, goes to y now.
        back = ops.cast(self._at_average, variable.dtype) * ((1 - beta) / beta)
        self.assign_add(variable, (back + c) * d - lr * (1 - beta * (1 - c)) * g)
        self.assign(difference, (1 - c) * (d - lr * beta * g))

    def finalize_variable_values(self, var_list: list[keras.Variable]) -> None:
        """Moves the model to the averaged point `x`; `fit` does so when it ends."""
        self._move(at_average=True)

    def resume_variable_values(self, var_list: list[keras.Variable]) -> None:
        """Moves the model back to the training point `y`."""
        self._move(at_average=False)

    def _move(self, at_average: bool) -> None:
        if not self.built or bool(ops.convert_to_numpy(self._at_average)) == at_average:
            return
        step = (1 - self._beta) / self._beta * (-1 if at_average else 1)
        for variable, d in zip(self._trainable_variables, self._differences, strict=True):
            if d is not None:
                variable.assign_add(step * d)
        self._at_average.assign(float(at_average))

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "warmup_steps": self.warmup_steps,
            "r": self.r,
            "weight_lr_power": self.weight_lr_power,
        }


@keras.saving.register_keras_serializable(package="keras_greedylr")
class ScheduleFreeSGD(_ScheduleFree):
    """SGD that needs no schedule: it trains at `y` and is evaluated at an average `x`.

        y_k     = (1 - momentum) z_k + momentum x_k
        z_{k+1} = z_k - lr_k (g(y_k) + weight_decay y_k)
        x_{k+1} = (1 - c_{k+1}) x_k + c_{k+1} z_{k+1}

    where `c_{k+1}` is the share of `w_k = (k+1)^r max(lr_0..lr_k)^weight_lr_power`
    in `w_0 + ... + w_k`. When `fit` ends the model holds `x`. For validation at
    `x` add the callback `SwapScheduleFreeWeights`.

    Example:

    >>> import keras
    >>> import numpy as np
    >>> from keras_greedylr.optimizers import ScheduleFreeSGD, SwapScheduleFreeWeights
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    >>> model.compile(optimizer=ScheduleFreeSGD(0.1), loss="mse")
    >>> x, y = np.ones((32, 4)), np.ones((32, 1))
    >>> history = model.fit(
    ...     x, y, validation_data=(x, y), verbose=0, callbacks=[SwapScheduleFreeWeights()]
    ... )

    Args:
        learning_rate: A float, a `LearningRateSchedule` or a callable. Larger
            than one would take for SGD with a schedule.
        momentum: Float in (0, 1). How far `y` lies from `z` towards `x`.
        weight_decay: Float >= 0 or `None`. A penalty on the weights at `y`.
        warmup_steps: Integer >= 0. Steps over which the rate rises linearly.
        r: Float. The later steps' weights in the average grow as `k^r`.
        weight_lr_power: Float. Steps weigh in the average as this power of the
            rate; 0 for no such weighting.
        name: String. A name for the optimizer.
        **kwargs: Those of every Keras optimizer, but `use_ema`.

    Raises:
        ValueError: if an argument is out of its range.

    Reference:
        [Defazio et al., 2024](https://arxiv.org/abs/2405.15682).
    """

    def __init__(
        self,
        learning_rate: Any = 1.0,
        momentum: float = 0.9,
        weight_decay: float | None = None,
        warmup_steps: int = 0,
        r: float = 0.0,
        weight_lr_power: float = 2.0,
        name: str = "schedule_free_sgd",
        **kwargs: Any,
    ):
        check_float("momentum", momentum, above=0.0, below=1.0)
        super().__init__(
            learning_rate, weight_decay, warmup_steps, r, weight_lr_power, name, **kwargs
        )
        self.momentum = momentum

    @property
    def _beta(self) -> float:
        return self.momentum

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Updates `variable`, which holds y."""
        gradient = dense(gradient, variable.dtype)
        self._step(variable, gradient, ops.cast(learning_rate, variable.dtype))

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {**super().get_config(), "momentum": self.momentum}


@keras.saving.register_keras_serializable(package="keras_greedylr")
class ScheduleFreeAdamW(_ScheduleFree):
    """AdamW that needs no schedule: it trains at `y` and is evaluated at an average `x`.

        y_k     = (1 - beta_1) z_k + beta_1 x_k
        v_{k+1} = beta_2 v_k + (1 - beta_2) g(y_k)^2
        u_k     = g(y_k) / (sqrt(v_{k+1} / (1 - beta_2^(k+1))) + epsilon)
        z_{k+1} = z_k - lr_k (u_k + weight_decay y_k)
        x_{k+1} = (1 - c_{k+1}) x_k + c_{k+1} z_{k+1}

    where `c_{k+1}` is the share of `w_k = (k+1)^r max(lr_0..lr_k)^weight_lr_power`
    in `w_0 + ... + w_k`. When `fit` ends the model holds `x`. For validation at
    `x` add the callback `SwapScheduleFreeWeights`.

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
        warmup_steps: Integer >= 0. Steps over which the rate rises linearly.
        r: Float. The later steps' weights in the average grow as `k^r`.
        weight_lr_power: Float. Steps weigh in the average as this power of the
            rate; 0 for no such weighting.
        name: String. A name for the optimizer.
        **kwargs: Those of every Keras optimizer, but `use_ema`.

    Raises:
        ValueError: if an argument is out of its range.

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


class SwapScheduleFreeWeights(keras.callbacks.Callback):
    """Evaluates and saves a Schedule-Free model at its averaged point.

    The model goes to `x` when validation begins or the epoch ends, whichever is
    first, and back to `y` when the next epoch begins. So `validation_data`,
    `EarlyStopping` and `ModelCheckpoint` see the model one would deploy. Without
    validation data put it before the callbacks that read the weights.

    Example: see `ScheduleFreeSGD`.
    """

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Makes sure that there is something to swap."""
        if not self._optimizers():
            raise ValueError(
                "SwapScheduleFreeWeights needs a model compiled with ScheduleFreeSGD or "
                f"ScheduleFreeAdamW. Received: optimizer={self.model.optimizer!r}"
            )

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Back to the training point."""
        for optimizer in self._optimizers():
            optimizer.resume_variable_values(self.model.trainable_variables)

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        """To the averaged point, for validation."""
        for optimizer in self._optimizers():
            optimizer.finalize_variable_values(self.model.trainable_variables)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """To the averaged point, for what reads the weights between epochs."""
        self.on_test_begin()

    def _optimizers(self) -> list[_ScheduleFree]:
        optimizer = self.model.optimizer
        optimizer = getattr(optimizer, "inner_optimizer", optimizer)  # inside loss scaling
        parts = getattr(optimizer, "optimizers", [optimizer])  # inside MultiOptimizer
        return [part for part in parts if isinstance(part, _ScheduleFree)]
