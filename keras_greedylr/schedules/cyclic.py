"""Up and down between two bounds, again and again."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule

from keras_greedylr.schedules.arithmetic import as_float
from keras_greedylr.validation import check_choice, check_float, check_int


@keras.saving.register_keras_serializable(package="keras_greedylr")
class Cyclic(LearningRateSchedule):
    """The rate goes up and down between two bounds, in straight lines.

    With `s` the step size, `n = 1 + floor(t / 2s)` the number of the cycle and
    `x = |t / s - 2n + 1|` the distance from its peak,

        lr(t) = initial + (maximal - initial) (1 - x) scale

    where `scale` is 1 in mode `"triangular"`, `2^(1 - n)` in mode
    `"triangular2"` (each cycle half as high as the last) and `gamma^t` in mode
    `"exp_range"`.

    Example:

    >>> from keras_greedylr.schedules import Cyclic
    >>> schedule = Cyclic(0.1, 0.5, step_size=2, mode="triangular2")
    >>> [round(float(schedule(step)), 4) for step in range(9)]
    [0.1, 0.3, 0.5, 0.3, 0.1, 0.2, 0.3, 0.2, 0.1]

    Args:
        initial_learning_rate: Float > 0. The lower bound, where cycles begin.
        maximal_learning_rate: Float >= `initial_learning_rate`. The first peak.
        step_size: Integer >= 1. Steps from the bottom to the peak, half a
            cycle. The paper recommends 2 to 10 epochs.
        mode: `"triangular"`, `"triangular2"` or `"exp_range"`.
        gamma: Float in (0, 1]. What `"exp_range"` multiplies the height by at
            each step; not used in the other modes.
        name: String. A name for the schedule.

    Raises:
        ValueError: if an argument is out of its range.

    Reference:
        [Smith, 2017](https://arxiv.org/abs/1506.01186).
    """

    def __init__(
        self,
        initial_learning_rate: float,
        maximal_learning_rate: float,
        step_size: int,
        mode: str = "triangular",
        gamma: float = 1.0,
        name: str = "Cyclic",
    ):
        check_float("initial_learning_rate", initial_learning_rate, above=0.0)
        check_float("maximal_learning_rate", maximal_learning_rate, above=0.0)
        if maximal_learning_rate < initial_learning_rate:
            raise ValueError(
                "`maximal_learning_rate` must not be below `initial_learning_rate`. Received: "
                f"initial_learning_rate={initial_learning_rate}, "
                f"maximal_learning_rate={maximal_learning_rate}"
            )
        check_int("step_size", step_size, least=1)
        check_choice("mode", mode, ("triangular", "triangular2", "exp_range"))
        check_float("gamma", gamma, above=0.0)
        if gamma > 1:
            raise ValueError(f"`gamma` must not be above 1. Received: gamma={gamma!r}")
        self.initial_learning_rate = float(initial_learning_rate)
        self.maximal_learning_rate = float(maximal_learning_rate)
        self.step_size = int(step_size)
        self.mode = mode
        self.gamma = float(gamma)
        self.name = name

    def __call__(self, step: Any) -> Any:
        """Returns the rate at `step`, a scalar."""
        step = ops.convert_to_tensor(step)
        period = 2 * self.step_size
        # Remainders are taken of whole numbers: float32 knows no step beyond 2^24.
        x = ops.abs(as_float(ops.mod(step, period)) / self.step_size - 1.0)
        height = (self.maximal_learning_rate - self.initial_learning_rate) * (1.0 - x)
        if self.mode == "triangular2":
            height = height * _power(0.5, as_float(ops.floor_divide(step, period)))
        elif self.mode == "exp_range":
            height = height * _power(self.gamma, as_float(step))
        return self.initial_learning_rate + height

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            "initial_learning_rate": self.initial_learning_rate,
            "maximal_learning_rate": self.maximal_learning_rate,
            "step_size": self.step_size,
            "mode": self.mode,
            "gamma": self.gamma,
            "name": self.name,
        }


def _power(base: float, exponent: Any) -> Any:
    """`base ** exponent` for a positive base."""
    return ops.exp(exponent * math.log(base))
