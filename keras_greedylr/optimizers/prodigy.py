"""Prodigy: Adam that estimates its own learning rate.

The rate that would be best for Adam is the distance `D` from the start to the
solution. Prodigy keeps a lower bound `d` of it, which can only grow.
"""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from keras_greedylr.optimizers.scalars import (
    add_scalar,
    check_rate,
    constant,
    maximum,
    minimum,
    refuse_half_precision,
)
from keras_greedylr.optimizers.two_pass import TwoPassOptimizer
from keras_greedylr.validation import check_bool, check_float, check_int


@keras.saving.register_keras_serializable(package="keras_greedylr")
class Prodigy(TwoPassOptimizer):
    """Adam with step sizes from an estimate `d` of the distance to the solution.

        lr_k  = d_k learning_rate b_k
        m     = beta_1 m + (1 - beta_1) d_k g
        v     = beta_2 v + (1 - beta_2) d_k^2 g^2
        n     = beta_3 n + (d_k / d0) lr_k <g, p_0 - p>
        s     = beta_3 s + (d_k / d0) lr_k g
        d_{k+1} = max(d_k, d_coef n / |s|_1)
        p     = p - lr_k (m / (sqrt(v) + d_{k+1} epsilon) + weight_decay p)

    `b_k = sqrt(1 - beta_2^(k+1)) / (1 - beta_1^(k+1))` with bias correction and
    1 without it. `n` and the norm of `s` are sums over all weights.

    Example:

    >>> import keras
    >>> import numpy as np
    >>> from keras_greedylr.optimizers import Prodigy
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    >>> model.compile(optimizer=Prodigy(), loss="mse")
    >>> history = model.fit(np.ones((32, 4)), np.ones((32, 1)), verbose=0)

    Args:
        learning_rate: A float, a `LearningRateSchedule` or a callable: a factor
            before the estimate, best left at 1.0 or given a schedule that
            starts there.
        beta_1: Float in [0, 1). Decay of the average of gradients.
        beta_2: Float in (0, 1). Decay of the average of squared gradients.
        beta_3: Float in [0, 1), decay of the averages behind the estimate, or
            `None` for `sqrt(beta_2)`.
        epsilon: Float > 0. Keeps the division finite.
        weight_decay: Float >= 0 or `None`.
        decouple: Boolean. Whether the decay is AdamW's, as above, or is added
            to the gradient.
        use_bias_correction: Boolean. Whether to correct as Adam does.
        safeguard_warmup: Boolean. Leaves the rate out of the sum `s`, so that a
            warmup does not inflate the estimate.
        d0: Float > 0. The first estimate.
        d_coef: Float > 0. Scales the estimate; the way to tune the method.
        growth_rate: Float >= 1, or `None`. The most that one step may multiply
            the estimate by, once it has left `d0`. Infinity means `None`.
        slice_p: Integer >= 1. The estimate is made from each `slice_p`-th entry
            of the weights, to save memory.
        name: String. A name for the optimizer.
        **kwargs: Those of every Keras optimizer.

    Raises:
        ValueError: if an argument is out of its range, or a weight is kept in half precision.

    Reference:
        [Mishchenko and Defazio, 2023](https://arxiv.org/abs/2306.06101).
    """

    def __init__(
        self,
        learning_rate: Any = 1.0,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        beta_3: float | None = None,
        epsilon: float = 1e-8,
        weight_decay: float | None = None,
        decouple: bool = True,
        use_bias_correction: bool = False,
        safeguard_warmup: bool = False,
        d0: float = 1e-6,
        d_coef: float = 1.0,
        growth_rate: float | None = None,
        slice_p: int = 1,
        name: str = "prodigy",
        **kwargs: Any,
    ):
        check_rate(learning_rate)
        check_float("beta_1", beta_1, least=0.0, below=1.0)
        check_float("beta_2", beta_2, above=0.0, below=1.0)
        if beta_3 is not None:
            check_float("beta_3", beta_3, least=0.0, below=1.0)
        check_float("epsilon", epsilon, above=0.0)
        if weight_decay is not None:
            check_float("weight_decay", weight_decay, least=0.0)
        check_float("d0", d0, above=0.0)
        check_float("d_coef", d_coef, above=0.0)
        if growth_rate == math.inf:
            growth_rate = None  # there is no infinity in JSON
        if growth_rate is not None:
            check_float("growth_rate", growth_rate, least=1.0)
        check_int("slice_p", slice_p, least=1)
        check_bool("decouple", decouple)
        check_bool("use_bias_correction", use_bias_correction)
        check_bool("safeguard_warmup", safeguard_warmup)
        super().__init__(
            learning_rate=learning_rate, weight_decay=weight_decay, name=name, **kwargs
        )
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.beta_3 = beta_3
        self.epsilon = epsilon
        self.decouple = decouple
        self.use_bias_correction = use_bias_correction
        self.safeguard_warmup = safeguard_warmup
        self.d0 = d0
        self.d_coef = d_coef
        self.growth_rate = growth_rate
        self.slice_p = slice_p

    def build(self, variables: list[keras.Variable]) -> None:
        """Creates the optimizer's variables: four for each weight, and the estimate's."""
        if self.built:
            return
        refuse_half_precision(self, variables)
        super().build(variables)
        self._momentums, self._velocities = self.add_optimizer_variables(
            variables, ["momentum", "velocity"]
        )
        self._starts: list[Any] = []  # p_0
        self._sums: list[Any] = []  # s
        for variable in variables:
            if self._overwrite_variable_with_gradient(variable):
                self._starts.append(None)
                self._sums.append(None)
                continue
            for name, store in (("start", self._starts), ("sum", self._sums)):
                if self.slice_p == 1:
                    store.append(self.add_variable_from_reference(variable, name))
                else:
                    length = -(-math.prod(variable.shape) // self.slice_p)
                    store.append(self.add_variable((length,), dtype=variable.dtype, name=name))
        self._d = add_scalar(self, "d", self.d0)
        self._d_max = add_scalar(self, "d_max", self.d0)
        self._numerator = add_scalar(self, "numerator")  # n
        self._inner = add_scalar(self, "inner")  # <g, p_0 - p> of this step
        self._norm = add_scalar(self, "norm")  # |s|_1
        self._steps = add_scalar(self, "steps")  # k, those taken
        self._step_size = add_scalar(
            self, "step_size"
        )  # lr_k, with the estimate the step began with

    def _backend_update_step(self, grads: Any, trainable_variables: Any, learning_rate: Any) -> Any:
        step_size = self._d * ops.cast(learning_rate, self._d.dtype)
        if self.use_bias_correction:
            k = self._steps + 1.0
            step_size = step_size * (
                ops.sqrt(1.0 - ops.power(constant(self.beta_2, k.dtype), k))
                / (1.0 - ops.power(constant(self.beta_1, k.dtype), k))
            )
        self._step_size.assign(step_size)
        self._inner.assign(0.0)
        self._norm.assign(0.0)
        super()._backend_update_step(grads, trainable_variables, learning_rate)

    def _apply_weight_decay(self, variables: Any) -> None:
        """Does nothing: the decay is part of the step."""

    @property
    def _beta_3(self) -> float:
        return math.sqrt(self.beta_2) if self.beta_3 is None else self.beta_3

    def _decays(self, variable: Any) -> bool:
        return bool(self.weight_decay) and self._use_weight_decay(variable)

    def _decayed(self, gradient: Any, variable: Any) -> Any:
        """The gradient, with the penalty's if the decay is not decoupled."""
        if self.decouple or not self._decays(variable):
            return gradient
        return gradient + self.weight_decay * variable

    def _slice(self, values: Any) -> Any:
        return values if self.slice_p == 1 else ops.reshape(values, (-1,))[:: self.slice_p]

    def observe_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Adds a gradient to the averages and to the estimate's sums."""
        # Notation to match theory
        g, p, dtype = (
            self._decayed(gradient, variable),
            ops.convert_to_tensor(variable),
            variable.dtype,
        )
        index = self._get_variable_index(variable)
        # A step at rate zero is none: every average stays as it is.
        live = learning_rate > 0
        beta_1, beta_2, beta_3 = (
            ops.where(live, constant(beta, dtype), constant(1.0, dtype))
            for beta in (self.beta_1, self.beta_2, self._beta_3)
        )
        d, step_size = (ops.cast(value, dtype) for value in (self._d, self._step_size))
        m, v = self._momentums[index], self._velocities[index]
        # Of this weight: another may have had gradients before.
        first = ops.cast(ops.all(ops.convert_to_tensor(v) == 0), dtype)
        self.assign(m, beta_1 * m + (1.0 - beta_1) * d * g)
        self.assign(v, beta_2 * v + (1.0 - beta_2) * d * d * ops.square(g))

        g, p = self._slice(g), self._slice(p)
        p_0, s = self._starts[index], self._sums[index]
        # Taken now and not in `build`: weights may be loaded in between.
        self.assign_add(p_0, first * (p - p_0))
        weight = d if self.safeguard_warmup else step_size
        weight = ops.where(live, weight * (d / self.d0), constant(0.0, dtype))
        self.assign(s, beta_3 * s + weight * g)
        self.assign_add(self._inner, ops.cast(ops.sum(g * (p_0 - p)), self._inner.dtype))
        self.assign_add(self._norm, ops.cast(ops.sum(ops.abs(s)), self._norm.dtype))

    def decide(self, learning_rate: Any) -> None:
        """Raises the estimate if the sums say so."""
        d, d_max, old_n, norm, step_size, inner = (
            ops.convert_to_tensor(variable)
            for variable in (
                self._d,
                self._d_max,
                self._numerator,
                self._norm,
                self._step_size,
                self._inner,
            )
        )
        zero, one = constant(0.0, d.dtype), constant(1.0, d.dtype)
        # Before the first gradient that is not zero there is nothing to go by.
        live = ops.logical_and(norm > 0, learning_rate > 0)
        n = self._beta_3 * old_n + (d / self.d0) * step_size * inner
        d_hat = ops.where(live, self.d_coef * n / ops.where(live, norm, one), zero)
        grown = ops.where(d == constant(self.d0, d.dtype), maximum(d, d_hat), d)
        d_max = maximum(d_max, d_hat)
        d_next = d_max if self.growth_rate is None else minimum(d_max, grown * self.growth_rate)
        self._numerator.assign(ops.where(live, n, old_n))
        self._d.assign(ops.where(live, d_next, d))
        self._d_max.assign(d_max)
        self._step_size.assign(ops.where(live, step_size, zero))
        self._steps.assign_add(ops.cast(live, d.dtype))

    def move_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Takes Adam's step with the estimated size."""
        index = self._get_variable_index(variable)
        m, v = self._momentums[index], self._velocities[index]
        d, step_size = (ops.cast(value, variable.dtype) for value in (self._d, self._step_size))
        if self.beta_1 == 0:  # the authors then take the new estimate, for want of an average
            m = d * self._decayed(gradient, variable)
        if self.decouple and self._decays(variable):
            self.assign_sub(variable, self.weight_decay * step_size * variable)
        self.assign_sub(variable, step_size * (m / (ops.sqrt(v) + d * self.epsilon)))

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "beta_1": self.beta_1,
            "beta_2": self.beta_2,
            "beta_3": self.beta_3,
            "epsilon": self.epsilon,
            "decouple": self.decouple,
            "use_bias_correction": self.use_bias_correction,
            "safeguard_warmup": self.safeguard_warmup,
            "d0": self.d0,
            "d_coef": self.d_coef,
            "growth_rate": self.growth_rate,
            "slice_p": self.slice_p,
        }
