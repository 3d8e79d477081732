"""What the Schedule-Free optimizers share: the averaging weights and the two points.

A model has room for one of the points `x`, `y` and `z`. It trains at `y`; `fit`
moves it to `x` when it ends, and `SwapScheduleFreeWeights` does so for each
validation. Kept beside it is only `d = z - y`, from which the others follow:

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

from keras_greedylr.optimizers.scalars import add_scalar, check_rate, constant, maximum, minimum
from keras_greedylr.validation import check_float, check_int


class ScheduleFree(keras.optimizers.Optimizer, abc.ABC):
    """Base of the variants, which differ in the plain optimizer's direction."""

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
        check_rate(learning_rate)
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
        step = -lr * g
        if variable.constraint is not None:
            # Of z, so that its averages keep to it as well where it is convex.
            z = y + (back + 1) * d
            step = variable.constraint(z + step) - z
        self.assign_add(variable, (back + c) * d + (1 - beta * (1 - c)) * step)
        self.assign(difference, (1 - c) * (d + beta * step))

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
                moved = variable + step * d
                # To the average of points that keep to it: this takes off rounding errors.
                constrained = at_average and variable.constraint is not None
                variable.assign(variable.constraint(moved) if constrained else moved)
        self._at_average.assign(float(at_average))

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "warmup_steps": self.warmup_steps,
            "r": self.r,
            "weight_lr_power": self.weight_lr_power,
        }
