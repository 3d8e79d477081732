"""A fall with the square root of the steps."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule

from keras_greedylr.schedules.arithmetic import as_float
from keras_greedylr.validation import check_float, check_int


@keras.saving.register_keras_serializable(package="keras_greedylr")
class InverseSquareRoot(LearningRateSchedule):
    """The rate falls with the square root of the steps, and never needs an end.

        lr(t) = initial / sqrt(1 + t / timescale)

    After a warmup of `timescale` steps this is the Transformer's schedule: with
    `W = timescale` both ways, `Warmup(InverseSquareRoot(initial, W), W)` is
    `initial min(t / W, sqrt(W / t))`.

    Example:

    >>> from keras_greedylr.schedules import InverseSquareRoot
    >>> schedule = InverseSquareRoot(0.6, timescale=10)
    >>> [round(float(schedule(step)), 4) for step in (0, 30, 80)]
    [0.6, 0.3, 0.2]

    Args:
        initial_learning_rate: Float > 0.
        timescale: Integer >= 1. The rate has halved after three times as many
            steps.
        name: String. A name for the schedule.

    Raises:
        ValueError: if an argument is out of its range.

    Reference:
        [Vaswani et al., 2017](https://arxiv.org/abs/1706.03762);
        [Zhai et al., 2022](https://arxiv.org/abs/2106.04560) for the timescale.
    """

    def __init__(
        self, initial_learning_rate: float, timescale: int, name: str = "InverseSquareRoot"
    ):
        check_float("initial_learning_rate", initial_learning_rate, above=0.0)
        check_int("timescale", timescale, least=1)
        self.initial_learning_rate = float(initial_learning_rate)
        self.timescale = int(timescale)
        self.name = name

    def __call__(self, step: Any) -> Any:
        """Returns the rate at `step`, a scalar."""
        return self.initial_learning_rate * ops.rsqrt(1.0 + as_float(step) / self.timescale)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            "initial_learning_rate": self.initial_learning_rate,
            "timescale": self.timescale,
            "name": self.name,
        }
